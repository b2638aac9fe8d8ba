"""Content is where hiding can change anything: at objects and motion, nowhere in what is flat."""

import numpy as np
import pytest

from stages.content import content_of
from stages.substrates import SUBSTRATES


def scene(num_frames: int = 8, *, step_px: int = 0) -> np.ndarray:
    """A bright square on grey; it moves `step_px` to the right in every frame."""
    frames = np.full((num_frames, 3, 56, 56), 90, np.uint8)
    for t in range(num_frames):
        frames[t, :, 20:32, 8 + step_px * t : 20 + step_px * t] = 220
    return frames


@pytest.mark.parametrize("substrate", sorted(SUBSTRATES))
def test_content_has_the_grid_of_the_masks(substrate: str) -> None:
    found = content_of(scene(step_px=2), substrate)
    assert found.shape == (4, 28, 28)
    assert found.dtype == np.uint8
    assert found.max() == 255


@pytest.mark.parametrize("substrate", ["blur", "mean", "median", "freeze"])
def test_a_flat_clip_has_no_content(substrate: str) -> None:
    assert not content_of(np.full((4, 3, 32, 32), 128, np.uint8), substrate).any()


@pytest.mark.parametrize("substrate", ["blur", "mean"])
def test_content_is_where_the_object_is(substrate: str) -> None:
    found = content_of(scene(), substrate)
    assert found[:, 10:16, 4:10].min() > 4 * np.median(found[:, 22:, 20:])


def test_what_moves_has_more_content_than_what_stands_still() -> None:
    frames = scene()
    frames[:, :, 44:50, 44:50] = 220  # stands still
    frames[:, :, 20:32] = scene(step_px=2)[:, :, 20:32]
    found = content_of(frames, "blur").astype(float)
    assert found[:, 10:16].max() == 255
    assert found[:, 22:25, 22:25].max() < 220


def test_freezing_hides_motion_alone() -> None:
    assert not content_of(scene(), "freeze").any()
    assert content_of(scene(step_px=2), "freeze").any()


def test_a_still_picture_has_none() -> None:
    assert content_of(scene(1), "blur") is None


def test_small_inputs_have_one_cell_per_pixel() -> None:
    assert content_of(np.random.default_rng(0).integers(0, 255, (2, 3, 5, 6)).astype(np.uint8), "blur").shape == (
        1,
        5,
        6,
    )
