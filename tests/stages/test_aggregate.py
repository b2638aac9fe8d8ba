"""Stitching: precision-weighted, frame by frame, final as soon as nothing can change it."""

import numpy as np
import pytest
from planted import textured_clip

from stages.aggregate import Stitcher, frame_slices
from stages.records import OUTPUTS, ClipInfo, Fidelity, SaliencyMap


def info(clip_idx: int, start: int, *, frames: int = 8, step: int = 1) -> ClipInfo:
    base = textured_clip((frames, 8, 8), clip_idx=clip_idx, start=start).info
    idx = start + step * np.arange(frames)
    return ClipInfo(
        id=base.id, shape=base.shape, frame_idx=idx, pts_s=idx / 25, is_padded=base.is_padded,
        covers=(start, int(idx[-1]) + 1), geometry=base.geometry, nbytes=base.nbytes,
    )  # fmt: skip


def saliency(
    clip: ClipInfo, value: float | np.ndarray, var: float = 1.0, *, cells: int = 4, reliable=True
) -> SaliencyMap:
    shape = (3, cells, 2, 2)
    mean = np.broadcast_to(np.asarray(value, np.float32).reshape(-1, 1, 1) if np.ndim(value) else value, shape)
    return SaliencyMap(
        clip_id=clip.id, target_idx=0, method="gp", outputs=OUTPUTS, mean=mean.astype(np.float32),
        var=np.full(shape, var, np.float32), fidelity={"log_odds": Fidelity(q2=0.5, coverage=0.9, is_reliable=True)},
        reference=np.zeros(3, np.float32), replaced=np.zeros(3, np.float32), num_evaluations=8, stop_reason="budget",
    )  # fmt: skip


def test_frames_are_final_when_the_next_clip_starts_behind_them():
    stitcher = Stitcher("v", 0)
    first, second = info(0, 0), info(1, 4)
    assert stitcher.add(first, saliency(first, 1.0)) == []
    assert [frame.frame_idx for frame in stitcher.add(second, saliency(second, 1.0))] == [0, 1, 2, 3]
    assert [frame.frame_idx for frame in stitcher.finish(12)] == list(range(4, 12))


def test_overlapping_clips_are_weighted_by_precision():
    stitcher = Stitcher("v", 0)
    first, second = info(0, 0), info(1, 4)
    stitcher.add(first, saliency(first, 1.0, var=1.0))
    stitcher.add(second, saliency(second, 4.0, var=0.5))
    overlap = stitcher.finish(12)[0]
    np.testing.assert_allclose(overlap.mean, (1.0 / 1 + 4.0 / 0.5) / (1 / 1 + 1 / 0.5), rtol=1e-5)
    np.testing.assert_allclose(overlap.var, 1 / 3, rtol=1e-5)


def test_a_last_clip_shifted_back_joins_frames_that_are_still_open():
    stitcher = Stitcher("v", 0)
    clips = [info(0, 0), info(1, 8), info(2, 11)]
    final = [frame for clip in clips for frame in stitcher.add(clip, saliency(clip, 2.0))] + stitcher.finish(19)
    assert [frame.frame_idx for frame in final] == list(range(19))
    assert all(frame.is_seen for frame in final)
    np.testing.assert_allclose([frame.mean.mean() for frame in final], 2.0, rtol=1e-5)


def test_frames_between_sampled_ones_lie_between_their_cells():
    clip = info(0, 10, frames=4, step=3)
    ramp = np.array([0.0, 1.0, 2.0, 3.0])
    means = [float(mean.mean()) for _, mean, _ in frame_slices(clip, saliency(clip, ramp))]
    np.testing.assert_allclose(means, np.arange(10) / 3, atol=1e-6)


def test_uncovered_frames_are_marked_as_not_seen():
    stitcher = Stitcher("v", 0)
    clips = [info(0, 0), info(1, 12)]
    final = [frame for clip in clips for frame in stitcher.add(clip, saliency(clip, 1.0))] + stitcher.finish(20)
    assert [frame.frame_idx for frame in final if not frame.is_seen] == [8, 9, 10, 11]


def test_repeated_edge_frames_share_one_map():
    base = info(0, 0, frames=8)
    clip = ClipInfo(
        id=base.id, shape=base.shape, frame_idx=np.array([0, 1, 2, 2, 2, 2, 2, 2]), pts_s=base.pts_s,
        is_padded=np.arange(8) > 2, covers=(0, 3), geometry=base.geometry, nbytes=0,
    )  # fmt: skip
    slices = frame_slices(clip, saliency(clip, np.arange(8.0), cells=8))
    np.testing.assert_allclose([mean.mean() for _, mean, _ in slices], [0.0, 1.0, 4.5], atol=1e-6)


def test_clips_out_of_order_are_a_bug():
    stitcher = Stitcher("v", 0)
    second = info(1, 4)
    stitcher.add(second, saliency(second, 1.0))
    with pytest.raises(ValueError, match="out of order"):
        stitcher.add(info(0, 0), saliency(info(0, 0), 1.0))
