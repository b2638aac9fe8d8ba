"""The bank is a function of its recipe; masks are soft in time; rendering is what the posterior sees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import ConfigError
from stages.masks import FAMILIES, UNPAIRED, build_bank, grid_for, render_masks
from stages.records import BankSpec

GRIDS = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=40, deadline=None)
@given(grid=GRIDS, family=st.sampled_from(sorted(FAMILIES)), size=st.integers(2, 12), seed=st.integers(0, 5))
def test_a_larger_bank_begins_with_the_smaller_and_complements_follow_their_mask(grid, family, size, seed):
    small = build_bank(BankSpec(grid=grid, size=size, seed=seed, family=family))
    large = build_bank(BankSpec(grid=grid, size=size + 5, seed=seed, family=family))
    np.testing.assert_array_equal(small, large[:size])
    assert (small[0] == 255).all()
    assert (small[1] == 0).all()
    for row in range(2, 2 if family in UNPAIRED else size - 1, 2):
        np.testing.assert_array_equal(small[row].astype(int) + small[row + 1], 255)


def test_another_seed_gives_other_masks():
    banks = [build_bank(BankSpec(grid=(4, 14, 14), size=32, seed=seed)) for seed in (0, 1)]
    assert (banks[0][2:] != banks[1][2:]).mean() > 0.2


@pytest.mark.parametrize("family", ["mixture", "blobs"])
def test_masks_cover_every_voxel_evenly_and_many_keep_fractions(family):
    bank = build_bank(BankSpec(grid=(8, 28, 28), size=256, seed=0, family=family))[2:] / 255
    assert abs(bank.mean(0) - 0.5).max() < 1e-2  # complements make it exact, rounding aside
    keep = bank.mean((1, 2, 3))
    assert keep.min() < 0.35
    assert keep.max() > 0.65


def test_rendered_masks_are_soft_in_time():
    bank = torch.from_numpy(build_bank(BankSpec(grid=grid_for((16, 32, 32)), size=128, seed=0)).copy())
    step = render_masks(bank, (16, 32, 32)).diff(dim=1).abs()
    assert float(step.max()) <= 0.5 + 1e-3  # two frames from hidden to shown, never one


def test_rendering_keeps_the_grid_where_sizes_agree_and_slices_of_a_batch_are_the_batch():
    bank = torch.from_numpy(build_bank(BankSpec(grid=(4, 7, 7), size=10, seed=0)).copy())
    torch.testing.assert_close(render_masks(bank, (4, 7, 7)), bank.float() / 255)
    whole = render_masks(bank, (9, 33, 21))
    torch.testing.assert_close(whole[3:6], render_masks(bank[3:6], (9, 33, 21)))
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1


def test_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="mixture"):
        build_bank(BankSpec(grid=(1, 4, 4), size=8, seed=0, family="stripes"))
