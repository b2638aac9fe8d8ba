"""The time of frames, also of those that no clip has sampled."""

from dataclasses import replace

import pytest
from planted_run import clip_info

from pipeline.tally import FrameTimes


def test_a_source_is_as_long_as_it_is_whatever_part_of_it_is_explained():
    whole, part = FrameTimes(), FrameTimes()
    for clip_idx in range(5):
        whole.learn(clip_info("v", clip_idx))
    part.learn(clip_info("v", 2))
    assert whole.span_s(20) == pytest.approx(2.0)
    assert part.span_s(20) == pytest.approx(2.0)


def test_times_need_not_begin_at_zero():
    times, info = FrameTimes(), clip_info("v", 1)
    times.learn(replace(info, pts_s=info.pts_s + 7))
    assert times.at(4) == pytest.approx(7.4)
    assert times.at(0) == pytest.approx(7.0)
    assert times.span_s(8) == pytest.approx(0.8)


def test_nothing_seen_has_no_length():
    assert FrameTimes().span_s(10) == 0
