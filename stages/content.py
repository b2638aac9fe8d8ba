"""How much hiding each voxel can change: the one thing that is known of a clip without asking the box.

A mask shows the box R + a (x - R). Where x is what would replace it, hiding does nothing; a model of moving pictures
may also look at the change between frames. So a cell's content is the mean over its pixels of
    |x_t - R_t| + |x_t - x_(t-1)| + |x_(t+1) - x_t|.
It tells *where* evidence may lie, never whether it speaks for or against (`kernels.py`). Still pictures have none: it
gained nothing there beyond its error (docs/benchmarks.md), and drew the strongest cells to edges of the background.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from stages.masks import grid_for
from stages.substrates import make_substrate

# What differs by less than this of the range of a pixel does not differ.
ROUNDING = 1e-4


@torch.inference_mode()
def content_of(frames: UInt8[np.ndarray, "t c h w"], substrate: str) -> UInt8[np.ndarray, "gt gh gw"] | None:
    """Content on the voxel grid: 255 times the square root of its share of the largest; zero where all is flat.

    None for a still picture.

    The root gives weak cells, which are most, enough of the 256 steps.
    """
    t, _, h, w = frames.shape
    if t == 1:
        return None
    x = torch.from_numpy(frames.copy()).float().div_(255)
    change = torch.zeros(t, h, w)
    step = (x[1:] - x[:-1]).abs_().mean(1)
    change[1:] += step
    change[:-1] += step
    change[0] += step[0]
    change[-1] += step[-1]
    difference = change if substrate == "freeze" else change + (x - _replacement(x, substrate)).abs_().mean(1)
    cells = F.adaptive_avg_pool3d(difference[None], grid_for((t, h, w)))[0].double().numpy()
    largest = float(cells.max())
    share = cells / largest if largest > ROUNDING else np.zeros_like(cells)
    return np.asarray(np.round(255 * np.sqrt(share)), np.uint8)


def _replacement(x: Float[Tensor, "t c h w"], substrate: str) -> Float[Tensor, "t c h w"]:
    """What would replace hidden voxels; blurred frames are smooth, so they are blurred small."""
    h, w = int(x.shape[2]), int(x.shape[3])
    if substrate != "blur":
        return make_substrate(substrate, x, 0)
    _, gh, gw = grid_for((1, h, w))
    small = make_substrate("blur", F.adaptive_avg_pool2d(x, (gh, gw)), 0)
    return F.interpolate(small, size=(h, w), mode="bilinear", align_corners=False)
