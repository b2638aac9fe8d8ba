"""The GPU benchmark on a processor: every model at every precision has a row, and its shares are parts of one time."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from benchmarks.bare import SHARES, Work
from benchmarks.gpu import QUICK, machine, measure_all, table
from stages.models import load_box

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine would take minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_every_model_has_a_row_for_each_precision_and_shares_are_parts_of_one_time() -> None:
    rows = measure_all(QUICK, CPU)
    assert [(row.model, row.precision) for row in rows] == [
        (name, precision) for name in QUICK.models for precision in ("fp32", "bf16")
    ]
    for row in rows:
        assert set(row.shares) == set(SHARES)
        assert all(share > 0 for share in row.shares.values())
        assert 0.5 < sum(row.shares.values()) <= 1
        assert row.shares["model"] == max(row.shares.values())
        assert row.classes in (400, 1000)
        assert len(row.efficiencies) == QUICK.rounds
        assert row.efficiency > 0
    assert table(rows, "a processor").row_count == len(rows)


def test_batches_are_filled_from_two_clips_and_every_mask_is_asked_once() -> None:
    work = Work(load_box("torchvision:squeezenet1_1"), replace(QUICK, budget=10).budget)
    found = list(work.requests(num_pairs=2, size=4))
    assert [is_last for _, is_last in found] == [False] * 4 + [True] + [False] * 4 + [True]
    asked: dict[object, list[int]] = {}
    for request, _ in found:
        assert len(request.batches) == 2
        assert sum(len(batch) for batch in request.batches) <= 4
        for batch in request.batches:
            asked.setdefault(batch.clip_id, []).extend(batch.ids)
    assert list(asked.values()) == [list(range(10))] * 4


def test_the_machine_is_named() -> None:
    assert {"device", "torch", "python", "day"} <= set(machine(CPU))
