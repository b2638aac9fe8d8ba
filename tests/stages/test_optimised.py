"""Masks fitted by gradients find planted F-TC and F-NTC, tell them apart, and pay for every step."""

import numpy as np
import pytest
import torch
from planted import PlantedBox, auc, scorer, textured_clip
from torch_boxes import Counted, PlantedNet, planted_torch, spec_of

from stages.evidence import decompose
from stages.models_torch import TorchBox
from stages.optimised import num_steps, total_variation
from stages.perturb import Perturb, PerturbConfig
from stages.refine import Refine, RefineConfig
from stages.score_kinds import score_warnings
from stages.single import explain_clip
from stages.substrates import apply_mask

TARGET, RIVAL, OTHER = 0, 1, 2
SUPPORT = (slice(0, 4), slice(1, 7), slice(1, 7))
HINDRANCE = (slice(0, 4), slice(9, 15), slice(1, 7))
RIVAL_PLACE = (slice(0, 4), slice(1, 7), slice(9, 15))
OTHER_PLACE = (slice(0, 4), slice(9, 15), slice(9, 15))


def planted(shape=(4, 16, 16)):
    places = [tuple(slice(0, shape[0]) if a == 0 else s for a, s in enumerate(place)) for place in
              (SUPPORT, HINDRANCE, RIVAL_PLACE, OTHER_PLACE)]  # fmt: skip
    support, hindrance, rival, other = places
    return PlantedBox(
        textured_clip(shape),
        {TARGET: [(support, 4.0), (hindrance, -3.0)], RIVAL: [(rival, 4.0)], OTHER: [(other, 3.0)]},
    )


def explain(box, *, budget=600, score=None, targets=(TARGET,), **settings):
    config = RefineConfig(method="mask-optimisation", **settings)
    perturb = Perturb(PerturbConfig(budget=budget), "mask-optimisation")
    return explain_clip(box.clip, perturb, score or scorer(planted_torch(box)), Refine(config), targets)


@pytest.mark.parametrize("shape", [(4, 16, 16), (1, 16, 16)])
def test_f_tc_and_f_ntc_are_found_and_not_confused(shape):
    box = planted(shape)
    (saliency,) = explain(box, rivals=(RIVAL, OTHER))
    maps = decompose(saliency)
    rivals = (box.truth(RIVAL) > 1) | (box.truth(OTHER) > 1)
    truths = {"support": box.truth(TARGET) > 1, "f_tc": box.truth(TARGET) < -1, "f_ntc": rivals}
    for kind, truth in truths.items():
        assert auc(maps[kind], truth) >= 0.9, kind
        for other, other_truth in truths.items():
            assert other == kind or auc(maps[kind], other_truth) <= 0.65
    for name, rival in (("rival:1", RIVAL), ("rival:2", OTHER)):
        assert auc(saliency.output(name)[0], box.truth(rival) > 1) >= 0.9
    assert auc(saliency.output("rival:1")[0], box.truth(OTHER) > 1) <= 0.65
    assert saliency.method == "mask-optimisation"
    assert saliency.fidelity["log_odds"].is_reliable


def named(k):
    """The probabilities of the k first classes; zeros for all others."""

    def cut(logits):
        p = logits.softmax(1)
        best = p.topk(k, dim=1)
        return torch.zeros_like(p).scatter(1, best.indices, best.values)

    return cut


@pytest.mark.parametrize(
    ("kind", "answer"), [("probabilities", lambda z: z.softmax(1)), ("top_k", named(3)), ("top_k", named(10))]
)
def test_without_logits_support_is_told_from_the_undesirable_but_not_its_two_kinds(kind, answer):
    """20 classes. A class that rises lowers all others by a little, and a mask hides whatever gains anything.

    With logits the same box has the two kinds told apart (above): the last assertion is the limit that is reported.
    """
    box = planted()
    box.num_classes, box.squash = 20, answer
    score = scorer(TorchBox(PlantedNet(box), spec_of(box.clip, scores=kind), layout="ncthw"))
    (saliency,) = explain(box, score=score)
    maps = decompose(saliency)
    hindrance, rivals = box.truth(TARGET) < -1, (box.truth(RIVAL) > 1) | (box.truth(OTHER) > 1)
    support, undesirable = box.truth(TARGET) > 1, hindrance | rivals
    assert auc(maps["support"], support) >= 0.95
    assert auc(maps["support"], undesirable) <= 0.3
    for name in ("f_tc", "f_ntc"):
        assert auc(maps[name], undesirable) >= 0.95, name
        assert auc(maps[name], support) <= 0.3, name
    assert auc(maps["net"], support) >= 0.95
    assert auc(-maps["net"], undesirable) >= 0.9
    assert saliency.fidelity["log_odds"].is_reliable
    warnings = score_warnings(np.zeros((1, 20), np.float32), TARGET, score.box.spec, "mask-optimisation")
    assert any("hides places of both" in warning for warning in warnings)
    assert auc(maps["f_tc"], rivals) >= 0.8


def test_a_map_sums_to_what_removing_its_masks_changed():
    box = planted()
    (saliency,) = explain(box)
    totals = decompose(saliency).totals()
    # The mean colour still looks half like black and white, so that no more than half of a gain can be removed.
    assert 1.0 < totals["f_tc"] <= 1.5
    assert 1.4 < totals["support"] <= 2.0
    assert 0.8 < totals["f_ntc"] <= 2.0


@pytest.mark.parametrize(("budget", "targets"), [(40, (0,)), (200, (0, 1))])
def test_every_pass_is_paid_from_the_budget(budget, targets):
    box = planted()
    net = Counted(PlantedNet(box))
    score = scorer(TorchBox(net, spec_of(box.clip)))
    maps = explain(box, budget=budget, score=score, targets=targets, rivals=(RIVAL,))
    # A step is charged whole; what does not pay for one is left over.
    num_questions = 4 if targets == (0,) else 6
    assert maps[0].num_evaluations <= budget
    assert maps[0].num_evaluations - num_questions <= net.passes[0] <= maps[0].num_evaluations
    assert len(maps) == len(targets)


def test_a_box_without_evidence_gives_no_reliable_map():
    (saliency,) = explain(PlantedBox(textured_clip((4, 16, 16)), {}), budget=120)
    assert not saliency.fidelity["log_odds"].is_reliable
    assert np.abs(saliency.mean).max() < 1e-6


def test_the_same_seed_gives_the_same_masks():
    first, again = (explain(planted(), budget=100)[0] for _ in range(2))
    np.testing.assert_array_equal(first.mean, again.mean)


def test_the_budget_pays_for_at_most_three_hundred_steps():
    assert [num_steps(n) for n in (1, 3, 100, 601, 5000)] == [0, 1, 49, 300, 300]


def test_total_variation_is_the_mean_cubed_step():
    mask = torch.zeros(1, 1, 2, 2)
    mask[..., 1] = 0.5
    assert float(total_variation(mask)) == pytest.approx(0.125)
    assert float(total_variation(torch.ones(1, 1, 1, 1))) == 0


@pytest.mark.parametrize("is_freeze", [False, True])
def test_masking_has_the_gradients_of_its_formula(is_freeze):
    frames, keep = torch.rand(3, 2, 4, 4, dtype=torch.float64), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    keep.requires_grad_()
    substrate = torch.rand_like(frames)
    assert torch.autograd.gradcheck(lambda m: apply_mask(frames, m, substrate, is_freeze=is_freeze), (keep,))
    out = torch.empty(2, 3, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        apply_mask(frames, keep, substrate, is_freeze=is_freeze, out=out)
        torch.testing.assert_close(out, apply_mask(frames, keep, substrate, is_freeze=is_freeze))
