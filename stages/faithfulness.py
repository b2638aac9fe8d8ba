"""How faithful a map is to the box: insertion, deletion, removal gain, average drop (docs/method.md, 1 and 5).

In: a map (t, y, x) of one clip, on any grid. Out: a MaskBatch of grids that the score stage answers like any other,
and, from its answers, numbers. Nothing is rendered here. Ties of a map are broken by a fixed random order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.special import softmax

from stages.estimators import regression_targets
from stages.masks import Grid
from stages.records import ClipId, MaskBatch, Scores, expect
from stages.regrid import regrid

Layout = Literal["joint", "space", "time", "blocks", "tubes"]

RANKED_SIDE = 16
BLOCK_SIDE = 8
FRAMES_PER_BLOCK = 4
STEPS = 128
REMOVED_SHARE = 0.2  # Q of the undesirable-removal gain
REMOVAL_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Units of a clip are restored to the substrate (`adds`), or replaced in it, by rank, up to the share `reach`.

    joint: 16 x 16 cells of every frame; space: 16 x 16 cells through all frames; time: whole frames; blocks: 8 x 8
    cells of four frames; tubes: 16 x 16 cells of four frames. Blocks and tubes have soft edges in time: scattered
    holes of single voxels destroy any clip, whatever the map says.
    """

    layout: Layout
    adds: bool
    steps: int = STEPS
    reach: float = 1.0


CURVES: Mapping[str, Curve] = {
    "insertion": Curve(layout="joint", adds=True),
    "deletion": Curve(layout="joint", adds=False),
    "insertion_space": Curve(layout="space", adds=True),
    "deletion_space": Curve(layout="space", adds=False),
    "insertion_time": Curve(layout="time", adds=True),
    "deletion_time": Curve(layout="time", adds=False),
    "block_deletion": Curve(layout="blocks", adds=False),
}
REMOVAL = Curve(layout="tubes", adds=False, steps=REMOVAL_STEPS, reach=REMOVED_SHARE)


def curves_for(num_frames: int, steps: int = STEPS) -> dict[str, Curve]:
    """The curves that say something about a clip of this length, with this many steps: a picture has none in time."""
    curves = {name: replace(curve, steps=steps) for name, curve in CURVES.items()}
    if num_frames > 1:
        return curves
    return {name: curve for name, curve in curves.items() if curve.layout in ("joint", "blocks")}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalGain:
    """Undesirable-removal gain: the mean change of p and of the log-odds while the top of a map is removed.

    `log_odds` = `z_t` + `others`: what the target's score gains, and what others lose (docs/method.md, eq. 1).
    `flips`: the target was not the first answer and became it for some share removed; None where it was the first.
    """

    prob: float
    log_odds: float
    z_t: float
    others: float
    flips: bool | None


def unit_grid(layout: Layout, shape: tuple[int, int, int]) -> Grid:
    """The units that a layout ranks in a clip of this shape (t, y, x)."""
    t, h, w = shape
    blocks = -(-t // FRAMES_PER_BLOCK)
    ranked = min(RANKED_SIDE, h), min(RANKED_SIDE, w)
    grids: Mapping[Layout, Grid] = {
        "joint": (t, *ranked),
        "space": (1, *ranked),
        "time": (t, 1, 1),
        "blocks": (blocks, min(BLOCK_SIDE, h), min(BLOCK_SIDE, w)),
        "tubes": (blocks, *ranked),
    }
    return grids[layout]


def rank_units(values: Float[np.ndarray, "t y x"], grid: Grid) -> Int64[np.ndarray, " u"]:
    """The rank of every unit, 0 for the largest value; ties are broken by a fixed random order."""
    found = regrid(values, grid).ravel()
    # Rounding must not decide: what is equal to nine digits is a tie.
    scale = float(np.abs(found).max()) or 1.0
    order = np.lexsort((np.random.default_rng(0).permutation(found.size), -np.round(found / scale, 9)))
    ranks = np.empty(found.size, np.int64)
    ranks[order] = np.arange(found.size)
    return ranks


def curve_masks(
    values: Float[np.ndarray, "t y x"], clip_id: ClipId, shape: tuple[int, int, int], curve: Curve
) -> MaskBatch:
    """The masks of a map's curve for a clip of `shape` (t, y, x): from nothing changed up to `reach` of all units."""
    grid = unit_grid(curve.layout, shape)
    ranks = rank_units(values, grid)
    counts = np.unique(np.round(np.linspace(0, curve.reach, curve.steps + 1) * len(ranks)).astype(np.int64))
    is_chosen = ranks[None] < counts[:, None]
    keep = is_chosen if curve.adds else ~is_chosen
    grids = np.where(keep, 255, 0).astype(np.uint8).reshape(len(counts), *grid)
    return MaskBatch(clip_id=clip_id, round_idx=0, ids=np.arange(len(counts)), grids=grids)


def untouched(clip_id: ClipId) -> MaskBatch:
    """One mask that replaces nothing: what the box says of the clip as it is."""
    return MaskBatch(clip_id=clip_id, round_idx=0, ids=np.arange(1), grids=np.full((1, 1, 1, 1), 255, np.uint8))


def map_mask(values: Float[np.ndarray, "t y x"], clip_id: ClipId) -> MaskBatch:
    """One mask: the map itself, its positive part scaled to [0, 1]; what average drop asks about."""
    positive = np.clip(values, 0, None)
    scaled = positive / max(float(positive.max()), 1e-300)
    grids = np.round(255 * scaled).astype(np.uint8)[None]
    return MaskBatch(clip_id=clip_id, round_idx=0, ids=np.arange(1), grids=grids)


def changed_share(masks: MaskBatch, curve: Curve) -> Float64[np.ndarray, " n"]:
    """The x axis of a curve: the share of the units that each mask restored or replaced."""
    assert masks.grids is not None
    kept = masks.grids.reshape(len(masks), -1).mean(1) / 255
    return np.asarray(kept if curve.adds else 1 - kept)


def target_probability(scores: Scores, target: int) -> Float64[np.ndarray, " n"]:
    """p of one class for every mask."""
    return np.asarray(softmax(scores.values.astype(np.float64), axis=1)[:, target])


def normalised_auc(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Area under y(x) by trapezoids over the width of x: the mean height of the curve."""
    expect(len(x) == len(y) > 1, "normalised_auc", "x and y must have one length of at least two")
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def curve_auc(masks: MaskBatch, scores: Scores, target: int, curve: Curve) -> float:
    """The normalised area under the target's p along a curve."""
    return normalised_auc(changed_share(masks, curve), target_probability(scores, target))


def removal_gain(masks: MaskBatch, scores: Scores, target: int, curve: Curve = REMOVAL) -> RemovalGain:
    """URG = 1/Q * integral_0^Q [g(top q of the map removed) - g(x)] dq (docs/method.md, 1). Row 0 is untouched."""
    x = changed_share(masks, curve)
    outputs = regression_targets(scores.values.astype(np.float64), target)
    prob = target_probability(scores, target)
    z_t, lse_n, log_odds = (normalised_auc(x, outputs[:, o] - outputs[0, o]) for o in range(3))
    is_first = scores.values.argmax(1) == target
    return RemovalGain(
        prob=normalised_auc(x, prob - prob[0]),
        log_odds=log_odds,
        z_t=z_t,
        others=-lse_n,
        flips=None if is_first[0] else bool(is_first.any()),
    )


def average_drop(before: float, after: float) -> float:
    """The share of p that is lost when only the map is shown, 0 where nothing is lost (Chattopadhay et al. 2018)."""
    return max(0.0, before - after) / max(before, 1e-300)
