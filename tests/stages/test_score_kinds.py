"""Boxes that give probabilities or their top-k only, against the same planted box with its logits."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import PlantedBox, auc, scorer, textured_clip
from torch import Tensor

from stages.box import BoxSpec, to_log_scores
from stages.evidence import decompose
from stages.perturb import Perturb, PerturbConfig
from stages.records import Evidence, SaliencyMap
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.score_kinds import box_warnings, hidden_share, score_warnings
from stages.single import score_clip

TARGET, RIVAL = 0, 1
SUPPORT = (slice(1, 5), slice(2, 12), slice(3, 13))
HINDRANCE = (slice(2, 8), slice(20, 30), slice(2, 12))
RIVAL_PLACE = (slice(0, 8), slice(8, 20), slice(20, 30))
EVIDENCE = {TARGET: [(SUPPORT, 4.0), (HINDRANCE, -3.0)], RIVAL: [(RIVAL_PLACE, 4.0)]}


def top(k: int) -> Callable[[Tensor], Tensor]:
    """Zeros for all classes but the k first."""

    def cut(logits: Tensor) -> Tensor:
        p = logits.softmax(1)
        named = p.topk(k, dim=1)
        return torch.zeros_like(p).scatter(1, named.indices, named.values)

    return cut


class Told(PlantedBox):
    """The planted box with another kind of answer."""

    kind = "logits"

    @property
    def spec(self) -> BoxSpec:
        return super().spec.model_copy(update={"scores": self.kind})


def evidence_of(kind: str, num_classes: int, answer: Callable[[Tensor], Tensor] = lambda z: z) -> tuple[Told, Evidence]:
    box = Told(textured_clip((8, 32, 32)), EVIDENCE, num_classes=num_classes, squash=answer)
    box.kind = kind
    return box, score_clip(box.clip, Perturb(PerturbConfig(budget=256)), scorer(box))


def explain(evidence: Evidence) -> SaliencyMap:
    return Refine(RefineConfig()).process(RefineRequest(evidence=evidence, targets=(TARGET,))).maps[0]


def probabilities(logits: Tensor) -> Tensor:
    return logits.softmax(1)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
def test_maps_of_probabilities_are_those_of_the_centred_logits(num_classes: int) -> None:
    """log p is known but for a number per mask; taking out the mean over classes is all that happens to the maps."""
    _, told = evidence_of("probabilities", num_classes, probabilities)
    _, logits = evidence_of("logits", num_classes)
    values = logits.scores[0].values
    centred = replace(logits.scores[0], values=values - values.mean(1, keepdims=True))
    ours, theirs = explain(told), explain(replace(logits, scores=(centred,)))
    np.testing.assert_allclose(ours.mean, theirs.mean, atol=2e-4 * np.abs(theirs.mean).max())
    # The log-odds need no absolute level: with or without centring they are the same numbers.
    net = explain(logits).output("log_odds")[0]
    assert np.corrcoef(net.ravel(), ours.output("log_odds")[0].ravel())[0, 1] > 0.99


@pytest.mark.parametrize(("kind", "answer"), [("probabilities", probabilities), ("top_k", top(10)), ("top_k", top(3))])
def test_the_kinds_of_evidence_are_told_apart_without_logits(kind: str, answer: Callable[[Tensor], Tensor]) -> None:
    box, evidence = evidence_of(kind, 100, answer)
    saliency = explain(evidence)
    maps = decompose(saliency)
    truths = {"support": box.truth(TARGET) > 1, "f_tc": box.truth(TARGET) < -1, "f_ntc": box.truth(RIVAL) > 1}
    for name, truth in truths.items():
        assert auc(maps[name], truth) >= 0.95  # type: ignore[index]
        for other, other_truth in truths.items():
            if other != name:
                assert auc(maps[name], other_truth) <= 0.6  # type: ignore[index]
    assert saliency.fidelity["log_odds"].is_reliable


def test_two_classes_by_their_probabilities_have_one_map_and_the_reader_is_told() -> None:
    box, evidence = evidence_of("probabilities", 2, probabilities)
    saliency = explain(evidence)
    np.testing.assert_allclose(saliency.output("z_t")[0], -saliency.output("lse_n")[0], atol=1e-5)
    (warning,) = score_warnings(evidence.scores[0].values, TARGET, box.spec)
    assert "F-TC and F-NTC are one and the same" in warning


def test_logits_and_many_classes_need_no_word() -> None:
    values = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32)
    spec = BoxSpec(name="b", height=8, width=8)
    assert score_warnings(values[:, :5], 0, spec) == ()
    assert score_warnings(values, 0, spec.model_copy(update={"scores": "probabilities"})) == ()
    (few,) = score_warnings(values[:, :5], 0, spec.model_copy(update={"scores": "probabilities"}))
    assert "1/5 of each other" in few


def test_that_a_box_names_only_its_first_classes_is_said_before_it_is_asked() -> None:
    box = Told(textured_clip((4, 16, 16)), {})
    for kind, num in (("logits", 0), ("probabilities", 0), ("top_k", 1)):
        box.kind = kind
        assert len(box_warnings(box)) == num
    box.warnings = ("weights are random",)  # type: ignore[attr-defined]
    assert [words.split()[0] for words in box_warnings(box)] == ["weights", "the"]


def test_a_target_that_the_box_does_not_name_is_explained_as_far_as_it_goes_and_said() -> None:
    """The rival's evidence is always above the target's: a top-1 answer never names the target."""
    box = Told(textured_clip((8, 32, 32)), {TARGET: [(SUPPORT, 1.0)], RIVAL: [(RIVAL_PLACE, 9.0)]}, squash=top(1))
    box.kind = "top_k"
    evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=64)), scorer(box))
    saliency = explain(evidence)
    assert np.isfinite(saliency.mean).all()
    assert hidden_share(evidence.scores[0].values, TARGET) > 0.5
    found = score_warnings(evidence.scores[0].values, TARGET, box.spec)
    assert any("names only its top classes" in warning for warning in found)
    assert any("hides the score of class 0" in warning for warning in found)


def test_small_probabilities_that_the_box_gives_are_not_thrown_away() -> None:
    """A network of a thousand classes gives most of them less than a millionth; only zeros are unknown."""
    spec = BoxSpec(name="b", height=8, width=8, scores="probabilities")
    p = torch.tensor([[0.9, 0.1 - 1e-9, 1e-9], [0.9, 0.1, 0.0], [1.0, 0.0, 0.0]])
    z = to_log_scores(p, spec)
    differences = z[:, 0] - z[:, 2]
    np.testing.assert_allclose(differences, np.log([0.9e9, 0.9e6, 1e6]), rtol=1e-5)
    assert hidden_share(z.numpy(), 2) == pytest.approx(1 / 3)


def test_an_answer_of_nothing_but_zeros_is_no_preference() -> None:
    for kind in ("probabilities", "top_k"):
        spec = BoxSpec(name="b", height=8, width=8, scores=kind)  # type: ignore[arg-type]
        assert torch.equal(to_log_scores(torch.zeros(2, 4), spec), torch.zeros(2, 4))
