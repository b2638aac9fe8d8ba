"""The scene generator: objects with a shape and a motion over a textured backdrop, with exact masks, from a spec."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from stages.demo.backdrop import Backdrop, Rgb, make_plates, render_backdrop, smooth_noise, smoothstep
from stages.demo.shapes import DISTANCES, REACH, Pose, SceneObject, local_frame, pose

SHADOW_OFFSET = (0.045, 0.03)  # y, x in picture heights: the light comes from the upper left
SHADOW_SOFTNESS = 0.05
SHADOW_DEPTH = 0.38
BLADES = 3
BORDER = 0.15  # of the radius: objects look like stickers
BORDER_COLOUR = (0.98, 0.96, 0.92)
PIXELS_AT_ONCE = 1_500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shade:
    """The shadow of a passing cloud: darkens a round patch by `depth` while it stays."""

    y: float
    x: float
    radius: float
    depth: float
    stay_s: tuple[float, float]
    ramp_s: float = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec:
    """Everything a scene is made of; the same spec gives the same pixels. The first object is the protagonist."""

    height: int
    width: int
    num_frames: int
    fps: float
    backdrop: Backdrop
    objects: tuple[SceneObject, ...]
    shades: tuple[Shade, ...] = ()
    light: float = 0.18  # strength of the soft light field and of the vignette
    start_s: float = 0.0

    @property
    def times_s(self) -> Float64[np.ndarray, " t"]:
        """The moment of every frame."""
        return self.start_s + np.arange(self.num_frames) / self.fps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A rendered scene: RGB frames, and for every object of the spec where it is seen (coverage over one half)."""

    spec: SceneSpec
    frames: UInt8[np.ndarray, "t h w 3"]
    masks: Bool[np.ndarray, "o t h w"]

    @property
    def labels(self) -> tuple[str, ...]:
        """The class of every object."""
        return tuple(thing.label for thing in self.spec.objects)


@dataclass(frozen=True, slots=True, eq=False)
class _Painted:
    """One object over a chunk of frames: its window in the picture, colour, coverage and shadow."""

    window: tuple[slice, slice]
    rgb: Float32[np.ndarray, "t h w 3"]
    alpha: Float32[np.ndarray, "t h w"]
    coverage: Float32[np.ndarray, "t h w"]
    shadow: Float32[np.ndarray, "t h w"]


def render_scene(spec: SceneSpec) -> Scene:
    """Render a scene, a chunk of frames at a time. About 5 ms for 16 frames of 96 x 72, 8 s for the demo's clip."""
    plates = make_plates(spec.backdrop, spec.height, spec.width)
    light = _light_field(spec)
    frames = np.empty((spec.num_frames, spec.height, spec.width, 3), np.uint8)
    masks = np.zeros((len(spec.objects), spec.num_frames, spec.height, spec.width), bool)
    chunk = max(1, PIXELS_AT_ONCE // (spec.height * spec.width))
    for start in range(0, spec.num_frames, chunk):
        times_s = spec.times_s[start : start + chunk]
        here = slice(start, start + len(times_s))
        picture = np.stack(
            [render_backdrop(plates, spec.backdrop, float(at), spec.height, spec.width) for at in times_s]
        )
        painted = [_paint(spec, thing, times_s) for thing in spec.objects]
        for item in painted:
            _lay_over(picture, item)
        _write_masks(masks[:, here], painted)
        _darken(picture, spec, times_s)
        frames[here] = (np.clip(picture * light[None, ..., None], 0, 1) * 255 + 0.5).astype(np.uint8)
    return Scene(spec=spec, frames=frames, masks=masks)


def _light_field(spec: SceneSpec) -> Float32[np.ndarray, "h w"]:
    """Soft light from the upper left and a gentle vignette, as one factor per pixel."""
    ys = ((np.arange(spec.height) + 0.5) / spec.height).astype(np.float32)
    xs = ((np.arange(spec.width) + 0.5) / spec.height).astype(np.float32)
    aspect = spec.width / spec.height
    patches = smooth_noise(np.random.default_rng([spec.backdrop.seed, 11]), ys, xs, 0.9, 1)
    fall = (ys[:, None] - 0.5) + (xs[None] / aspect - 0.5)
    rim = np.square(ys[:, None] - 0.5) + np.square(xs[None] / aspect - 0.5)
    field: np.ndarray = 1 + spec.light * (0.25 * patches - 0.35 * fall - 1.1 * np.clip(rim - 0.12, 0, None))
    return field.astype(np.float32)


def _darken(picture: Float32[np.ndarray, "t h w 3"], spec: SceneSpec, times_s: Float64[np.ndarray, " t"]) -> None:
    ys = ((np.arange(spec.height) + 0.5) / spec.height).astype(np.float32)
    xs = ((np.arange(spec.width) + 0.5) / spec.height).astype(np.float32)
    for shade in spec.shades:
        start, stop = shade.stay_s
        envelope = smoothstep((times_s - start) / shade.ramp_s) * smoothstep((stop - times_s) / shade.ramp_s)
        if not envelope.any():
            continue
        squared = ((ys[:, None] - shade.y) ** 2 + (xs[None] - shade.x) ** 2) / shade.radius**2
        patch = np.float32(shade.depth) * np.exp(-squared * squared)
        picture *= 1 - envelope.astype(np.float32)[:, None, None, None] * patch[None, ..., None]


def _window(spec: SceneSpec, where: Pose) -> tuple[slice, slice]:
    """The part of the picture that an object and its shadow can touch in these frames; at least one pixel."""
    reach = REACH * where.radius + 3 * SHADOW_SOFTNESS + 2 / spec.height
    sides = []
    for centre, offset, size in (
        (where.y, SHADOW_OFFSET[0], spec.height),
        (where.x, SHADOW_OFFSET[1], spec.width),
    ):
        low = int(np.clip(np.floor((centre - reach).min() * spec.height), 0, size - 1))
        high = int(np.clip(np.ceil((centre + reach + offset).max() * spec.height), low + 1, size))
        sides.append(slice(low, high))
    return sides[0], sides[1]


def _paint(spec: SceneSpec, thing: SceneObject, times_s: Float64[np.ndarray, " t"]) -> _Painted:
    """Shade one object: pinwheel of two colours, light border, light from the upper left, soft shadow."""
    where = pose(thing, times_s)
    window = _window(spec, where)
    ys = ((np.arange(spec.height)[window[0]] + 0.5) / spec.height).astype(np.float32)
    xs = ((np.arange(spec.width)[window[1]] + 0.5) / spec.height).astype(np.float32)
    v, u, radius = local_frame(where, ys, xs)
    distance = DISTANCES[thing.shape](v, u) * radius  # in picture heights, negative inside
    is_there = (where.radius > 2e-3)[:, None, None]
    coverage = np.clip(0.5 - distance * spec.height, 0, 1) * is_there
    shadow = _shadow(thing, where, ys, xs) * is_there

    r = np.sqrt(u * u + v * v)
    wave = np.sin(BLADES * (np.arctan2(v, u) + 0.7 * r))
    blades = np.clip(0.5 + wave * r * radius * (spec.height / BLADES), 0, 1) * smoothstep((r - 0.1) * 12)
    first, second = np.asarray(thing.colour, np.float32), np.asarray(thing.accent, np.float32)
    rgb = first + (second - first) * blades[..., None]
    dy = ys[None, :, None] - where.y.astype(np.float32)[:, None, None]
    dx = xs[None, None, :] - where.x.astype(np.float32)[:, None, None]
    shine = 1.0 - np.clip((dy + dx) / radius, -2, 2) * np.float32(0.08)
    border = np.clip(0.5 + (distance + BORDER * radius) * spec.height, 0, 1)
    rgb = rgb + (np.array(BORDER_COLOUR, np.float32) - rgb) * border[..., None]
    rgb = rgb * shine[..., None]
    return _Painted(window, rgb, coverage * np.float32(thing.opacity), coverage, shadow)


def _shadow(
    thing: SceneObject, where: Pose, ys: Float32[np.ndarray, " h"], xs: Float32[np.ndarray, " w"]
) -> Float32[np.ndarray, "t h w"]:
    moved = Pose(where.y + SHADOW_OFFSET[0], where.x + SHADOW_OFFSET[1], where.radius, where.angle)
    v, u, radius = local_frame(moved, ys, xs)
    distance = DISTANCES[thing.shape](v, u) * radius
    depth = np.float32(SHADOW_DEPTH * thing.opacity) * np.clip(radius / 0.1, 0, 1)
    shadow: np.ndarray = depth * smoothstep(0.5 - distance / np.float32(2 * SHADOW_SOFTNESS))
    return shadow


def _lay_over(picture: Float32[np.ndarray, "t h w 3"], item: _Painted) -> None:
    view = picture[:, item.window[0], item.window[1]]
    view *= 1 - item.shadow[..., None]
    view += (item.rgb - view) * item.alpha[..., None]


def _write_masks(masks: Bool[np.ndarray, "o t h w"], painted: list[_Painted]) -> None:
    """An object is seen where it covers more than half of a pixel and no later object does."""
    for idx, item in enumerate(painted):
        inside = item.coverage > 0.5
        masks[idx][:, item.window[0], item.window[1]] = inside
        for earlier in masks[:idx]:
            earlier[:, item.window[0], item.window[1]] &= ~inside


__all__ = ["Backdrop", "Rgb", "Scene", "SceneObject", "SceneSpec", "Shade", "render_scene"]
