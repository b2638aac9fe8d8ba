"""The objects of the demo: shapes as signed distances, motions as functions of time."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from stages.demo.backdrop import Rgb, smoothstep

Distance = Float32[np.ndarray, "t h w"]

# Every shape of radius 1 lies within this circle, and all have about the same area.
REACH = 1.4


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """A shape with a motion. Lengths are in picture heights, (y, x) from the top left corner, angles in radians.

    `extent` is the way to either side (sliding, bobbing) or the relative change of size (pulsing). `stay_s` is the
    span in which the object is there; it grows out of and into a point within `ramp_s`. `opacity` under 1 lets the
    backdrop through.
    """

    shape: str
    motion: str
    y: float
    x: float
    radius: float
    colour: Rgb
    accent: Rgb
    period_s: float
    extent: float = 0.25
    phase: float = 0.0
    angle: float = 0.0
    opacity: float = 1.0
    stay_s: tuple[float, float] | None = None
    ramp_s: float = 0.6

    @property
    def label(self) -> str:
        """The class: motion and shape."""
        return f"{self.motion} {self.shape}"


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Where an object is, frame by frame."""

    y: Float64[np.ndarray, " t"]
    x: Float64[np.ndarray, " t"]
    radius: Float64[np.ndarray, " t"]
    angle: Float64[np.ndarray, " t"]


def pose(thing: SceneObject, times_s: Float64[np.ndarray, " t"]) -> Pose:
    """The pose of an object at the given times."""
    turn = 2 * np.pi * times_s / thing.period_s + thing.phase
    still = np.zeros_like(times_s)
    swing = thing.extent * np.sin(turn)
    radius = thing.radius * (1 + (swing if thing.motion == "pulsing" else still))
    if thing.stay_s is not None:
        start, stop = thing.stay_s
        radius = radius * smoothstep((times_s - start) / thing.ramp_s) * smoothstep((stop - times_s) / thing.ramp_s)
    return Pose(
        y=thing.y + (swing if thing.motion == "bobbing" else still),
        x=thing.x + (swing if thing.motion == "sliding" else still),
        radius=radius,
        angle=thing.angle + (turn if thing.motion == "spinning" else still),
    )


def _disc(v: Distance, u: Distance) -> Distance:
    distance: Distance = np.sqrt(u * u + v * v) - np.float32(0.95)
    return distance


def _square(v: Distance, u: Distance) -> Distance:
    qx, qy = np.abs(u) - np.float32(0.74), np.abs(v) - np.float32(0.74)
    outside = np.sqrt(np.square(np.maximum(qx, 0)) + np.square(np.maximum(qy, 0)))
    distance: Distance = outside + np.minimum(np.maximum(qx, qy), 0) - np.float32(0.06)
    return distance


def _triangle(v: Distance, u: Distance) -> Distance:
    # Three half-planes and a circle that blunts the tips, so that shadows end there.
    c, s = np.float32(np.cos(np.pi / 6)), np.float32(np.sin(np.pi / 6))
    edges = np.maximum(v, np.abs(u) * c - v * s) - np.float32(0.68)
    distance: Distance = np.maximum(edges, np.sqrt(u * u + v * v) - np.float32(1.33))
    return distance


def _star(v: Distance, u: Distance) -> Distance:
    # Fold the plane into one tenth; there the edge is a straight line from a tip to the valley beside it.
    sector = np.float32(np.pi / 5)
    theta = np.arctan2(u, -v)
    folded = np.abs(np.mod(theta + sector, 2 * sector) - sector)
    r = np.sqrt(u * u + v * v)
    py, px = r * np.cos(folded), r * np.sin(folded)
    tip, valley = 1.3, 0.62
    ey, ex = valley * np.cos(sector) - tip, valley * np.sin(sector)
    length = np.hypot(ey, ex)
    edge = px * np.float32(-ey / length) + (py - np.float32(tip)) * np.float32(ex / length)
    distance: Distance = np.maximum(edge, r - np.float32(tip - 0.04))
    return distance


DISTANCES = {"disc": _disc, "square": _square, "triangle": _triangle, "star": _star}


def local_frame(
    thing_pose: Pose, ys: Float32[np.ndarray, " h"], xs: Float32[np.ndarray, " w"]
) -> tuple[Distance, Distance, Float32[np.ndarray, "t 1 1"]]:
    """(v, u) of every pixel in the turned frame of the object with radius 1, and the radius."""
    radius = np.maximum(thing_pose.radius, 1e-4).astype(np.float32)[:, None, None]
    cos = np.cos(thing_pose.angle).astype(np.float32)[:, None, None] / radius
    sin = np.sin(thing_pose.angle).astype(np.float32)[:, None, None] / radius
    dy = ys[None, :, None] - thing_pose.y.astype(np.float32)[:, None, None]
    dx = xs[None, None, :] - thing_pose.x.astype(np.float32)[:, None, None]
    return dy * cos - dx * sin, dx * cos + dy * sin, radius
