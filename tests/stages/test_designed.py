"""Masks in the order in which they tell most: every prefix leaves less unknown than as many drawn at random."""

import numpy as np
import pytest
from planted import textured_clip

from stages import designed
from stages.designed import BELIEF, greedy_order, most_telling
from stages.kernels import Smooth
from stages.masks import NUM_ANCHORS, POOL, build_bank, draw_mask, pool_order
from stages.perturb import Perturb, PerturbConfig
from stages.records import BankSpec

GRID = (4, 9, 9)


def masks_of(family: str, size: int) -> np.ndarray:
    return build_bank(BankSpec(grid=GRID, size=size, seed=3, family=family))[NUM_ANCHORS:]


def variance_left(masks: np.ndarray) -> float:
    """Trace of the posterior covariance, written out."""
    rows = masks.reshape(len(masks), -1) / 255.0
    rows = rows - rows.mean(1, keepdims=True)
    prior = Smooth(GRID, BELIEF.time, BELIEF.space).expand(np.eye(rows.shape[1]))
    seen = rows @ prior @ rows.T
    noise = BELIEF.noise * float(np.diag(seen).mean()) * np.eye(len(rows))
    return float(np.trace(prior - prior @ rows.T @ np.linalg.solve(seen + noise, rows @ prior)))


@pytest.mark.parametrize("num", [8, 16, 32, 64])
def test_every_prefix_leaves_less_unknown_than_any_random_one(num):
    pool = masks_of("designed", NUM_ANCHORS + POOL)
    rng = np.random.default_rng(0)
    others = [variance_left(pool[rng.permutation(POOL)[:num]]) for _ in range(8)]
    assert variance_left(pool[:num]) < min(others)


def test_the_first_masks_are_those_of_the_pool_in_another_order_and_the_rest_as_drawn():
    bank = masks_of("designed", NUM_ANCHORS + POOL + 8)
    drawn = np.stack([draw_mask("designed", GRID, 3, idx) for idx in range(POOL + 8)])
    as_rows = [sorted(map(bytes, masks[:POOL].reshape(POOL, -1))) for masks in (bank, drawn)]
    assert as_rows[0] == as_rows[1]
    np.testing.assert_array_equal(bank[POOL:], drawn[POOL:])
    order = pool_order("designed", GRID, 3, POOL)
    assert sorted(order) == list(range(POOL)) != list(order)


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 5, 4), (3, 5, 4)])
def test_a_larger_bank_begins_with_a_smaller_one_also_beyond_the_pool(grid):
    sizes = (6, 40, NUM_ANCHORS + POOL, NUM_ANCHORS + POOL + 9)
    *smaller, largest = (build_bank(BankSpec(grid=grid, size=size, seed=5, family="designed")) for size in sizes)
    for bank in smaller:
        np.testing.assert_array_equal(bank, largest[: len(bank)])


def test_rounding_on_another_machine_does_not_change_the_order(monkeypatch):
    pool = masks_of("designed", NUM_ANCHORS + POOL)
    first = greedy_order(pool, POOL)
    rng = np.random.default_rng(1)

    def elsewhere(told, *rest):
        return most_telling(told * (1 + 1e-13 * rng.standard_normal(told.shape)), *rest)

    monkeypatch.setattr(designed, "most_telling", elsewhere)
    assert greedy_order(pool, POOL) == first


def test_equal_candidates_come_in_their_own_order():
    rows = np.tile(np.array([[1.0, -1.0]]), (4, 1))
    assert most_telling(rows, rows, np.ones(2), 0.3, 4) == [0, 1, 2, 3]
    hardly_more = np.array([[1.0, -1.0], [1 + 1e-12, -1 - 1e-12]])
    assert most_telling(hardly_more, hardly_more, np.ones(2), 0.3, 2) == [0, 1]
    assert most_telling(rows * 0, rows * 0, np.ones(2), 0.3, 4) == [0, 1, 2, 3]


def test_on_clips_the_default_asks_with_designed_masks():
    spec = Perturb(PerturbConfig(budget=32)).process(textured_clip((8, 9, 9)).info).bank
    assert spec is not None
    assert (spec.family, spec.grid, spec.size) == ("designed", GRID, 32)
