"""Numbers that say how well a map fits a truth.

In: maps and masks of the same shape. Out: plain numbers. More metrics: docs/method.md, 5.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

HALF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskEnergy:
    """How much of a map lies inside a mask. `ratio` = share / area: 1 is what a map that knows nothing reaches."""

    share: float
    area: float

    @property
    def ratio(self) -> float:
        """How many times its area the mask's share of the energy is; NaN for an empty mask."""
        return self.share / self.area if self.area > 0 else float("nan")


def energy_in_mask(maps: Float[np.ndarray, "f y x"], masks: Shaped[np.ndarray, "f y x"]) -> MaskEnergy:
    """Share of a map's positive part inside a mask (bool, or coverage in [0, 1]), and the mask's share of the volume.

    All frames count together, so a frame with much energy weighs more. A map without any energy has the share 0.
    Raises ValueError when the shapes differ.
    """
    if maps.shape != masks.shape:
        raise ValueError(f"energy_in_mask: maps {maps.shape} and masks {masks.shape} must have one shape")
    positive = np.clip(maps, 0, None).astype(np.float64)
    inside = masks.astype(np.float64)
    total = positive.sum()
    share = float((positive * inside).sum() / total) if total > 0 else 0.0
    return MaskEnergy(share=share, area=float(inside.mean()))


def cover_of_cells(mask: Bool[np.ndarray, "f h w"], grid: tuple[int, int]) -> Float[np.ndarray, "f gh gw"]:
    """Share of every grid cell that a pixel mask covers; pixels on a cell's border count in proportion."""
    rows, columns = overlap_shares(mask.shape[1], grid[0]), overlap_shares(mask.shape[2], grid[1])
    return np.asarray(rows @ mask.astype(np.float64) @ columns.T)


def points_inside(maps: Float[np.ndarray, "f y x"], cover: Shaped[np.ndarray, "f y x"]) -> bool:
    """The pointing game: whether the peak of a map lies in a cell that the mask covers by half or more.

    A map without a peak (constant) points nowhere. Raises ValueError when the shapes differ.
    """
    if maps.shape != cover.shape:
        raise ValueError(f"points_inside: maps {maps.shape} and masks {cover.shape} must have one shape")
    if float(maps.max()) == float(maps.min()):
        return False
    return bool(cover.ravel()[int(maps.argmax())] >= HALF)


def overlap_shares(num_pixels: int, num_cells: int) -> Float[np.ndarray, "cells pixels"]:
    """Row i: the share of cell i that each pixel takes; rows sum to 1."""
    edges = np.linspace(0, num_pixels, num_cells + 1)
    pixels = np.arange(num_pixels)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0, None) * (num_cells / num_pixels))
