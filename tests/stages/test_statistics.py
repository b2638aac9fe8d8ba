import numpy as np
import pytest

from stages.statistics import bootstrap_interval, holm, paired_p, rank_agreement, stability, top_overlap


def test_the_interval_holds_the_mean_and_narrows_with_more_clips() -> None:
    rng = np.random.default_rng(0)
    few, many = bootstrap_interval(rng.normal(3, 1, 10)), bootstrap_interval(rng.normal(3, 1, 1000))
    assert few.low < few.mean < few.high
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.15)
    assert few.high - few.low > 4 * (many.high - many.low)


def test_what_is_not_known_is_left_out() -> None:
    assert bootstrap_interval(np.array([1.0, np.nan, 3.0])).num == 2
    assert np.isnan(bootstrap_interval(np.array([np.nan])).mean)


def test_ten_pairs_that_all_differ_one_way_have_the_smallest_p() -> None:
    ours = np.arange(10) + np.linspace(0.1, 1, 10)
    assert paired_p(ours, np.arange(10.0)) == pytest.approx(2 / 2**10)
    assert paired_p(ours, ours) == 1.0
    assert np.isnan(paired_p(np.array([np.nan]), np.array([1.0])))


def test_maps_agree_by_rank_alone() -> None:
    a = np.random.default_rng(0).random((2, 3, 4))
    assert rank_agreement(a, np.exp(a)) == pytest.approx(1.0)
    assert rank_agreement(a, -a) == pytest.approx(-1.0)
    assert np.isnan(rank_agreement(a, np.ones_like(a)))


def test_the_overlap_of_the_largest_values() -> None:
    a = np.arange(100.0).reshape(10, 10)
    assert top_overlap(a, 2 * a + 1) == 1
    assert top_overlap(a, -a) == 0
    assert top_overlap(a, np.roll(a, 5)) == pytest.approx(5 / 15)
    chance = [top_overlap(*np.random.default_rng(seed).random((2, 20, 20))) for seed in range(50)]
    assert np.mean(chance) == pytest.approx(0.1 / 1.9, abs=0.01)


def test_stability_is_the_mean_over_all_pairs() -> None:
    a = np.arange(100.0)
    found = stability([a, a, -a])
    assert found["stability_rank"] == pytest.approx((1 - 1 - 1) / 3)
    assert found["stability_top"] == pytest.approx(1 / 3)
    assert np.isnan(stability([a])["stability_rank"])


def test_holm_multiplies_the_smallest_by_all_and_never_decreases() -> None:
    found = holm([0.04, 0.01, float("nan"), 0.03, 0.9])
    assert found[:2] == pytest.approx([0.09, 0.04])
    assert np.isnan(found[2])
    assert found[3:] == pytest.approx([0.09, 0.9])
