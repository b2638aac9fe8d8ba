"""Efficiency and busy share count the scorers that were up, while they were; what a dead coordinator held is gone."""

import pytest

from pipeline.stats import Stats


def test_a_scorer_that_joins_late_is_not_asked_for_what_came_before():
    stats = Stats()
    stats.scorer_up(0, 10.0, now=100.0)
    stats.scorer_up(1, 30.0, now=105.0)
    stats.tick(110.0)
    stats.evaluations, stats.busy_s["score"] = 200, 12.0
    assert stats.possible == 10 * 10 + 30 * 5
    assert stats.efficiency() == pytest.approx(200 / 250)
    assert stats.summary(110.0)["scorer_busy_share"] == pytest.approx(12 / 15)


def test_a_scorer_that_left_is_not_asked_for_what_came_after():
    stats = Stats()
    stats.scorer_up(0, 10.0, now=0.0)
    stats.scorer_up(1, 10.0, now=0.0)
    stats.scorer_down(1, now=4.0)
    stats.tick(10.0)
    stats.evaluations = 126
    assert stats.efficiency() == pytest.approx(126 / (10 * 10 + 10 * 4))
    assert stats.bare_rates == {0: 10.0}


def test_a_scorer_that_comes_back_counts_from_then_on():
    stats = Stats()
    stats.scorer_up(0, 10.0, now=0.0)
    stats.scorer_down(0, now=2.0)
    stats.scorer_up(0, 5.0, now=6.0)
    stats.tick(8.0)
    assert (stats.possible, stats.scorer_s) == (10 * 2 + 5 * 2, 4.0)


def test_shards_are_added_up():
    shards = [Stats(), Stats()]
    for shard, rate in zip(shards, (10.0, 20.0), strict=True):
        shard.scorer_up(0, rate, now=0.0)
        shard.tick(10.0)
        shard.evaluations = 90
    total = Stats().plus(*shards)
    assert total.possible == 300
    assert total.efficiency() == pytest.approx(180 / 300)
    assert sorted(total.bare_rates.values()) == [10.0, 20.0]


def test_nothing_is_on_its_way_in_a_coordinator_that_died():
    stats = Stats(clips=3, expected_clips=10, clips_in_flight=4, bytes_in_flight=5, rows_waiting=6, most_clips=7)
    stats.scorer_up(0, 10.0, now=0.0)
    stats.tick(5.0)
    stats.nothing_left()
    assert (stats.clips_in_flight, stats.bytes_in_flight, stats.rows_waiting, stats.bare_rates) == (0, 0, 0, {})
    assert (stats.clips, stats.expected_clips, stats.most_clips, stats.possible) == (3, 3, 7, 50.0)
