import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.metrics import cover_of_cells, energy_in_mask, points_inside


def test_all_energy_inside_a_quarter_is_four_times_its_area() -> None:
    mask = np.zeros((3, 4, 4), bool)
    mask[:, :2, :2] = True
    energy = energy_in_mask(np.where(mask, 2.0, 0.0), mask)
    assert energy.share == 1.0
    assert energy.area == 0.25
    assert energy.ratio == 4.0


def test_a_flat_map_has_the_ratio_one_whatever_the_mask() -> None:
    mask = np.random.default_rng(0).random((2, 5, 7)) < 0.3
    assert energy_in_mask(np.full(mask.shape, 0.1), mask).ratio == pytest.approx(1.0)


def test_negative_values_are_not_energy() -> None:
    mask = np.array([[[True, False]]])
    assert energy_in_mask(np.array([[[1.0, -9.0]]]), mask).share == 1.0
    assert energy_in_mask(np.array([[[-1.0, -9.0]]]), mask).share == 0.0


def test_maps_and_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        energy_in_mask(np.zeros((1, 2, 2)), np.zeros((1, 2, 3), bool))


@given(height=st.integers(3, 40), width=st.integers(3, 40), seed=st.integers(0, 99))
def test_covering_cells_keeps_the_area_of_a_mask(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((2, height, width)) < 0.4
    cover = cover_of_cells(mask, (3, 5))
    assert cover.shape == (2, 3, 5)
    assert cover.mean() == pytest.approx(mask.mean())
    assert cover.max() <= 1 + 1e-9


def test_a_border_pixel_counts_in_proportion() -> None:
    mask = np.zeros((1, 3, 2), bool)
    mask[0, 1] = True  # the middle of three rows, over two cells
    assert cover_of_cells(mask, (2, 1))[0, :, 0] == pytest.approx([1 / 3, 1 / 3])


def test_the_pointing_game_asks_where_the_peak_is() -> None:
    cover = np.zeros((2, 2, 2))
    cover[1, 0, 0], cover[0, 0, 0] = 0.6, 0.4
    peak = np.zeros((2, 2, 2))
    peak[1, 0, 0] = 1.0
    assert points_inside(peak, cover)
    assert not points_inside(np.roll(peak, 1, 0), cover)
    assert not points_inside(np.ones_like(cover), cover)
