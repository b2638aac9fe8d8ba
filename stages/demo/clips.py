"""The clips of the demo: the shipped one with its truth, and fresh random ones for training and benchmarks."""

import colorsys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from stages.demo.backdrop import BACKDROPS, Backdrop, Rgb
from stages.demo.network import DEMO_SPEC, LABELS, MOTIONS, SHAPES
from stages.demo.scene import Scene, SceneObject, SceneSpec, Shade, render_scene

DEMO_VIDEO = Path(__file__).with_name("demo.mp4")
DEMO_FPS = 25.0

# The shipped clip: who it shows, and the part (seconds) in which the rival makes the model name the wrong object.
PROTAGONIST = "spinning star"
RIVAL = "pulsing disc"
RIVAL_STAY_S = (3.2, 7.2)
FOOLED_S = (3.6, 6.9)

# Radii in picture heights; a rival is clearly smaller than the protagonist, or about as large and faint.
RADIUS = (0.15, 0.22)
RIVAL_SCALE = (0.45, 0.75)


def _rgb(code: str) -> Rgb:
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def demo_clip() -> SceneSpec:
    """The spec of the shipped clip: 10 s of 384 x 288 at 25 frames a second.

    A star spins all the time. In the middle a disc comes, pulses beside it in bright colours, and goes, while the
    shadow of a cloud lies on the star.
    """
    star = SceneObject(
        shape="star",
        motion="spinning",
        y=0.47,
        x=0.46,
        radius=0.19,
        colour=_rgb("#f6c453"),
        accent=_rgb("#e8743b"),
        period_s=2.4,
    )
    disc = SceneObject(
        shape="disc",
        motion="pulsing",
        y=0.63,
        x=1.0,
        radius=0.16,
        colour=_rgb("#ff9bb3"),
        accent=_rgb("#d6336c"),
        period_s=1.15,
        extent=0.26,
        stay_s=RIVAL_STAY_S,
    )
    hills = Backdrop(
        kind="hills",
        palette=tuple(_rgb(code) for code in ("#7fb6cf", "#fbe3c0", "#8fb3a6", "#5f9484", "#3d7268", "#24524f")),
        seed=4,
        grain=0.05,
        drift=(0.0015, 0.009),
    )
    cloud = Shade(y=0.40, x=0.42, radius=0.55, depth=0.5, stay_s=(3.4, 7.2))
    return SceneSpec(
        height=288, width=384, num_frames=250, fps=DEMO_FPS, backdrop=hills, objects=(star, disc), shades=(cloud,)
    )


@cache
def demo_scene() -> Scene:
    """The shipped clip, rendered again from its spec (some seconds, once per process)."""
    return render_scene(demo_clip())


@dataclass(frozen=True, slots=True, eq=False)
class DemoTruth:
    """Where the protagonist and its rival are in every frame of the shipped clip."""

    protagonist: Bool[np.ndarray, "t h w"]
    rival: Bool[np.ndarray, "t h w"]


def demo_truth() -> DemoTruth:
    """The true masks of the shipped clip, at its own size."""
    protagonist, rival = demo_scene().masks
    return DemoTruth(protagonist, rival)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RandomClip:
    """A fresh clip: frames, class of the protagonist, class of the rival (None: there is none), and their masks."""

    frames: UInt8[np.ndarray, "t h w 3"]
    target_idx: int
    rival_idx: int | None
    protagonist: Bool[np.ndarray, "t h w"]
    rival: Bool[np.ndarray, "t h w"]


def random_clip(
    seed: int,
    *,
    has_rival: bool | None = None,
    height: int = DEMO_SPEC.height,
    width: int = DEMO_SPEC.width,
    num_frames: int = DEMO_SPEC.clip_len,
    frame_step: int = DEMO_SPEC.frame_step,
) -> RandomClip:
    """A scene drawn from `seed`: any class, any backdrop. `has_rival` None leaves it to chance (3 of 5 have one)."""
    rng = np.random.default_rng([seed, 3])
    spec = random_spec(rng, has_rival=has_rival, height=height, width=width, num_frames=num_frames)
    scene = render_scene(replace(spec, fps=DEMO_FPS / frame_step))
    is_rival = len(spec.objects) > 1 and spec.objects[1].radius > RADIUS[0] * RIVAL_SCALE[0]
    return RandomClip(
        frames=scene.frames,
        target_idx=LABELS.index(scene.labels[0]),
        rival_idx=LABELS.index(scene.labels[1]) if is_rival else None,
        protagonist=scene.masks[0],
        rival=scene.masks[1] if is_rival else np.zeros_like(scene.masks[0]),
    )


def random_spec(
    rng: np.random.Generator, *, has_rival: bool | None, height: int, width: int, num_frames: int
) -> SceneSpec:
    """A random scene: a protagonist, perhaps a rival of another class, perhaps small distractors and a shade."""
    aspect = width / height
    hero = _random_object(rng, int(rng.integers(len(LABELS))), rng.uniform(*RADIUS), aspect)
    others: list[SceneObject] = []
    if has_rival if has_rival is not None else rng.random() < 0.6:
        class_idx = (LABELS.index(hero.label) + int(rng.integers(1, len(LABELS)))) % len(LABELS)
        is_faint = rng.random() < 0.2
        scale = rng.uniform(0.8, 1.0) if is_faint else rng.uniform(*RIVAL_SCALE)
        opacity = rng.uniform(0.3, 0.5) if is_faint else rng.uniform(0.7, 1.0)
        others.append(_beside(rng, [hero], class_idx, hero.radius * scale, aspect, opacity))
    for _ in range(int(rng.choice([0, 0, 0, 1, 2]))):
        others.append(_beside(rng, [hero, *others], int(rng.integers(len(LABELS))), rng.uniform(0.03, 0.05), aspect))
    shades = []
    if rng.random() < 0.3:
        y, x = rng.uniform(0.1, 0.9), rng.uniform(0.1, aspect - 0.1)
        start, stay = rng.uniform(-1, 1), rng.uniform(0.8, 3)
        shade = Shade(
            y=y, x=x, radius=rng.uniform(0.15, 0.5), depth=rng.uniform(0.1, 0.45), stay_s=(start, start + stay)
        )
        shades.append(shade)
    return SceneSpec(
        height=height,
        width=width,
        num_frames=num_frames,
        fps=DEMO_FPS / DEMO_SPEC.frame_step,
        backdrop=_random_backdrop(rng),
        objects=(hero, *others),
        shades=tuple(shades),
        light=rng.uniform(0, 0.3),
    )


def _random_colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Rgb:
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def _random_backdrop(rng: np.random.Generator) -> Backdrop:
    kind = BACKDROPS[int(rng.choice(len(BACKDROPS), p=[0.5, 0.2, 0.08, 0.07, 0.15]))]
    base = rng.uniform(0.15, 0.9)
    palette = [_random_colour(rng, (0, 0.7), (base * 0.6, min(1, base * 1.3))) for _ in range(int(rng.integers(3, 7)))]
    return Backdrop(
        kind=kind,
        palette=tuple(palette),
        seed=int(rng.integers(2**31)),
        grain=rng.uniform(0, 0.12),
        drift=(rng.uniform(-0.015, 0.015), rng.uniform(-0.03, 0.03)),
    )


def _random_object(
    rng: np.random.Generator, class_idx: int, radius: float, aspect: float, opacity: float = 1.0
) -> SceneObject:
    shape, motion = SHAPES[class_idx // len(MOTIONS)], MOTIONS[class_idx % len(MOTIONS)]
    colour = _random_colour(rng, (0.2, 1), (0.3, 1))
    accent = _random_colour(rng, (0, 1), (0.1, 1))
    contrast = rng.uniform(0.35, 1)
    accent = tuple(a + (b - a) * contrast for a, b in zip(colour, accent, strict=True))  # type: ignore[assignment]
    extent = rng.uniform(0.2, 0.32) if motion == "pulsing" else rng.uniform(0.09, 0.22)
    room_y = 0.8 * radius + (extent if motion == "bobbing" else 0)
    room_x = 0.8 * radius + (extent if motion == "sliding" else 0)
    slowest = {"sliding": 2.6, "bobbing": 2.6, "spinning": 3.2, "pulsing": 1.8}[motion]
    period_s = rng.uniform(0.35, 1) * slowest * (rng.choice([-1, 1]) if motion == "spinning" else 1)
    return SceneObject(
        shape=shape,
        motion=motion,
        y=rng.uniform(room_y, max(room_y, 1 - room_y)),
        x=rng.uniform(room_x, max(room_x, aspect - room_x)),
        radius=radius,
        colour=colour,
        accent=accent,
        period_s=period_s,
        extent=extent,
        phase=rng.uniform(0, 2 * np.pi),
        angle=rng.uniform(0, 2 * np.pi),
        opacity=opacity,
    )


def _beside(
    rng: np.random.Generator,
    taken: list[SceneObject],
    class_idx: int,
    radius: float,
    aspect: float,
    opacity: float = 1.0,
) -> SceneObject:
    """A random object that, if there is room, does not lie over the ones that are there."""
    for _ in range(12):
        thing = _random_object(rng, class_idx, radius, aspect, opacity)
        if all(np.hypot(thing.y - other.y, thing.x - other.x) > radius + other.radius + 0.06 for other in taken):
            break
    return thing
