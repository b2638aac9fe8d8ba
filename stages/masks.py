"""Masks: the families of the shared bank, and how a coarse mask is rendered in the model's geometry.

A mask lives on the voxel grid (Gt, Gh, Gw) of the posterior, as uint8 (255 keeps, 0 replaces); what the Gaussian
process sees and what is rendered are the same numbers. After two anchors rows come one by one (UNPAIRED families,
such as the default's) or in pairs, a mask and its complement.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float64, UInt8
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional as F

from stages.designed import greedy_order
from stages.errors import ConfigError
from stages.records import BankSpec, MaskBatch

Grid = tuple[int, int, int]
Field = Float64[np.ndarray, "gt gh gw"]

KEEP_ALL_ROW = 0  # the untouched clip: the reference
REPLACE_ALL_ROW = 1  # the substrate alone
NUM_ANCHORS = 2

MAX_GRID: Grid = (16, 28, 28)
FRAMES_PER_CELL = 2

# Blob length-scales of 20, 35 and 55 px at 224 px (docs/method.md, 3), as shares of the picture's side.
BLOB_SCALES = (20 / 224, 35 / 224, 55 / 224)
BLOB_EDGE_STD = 0.15  # width of the soft edge, in standard deviations of the random field
# A hard edge in time is an event of its own to a model that looks at change (docs/method.md, 3).
MIN_TIME_STD_CELLS = 0.4


def grid_for(shape: tuple[int, int, int]) -> Grid:
    """The voxel grid of a model's input (t, y, x): at most 16 x 28 x 28, never finer than the input."""
    t, h, w = shape
    return min(-(-t // FRAMES_PER_CELL), MAX_GRID[0]), min(h, MAX_GRID[1]), min(w, MAX_GRID[2])


def render_masks(grids: Tensor, shape: tuple[int, int, int]) -> Float[Tensor, "n t h w"]:
    """Bring masks (N Gt Gh Gw, uint8) to `shape` (t, y, x): linear in time, bilinear in space, values in [0, 1]."""
    return spread_masks(grids.float() / 255, shape)


def spread_masks(keep: Float[Tensor, "n gt gh gw"], shape: tuple[int, int, int]) -> Float[Tensor, "n t h w"]:
    """The same for masks that are numbers in [0, 1], with gradients."""
    t, h, w = shape
    n, gt, gh, gw = keep.shape
    if gt != t:
        along_time = keep.permute(0, 2, 3, 1).reshape(n, gh * gw, gt)
        along_time = F.interpolate(along_time, size=t, mode="linear", align_corners=False)
        keep = along_time.reshape(n, gh, gw, t).permute(0, 3, 1, 2)
    return F.interpolate(keep, size=(h, w), mode="bilinear", align_corners=False)


def grids_of(masks: MaskBatch) -> UInt8[np.ndarray, "n gt gh gw"]:
    """The masks of a batch on the grid, from its bank or its own grids."""
    if masks.bank is None:
        assert masks.grids is not None
        return masks.grids
    return np.asarray(build_bank(masks.bank)[masks.ids])


@lru_cache(maxsize=4)
def build_bank(spec: BankSpec) -> UInt8[np.ndarray, "n gt gh gw"]:
    """All masks of a bank; the same recipe gives the same masks in every process, and a larger bank begins with them.

    Raises ConfigError for an unknown family or an empty grid.
    """
    if spec.family not in FAMILIES:
        raise ConfigError(f"mask family {spec.family!r}", "is not known", f"use one of {', '.join(FAMILIES)}")
    if min(spec.grid) < 1 or spec.size < NUM_ANCHORS:
        raise ConfigError("mask bank", f"grid {spec.grid}, size {spec.size} is too small", "use at least two masks")
    bank = np.empty((spec.size, *spec.grid), np.uint8)
    bank[KEEP_ALL_ROW], bank[REPLACE_ALL_ROW] = 255, 0
    step = 1 if spec.family in UNPAIRED else 2
    order = pool_order(spec.family, spec.grid, spec.seed, min(spec.size - NUM_ANCHORS, POOL))
    for row in range(NUM_ANCHORS, spec.size, step):
        idx = (row - NUM_ANCHORS) // step
        bank[row] = draw_mask(spec.family, spec.grid, spec.seed, order[idx] if idx < len(order) else idx)
        if step == 2 and row + 1 < spec.size:
            bank[row + 1] = 255 - bank[row]
    bank.flags.writeable = False
    return bank


def draw_mask(family: str, grid: Grid, seed: int, idx: int) -> UInt8[np.ndarray, "gt gh gw"]:
    """Mask number `idx` of a family; complements are not counted."""
    row = NUM_ANCHORS + idx * (1 if family in UNPAIRED else 2)
    return np.asarray(np.round(FAMILIES[family](np.random.default_rng([seed, row]), grid, idx) * 255), np.uint8)


@lru_cache(maxsize=8)
def pool_order(family: str, grid: Grid, seed: int, num: int) -> tuple[int, ...]:
    """For a family that puts its masks in order: the numbers of the first `num` of them, at most `POOL`.

    The pool does not depend on the size of the bank, so that a larger bank begins with a smaller one.
    """
    if family not in ORDERED:
        return ()
    pool = np.stack([draw_mask(family, grid, seed, idx) for idx in range(POOL)])
    return tuple(greedy_order(pool, num))


def draw_blob(rng: np.random.Generator, grid: Grid, _: int, keep: tuple[float, float] = (0.1, 0.9)) -> Field:
    """A smooth Gaussian random field, thresholded at a random keep-fraction in a range, with a soft edge."""
    return _soft_threshold(_smooth_field(rng, grid, is_static=False), rng.uniform(*keep))


def draw_static_blob(rng: np.random.Generator, grid: Grid, _: int, keep: tuple[float, float] = (0.1, 0.9)) -> Field:
    """A blob that stays in its place through the clip: a tube."""
    return _soft_threshold(_smooth_field(rng, grid, is_static=True), rng.uniform(*keep))


def draw_rise(rng: np.random.Generator, grid: Grid, _: int, keep: float = 0.5) -> Field:
    """RISE-like: random cells (about 7 x 7 in space, 2 frames in time), upsampled linearly at a random shift.

    Petsiuk et al. 2018, section 3.2, with time as a third axis.
    """
    return _random_cells(rng, grid, (grid[0], min(7, grid[1]), min(7, grid[2])), keep, is_aligned_in_time=True)


def draw_rise_3d(rng: np.random.Generator, grid: Grid, _: int) -> Field:
    """RISE-3D as docs/method.md (4) compares with: cells 4 x 7 x 7, keep-fraction 1/2 (`rise-single`: no complements).

    With complements every voxel is kept equally often, and RISE ranks as centred RISE does.
    """
    return _random_cells(rng, grid, (min(4, grid[0]), min(7, grid[1]), min(7, grid[2])), 0.5)


def draw_rise_sparse(rng: np.random.Generator, grid: Grid, _: int) -> Field:
    """The masks of BOREx's initial map: cells 4 x 8 x 8, keep-fraction .3, without complements."""
    return _random_cells(rng, grid, (min(4, grid[0]), min(8, grid[1]), min(8, grid[2])), 0.3)


def draw_static_cells(rng: np.random.Generator, grid: Grid, _: int) -> Field:
    """RISE-like cells that stay through the clip, at one of three scales: static tubes and cuboids."""
    side = int(rng.choice([4, 7, 10]))
    return _random_cells(rng, grid, (1, min(side, grid[1]), min(side, grid[2])), float(rng.uniform(0.3, 0.7)))


def draw_slab(rng: np.random.Generator, grid: Grid, _: int) -> Field:
    """Whole frames kept or replaced, softly in time: what speaks about *when* alone."""
    if grid[0] == 1:
        return draw_rise(rng, grid, 0)
    field = gaussian_filter1d(rng.standard_normal(grid[0]), max(1.0, grid[0] / rng.choice([6, 10])), mode="reflect")
    return np.broadcast_to(_soft_threshold(field, rng.uniform(0.2, 0.8))[:, None, None], grid)


def draw_candidate(rng: np.random.Generator, grid: Grid, idx: int) -> Field:
    """What the default chooses from: the cells of RISE-3D, blobs and static blobs that keep about half."""
    if idx % 2 == 0:
        return draw_rise_3d(rng, grid, idx)
    return (draw_blob if idx % 4 == 1 else draw_static_blob)(rng, grid, idx, keep=(0.3, 0.7))


def draw_mixture(rng: np.random.Generator, grid: Grid, pair: int) -> Field:
    """Blobs, cells, static tubes and slabs in turn, so that every prefix of the bank holds them all."""
    return IN_TURN[pair % len(IN_TURN)](rng, grid, pair)


def draw_occlusion(_: np.random.Generator, grid: Grid, pair: int) -> Field:
    """Sliding window: a cuboid of about a quarter of each side is replaced, at evenly spread positions."""
    size = [max(1, round(side / 4)) for side in grid]
    # The additive recurrence of the plastic number's 3-D sibling covers the box evenly for every prefix.
    position = (0.5 + (pair + 1) * np.array([0.8191725134, 0.6710436067, 0.5497004779])) % 1.0
    keep = np.ones(grid)
    start = [round(u * (side - s)) for u, side, s in zip(position, grid, size, strict=True)]
    keep[tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))] = 0.0
    return _soften_time(keep)


IN_TURN: tuple[Callable[[np.random.Generator, Grid, int], Field], ...] = (
    draw_blob,
    draw_rise,
    draw_static_blob,
    draw_blob,
    draw_static_cells,
    draw_rise,
    draw_slab,
    draw_blob,
)

FAMILIES: dict[str, Callable[[np.random.Generator, Grid, int], Field]] = {
    "designed": draw_candidate,
    "mixture": draw_mixture,
    "blobs": draw_blob,
    "cells": draw_rise,
    "rise": draw_rise_3d,
    "rise-single": draw_rise_3d,
    "static": draw_static_cells,
    "occlusion": draw_occlusion,
    "rise-sparse": draw_rise_sparse,
}
# Families whose masks come alone; of all others every second mask is the complement of the one before.
UNPAIRED = {"designed", "rise-sparse", "rise-single"}
# Families whose first masks are put in the order in which they tell most (`designed.py`), and how many those are.
ORDERED = {"designed"}
POOL = 512


def _smooth_field(rng: np.random.Generator, grid: Grid, *, is_static: bool) -> Field:
    scale = float(rng.choice(BLOB_SCALES))
    field = rng.standard_normal((1 if is_static else grid[0], *grid[1:]))
    for axis, side in ((1, grid[1]), (2, grid[2])):
        field = gaussian_filter1d(field, max(scale * side, 0.5), axis=axis, mode="reflect")
    if field.shape[0] > 1:
        std = max(MIN_TIME_STD_CELLS, grid[0] * float(rng.choice([0.05, 0.12, 0.25])))
        field = gaussian_filter1d(field, std, axis=0, mode="reflect")
    return np.broadcast_to(field, grid)


def _soft_threshold(field: np.ndarray, keep: float) -> np.ndarray:
    """Keep the top `keep` share of a field, with an edge BLOB_EDGE_STD wide."""
    std = field.std()
    if std < 1e-12:  # a single cell: there is nothing to threshold
        return np.full(field.shape, keep)
    level = np.quantile(field, 1 - keep)
    return np.asarray(np.clip((field - level) / (BLOB_EDGE_STD * std) / 2 + 0.5, 0, 1))


def _random_cells(
    rng: np.random.Generator, grid: Grid, cells: Grid, keep: float, *, is_aligned_in_time: bool = False
) -> Field:
    """Binary cells, upsampled linearly along each axis at a random sub-cell shift."""
    field = (rng.random([c + 1 if c > 1 or g > 1 else 1 for c, g in zip(cells, grid, strict=True)]) < keep).astype(
        float
    )
    if cells[0] == 1:
        field = np.repeat(field[:1], field.shape[0], axis=0)
    for axis, (c, g) in enumerate(zip(cells, grid, strict=True)):
        if field.shape[axis] == 1:
            field = np.repeat(field, g, axis=axis)
            continue
        at = np.clip(
            (np.arange(g) + 0.5) / g * c - 0.5 + (0.5 if axis == 0 and is_aligned_in_time else rng.random()), 0, c
        )
        low = np.minimum(at.astype(int), c - 1)
        weight = np.reshape(at - low, [-1 if a == axis else 1 for a in range(3)])
        field = (1 - weight) * np.take(field, low, axis=axis) + weight * np.take(field, low + 1, axis=axis)
    return field


def soft_set(field: Field, keep: float) -> Field:
    """The top `keep` share of a field as a mask like those of the bank: soft edges, softest in time."""
    return _soft_threshold(_soften_time(field), keep)


def _soften_time(keep: Field) -> Field:
    return gaussian_filter1d(keep, MIN_TIME_STD_CELLS, axis=0, mode="nearest") if keep.shape[0] > 1 else keep
