"""LIME and Kernel-SHAP as methods of a run: planted places, any box, the budget, and the verdict of unseen masks."""

import numpy as np
import pytest
import torch
from planted import PlantedBox, auc, scorer, textured_clip
from pydantic import ValidationError

from stages.attributions import _seed
from stages.baselines import BASELINES
from stages.box import BoxSpec
from stages.errors import NumericsError
from stages.exchange import Subject
from stages.perturb import Perturb, PerturbConfig
from stages.records import Evidence
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.sanity import check_permuted, check_reversed, check_shuffled
from stages.score import ScoreConfig
from stages.single import explain_clip, explain_evidence, score_clip

pytest.importorskip("captum")

METHODS = ("lime", "kernel-shap")
TARGET, RIVAL = 0, 1
SHAPE = (8, 32, 32)
SUPPORT = (slice(1, 5), slice(2, 12), slice(3, 13))
RIVAL_PLACE = (slice(0, 8), slice(8, 20), slice(20, 30))


class Told(PlantedBox):
    """The planted box with another kind of answer."""

    kind = "logits"

    @property
    def spec(self) -> BoxSpec:
        return super().spec.model_copy(update={"scores": self.kind})


def planted(kind="logits", squash=lambda z: z, shape=SHAPE):
    places = [(slice(0, shape[0]), *place[1:]) if shape[0] == 1 else place for place in (SUPPORT, RIVAL_PLACE)]
    evidence = {TARGET: [(places[0], 5.0)], RIVAL: [(places[1], 4.0)]}
    box = Told(textured_clip(shape), evidence, squash=squash)
    box.kind = kind
    return box


def explain(box, method, *, budget=256, targets=(TARGET,), seed=0, **settings):
    perturb = Perturb(PerturbConfig(budget=budget, seed=seed), method)
    return explain_clip(box.clip, perturb, scorer(box), Refine(RefineConfig(method=method, **settings)), targets)


def two_best(logits):
    p = logits.softmax(1)
    named = p.topk(2, dim=1)
    return torch.zeros_like(p).scatter(1, named.indices, named.values)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("kind", "squash"),
    [("logits", lambda z: z), ("probabilities", lambda z: z.softmax(1)), ("top_k", two_best)],
)
def test_planted_places_are_found_whatever_the_box_gives(method, kind, squash):
    box = planted(kind, squash)
    (saliency,) = explain(box, method)
    net = saliency.output("log_odds")[0]
    assert auc(net, box.truth(TARGET) > 1) > 0.9
    assert auc(-net, box.truth(RIVAL) > 1) > 0.8
    assert saliency.method == method
    assert saliency.fidelity["log_odds"].is_reliable
    assert saliency.mean.shape == saliency.var.shape
    assert np.abs(saliency.output("log_odds")[1]).max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_is_a_clip_of_one_frame(method):
    box = planted(shape=(1, 32, 32))
    (saliency,) = explain(box, method)
    assert auc(saliency.output("log_odds")[0], box.truth(TARGET) > 1) > 0.9


def test_a_named_rival_has_a_map_of_its_own():
    box = planted()
    (saliency,) = explain(box, "kernel-shap", rivals=(RIVAL,))
    assert auc(saliency.output("rival:1")[0], box.truth(RIVAL) > 1) > 0.8


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("budget", "targets"), [(6, (0,)), (64, (0,)), (301, (0,)), (64, (0, 1, 2))])
def test_the_box_is_asked_as_often_as_is_counted_and_targets_share_the_budget(method, budget, targets):
    box = planted()
    maps = explain(box, method, budget=budget, targets=targets)
    assert box.calls == maps[0].num_evaluations
    assert budget - len(targets) < maps[0].num_evaluations <= budget
    assert [saliency.target_idx for saliency in maps] == list(targets)


@pytest.mark.parametrize("method", METHODS)
def test_every_target_has_its_own_place(method):
    box = planted()
    for saliency, other in zip(explain(box, method, budget=600, targets=(TARGET, RIVAL)), (RIVAL, TARGET), strict=True):
        net = saliency.output("log_odds")[0]
        assert auc(net, box.truth(saliency.target_idx) > 1) > 0.9
        assert auc(-net, box.truth(other) > 1) > 0.8


@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_that_of_the_benchmarks_but_for_one_factor(method):
    box = planted()
    score, refine = scorer(box), Refine(RefineConfig(method=method))
    evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=128, seed=3), method), score)
    evidence, (saliency,) = explain_evidence(box.clip, evidence, score, refine, (TARGET,))
    ((asked, answer),) = evidence.attributions
    spec = asked.attribution
    seed = _seed(spec, box.clip.id, spec.questions[0])
    # One evaluation is for the scores of the untouched clip.
    wanted = BASELINES[method](box.clip, score, TARGET, spec.evaluations - 1, seed)
    np.testing.assert_allclose(answer.maps[0], wanted, atol=1e-5)
    net = saliency.output("log_odds")[0]
    factor = float((net * wanted).sum() / (wanted**2).sum())
    assert factor > 0
    np.testing.assert_allclose(net, factor * wanted, atol=1e-5 * np.abs(net).max())


@pytest.mark.parametrize("method", METHODS)
def test_scores_that_follow_nothing_give_no_reliable_map(method):
    draws = torch.Generator().manual_seed(0)
    noise = planted(squash=lambda z: torch.randn(z.shape, generator=draws))
    assert not explain(noise, method)[0].fidelity["log_odds"].is_reliable
    (flat,) = explain(PlantedBox(textured_clip(SHAPE), {}), method)
    assert np.abs(flat.mean).max() < 1e-6
    assert not flat.fidelity["log_odds"].is_reliable


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides(method):
    one, again, other = (explain(planted(), method, budget=64, seed=seed)[0].mean for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_that_cannot_pay_and_a_class_not_asked_about_are_named(method):
    box = planted()
    with pytest.raises(NumericsError, match=f"2 evaluations do not pay for 1 maps by {method}"):
        explain(box, method, budget=5)
    score, refine = scorer(box), Refine(RefineConfig(method=method))
    evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=16), method), score)
    evidence, _ = explain_evidence(box.clip, evidence, score, refine, (TARGET,))
    with pytest.raises(NumericsError, match="do not pay"):
        refine.process(RefineRequest(evidence=evidence, targets=(TARGET, RIVAL)))


@pytest.mark.parametrize("settings", [{"prior": "rise"}, {"tolerance": 0.2}, {"pool_kernels": True}])
@pytest.mark.parametrize("method", METHODS)
def test_what_these_methods_do_not_know_is_refused(method, settings):
    with pytest.raises(ValidationError, match="use"):
        RefineConfig(method=method, **settings)


@pytest.mark.parametrize("method", METHODS)
def test_sanity_checks_know_what_such_a_map_can_show(method):
    """The same samples whatever number a class has; samples cannot be run backwards."""
    box = planted()
    subject = Subject(
        clip=box.clip,
        box=box,
        target=TARGET,
        perturb=PerturbConfig(budget=64),
        score=ScoreConfig(substrate="mean", device="cpu"),
        refine=RefineConfig(method=method),
    )
    base = subject.explain()
    assert check_permuted(subject, base).result == "pass"
    assert check_shuffled(subject, base).result in ("pass", "told")
    assert [finding.result for finding in check_reversed(subject, base)] == ["not applicable"]


@pytest.mark.parametrize("method", METHODS)
def test_the_verdict_is_that_of_masks_which_the_map_has_not_seen(method):
    """The answer is kept; the scores of the test masks are exchanged between masks: the map no longer predicts them."""
    box = planted()
    score, refine = scorer(box), Refine(RefineConfig(method=method))
    evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=400), method), score)
    evidence, (sound,) = explain_evidence(box.clip, evidence, score, refine, (TARGET,))
    masks, scores = evidence.masks[0], evidence.scores[0]
    order = np.concatenate([[0, 1], 2 + np.random.default_rng(0).permutation(len(masks) - 2)])
    mixed = type(scores)(clip_id=scores.clip_id, round_idx=0, ids=scores.ids, values=scores.values[order])
    other = Evidence(clip_id=evidence.clip_id, masks=(masks,), scores=(mixed,), attributions=evidence.attributions)
    (found,) = refine.process(RefineRequest(evidence=other, targets=(TARGET,))).maps
    assert sound.fidelity["log_odds"].is_reliable
    assert not found.fidelity["log_odds"].is_reliable


def test_sanity_checks_ask_a_prior_on_cells_anew_where_frames_are_shuffled():
    box = planted()
    subject = Subject(
        clip=box.clip,
        box=box,
        target=TARGET,
        perturb=PerturbConfig(budget=48),
        score=ScoreConfig(substrate="mean", device="cpu"),
        refine=RefineConfig(prior="captum:KernelShap"),
    )
    base = subject.explain()
    assert check_shuffled(subject, base).result in ("pass", "told")
    assert base.saliency.num_evaluations == 48
