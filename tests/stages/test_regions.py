"""Tubes are connected in space and time, stream by stream, and can be cut out again."""

import numpy as np
import pytest
from planted import textured_clip

from stages.aggregate import AggregateConfig
from stages.records import OUTPUTS, FrameMap, Geometry
from stages.regions import RegionTracker, effect_of_removal, regions_to_verify, removal_grid, strongest_clip

GEOMETRY = Geometry(source_h_px=80, source_w_px=160, model_h_px=8, model_w_px=8, scale_y=10.0, scale_x=20.0)


def track(frames: list[np.ndarray], *, lse=None, **settings) -> list:
    tracker = RegionTracker(AggregateConfig(**{"min_region_voxels": 1, **settings}), GEOMETRY, "v", 2)
    for idx, field in enumerate(frames):
        mean = np.stack([field, np.zeros_like(field) if lse is None else lse[idx], field]).astype(np.float32)
        tracker.add(
            FrameMap(
                video_id="v", target_idx=2, frame_idx=idx, outputs=OUTPUTS, mean=mean, var=np.full_like(mean, 0.01),
                is_seen=True, is_reliable=True,
            ),
            idx / 10,
        )  # fmt: skip
    return tracker.finish()


def spot(y: int, x: int, value: float = 1.0) -> np.ndarray:
    field = np.zeros((4, 4))
    field[y, x] = value
    return field


def test_a_moving_spot_is_one_tube_with_a_box_per_frame():
    # Neighbours must share a cell from frame to frame, so the spot is two cells wide.
    frames = [spot(0, 0) + spot(0, 1), spot(0, 1) + spot(0, 2), spot(0, 2) + spot(0, 3)]
    ((region, tube),) = track(frames)
    assert region.kind == "support"
    assert (region.video_id, region.target_idx) == ("v", 2)
    assert region.frames == (0, 3)
    np.testing.assert_allclose(region.boxes, [[0, 0, 20, 80], [0, 40, 20, 120], [0, 80, 20, 160]])
    assert region.mass == pytest.approx(6.0)
    assert region.z_score == pytest.approx(6.0 / (6 * 0.1), rel=1e-5)
    assert region.span_s == (0.0, pytest.approx(0.2))
    assert tube.num_voxels == 6


def test_a_gap_in_time_parts_tubes_and_a_touch_joins_them():
    gap = [spot(0, 0), np.zeros((4, 4)), spot(0, 0)]
    assert len(track(gap)) == 2
    joined = [
        spot(0, 0) + spot(0, 3),
        spot(0, 0) + spot(0, 3),
        np.eye(4) * 0 + np.array([[1, 1, 1, 1]] + [[0] * 4] * 3),
    ]
    ((region, _),) = track(joined)
    assert region.frames == (0, 3)
    assert region.mass == pytest.approx(8.0)


def test_a_tube_that_splits_stays_one():
    frames = [np.array([[1, 1, 1, 1]] + [[0] * 4] * 3), spot(0, 0) + spot(0, 3), spot(0, 0) + spot(0, 3)]
    ((region, _),) = track(frames)
    assert region.mass == pytest.approx(8.0)


def test_kinds_are_kept_apart_and_insignificant_voxels_left_out():
    frames = [spot(0, 0, 1.0) + spot(3, 3, -2.0) + spot(1, 3, 0.15)] * 2
    found = track(frames, lse=[spot(2, 0, 3.0)] * 2)
    assert {(region.kind, round(region.mass)) for region, _ in found} == {("support", 2), ("f_tc", 4), ("f_ntc", 6)}
    chosen = regions_to_verify(found, 1)
    assert [region.kind for region, _ in chosen] == ["support", "f_ntc"]


def test_only_the_strongest_tubes_are_kept_and_long_ones_are_cut():
    frames = [spot(0, 0, 1 + idx) if idx % 2 == 0 else np.zeros((4, 4)) for idx in range(20)]
    assert [round(region.mass) for region, _ in track(frames, max_regions=3)] == [19, 17, 15]
    cut = track([spot(0, 0)] * 10, max_region_frames=4)
    assert sorted(region.frames for region, _ in cut) == [(0, 4), (4, 8), (8, 10)]


def test_a_tube_is_cut_out_of_the_clip_that_holds_most_of_it():
    ((_, tube),) = track([np.zeros((4, 4))] * 3 + [spot(1, 2)] * 6)
    assert strongest_clip(tube, {0: (0, 6), 1: (3, 9), 2: (6, 12)}) == 1
    clip = textured_clip((6, 8, 8), clip_idx=1, start=3).info
    keep = removal_grid(tube, clip, (3, 4, 4))
    assert (keep[:, 1, 2] == 0).all()
    assert (keep == 0).sum() == 3


def test_the_effect_of_a_removal_is_in_probabilities_and_log_odds():
    effect = effect_of_removal(4, 0, np.log([0.8, 0.2]).astype(np.float32), np.log([0.3, 0.7]).astype(np.float32))
    assert (effect.prob_before, effect.prob_after) == (pytest.approx(0.8), pytest.approx(0.3))
    assert effect.log_odds_before == pytest.approx(np.log(4), rel=1e-5)
    assert (effect.top1_before, effect.top1_after) == (0, 1)
