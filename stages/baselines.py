"""Maps to compare with (docs/method.md, 4): three that do not ask the box, and two of Captum's on cells.

All take (clip, scorer, target, budget, seed) and give a map on the voxel grid. Captum perturbs a vector of cells; every
sample becomes a mask that the score stage renders, so that all methods hide voxels in one way and any box will do.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from stages.attributions import cell_map
from stages.masks import grid_for
from stages.records import Clip, MaskBatch
from stages.regrid import regrid
from stages.score import Score, ScoreRequest

Map = Float64[np.ndarray, "gt gh gw"]
Baseline = Callable[[Clip, Score, int, int, int], Map]

CENTRE_STD = 0.25  # of the picture's side


def random_order(clip: Clip, score: Score, target: int, budget: int, seed: int) -> Map:
    """Every voxel by chance."""
    return np.random.default_rng([seed, clip.id.clip_idx]).random(grid_for(clip.shape))


def centre_bias(clip: Clip, score: Score, target: int, budget: int, seed: int) -> Map:
    """A Gaussian at the centre of the picture, the same in all frames: photographers aim."""
    grid = grid_for(clip.shape)
    y, x = (((np.arange(side) + 0.5) / side - 0.5) / CENTRE_STD for side in grid[1:])
    centre = np.exp(-0.5 * (y[:, None] ** 2 + x[None] ** 2))
    return np.asarray(np.broadcast_to(centre, grid).copy())


def motion_energy(clip: Clip, score: Score, target: int, budget: int, seed: int) -> Map:
    """mean |x_t - x_{t-1}| over the colours; the first frame has that of the second. Nothing moves in a picture."""
    frames = clip.frames.astype(np.float64) / 255
    change = np.abs(np.diff(frames, axis=0)).mean(1)
    whole = np.concatenate([change[:1], change]) if len(change) else np.zeros(clip.shape)
    return regrid(whole, grid_for(clip.shape))


def kernel_shap(clip: Clip, score: Score, target: int, budget: int, seed: int) -> Map:
    """Kernel-SHAP on 4 x 7 x 7 cells, on the log-odds (Lundberg & Lee 2017, by Captum)."""
    return _on_cells("KernelShap", clip, score, target, budget, seed)


def lime(clip: Clip, score: Score, target: int, budget: int, seed: int) -> Map:
    """LIME on 4 x 7 x 7 cells, on the log-odds, with Captum's defaults (Ribeiro et al. 2016)."""
    return _on_cells("Lime", clip, score, target, budget, seed)


BASELINES: dict[str, Baseline] = {
    "random": random_order,
    "centre": centre_bias,
    "motion": motion_energy,
    "kernel-shap": kernel_shap,
    "lime": lime,
}


def _on_cells(name: str, clip: Clip, score: Score, target: int, budget: int, seed: int) -> Map:
    grid = grid_for(clip.shape)

    def ask(grids: np.ndarray) -> np.ndarray:
        masks = MaskBatch(clip_id=clip.id, round_idx=0, ids=np.arange(len(grids)), grids=grids)
        return score.process(ScoreRequest(batches=(masks,), clips={clip.id: clip})).scores[0].values

    return cell_map(name, ask, target, grid, budget, seed)
