"""Masked clips: a mask of ones changes nothing, of zeros leaves the substrate, freeze hides motion only."""

import pytest
import torch

from stages.errors import ConfigError
from stages.substrates import SUBSTRATES, apply_mask, make_substrate


@pytest.fixture
def frames():
    return torch.rand((6, 3, 20, 17), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", sorted(SUBSTRATES))
def test_ones_keep_the_clip_and_zeros_leave_the_substrate(kind, frames):
    substrate = make_substrate(kind, frames, seed=3)
    keep = torch.stack([torch.ones(6, 20, 17), torch.zeros(6, 20, 17)])
    before = frames.clone()
    kept, replaced = apply_mask(frames, keep, substrate, is_freeze=kind == "freeze")
    torch.testing.assert_close(kept, frames)
    torch.testing.assert_close(replaced, substrate.contiguous())
    torch.testing.assert_close(frames, before)
    torch.testing.assert_close(make_substrate(kind, frames, seed=3), substrate)


def test_freeze_shows_the_frame_before_where_a_voxel_is_hidden(frames):
    keep = torch.ones(1, 6, 20, 17)
    keep[0, 3, 5:9] = 0
    shown = apply_mask(frames, keep, make_substrate("freeze", frames, 0), is_freeze=True)[0]
    torch.testing.assert_close(shown[3, :, 5:9], frames[2, :, 5:9])
    torch.testing.assert_close(shown[4], frames[4])


def test_freeze_of_a_still_clip_is_the_clip(frames):
    still = frames[:1].expand(6, -1, -1, -1)
    keep = torch.rand((4, 6, 20, 17), generator=torch.Generator().manual_seed(2))
    shown = apply_mask(still, keep, make_substrate("freeze", still, 0), is_freeze=True)
    torch.testing.assert_close(shown, still.expand(4, -1, -1, -1, -1).contiguous())


def test_blur_keeps_a_constant_and_flattens_detail(frames):
    constant = torch.full((2, 3, 30, 30), 0.3)
    torch.testing.assert_close(make_substrate("blur", constant, 0), constant)
    assert make_substrate("blur", frames, 0).std() < 0.5 * frames.std()


def test_median_removes_what_moves():
    plate = torch.rand((1, 3, 12, 12), generator=torch.Generator().manual_seed(0)).expand(7, -1, -1, -1).clone()
    moving = plate.clone()
    for t in range(7):
        moving[t, :, :, t] = 1.0
    torch.testing.assert_close(make_substrate("median", moving, 0), plate)


def test_unknown_substrate_is_refused(frames):
    with pytest.raises(ConfigError, match="use one of blur"):
        make_substrate("pink", frames, 0)
