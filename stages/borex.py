"""BOREx as published (docs/method.md, 2): Bayesian optimisation over windows, from an initial map.

In: the answers so far. Out: the next windows to ask about, or the refined map. Kikuchi et al., arXiv 2210.17130.
Lengths are in pixels of a picture 224 px wide, as in the paper; time is measured in 224ths of the clip. Nothing is
remembered between rounds: a window's place in the lattice of all windows is its mask's id, jitter comes from the seed.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import map_coordinates, uniform_filter1d
from scipy.special import expit

from stages.masks import NUM_ANCHORS, Grid
from stages.records import ClipId
from stages.regrid import regrid
from stages.seeds import clip_rng
from stages.window_gp import fit_lengthscales, matern32_at

SIDE_PX = 224.0
HALF_SIZES_PX = (30.0, 45.0, 60.0, 75.0)
HALF_SPANS = (SIDE_PX / 8, SIDE_PX / 4, SIDE_PX / 2)
# Positions of windows along each side: half a cell of the masks apart for pictures, two cells for videos.
NUM_POSITIONS, NUM_VIDEO_POSITIONS = 56, 14
SQUASHING = 10.0  # y = 2 sigmoid(10 d) - 1
PRIOR_MEAN = 0.1  # of |h|
EXPLORATION = 10.0  # standard deviations in the upper confidence bound
NOISE_VAR = 0.01
JITTER_PX, SIZE_JITTER_PX = 1.0, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The lattice of all windows: axes (r, c, s) of a picture, (t, r, c, s_t, s_y, s_x) of a video."""

    grid: Grid
    axes: tuple[Float64[np.ndarray, " _"], ...]

    @property
    def is_video(self) -> bool:
        """Whether windows are cuboids."""
        return len(self.axes) == 6

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values along every axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def places(self) -> tuple[int, ...]:
        """Number of positions along the axes of place alone."""
        return self.shape[: 3 if self.is_video else 2]

    def points(self, indices: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n d"]:
        """The coordinates of windows."""
        at = np.unravel_index(indices, self.shape)
        return np.column_stack([axis[i] for axis, i in zip(self.axes, at, strict=True)])

    def keep(self, index: int) -> UInt8[np.ndarray, "gt gh gw"]:
        """The mask that keeps one window alone: the share of every cell that lies inside it, 255 for all."""
        point = self.points(np.array([index]))[0]
        centres, halves = (
            (point[:3], point[3:]) if self.is_video else ([SIDE_PX / 2, *point[:2]], [np.inf, *[point[2]] * 2])
        )
        shares = [_inside(c - s, c + s, cells) for c, s, cells in zip(centres, halves, self.grid, strict=True)]
        return np.round(255 * reduce(np.multiply.outer, shares)).astype(np.uint8)


def windows_of(grid: Grid) -> Windows:
    """The windows of pictures (one cell in time) or videos on this grid of masks."""
    if grid[0] == 1:
        place = _centres(NUM_POSITIONS)
        return Windows(grid, (place, place, np.array(HALF_SIZES_PX)))
    place, size = _centres(NUM_VIDEO_POSITIONS), np.array(HALF_SIZES_PX)
    return Windows(grid, (_centres(grid[0]), place, place, np.array(HALF_SPANS), size, size))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What was asked and answered: windows (`ids` as in the mask batches), their rounds, and d(q) squashed."""

    indices: Int64[np.ndarray, " n"]
    rounds: Int64[np.ndarray, " n"]
    y: Float64[np.ndarray, " n"]


def answers(
    ids: Int64[np.ndarray, " m"], rounds: Int64[np.ndarray, " m"], log_odds: Float64[np.ndarray, " m"]
) -> Answers:
    """Pairs of evaluations as queries: y(q) = 2 sigmoid(10 (p_t(window kept) - p_t(window blanked))) - 1."""
    prob = expit(log_odds)
    return Answers(
        indices=(ids[::2] - NUM_ANCHORS) // 2,
        rounds=rounds[::2],
        y=2 * expit(SQUASHING * (prob[::2] - prob[1::2])) - 1,
    )


def next_ids(
    windows: Windows, told: Answers, prior: Float64[np.ndarray, "gt gh gw"] | None, seed: int, clip_id: ClipId, num: int
) -> Int64[np.ndarray, " ids"]:
    """The ids of the next `num` queries, two masks each: window kept, window blanked.

    The first query is where the prior is largest, with the smallest window; then arg-max of mu + 10 sd. Further queries
    of one round believe that the earlier ones will be answered as expected.
    """
    chosen: list[int] = []
    for _ in range(num):
        if not len(told.y):
            best = _first(windows, prior)
        else:
            mean, var = posterior(windows, told, prior, seed, clip_id)
            bound = mean + EXPLORATION * np.sqrt(var)
            best = int(bound.argmax())
        chosen.append(best)
        if len(chosen) < num:
            expected = float(mean.ravel()[best]) if len(told.y) else PRIOR_MEAN
            last = int(told.rounds.max(initial=0))
            told = Answers(
                indices=np.append(told.indices, best),
                rounds=np.append(told.rounds, last),
                y=np.append(told.y, expected),
            )
    return np.array([NUM_ANCHORS + 2 * index + blanked for index in chosen for blanked in (0, 1)], np.int64)


def grids_for(windows: Windows, ids: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n gt gh gw"]:
    """The masks of ids: even ones keep a window alone, odd ones blank it."""
    kept = [windows.keep(int(id_ - NUM_ANCHORS) // 2) for id_ in ids]
    return np.stack([255 - keep if id_ % 2 else keep for id_, keep in zip(ids, kept, strict=True)])


def refined_map(
    windows: Windows, told: Answers, prior: Float64[np.ndarray, "gt gh gw"] | None, seed: int, clip_id: ClipId
) -> Float64[np.ndarray, "gt gh gw"]:
    """For each size the posterior mean, mean-pooled with the window; then the average over sizes, on the grid.

    As in the public code a window that reaches over the edge averages what lies inside.
    """
    mean, _ = posterior(windows, told, prior, seed, clip_id)
    num_places = len(windows.places)
    total = np.zeros(windows.places)
    for at in np.ndindex(windows.shape[num_places:]):
        halves = [axis[i] for axis, i in zip(windows.axes[num_places:], at, strict=True)]
        pooled, inside = mean[(..., *at)], np.ones(windows.places)
        for axis, half in enumerate(halves if windows.is_video else halves * 2):
            step = SIDE_PX / pooled.shape[axis]
            width = 2 * round(half / step) + 1
            pooled, inside = (uniform_filter1d(a, width, axis=axis, mode="constant") for a in (pooled, inside))
        total += pooled / inside
    total /= np.prod(windows.shape[num_places:])
    return regrid(total if windows.is_video else total[None], windows.grid)


def posterior(
    windows: Windows, told: Answers, prior: Float64[np.ndarray, "gt gh gw"] | None, seed: int, clip_id: ClipId
) -> tuple[Float64[np.ndarray, "..."], Float64[np.ndarray, "..."]]:
    """Mean and variance of the score over all windows, shape `windows.shape`; length-scales fitted to the answers."""
    points = windows.points(told.indices) + _jitter(windows, told.rounds, seed, clip_id)
    centred = told.y - _prior_at(windows, prior, points)
    scales = fit_lengthscales(points, centred, is_product=windows.is_video, noise_var=NOISE_VAR)
    cov = matern32_at([points[:, d] for d in range(points.shape[1])], points, scales, is_product=windows.is_video)
    factor = cho_factor(cov + NOISE_VAR * np.eye(len(points)), lower=True)
    # One small table per axis; the lattice is their product, so no window's coordinates are ever written out.
    tables = [
        axis.reshape([-1 if d == a else 1 for d in range(len(windows.axes))]) for a, axis in enumerate(windows.axes)
    ]
    cross = matern32_at(tables, points, scales, is_product=windows.is_video).reshape(-1, len(points))
    mean = cross @ cho_solve(factor, centred)
    var = 1 - (cross @ cho_solve(factor, np.eye(len(points))) * cross).sum(1)
    lattice = np.stack(np.meshgrid(*windows.axes[: len(windows.places)], indexing="ij"), -1)
    h = _prior_at(windows, prior, lattice.reshape(-1, len(windows.places))).reshape(windows.places)
    h = h.reshape(*windows.places, *[1] * (len(windows.axes) - len(windows.places)))
    return mean.reshape(windows.shape) + h, np.maximum(var, 0.0).reshape(windows.shape)


def _first(windows: Windows, prior: Float64[np.ndarray, "gt gh gw"] | None) -> int:
    """Arg-max of the prior with the smallest window; the middle when there is no prior, or a flat one."""
    at = [n // 2 for n in windows.places]
    if prior is not None and np.ptp(prior) > 0:
        lattice = np.stack(np.meshgrid(*windows.axes[: len(at)], indexing="ij"), -1).reshape(-1, len(at))
        at = [int(i) for i in np.unravel_index(_prior_at(windows, prior, lattice).argmax(), windows.places)]
    sizes = [0] * (len(windows.axes) - len(at))
    return int(np.ravel_multi_index((*at, *sizes), windows.shape))


def _prior_at(
    windows: Windows, prior: Float64[np.ndarray, "gt gh gw"] | None, points: Float64[np.ndarray, "n d"]
) -> Float64[np.ndarray, " n"]:
    """h = map * 0.1 / mean |map| at the places of windows, the same for all sizes."""
    size = 0.0 if prior is None else float(np.abs(prior).mean())
    if prior is None or size == 0:
        return np.zeros(len(points))
    places = points[:, :3].T if windows.is_video else np.stack([np.zeros(len(points)), points[:, 0], points[:, 1]])
    cells = np.array(prior.shape)[:, None]
    at = places / SIDE_PX * cells - 0.5
    return np.asarray(map_coordinates(prior * (PRIOR_MEAN / size), at, order=1, mode="nearest"), np.float64)


def _jitter(
    windows: Windows, rounds: Int64[np.ndarray, " n"], seed: int, clip_id: ClipId
) -> Float64[np.ndarray, "n d"]:
    """Noise on recorded points: 1 px in place and 0.5 px in size, the same whenever a round is looked at again."""
    num_places = len(windows.places)
    stds = np.array([JITTER_PX] * num_places + [SIZE_JITTER_PX] * (len(windows.axes) - num_places))
    found = np.zeros((len(rounds), len(stds)))
    for round_idx in np.unique(rounds):
        same = rounds == round_idx
        rng = clip_rng(seed, clip_id, round_idx=int(round_idx))
        found[same] = stds * rng.standard_normal((int(same.sum()), len(stds)))
    return found


def _centres(num: int) -> Float64[np.ndarray, " n"]:
    return np.asarray((np.arange(num) + 0.5) * SIDE_PX / num)


def _inside(low: float, high: float, cells: int) -> Float64[np.ndarray, " cells"]:
    """The share of every cell of an axis that lies in [low, high)."""
    edges = np.linspace(0, SIDE_PX, cells + 1)
    return np.asarray(np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) * cells / SIDE_PX)
