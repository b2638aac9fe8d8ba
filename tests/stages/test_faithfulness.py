import numpy as np
import pytest
import torch
from planted import PlantedBox, scorer, textured_clip

from stages.faithfulness import (
    CURVES,
    REMOVAL,
    Curve,
    average_drop,
    changed_share,
    curve_auc,
    curve_masks,
    curves_for,
    map_mask,
    normalised_auc,
    rank_units,
    removal_gain,
    unit_grid,
)
from stages.measure import measure_curves, measure_drop, measure_removal, two_first, wished_class
from stages.records import ClipId, MaskBatch, Scores

CLIP = ClipId("v", 0)
CORNER = (slice(0, 8), slice(0, 16), slice(0, 16))
SMALL_CORNER = (slice(0, 8), slice(16, 24), slice(16, 24))
OTHER_CORNER = (slice(0, 8), slice(16, 24), slice(0, 8))


def scores_of_probabilities(p: list[float]) -> Scores:
    values = np.log(np.stack([p, 1 - np.asarray(p)], axis=1)).astype(np.float32)
    return Scores(clip_id=CLIP, round_idx=0, ids=np.arange(len(p)), values=values)


def test_the_area_of_a_hand_worked_curve() -> None:
    """Heights 0, 1, 1 at 0, 1/4, 1: a triangle of 1/8 and a box of 3/4."""
    assert normalised_auc(np.array([0, 0.25, 1]), np.array([0.0, 1, 1])) == pytest.approx(0.875)
    # A curve that stops at 0.2 is divided by 0.2.
    assert normalised_auc(np.array([0, 0.1, 0.2]), np.array([0.0, 1, 1])) == pytest.approx(0.75)


def test_insertion_restores_by_rank_and_deletion_replaces_by_rank() -> None:
    values = np.array([[[4.0, 3.0], [2.0, 1.0]]])
    insertion = curve_masks(values, CLIP, (1, 2, 2), Curve(layout="joint", adds=True, steps=4))
    deletion = curve_masks(values, CLIP, (1, 2, 2), Curve(layout="joint", adds=False, steps=4))
    assert insertion.grids is not None
    assert deletion.grids is not None
    rows = [[0, 0, 0, 0], [255, 0, 0, 0], [255, 255, 0, 0], [255, 255, 255, 0], [255] * 4]
    np.testing.assert_array_equal(insertion.grids.reshape(5, 4), rows)
    np.testing.assert_array_equal(deletion.grids, 255 - insertion.grids)


def test_the_curve_of_a_hand_worked_map_has_its_area() -> None:
    curve = Curve(layout="joint", adds=True, steps=2)
    masks = curve_masks(np.array([[[1.0, 0.0]]]), CLIP, (1, 1, 2), curve)
    assert changed_share(masks, curve) == pytest.approx([0, 0.5, 1])
    answer = scores_of_probabilities([0.2, 0.8, 0.9])
    assert curve_auc(masks, answer, 0, curve) == pytest.approx((0.2 + 2 * 0.8 + 0.9) / 4)


def test_the_units_of_each_layout_and_their_steps() -> None:
    shape = (16, 112, 8)
    assert unit_grid("joint", shape) == (16, 16, 8)
    assert unit_grid("space", shape) == (1, 16, 8)
    assert unit_grid("time", shape) == (16, 1, 1)
    assert unit_grid("blocks", shape) == (4, 8, 8)
    assert unit_grid("tubes", shape) == (4, 16, 8)
    values = np.random.default_rng(0).random((8, 28, 28))
    lengths = {name: len(curve_masks(values, CLIP, shape, curve)) for name, curve in curves_for(16).items()}
    # 128 steps, where there are as many units.
    assert lengths["insertion"] == lengths["block_deletion"] == 129
    assert lengths["insertion_time"] == 17
    assert set(lengths) == set(CURVES)
    assert set(curves_for(1)) == {"insertion", "deletion", "block_deletion"}


def test_ties_are_broken_by_chance_and_not_by_position() -> None:
    ranks = rank_units(np.ones((4, 16, 16)), (4, 16, 16)).reshape(4, 256)
    assert abs(ranks.mean(1) - ranks.mean()).max() < 0.1 * ranks.size
    np.testing.assert_array_equal(ranks.ravel(), rank_units(np.ones((4, 16, 16)), (4, 16, 16)))


def test_the_true_map_beats_chance_and_the_reversed_map_loses() -> None:
    clip = textured_clip()
    # Untouched, the target has 1 against 0 of the two others; fully replaced, -2.
    box = PlantedBox(clip, {0: [(CORNER, 6.0)]}, squash=lambda z: z - torch.tensor([5.0, 0, 0]))
    score = scorer(box)
    truth = box.truth(0)
    maps = {"truth": truth, "random": np.random.default_rng(0).random(truth.shape), "reversed": -truth}
    curves = curves_for(8, steps=16)
    found = {name: measure_curves(clip, score, 0, values, curves) for name, values in maps.items()}
    for name in ("insertion", "insertion_space"):
        assert found["truth"][name] > found["random"][name] + 0.05 > found["reversed"][name] + 0.1, name
    for name in ("deletion", "deletion_space", "block_deletion"):
        assert found["truth"][name] < found["random"][name] - 0.05 < found["reversed"][name] - 0.1, name


def test_insertion_agrees_with_the_area_worked_out_for_a_planted_quarter() -> None:
    """Restoring a quarter first, then the rest: p follows the share of the quarter and stays."""
    clip = textured_clip(seed=3)
    box = PlantedBox(clip, {0: [(CORNER, 4.0)]}, num_classes=2)
    curve = Curve(layout="joint", adds=True, steps=128)
    found = measure_curves(clip, scorer(box), 0, box.truth(0), {"insertion": curve})["insertion"]
    # The mean substrate leaves kept = 1/2 of the texture, so the logit climbs from 2 to 4 over the first quarter.
    share = np.linspace(0, 1, 2001)
    logit = 2 + 2 * np.minimum(share / 0.25, 1)
    assert found == pytest.approx(float(np.trapezoid(1 / (1 + np.exp(-logit)), share)), abs=0.01)


def test_removing_what_speaks_against_the_target_gains_and_flips() -> None:
    clip = textured_clip()
    box = PlantedBox(clip, {0: [(CORNER, 3.0)], 1: [(SMALL_CORNER, 3.6)]}, num_classes=2)
    score = scorer(box)
    against = measure_removal(clip, score, 0, box.truth(1))
    support = measure_removal(clip, score, 0, box.truth(0))
    assert against.flips is True
    assert support.flips is False
    assert against.prob > 0.1 > 0 > support.prob
    assert against.log_odds == pytest.approx(against.z_t + against.others, abs=1e-6)
    # The rival's box is 1/16 of the clip: removing it leaves the target's own score as it is.
    assert abs(against.z_t) < 0.2 * against.others
    assert measure_removal(clip, score, 1, box.truth(0)).flips is None


def test_each_kind_alone_moves_its_own_part_of_the_log_odds_and_flips() -> None:
    """Class 0 has 4 - 2 = 2 against 2.6: either what denies it (F-TC) or what speaks for 1 (F-NTC) must go."""
    clip = textured_clip()
    evidence = {0: [(CORNER, 4.0), (OTHER_CORNER, -2.0)], 1: [(SMALL_CORNER, 2.6)]}
    box = PlantedBox(clip, evidence, num_classes=2)
    score = scorer(box)
    f_tc, f_ntc = np.maximum(-box.truth(0), 0), np.maximum(box.truth(1), 0)
    own, others = (measure_removal(clip, score, 0, values) for values in (f_tc, f_ntc))
    # The texture's mean leaves half of a place: all of it gone is worth 1 and 1.3, and a curve begins with none gone.
    assert 0.5 < own.z_t < 1.0
    assert 0.65 < others.others < 1.3
    # A place is 1/16 of the clip, Q 1/5: what goes when the place is gone is chance.
    assert abs(others.z_t) < 0.2 * others.others
    assert abs(own.others) < 0.2 * own.z_t
    assert own.flips is others.flips is True
    assert measure_removal(clip, score, 0, np.random.default_rng(0).random(f_tc.shape)).flips is False


def test_the_runner_up_is_wished_for_where_the_target_is_the_first_answer() -> None:
    clip = textured_clip()
    score = scorer(PlantedBox(clip, {0: [(CORNER, 1.0)], 1: [(CORNER, 3.0)], 2: [(CORNER, 2.0)]}))
    assert two_first(score, clip) == (1, 2)
    assert [wished_class(score, clip, target) for target in (0, 1, 2)] == [0, 2, 2]


def test_a_hand_worked_removal_gain() -> None:
    masks = curve_masks(np.arange(25.0).reshape(1, 5, 5), CLIP, (1, 5, 5), REMOVAL)
    x = changed_share(masks, REMOVAL)
    assert x == pytest.approx(np.arange(6) / 25)
    gain = removal_gain(masks, scores_of_probabilities([0.4, 0.4, 0.4, 0.6, 0.6, 0.6]), 0)
    assert gain.prob == pytest.approx(0.2 * 2.5 / 5)
    assert gain.flips is True


def test_average_drop_is_the_share_of_p_that_the_map_alone_loses() -> None:
    assert average_drop(0.8, 0.6) == pytest.approx(0.25)
    assert average_drop(0.5, 0.9) == 0.0
    mask = map_mask(np.array([[[-3.0, 1.0], [2.0, 0.0]]]), CLIP)
    np.testing.assert_array_equal(mask.grids, np.array([[[[0, 128], [255, 0]]]], np.uint8))
    clip = textured_clip()
    box = PlantedBox(clip, {0: [(CORNER, 6.0)]})
    truth = box.truth(0)
    assert measure_drop(clip, scorer(box), 0, truth) < measure_drop(clip, scorer(box), 0, truth.max() - truth)


def test_a_curve_is_an_ordinary_batch_of_masks() -> None:
    masks = curve_masks(np.zeros((2, 4, 4)), CLIP, (4, 32, 32), CURVES["insertion"])
    assert isinstance(masks, MaskBatch)
    np.testing.assert_array_equal(masks.ids, np.arange(len(masks)))
