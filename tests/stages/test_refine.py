"""Planted evidence is found, told apart by kind, and noise is called noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import PlantedBox, auc, scorer, textured_clip
from scipy.ndimage import binary_dilation

from stages.designs import rows_of
from stages.estimators import calibrated, regression_targets
from stages.evidence import decompose
from stages.fidelity import without_outliers
from stages.perturb import Perturb, PerturbConfig
from stages.records import OUTPUTS, Evidence, Scores
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import explain_clip, score_clip

TARGET, RIVAL = 0, 1
SUPPORT = (slice(1, 5), slice(2, 12), slice(3, 13))
HINDRANCE = (slice(2, 8), slice(20, 30), slice(2, 12))
RIVAL_PLACE = (slice(0, 8), slice(8, 20), slice(20, 30))


@pytest.fixture(scope="module")
def box():
    clip = textured_clip((8, 32, 32))
    return PlantedBox(clip, {TARGET: [(SUPPORT, 4.0), (HINDRANCE, -3.0)], RIVAL: [(RIVAL_PLACE, 4.0)]}, num_classes=2)


@pytest.fixture(scope="module")
def evidence(box):
    return score_clip(box.clip, Perturb(PerturbConfig(budget=256)), scorer(box))


def explain(evidence, **settings):
    refine = Refine(RefineConfig(**settings))
    return refine.process(RefineRequest(evidence=evidence, targets=(TARGET,))).maps[0]


def test_support_f_tc_and_f_ntc_are_found_and_not_confused(box, evidence):
    maps = decompose(explain(evidence))
    truths = {"support": box.truth(TARGET) > 1, "f_tc": box.truth(TARGET) < -1, "f_ntc": box.truth(RIVAL) > 1}
    for kind, truth in truths.items():
        assert auc(maps[kind], truth) >= 0.95
        for other, other_truth in truths.items():
            if other != kind:
                assert auc(maps[kind], other_truth) <= 0.6


def test_a_place_stands_out_by_the_evidence_it_holds(box, evidence):
    saliency = explain(evidence)
    net = saliency.output("log_odds")[0]
    place = box.truth(TARGET) > 1
    # The place holds a gain of 4 over what is elsewhere; the prior is smooth, so its neighbourhood takes a share.
    around = binary_dilation(place, iterations=3)
    elsewhere = (box.truth(TARGET) == 0) & (box.truth(RIVAL) == 0) & ~around
    assert 2.0 < (net[around].mean() - net[elsewhere].mean()) * around.sum() < 5.0
    assert saliency.fidelity["log_odds"].q2 > 0.8
    assert saliency.fidelity["log_odds"].is_reliable


def test_net_is_the_difference_of_its_parts(evidence):
    saliency = explain(evidence)
    difference = saliency.output("z_t")[0] - saliency.output("lse_n")[0]
    np.testing.assert_allclose(saliency.output("log_odds")[0], difference, atol=1e-6)


def test_a_named_rival_gets_a_map_of_its_own(box, evidence):
    saliency = explain(evidence, rivals=(RIVAL,))
    assert saliency.outputs[-1] == "rival:1"
    assert auc(saliency.output("rival:1")[0], box.truth(RIVAL) > 1) >= 0.95


def test_intervals_cover_held_out_scores(evidence):
    assert 0.85 <= explain(evidence).fidelity["log_odds"].coverage <= 1.0


@pytest.mark.parametrize("method", ["rise", "centred-rise", "occlusion"])
def test_comparators_see_the_planted_place_through_the_same_stage(box, method):
    score, perturb = scorer(box), Perturb(PerturbConfig(budget=400), method)
    saliency = explain_clip(box.clip, perturb, score, Refine(RefineConfig(method=method)), (TARGET,))[0]
    net = saliency.output("log_odds")[0]
    assert saliency.method == method
    assert auc(net, box.truth(TARGET) > 1) > 0.7
    assert (saliency.var > 0).all()


def test_the_default_needs_fewer_masks_than_rise(box):
    found = {}
    for method in ("gp", "rise"):
        perturb, refine = Perturb(PerturbConfig(budget=64), method), Refine(RefineConfig(method=method))
        saliency = explain_clip(box.clip, perturb, scorer(box), refine, (TARGET,))[0]
        found[method] = auc(saliency.output("log_odds")[0], box.truth(TARGET) > 1)
    assert found["gp"] > found["rise"] + 0.05


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["constant", "noise", "keep-fraction"])
def test_no_reliable_signal_is_a_result(evidence, kind, seed):
    rng = np.random.default_rng(seed)
    masks = evidence.masks[0]
    if kind == "constant":
        values = np.tile(rng.standard_normal(3), (len(masks), 1))
    elif kind == "noise":
        values = rng.standard_normal((len(masks), 3))
    else:
        from stages.designs import rows_of

        values = np.outer(rows_of(evidence).mean(1) ** 2, [3.0, -1.0, 0.5]) + 0.05 * rng.standard_normal(
            (len(masks), 3)
        )
    scores = Scores(clip_id=masks.clip_id, round_idx=0, ids=masks.ids, values=values.astype(np.float32))
    saliency = explain(Evidence(clip_id=masks.clip_id, masks=(masks,), scores=(scores,)))
    assert not saliency.fidelity["log_odds"].is_reliable


def test_wild_scores_are_drawn_in_before_the_verdict(evidence):
    from stages.estimators import ESTIMATORS, regression_targets

    values = np.random.default_rng(0).standard_normal((len(evidence.masks[0]), 3))
    asked = np.arange(len(values)) >= 2

    def drawn_in(values):
        y = regression_targets(values, TARGET)[asked]
        return y, without_outliers(y, ESTIMATORS["gp"](evidence, asked, y))

    assert drawn_in(np.random.default_rng(0).uniform(-0.1, 0.1, values.shape))[1] is None  # nothing is far
    values[20, TARGET] = 1e4
    y, tamed = drawn_in(values)
    assert tamed is not None
    assert tamed[18].max() < y[18].max() / 10
    assert np.median(np.abs(tamed - y)) < 1e-9
    # Most scores alike: the few that differ are what there is to explain.
    rare = np.zeros_like(values)
    rare[::9, TARGET] = 5.0
    y = regression_targets(rare, TARGET)[asked]
    estimate = ESTIMATORS["gp"](evidence, asked, y)
    assert without_outliers(y, replace(estimate, trend_loo=np.zeros_like(y))) is None


def test_a_constant_box_gives_a_flat_map():
    clip = textured_clip((4, 16, 16))
    box = PlantedBox(clip, {})
    saliency = explain_clip(clip, Perturb(PerturbConfig(budget=48)), scorer(box), Refine(RefineConfig()))[0]
    assert np.abs(saliency.mean).max() < 1e-6


def test_a_picture_is_a_clip_of_one_frame():
    clip = textured_clip((1, 28, 28))
    place = (slice(0, 1), slice(4, 12), slice(14, 24))
    box = PlantedBox(clip, {0: [(place, 5.0)]})
    saliency = explain_clip(clip, Perturb(PerturbConfig(budget=128)), scorer(box), Refine(RefineConfig()), (0,))[0]
    assert saliency.mean.shape == (3, 1, 28, 28)
    assert auc(saliency.output("z_t")[0], box.truth(0) > 0) > 0.95


def test_saturation_does_not_move_the_peak():
    clip = textured_clip((8, 32, 32))
    box = PlantedBox(clip, {0: [(SUPPORT, 8.0)]}, squash=lambda z: 3 * torch.tanh(z / 2))
    saliency = explain_clip(clip, Perturb(PerturbConfig(budget=256)), scorer(box), Refine(RefineConfig()), (0,))[0]
    peak = np.unravel_index(saliency.output("log_odds")[0].argmax(), saliency.mean.shape[1:])
    assert (box.truth(0) > 0)[peak]


def test_occlusion_points_at_a_centre_of_which_a_glimpse_is_worth_little(box):
    """Most windows meet the centre, and their complements show little else: that must not turn the map over."""
    centre = (slice(2, 6), slice(10, 22), slice(10, 22))
    steep = PlantedBox(box.clip, {TARGET: [(centre, 4.0)]}, num_classes=2, squash=lambda z: 4 * torch.relu(z - 2.4))
    evidence = score_clip(steep.clip, Perturb(PerturbConfig(budget=128), "occlusion"), scorer(steep))
    found = explain(evidence, method="occlusion").output("log_odds")[0]
    assert auc(found, steep.truth(TARGET) > 1) > 0.9


def test_a_map_that_predicts_only_when_turned_over_is_not_turned_over(evidence):
    y = regression_targets(evidence.scores[0].values.astype(np.float64), TARGET)
    rows = rows_of(evidence)
    right = np.stack([explain(evidence).output(name)[0].reshape(-1) for name in OUTPUTS])
    for maps, is_right in ((right, True), (-right, False)):
        found = calibrated(rows, y, maps, evidence)
        assert ((found.mean * maps).sum(1) > 0).all()
        assert (found.log_bayes > 5).all() == is_right
    free = calibrated(rows, y, -right, evidence, keeps_sign=np.array([True, False, True]))
    assert (free.mean[1] * right[1]).sum() > 0
    assert free.log_bayes[1] > 5
