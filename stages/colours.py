"""Signed colours: orange is for, blue against, zero transparent; computed once, in OKLab, as small tables.

In: values divided by the colour scale (-1 ... 1) and how much of the colour is left where a value is not significant.
Out: colour and opacity, in RGB for pictures and in BT.709 YUV for films. Both arms have the same opacity and nearly the
same chroma, so neither side looks stronger; colour-blind eyes tell orange from blue, and the two blues by lightness.
OKLab: Ottosson 2020, "A perceptual color space for image processing".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from stages.evidence import EvidenceKind

Rgb = tuple[int, int, int]
LayerKind = EvidenceKind | Literal["uncertainty"]

LEVELS = 513  # entries from -1 to 1; the middle one is zero and transparent
FADES = 17  # steps from "nothing left" to "full colour"
MAX_ALPHA = 0.82
ALPHA_POWER = 0.85  # below 1: small values rise out of the picture a little earlier

# Arms as (hue in degrees, lightness and chroma where the value is small, ... where it is at the end of the scale).
_Arm = tuple[float, float, float, float, float, float]
_ARMS: Mapping[str, _Arm] = {
    "for": (68.0, 0.80, 0.16, 46.0, 0.67, 0.20),
    "f_tc": (244.0, 0.74, 0.14, 260.0, 0.57, 0.21),
    "f_ntc": (188.0, 0.92, 0.09, 186.0, 0.80, 0.13),
    "uncertainty": (318.0, 0.78, 0.14, 322.0, 0.64, 0.21),
}

# Which arm stands below and above zero in each kind of layer.
_SIDES: Mapping[LayerKind, tuple[str | None, str]] = {
    "net": ("f_tc", "for"),
    "support": (None, "for"),
    "f_tc": (None, "f_tc"),
    "f_ntc": (None, "f_ntc"),
    "uncertainty": (None, "uncertainty"),
}


def oklch_to_rgb(
    lightness: Float[np.ndarray, " n"], chroma: Float[np.ndarray, " n"], hue_deg: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 3"]:
    """SRGB in [0, 1] of OKLCh colours; what lies outside the gamut is clipped."""
    a, b = chroma * np.cos(np.radians(hue_deg)), chroma * np.sin(np.radians(hue_deg))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def rgb_to_yuv(rgb: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """BT.709 limited-range Y, U, V (0 ... 255) of sRGB in [0, 1]: what the film's encoder is fed with."""
    y = rgb @ np.array([0.2126, 0.7152, 0.0722])
    u, v = (rgb[..., 2] - y) / 1.8556, (rgb[..., 0] - y) / 1.5748
    return np.stack([16 + 219 * y, 128 + 224 * u, 128 + 224 * v], axis=-1)


@cache
def _arm(name: str) -> Float[np.ndarray, "n 3"]:
    """SRGB along one arm, from zero to the end of the scale."""
    hue0, light0, chroma0, hue1, light1, chroma1 = _ARMS[name]
    t = np.linspace(0, 1, LEVELS // 2 + 1)
    return oklch_to_rgb(light0 + (light1 - light0) * t, chroma0 + (chroma1 - chroma0) * t, hue0 + (hue1 - hue0) * t)


def _solid(name: str, at: float) -> Rgb:
    r, g, b = (_arm(name)[round(at * (LEVELS // 2))] * 255).round().astype(int).tolist()
    return r, g, b


# Solid colours for words, areas and legends.
FOR = _solid("for", 0.6)
F_TC = _solid("f_tc", 0.45)
F_NTC = _solid("f_ntc", 0.75)
UNCERTAINTY = _solid("uncertainty", 0.75)
TITLE_COLOURS: Mapping[LayerKind, Rgb] = {
    "net": (235, 235, 235),
    "support": FOR,
    "f_tc": F_TC,
    "f_ntc": F_NTC,
    "uncertainty": UNCERTAINTY,
}


@dataclass(frozen=True, slots=True, eq=False)
class ColourTable:
    """Colour (RGB or YUV) and opacity, a row for each fade step and value; both index with `colour_index`."""

    colours: UInt8[np.ndarray, "3 n"]
    alpha: UInt8[np.ndarray, " n"]


@cache
def colour_table(kind: LayerKind, space: Literal["rgb", "yuv"] = "rgb") -> ColourTable:
    """The table of one kind of layer: negative values on the first side, positive on the second, zero transparent."""
    below, above = _SIDES[kind]
    colours = np.concatenate([_arm(below or above)[:0:-1], _arm(above)])
    values = np.linspace(-1, 1, LEVELS)
    alpha = MAX_ALPHA * np.abs(values) ** ALPHA_POWER
    if below is None:
        alpha[values < 0] = 0
    faded = np.linspace(0, 1, FADES)[:, None] * alpha
    scaled = rgb_to_yuv(colours) if space == "yuv" else colours * 255
    return ColourTable(
        colours=np.tile(scaled.round().astype(np.uint8).T, (1, FADES)),
        alpha=(faded * 255).round().astype(np.uint8).ravel(),
    )


def colour_index(values: Float[np.ndarray, "*s"], weight: Float[np.ndarray, "*s"]) -> Int[np.ndarray, "*s"]:
    """Row of a ColourTable for values in units of the scale (clipped to -1 ... 1) and weights in [0, 1]."""
    half = LEVELS // 2
    level = np.clip(values * half + (half + 0.5), 0.5, LEVELS - 0.5)
    fade = (weight * (FADES - 1) + 0.5).astype(np.int16)
    fade *= LEVELS
    fade += level.astype(np.int16)
    return fade.astype(np.intp)


def over(background: UInt8[np.ndarray, "*s 3"], kind: LayerKind, values: Float[np.ndarray, "*s"]) -> np.ndarray:
    """Colours of `values` blended over a background: how a legend shows what the overlay does to a picture."""
    table = colour_table(kind)
    rows = colour_index(values, np.ones_like(values))
    alpha = table.alpha[rows][..., None] / 255
    mixed = background * (1 - alpha) + np.moveaxis(table.colours[:, rows], 0, -1) * alpha
    return np.asarray(mixed.round().astype(np.uint8))


def hatch_lines(height: int, width: int, *, period_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """Grey diagonal lines on black; the maximum with a dimmed picture says that the model never saw it."""
    y, x = np.ogrid[:height, :width]
    lines = np.where((y + x) % period_px < max(1, period_px // 8), np.uint8(108), np.uint8(0))
    return np.repeat(lines[..., None], 3, axis=-1)


def checkerboard(height: int, width: int, cell_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """Two greys, the usual sign for transparency."""
    y, x = np.ogrid[:height, :width]
    grey = np.where((y // cell_px + x // cell_px) % 2, 92, 142).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
