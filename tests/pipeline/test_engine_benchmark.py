"""Simulated scorers through the real machinery: nothing is lost, and continuous batching beats barriers."""

from dataclasses import replace

import pytest

from benchmarks.engine import ADAPTIVE, FREE, SMALL, measure

pytestmark = pytest.mark.slow


def test_adaptive_rounds_keep_scorers_busy_where_barriers_do_not():
    load = replace(ADAPTIVE, scorers=16).lasting(2.5)
    continuous, barriers = measure(load), measure(load, "lock-step")
    assert continuous["batch_fill"] > 0.95
    assert continuous["efficiency"] > 1.2 * barriers["efficiency"]
    assert continuous["evaluations"] == barriers["evaluations"] == load.evaluations


def test_small_late_rounds_of_several_clips_are_merged():
    """Rounds of 12 masks, batches of 32: one clip alone sends its rounds as they are."""
    load = replace(SMALL, scorers=2, clips_per_video=3)
    merged, alone = measure(load), measure(load, "clip by clip")
    assert alone["batch_fill"] < 0.6
    assert merged["batch_fill"] > 1.4 * alone["batch_fill"]
    assert merged["batches"] < alone["batches"]


def test_scorers_without_cost_meet_the_ceiling_and_nothing_is_lost():
    load = replace(FREE, clips_per_video=10)
    figures = measure(load)
    assert figures["evaluations"] == FREE.videos * 10 * 256
    assert figures["batches"] / figures["seconds"] > 20  # hundreds on an idle machine
