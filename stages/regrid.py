"""A map on one grid becomes a map on another: means where cells merge, lines between centres where they split."""

import numpy as np
from jaxtyping import Float, Float64

from stages.masks import Grid
from stages.metrics import overlap_shares


def regrid(values: Float[np.ndarray, "t y x"], grid: Grid) -> Float64[np.ndarray, "gt gh gw"]:
    """`values` (t, y, x) on `grid`; both cover the same clip. A constant map stays that constant."""
    out = values.astype(np.float64)
    for axis, cells in enumerate(grid):
        if out.shape[axis] != cells:
            out = np.moveaxis(np.tensordot(_weights(out.shape[axis], cells), out, (1, axis)), 0, axis)
    return out


def _weights(num_from: int, num_to: int) -> Float64[np.ndarray, "to from"]:
    """Row i: what every old cell gives to the new cell i; rows sum to 1."""
    if num_to <= num_from:
        return overlap_shares(num_from, num_to)
    at = np.clip((np.arange(num_to) + 0.5) * num_from / num_to - 0.5, 0, num_from - 1)
    return np.asarray(np.clip(1 - np.abs(at[:, None] - np.arange(num_from)), 0, None))
