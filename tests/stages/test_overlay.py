import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.overlay import Layer, Overlay, blend, interpolation, outline
from stages.records import Geometry

GRID = (14, 14)


def crop(h: int, w: int, model: int = 112) -> Geometry:
    """Short side to `model`, then a centre crop."""
    scale = min(h, w) / model
    return Geometry(
        source_h_px=h,
        source_w_px=w,
        model_h_px=model,
        model_w_px=model,
        scale_y=scale,
        scale_x=scale,
        offset_y_px=(h - model * scale) / 2,
        offset_x_px=(w - model * scale) / 2,
    )


def squash(h: int, w: int, model: int = 112) -> Geometry:
    return Geometry(
        source_h_px=h, source_w_px=w, model_h_px=model, model_w_px=model, scale_y=h / model, scale_x=w / model
    )


def letterbox(h: int, w: int, model: int = 112) -> Geometry:
    scale = max(h, w) / model
    return Geometry(
        source_h_px=h,
        source_w_px=w,
        model_h_px=model,
        model_w_px=model,
        scale_y=scale,
        scale_x=scale,
        offset_y_px=(h - model * scale) / 2,
        offset_x_px=(w - model * scale) / 2,
    )


RULES = {"crop": crop, "squash": squash, "letterbox": letterbox}


def hot_cell(row: int, column: int) -> Layer:
    values = np.zeros(GRID, np.float32)
    values[row, column] = 1
    return Layer(kind="net", values=values, is_significant=np.ones(GRID, bool), fade=0.2)


def centre_in_source(geometry: Geometry, row: int, column: int) -> tuple[float, float]:
    y = (row + 0.5) / GRID[0] * geometry.model_h_px * geometry.scale_y + geometry.offset_y_px
    x = (column + 0.5) / GRID[1] * geometry.model_w_px * geometry.scale_x + geometry.offset_x_px
    return y, x


def centroid(weight: np.ndarray) -> tuple[float, float]:
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return float((y * weight).sum() / weight.sum()), float((x * weight).sum() / weight.sum())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(240, 426), (321, 200)])
@pytest.mark.parametrize("zoom", [1, 2])
def test_a_hot_cell_appears_at_its_pixels_of_the_source(rule, size, zoom):
    geometry = RULES[rule](*size)
    picture = np.zeros((size[0] * zoom, size[1] * zoom, 3), np.uint8)
    Overlay(geometry, GRID, picture.shape[:2]).draw_rgb(picture, hot_cell(6, 8))
    expected = np.array(centre_in_source(geometry, 6, 8)) * zoom
    np.testing.assert_allclose(centroid(picture[..., 0].astype(float)), expected, atol=zoom)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(240, 426), (720, 1280)])
def test_the_film_tints_the_same_pixels_as_the_picture(rule, size):
    geometry = RULES[rule](*size)
    overlay = Overlay(geometry, GRID, size)
    y, u, v = np.full(size, 16, np.uint8), *np.full((2, size[0] // 2, size[1] // 2), 128, np.uint8)
    overlay.draw_yuv(y, u, v, hot_cell(6, 8))
    expected = np.array(centre_in_source(geometry, 6, 8))
    np.testing.assert_allclose(centroid(y - 16.0), expected, atol=2)
    np.testing.assert_allclose(np.array(centroid(v - 128.0)) * 2, expected, atol=3)
    picture = np.zeros((*size, 3), np.uint8)
    overlay.draw_rgb(picture, hot_cell(6, 8))
    luma = 16 + picture @ (np.array([0.2126, 0.7152, 0.0722]) * 219 / 255)
    assert np.abs(luma - y).mean() < 1


def test_pixels_outside_the_crop_are_never_touched():
    geometry = crop(240, 426)
    picture = np.full((240, 426, 3), 77, np.uint8)
    everywhere = Layer(kind="net", values=np.ones(GRID), is_significant=np.ones(GRID, bool), fade=0.2)
    overlay = Overlay(geometry, GRID, (240, 426))
    overlay.draw_rgb(picture, everywhere)
    assert overlay.covered == (0, 240, 93, 333)
    assert (picture[:, :93] == 77).all()
    assert (picture[:, 333:] == 77).all()
    assert (picture[:, 93:333] != 77).any(axis=-1).all()


def test_a_zero_map_leaves_the_picture_bit_for_bit():
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    before = picture.copy()
    layer = Layer(kind="net", values=np.zeros(GRID), is_significant=np.zeros(GRID, bool), fade=0.2)
    Overlay(squash(60, 80), GRID, (60, 80)).draw_rgb(picture, layer)
    np.testing.assert_array_equal(picture, before)


def test_insignificant_cells_are_fainter_and_never_outlined():
    values = np.full(GRID, 0.9, np.float32)
    clear = np.ones(GRID, bool)
    clear[:, 7:] = False
    picture = np.zeros((140, 140, 3), np.uint8)
    layer = Layer(kind="support", values=values, is_significant=clear, fade=0.2)
    Overlay(squash(140, 140), GRID, (140, 140)).draw_rgb(picture, layer)
    assert picture[:, 90:, 0].max() < 0.3 * picture[:, :50, 0].min()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 100), st.floats(-2, 30))
def test_interpolation_weighs_cells_and_adds_up_to_one(cells, pixels, start):
    weights = interpolation(np.linspace(start, start + 5, pixels), cells)
    assert weights.shape == (pixels, cells)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


def test_upsampling_invents_neither_signs_nor_maxima():
    grid = np.random.default_rng(1).normal(size=GRID).astype(np.float32)
    up = Overlay(squash(200, 300), GRID, (200, 300)).upsample(grid)
    assert up.max() <= grid.max() + 1e-6
    assert up.min() >= grid.min() - 1e-6
    positive = Overlay(squash(200, 300), GRID, (200, 300)).upsample(np.abs(grid))
    assert positive.min() >= 0


def test_blending_stays_between_the_two_colours():
    plane, colour, alpha = np.random.default_rng(2).integers(0, 256, (3, 50, 50), np.uint8)
    before = plane.copy()
    blend(plane, colour, alpha)
    assert (plane >= np.minimum(before, colour)).all()
    assert (plane <= np.maximum(before, colour)).all()
    exact = before + (colour.astype(float) - before) * alpha / 255
    assert np.abs(plane - exact).max() <= 3


def test_an_outline_follows_the_inside_of_a_shape():
    inside = np.zeros((9, 9), bool)
    inside[2:7, 2:7] = True
    line = outline(inside, 1)
    assert line.sum() == 16
    assert not line[3:6, 3:6].any()
    assert not outline(np.ones((5, 5), bool), 1).any()
