import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.regrid import regrid


def test_cells_that_merge_give_their_mean_and_cells_that_split_lie_on_a_line() -> None:
    values = np.array([0.0, 2.0, 4.0, 6.0]).reshape(1, 1, 4)
    assert regrid(values, (1, 1, 2)).ravel() == pytest.approx([1, 5])
    assert regrid(np.array([0.0, 4.0]).reshape(2, 1, 1), (4, 1, 1)).ravel() == pytest.approx([0, 1, 3, 4])


@given(old=st.tuples(*[st.integers(1, 9)] * 3), new=st.tuples(*[st.integers(1, 9)] * 3))
def test_a_constant_map_stays_that_constant(old: tuple[int, int, int], new: tuple[int, int, int]) -> None:
    found = regrid(np.full(old, 2.5), new)
    assert found.shape == new
    assert found == pytest.approx(np.full(new, 2.5))


def test_merging_keeps_the_mean() -> None:
    values = np.random.default_rng(0).random((8, 28, 28))
    assert regrid(values, (3, 16, 5)).mean() == pytest.approx(values.mean())
