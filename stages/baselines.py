"""Maps to compare with (METHOD.md, section 4): three that do not ask the box, and two of Captum's on cells.

All take (clip, scorer, target, budget, seed) and give a map on the voxel grid. Captum perturbs a vector of cells; every
sample becomes a mask that the score stage renders, so that all methods hide voxels in one way and any box will do.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from stages.errors import ConfigError
from stages.estimators import regression_targets
from stages.masks import grid_for
from stages.records import Clip, MaskBatch
from stages.regrid import regrid
from stages.score import Score, ScoreRequest

Map = Float64[np.ndarray, "gt gh gw"]
Baseline = Callable[[Clip, Score, int, int, int], Map]

CENTRE_STD = 0.25  # of the picture's side
CELLS = (4, 7, 7)
SAMPLES_PER_CALL = 64


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
    return _on_cells(_captum().KernelShap, clip, score, target, budget, seed)


def lime(clip: Clip, score: Score, target: int, budget: int, seed: int) -> Map:
    """LIME on 4 x 7 x 7 cells, on the log-odds, with Captum's defaults (Ribeiro et al. 2016)."""
    return _on_cells(_captum().Lime, clip, score, target, budget, seed)


BASELINES: dict[str, Baseline] = {
    "random": random_order,
    "centre": centre_bias,
    "motion": motion_energy,
    "kernel-shap": kernel_shap,
    "lime": lime,
}


def _on_cells(method: Any, clip: Clip, score: Score, target: int, budget: int, seed: int) -> Map:
    t, h, w = grid_for(clip.shape)
    cells = min(CELLS[0], t), min(CELLS[1], h), min(CELLS[2], w)

    def log_odds(kept: Tensor) -> Tensor:
        grids = (kept.reshape(-1, *cells) * 255).round().to(torch.uint8).numpy()
        masks = MaskBatch(clip_id=clip.id, round_idx=0, ids=np.arange(len(grids)), grids=grids)
        answer = score.process(ScoreRequest(batches=(masks,), clips={clip.id: clip})).scores[0]
        return torch.from_numpy(regression_targets(answer.values.astype(np.float64), target)[:, 2])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = method(log_odds).attribute(
            torch.ones(1, int(np.prod(cells))),
            baselines=0,
            n_samples=budget - 1,  # Captum asks once about the untouched clip
            perturbations_per_eval=SAMPLES_PER_CALL,
        )
    return regrid(weights.detach().numpy().reshape(cells), grid_for(clip.shape))


def _captum() -> Any:
    try:
        import captum.attr
    except ImportError as error:
        raise ConfigError(
            "Kernel-SHAP and LIME", "Captum is not installed", "pip install 'heatreel[captum]', or leave them out"
        ) from error
    return captum.attr
