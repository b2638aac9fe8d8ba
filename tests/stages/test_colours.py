import numpy as np
import pytest

from stages.colours import (
    FADES,
    LEVELS,
    MAX_ALPHA,
    colour_index,
    colour_table,
    hatch_lines,
    over,
    rgb_to_yuv,
)

KINDS = ("net", "support", "f_tc", "f_ntc", "uncertainty")
BLACK = np.zeros((1, 3), np.uint8)

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
COLOUR_BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def alpha_of(kind: str, value: float, weight: float = 1.0) -> int:
    return int(colour_table(kind).alpha[colour_index(np.array([value]), np.array([weight]))[0]])


def colour_of(kind: str, value: float) -> np.ndarray:
    return colour_table(kind).colours[:, colour_index(np.array([value]), np.array([1.0]))[0]].astype(int)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_transparent_in_every_layer(kind):
    assert alpha_of(kind, 0.0) == 0
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(over(picture, kind, np.zeros((4, 4))), picture)


def test_opacity_rises_with_the_value_and_alike_on_both_sides():
    up = [alpha_of("net", value) for value in np.linspace(0, 1, 40)]
    down = [alpha_of("net", -value) for value in np.linspace(0, 1, 40)]
    assert up == down
    assert (np.diff(up) > 0).all()
    assert up[-1] == round(255 * MAX_ALPHA)


def test_orange_is_for_and_blue_against():
    for value in (0.3, 0.6, 1.0):
        red, _, blue = colour_of("net", value)
        assert red > blue + 80
        red, _, blue = colour_of("net", -value)
        assert blue > red + 80


def test_values_beyond_the_scale_look_like_its_end():
    for end in (-1, 1):
        np.testing.assert_array_equal(
            over(BLACK, "net", np.array([end * 7.0])), over(BLACK, "net", np.array([end * 1.0]))
        )


@pytest.mark.parametrize("kind", ["support", "f_tc", "f_ntc", "uncertainty"])
def test_one_sided_layers_draw_nothing_below_zero(kind):
    assert alpha_of(kind, -1.0) == 0
    assert alpha_of(kind, 1.0) > 200


def test_what_is_not_significant_keeps_its_colour_and_loses_opacity():
    full, faded = alpha_of("net", 0.8), alpha_of("net", 0.8, weight=0.25)
    assert faded == pytest.approx(full / 4, abs=2)
    assert alpha_of("net", 0.8, weight=0.0) == 0


@pytest.mark.parametrize("sight", COLOUR_BLIND)
@pytest.mark.parametrize("pair", [("support", "f_tc"), ("support", "f_ntc"), ("f_tc", "f_ntc")])
def test_the_three_kinds_stay_apart_for_colour_blind_eyes(sight, pair):
    def seen(kind: str) -> np.ndarray:
        linear = (colour_of(kind, 0.8) / 255) ** 2.2
        return (np.array(COLOUR_BLIND[sight]) @ linear).clip(0, 1) ** (1 / 2.2) * 255

    assert np.linalg.norm(seen(pair[0]) - seen(pair[1])) > 60


def test_yuv_and_rgb_tables_mean_the_same_colours():
    np.testing.assert_allclose(rgb_to_yuv(np.array([1.0, 1.0, 1.0])), [235, 128, 128], atol=0.01)
    np.testing.assert_allclose(rgb_to_yuv(np.zeros(3)), [16, 128, 128], atol=0.01)
    for kind in KINDS:
        assert colour_table(kind, "yuv").colours.shape == (3, LEVELS * FADES)
        np.testing.assert_array_equal(colour_table(kind, "yuv").alpha, colour_table(kind, "rgb").alpha)


def test_hatching_is_grey_diagonal_lines():
    lines = hatch_lines(20, 30, period_px=8)
    assert np.ptp(lines, axis=-1).max() == 0
    np.testing.assert_array_equal(lines[1:, :-1], lines[:-1, 1:])
    assert 0 < (lines[..., 0] > 0).mean() < 0.3
