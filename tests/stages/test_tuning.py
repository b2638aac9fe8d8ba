"""The batch size that is found on planted speeds: of a model, of a machine that others use, of a memory that ends."""

import pytest
import torch

from stages.tuning import BATCH_SIZES, LONG_BATCH_S, find_batch_size, rate_of, try_batch_size


def speeds(*values: float) -> dict[int, float]:
    return dict(zip(BATCH_SIZES, values, strict=True))


@pytest.mark.parametrize(
    ("rates", "size"),
    [
        (speeds(100, 190, 300, 400, 500, 505, 506, 500, 480), 16),  # as fast as 64, and smaller
        (speeds(500, 400, 300, 200, 100, 100, 100, 100, 100), 1),
        (speeds(1000, 1010, 1020, 1030, 1040, 1050, 1060, 1070, 1080), 64),
        (speeds(*(100.0,) * 9), 1),
    ],
)
def test_the_smallest_size_that_is_about_the_fastest(rates, size):
    found = find_batch_size(rates.__getitem__, BATCH_SIZES, handover_s=0)
    assert found.batch_size == size
    assert found.evaluations_per_s == max(rates.values())


@pytest.mark.parametrize("slow", [range(6, 18), range(5), range(3, 6), range(9, 12)])
def test_a_machine_that_is_slow_for_a_while_misleads_nobody(slow):
    """Half the speed for some turns, but never for both turns of the best size."""
    rates, turns = speeds(100, 190, 300, 400, 500, 500, 500, 500, 500), []

    def measured(size: int) -> float:
        turns.append(size)
        return rates[size] * (0.5 if len(turns) - 1 in slow else 1.0)

    assert find_batch_size(measured, BATCH_SIZES, handover_s=0).batch_size == 16


@pytest.mark.parametrize(("rate", "gain", "slow", "size"), [(2.6, 1.3, 1, 4), (6.0, 1.15, 4, 8)])
def test_a_slow_moment_does_not_end_the_growing_of_a_slow_model(rate, gain, slow, size):
    """`gain` is what a batch twice as large brings; the first turns are at half the speed."""
    turns = []

    def measured(size: int) -> float:
        turns.append(size)
        return rate * gain ** (size.bit_length() - 1) * (0.5 if len(turns) <= slow else 1.0)

    found = find_batch_size(measured, BATCH_SIZES)
    turns.clear()
    slow = 0
    assert find_batch_size(measured, BATCH_SIZES) == found
    assert found.batch_size == size


@pytest.mark.parametrize(("rate", "size"), [(8.0, 4), (400.0, 128), (1e5, 256)])
def test_what_every_batch_costs_beside_the_model_speaks_for_larger_ones(rate, size):
    assert find_batch_size(lambda _: rate, BATCH_SIZES).batch_size == size


def test_batches_that_take_long_are_not_tried():
    tried = []

    def measured(size: int) -> float:
        tried.append(size)
        return 8.0

    find_batch_size(measured, BATCH_SIZES)
    assert max(tried) == 8
    tried.clear()

    def faster(size: int) -> float:
        tried.append(size)
        return 4.0 * size**0.5

    found = find_batch_size(faster, BATCH_SIZES)
    assert found.batch_size == max(tried)
    assert 2 * found.batch_size > LONG_BATCH_S * found.evaluations_per_s


def test_the_end_of_memory_is_the_end_of_growing():
    def measured(size: int) -> float:
        if size > 8:
            raise torch.OutOfMemoryError("planted")
        return 100.0 * size

    assert find_batch_size(measured, BATCH_SIZES).batch_size == 8

    def never(size: int) -> float:
        raise torch.OutOfMemoryError("planted")

    assert find_batch_size(never, BATCH_SIZES).batch_size == 1
    assert try_batch_size(never, 64).batch_size == 1


@pytest.mark.parametrize(("given", "size"), [(8, 8), (12, 6), (64, 8), (1, 1)])
def test_a_given_size_is_halved_until_it_fits(given, size):
    def measured(size: int) -> float:
        if size > 8:
            raise torch.OutOfMemoryError("planted")
        return 100.0 * size

    found = try_batch_size(measured, given)
    assert found.batch_size == size
    assert found.evaluations_per_s == 100 * size


def test_the_warm_up_does_not_count():
    took = iter([5.0, 0.01])
    assert rate_of(lambda count: next(took, 0.01 * count), 4) == pytest.approx(400)
    took = iter([5.0, 2.0])
    assert rate_of(lambda count: next(took), 4) == 2
