import numpy as np
import pytest
from planted import PlantedBox, auc, scorer, textured_clip

from stages.baselines import BASELINES
from stages.masks import grid_for

CORNER = (slice(0, 8), slice(0, 16), slice(16, 32))


@pytest.mark.parametrize("name", BASELINES)
def test_every_map_lies_on_the_voxel_grid_and_follows_from_the_seed(name: str) -> None:
    pytest.importorskip("captum")
    clip = textured_clip()
    score = scorer(PlantedBox(clip, {0: [(CORNER, 5.0)]}))
    ours, again = (BASELINES[name](clip, score, 0, 32, 1) for _ in range(2))
    assert ours.shape == grid_for(clip.shape)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, again, atol=1e-9)


@pytest.mark.parametrize("name", ["kernel-shap", "lime"])
def test_captum_finds_a_planted_corner_within_its_budget(name: str) -> None:
    pytest.importorskip("captum")
    clip = textured_clip()
    box = PlantedBox(clip, {0: [(CORNER, 5.0)]})
    found = BASELINES[name](clip, scorer(box), 0, 300, 0)
    assert box.calls <= 300
    assert auc(found, box.truth(0) > 0) > 0.9


def test_motion_is_where_frames_change() -> None:
    clip = textured_clip()
    still = clip.frames.copy()
    still[:, :, :, 16:] = still[:1, :, :, 16:]
    moving = type(clip)(
        id=clip.id, frames=still, frame_idx=clip.frame_idx, pts_s=clip.pts_s, is_padded=clip.is_padded,
        covers=clip.covers, geometry=clip.geometry,
    )  # fmt: skip
    found = BASELINES["motion"](moving, scorer(PlantedBox(clip, {})), 0, 0, 0)
    assert found[:, :, :13].mean() == pytest.approx(0.5, abs=0.1)
    assert found[:, :, 15:].max() == pytest.approx(0)


def test_the_centre_is_in_the_centre() -> None:
    clip = textured_clip((4, 32, 32))
    found = BASELINES["centre"](clip, scorer(PlantedBox(clip, {})), 0, 0, 0)
    assert found[0, 13, 13] == found.max()
    assert found[0, 0, 0] == found.min()
