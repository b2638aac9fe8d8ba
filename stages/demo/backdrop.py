"""Backdrops of the demo's scenes: procedural, textured, softly lit, drifting slowly with the camera."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64

BackdropKind = Literal["hills", "clouds", "bands", "tiles", "bokeh"]
BACKDROPS: tuple[BackdropKind, ...] = ("hills", "clouds", "bands", "tiles", "bokeh")

Rgb = tuple[float, float, float]

# How far, in picture heights, the plates reach beyond the picture on every side, so that the camera may drift.
MARGIN = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdrop:
    """What lies behind the objects. `palette` runs from far (sky) to near; `grain` is the strength of the texture.

    `drift` is the way of the camera in picture heights per second (y, x); nearer layers move faster.
    """

    kind: BackdropKind
    palette: tuple[Rgb, ...]
    seed: int = 0
    grain: float = 0.05
    drift: tuple[float, float] = (0.0, 0.006)


@dataclass(frozen=True, slots=True, eq=False)
class Plate:
    """One layer, larger than the picture by the margin: straight colour, opacity, share of the camera's drift."""

    rgb: Float32[np.ndarray, "h w 3"]
    alpha: Float32[np.ndarray, "h w"] | None
    parallax: float


def smoothstep(x: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """3 x^2 - 2 x^3 on [0, 1], flat outside."""
    x = np.clip(x, 0, 1)
    y: np.ndarray = x * x * (3 - 2 * x)
    return y


def smooth_noise(
    rng: np.random.Generator,
    ys: Float32[np.ndarray, " h"],
    xs: Float32[np.ndarray, " w"],
    cell: float,
    octaves: int = 3,
) -> Float32[np.ndarray, "h w"]:
    """Fractal value noise with zero mean, about unit range, at the given coordinates; `cell` is the largest wave."""
    total = np.zeros((len(ys), len(xs)), np.float32)
    for octave in range(octaves):
        size = cell / 2**octave
        (row, weights_y), (column, weights_x) = _spline(ys / size), _spline(xs / size)
        values = rng.uniform(-1, 1, (int(row.max()) + 3, int(column.max()) + 3)).astype(np.float32)
        rows = sum(weights_y[k][:, None] * values[row + k] for k in range(3))
        total += np.float32(1.6 * 0.5**octave) * sum(weights_x[k] * rows[:, column + k] for k in range(3))
    return total


def _spline(u: Float32[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "3 n"]]:
    """First knot and the three weights of the quadratic B-spline at every coordinate of a unit grid."""
    u = u - np.floor(u.min())
    knot = np.floor(u)
    f = u - knot
    weights = np.stack([0.5 * np.square(1 - f), 0.5 + f * (1 - f), 0.5 * f * f]).astype(np.float32)
    return knot.astype(np.int64), weights


def _mix(a: Rgb, b: Rgb, weight: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    first, second = np.asarray(a, np.float32), np.asarray(b, np.float32)
    mixed: np.ndarray = first + (second - first) * weight[..., None]
    return mixed


def make_plates(backdrop: Backdrop, height: int, width: int) -> list[Plate]:
    """The layers of a backdrop, far to near, for a picture of this size."""
    pad = round(MARGIN * height)
    ys = ((np.arange(-pad, height + pad) + 0.5) / height).astype(np.float32)
    xs = ((np.arange(-pad, width + pad) + 0.5) / height).astype(np.float32)
    rng = np.random.default_rng([backdrop.seed, 7])
    if backdrop.kind == "hills":
        return _hills(backdrop, ys, xs, rng)
    colours = backdrop.palette
    if backdrop.kind == "clouds":
        rgb = _mix(colours[0], colours[-1], smoothstep(0.5 + smooth_noise(rng, ys, xs, 0.6)))
        rgb = rgb + _mix((0, 0, 0), (0.16, 0.16, 0.16), smooth_noise(rng, ys, xs, 0.25))
    elif backdrop.kind == "bands":
        angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 6)
        across = ys[:, None] * np.sin(angle) + xs[None] * np.cos(angle) + 0.08 * smooth_noise(rng, ys, xs, 0.7)
        rgb = _mix(colours[0], colours[-1], smoothstep(0.5 + 2 * np.sin(2 * np.pi * waves * across)))
    elif backdrop.kind == "tiles":
        size = rng.uniform(0.12, 0.3)
        wave = np.sin(np.pi * ys / size)[:, None] * np.sin(np.pi * xs / size)[None]
        rgb = _mix(colours[0], colours[-1], smoothstep(0.5 + 4 * wave))
    else:
        rgb = _bokeh(colours, ys, xs, rng)
    return [Plate(_grained(rgb, backdrop.grain, ys, xs, rng), None, 1.0)]


def _grained(
    rgb: Float32[np.ndarray, "h w 3"],
    grain: float,
    ys: Float32[np.ndarray, " h"],
    xs: Float32[np.ndarray, " w"],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "h w 3"]:
    """A plate with a paper-like texture: long soft fibres and fine spots."""
    fibres = smooth_noise(rng, ys * 5, xs, 0.12, 2) + smooth_noise(rng, ys, xs * 5, 0.12, 2)
    spots = smooth_noise(rng, ys, xs, 0.03, 2)
    grained: np.ndarray = rgb * (1 + grain * (0.6 * fibres + spots))[..., None]
    return grained.astype(np.float32)


def _bokeh(
    colours: tuple[Rgb, ...], ys: Float32[np.ndarray, " h"], xs: Float32[np.ndarray, " w"], rng: np.random.Generator
) -> Float32[np.ndarray, "h w 3"]:
    """Soft discs of light out of focus over a slow gradient."""
    rgb = _mix(colours[0], colours[1 % len(colours)], smoothstep(0.5 + smooth_noise(rng, ys, xs, 0.9, 1)))
    for _ in range(int(rng.integers(4, 12))):
        cy, cx, radius = rng.uniform(0, 1), rng.uniform(0, float(xs[-1])), rng.uniform(0.03, 0.16)
        distance = np.sqrt((ys[:, None] - cy) ** 2 + (xs[None] - cx) ** 2)
        glow = smoothstep((radius - distance) / 0.02 + 0.5) * np.float32(rng.uniform(0.1, 0.5))
        colour = np.asarray(colours[int(rng.integers(len(colours)))], np.float32)
        rgb = rgb + (colour - rgb) * glow[..., None]
    return rgb


def _hills(
    backdrop: Backdrop, ys: Float32[np.ndarray, " h"], xs: Float32[np.ndarray, " w"], rng: np.random.Generator
) -> list[Plate]:
    """A sky with a low sun and haze, then ridges that grow darker and faster towards the viewer."""
    sky, haze, *ridges = backdrop.palette
    rgb = _mix(sky, haze, smoothstep(ys / 0.75)[:, None] + 0 * xs[None])
    sun = np.exp(-((ys[:, None] - 0.42) ** 2 + (xs[None] - 0.68 * xs[-1]) ** 2) / 0.06).astype(np.float32)
    rgb = rgb + np.float32(0.14) * sun[..., None] * np.array([1.0, 0.9, 0.65], np.float32)
    clouds = smoothstep(smooth_noise(rng, ys * 3, xs, 0.7) - 0.1) * smoothstep(1 - ys / 0.6)[:, None]
    rgb = rgb + np.float32(0.18) * clouds[..., None] * (1 - rgb)
    plates = [Plate(_grained(rgb, 0.4 * backdrop.grain, ys, xs, rng), None, 0.3)]
    for depth, colour in enumerate(ridges):
        near = (depth + 1) / len(ridges)
        base = 0.45 + 0.45 * depth / max(1, len(ridges) - 1) ** 0.9
        crest = base + (0.10 - 0.03 * near) * smooth_noise(rng, np.zeros(1, np.float32), xs, 0.8 - 0.3 * near, 3)[0]
        below = ys[:, None] - crest[None]
        alpha = np.clip(0.5 + below * len(ys) / (1 + 2 * MARGIN), 0, 1).astype(np.float32)
        # Light catches the crest; haze gathers at the foot of the far ridges.
        tone = _mix(colour, haze, np.clip(below / 0.45, 0, 1) * np.float32(0.45 * (1 - near)))
        lit = tone * (1 + 0.22 * np.exp(-np.clip(below, 0, None) / 0.03) - 0.25 * smoothstep(below / 0.5))[..., None]
        plates.append(Plate(_grained(lit, backdrop.grain, ys, xs, rng), alpha, 0.3 + 0.7 * near))
    return plates


def _shifted(plate: np.ndarray, dy: float, dx: float, height: int, width: int) -> np.ndarray:
    """The picture-sized window of a plate, moved by a fraction of a pixel (bilinear)."""
    pad_y, pad_x = (plate.shape[0] - height) // 2, (plate.shape[1] - width) // 2
    y = np.clip(pad_y + dy, 0, plate.shape[0] - height - 1.001)
    x = np.clip(pad_x + dx, 0, plate.shape[1] - width - 1.001)
    y0, x0 = int(y), int(x)
    fy, fx = np.float32(y - y0), np.float32(x - x0)
    rows = plate[y0 : y0 + height] * (1 - fy) + plate[y0 + 1 : y0 + height + 1] * fy
    return rows[:, x0 : x0 + width] * (1 - fx) + rows[:, x0 + 1 : x0 + width + 1] * fx


def render_backdrop(
    plates: list[Plate], backdrop: Backdrop, time_s: float, height: int, width: int
) -> Float32[np.ndarray, "h w 3"]:
    """The backdrop at one moment, linear in [0, 1] up to highlights."""
    picture = np.zeros((height, width, 3), np.float32)
    for plate in plates:
        dy, dx = (way * time_s * height * plate.parallax for way in backdrop.drift)
        rgb = _shifted(plate.rgb, dy, dx, height, width)
        if plate.alpha is None:
            picture = rgb
        else:
            alpha = _shifted(plate.alpha, dy, dx, height, width)
            picture = picture + (rgb - picture) * alpha[..., None]
    return picture
