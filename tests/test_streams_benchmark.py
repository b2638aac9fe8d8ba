"""The benchmark of streams cuts videos as a run does, and compares like with like."""

import numpy as np

from benchmarks.streams import METRICS, clips_of, table


def test_clips_of_a_video_overlap_by_half():
    first, second, third = clips_of(50_000, 3)
    assert [clip.id.clip_idx for clip in (first, second, third)] == [0, 1, 2]
    for before, after in ((first, second), (second, third)):
        np.testing.assert_array_equal(before.frames[8:], after.frames[:8])
        np.testing.assert_array_equal(before.frame_idx[8:], after.frame_idx[:8])
    assert not np.array_equal(first.frames[:8], second.frames[:8])


def test_the_table_tells_differences_between_means_of_videos():
    base = [[0.5, 0.7], [0.1, 0.3]]
    rows = {
        ("none", 32): dict.fromkeys(METRICS, base),
        ("previous", 32): {key: [[0.6, 0.8], [0.2, 0.4]] for key in METRICS},
    }
    line = next(line for line in table(rows).splitlines() if "previous" in line)
    assert line.startswith("| previous | 32 | 0.500 | +0.1000 (+0.1000 to +0.1000)")
