"""Pictures come into the box's geometry, and its pixels map back to where they came from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.box import BoxSpec
from stages.errors import DecodeError
from stages.fit import fit_to


def spec_of(resize: str, **options: object) -> BoxSpec:
    return BoxSpec.model_validate({"name": "box", "height": 32, "width": 40, "resize": resize, **options})


@pytest.mark.parametrize("resize", ["short_side_crop", "squash", "letterbox"])
@pytest.mark.parametrize("size", [(120, 200), (200, 90), (17, 23), (31, 40)])
def test_a_planted_spot_is_found_where_the_geometry_says(resize: str, size: tuple[int, int]) -> None:
    height, width = size
    fit = fit_to(spec_of(resize), height, width, "v")
    scene = np.zeros((height, width, 3), np.uint8)
    y0, x0 = int(height * 0.45), int(width * 0.55)
    spot_h, spot_w = max(2, height // 8), max(2, width // 8)
    scene[y0 : y0 + spot_h, x0 : x0 + spot_w] = 255
    seen = fit.apply(scene)
    assert seen.shape == (3, 32, 40)
    assert seen.flags.c_contiguous
    weight = seen[0].astype(float)
    centre_y = (weight.sum(1) @ (np.arange(32) + 0.5)) / weight.sum()
    centre_x = (weight.sum(0) @ (np.arange(40) + 0.5)) / weight.sum()
    geometry = fit.geometry
    assert centre_y * geometry.scale_y + geometry.offset_y_px == pytest.approx(y0 + spot_h / 2, abs=0.35)
    assert centre_x * geometry.scale_x + geometry.offset_x_px == pytest.approx(x0 + spot_w / 2, abs=0.35)


def test_the_whole_model_picture_maps_into_the_source() -> None:
    crop = fit_to(spec_of("short_side_crop"), 100, 300, "v").geometry
    assert crop.box_to_source(0, 0, 32, 40) == pytest.approx((0, 87.5, 100, 212.5))
    assert fit_to(spec_of("squash"), 100, 300, "v").geometry.box_to_source(0, 0, 32, 40) == pytest.approx(
        (0, 0, 100, 300)
    )
    bars = fit_to(spec_of("letterbox"), 100, 300, "v").geometry
    assert bars.box_to_source(0, 0, 32, 40) == pytest.approx((0, 0, 100, 300))
    assert bars.offset_y_px < 0


def test_letterbox_bars_have_the_mean_colour_of_the_box() -> None:
    spec = spec_of("letterbox", channel_order="bgr", value_scale=255.0, mean=(104.0, 117.0, 123.0))
    seen = fit_to(spec, 10, 40, "v").apply(np.full((10, 40, 3), 255, np.uint8))
    assert seen[:, 0, 0].tolist() == [123, 117, 104]
    assert seen[:, 16, 20].tolist() == [255, 255, 255]


@pytest.mark.slow  # imports torchvision
def test_sizes_and_crop_are_those_of_torchvision() -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    scene = np.random.default_rng(0).integers(0, 255, (123, 177, 3), np.uint8)
    spec = BoxSpec(name="box", height=64, width=64, short_side=75)
    seen = fit_to(spec, 123, 177, "v").apply(scene)
    chain = transforms.Compose([transforms.Resize(75, antialias=True), transforms.CenterCrop(64)])
    assert np.array_equal(seen, chain(torch.from_numpy(scene).permute(2, 0, 1)).numpy())


def test_resizing_is_within_a_level_of_floating_point() -> None:
    scene = np.random.default_rng(1).integers(0, 255, (270, 480, 3), np.uint8)
    spec = BoxSpec(name="box", height=56, width=56, resize="squash")
    exact = F.interpolate(
        torch.from_numpy(scene).permute(2, 0, 1)[None].float(), (56, 56), mode="bilinear", antialias=True
    )
    assert np.abs(fit_to(spec, 270, 480, "v").apply(scene) - exact[0].numpy()).max() <= 1


def test_one_pixel_is_scaled_up_and_a_sliver_is_refused() -> None:
    seen = fit_to(spec_of("short_side_crop"), 1, 1, "v").apply(np.full((1, 1, 3), (9, 8, 7), np.uint8))
    assert np.array_equal(seen, np.broadcast_to(np.array([9, 8, 7], np.uint8)[:, None, None], (3, 32, 40)))
    with pytest.raises(DecodeError, match="too narrow"):
        fit_to(spec_of("short_side_crop"), 1, 100_000, "v")
