"""2  ClipInfo -> MaskBatch: the first round of masks of a clip, as rows of the bank that all clips share."""

from typing import Literal

import numpy as np
from pydantic import Field

from stages.base import Settings
from stages.masks import NUM_ANCHORS, Grid, grid_for
from stages.parts import WHOLE, Parts
from stages.priors import RISE_FAMILY, RISE_MASKS
from stages.questions import ASKED_METHODS, is_captum
from stages.records import BankSpec, ClipInfo, MaskBatch

MaskFamily = Literal[
    "auto", "designed", "mixture", "blobs", "cells", "rise", "rise-single", "static", "occlusion", "rise-sparse"
]

# What the default asks with, and on still pictures (docs/benchmarks.md, "What was tried").
DESIGNED, STILL = "designed", "rise-single"
# What tests the maps of methods that ask for maps.
MIXTURE = "mixture"
# Every method asks with its own masks, published ones with those of their paper, unless the user names a family.
FAMILY_OF_METHOD = {
    "gp": DESIGNED,
    "rise": "rise-single",
    "centred-rise": "rise-single",
    "occlusion": "occlusion",
    "borex": RISE_FAMILY,
    **dict.fromkeys(ASKED_METHODS, MIXTURE),
}
# Methods whose every mask but the anchors is refinement's choice.
METHODS_THAT_ASK = ("borex",)
# Of the budget of methods whose maps are asked for, for masks that test what was found.
TEST_SHARE = 8


def family_for(method: str, grid: Grid) -> str:
    """The mask family that a method asks with on a voxel grid (t, y, x)."""
    return STILL if method == "gp" and grid[0] == 1 else FAMILY_OF_METHOD[method]


class PerturbConfig(Settings):
    """Which masks are asked about. `budget` counts calls of the box per clip, the two anchors included."""

    budget: int = Field(default=256, ge=NUM_ANCHORS + 2, description="evaluations of the box for each clip")
    family: MaskFamily = Field(default="auto", description="kind of masks; auto: the method's own")
    seed: int = Field(default=0, ge=0, description="every random choice derives from it, the clip and the round")

    def bank_family(self, method: str, grid: Grid) -> str:
        """The mask family for a method on a voxel grid: the user's, else the method's own."""
        return family_for(method, grid) if self.family == "auto" else self.family


class Perturb:
    """Recipes only: a bank specification and row numbers, the same for every clip of one model geometry."""

    def __init__(self, config: PerturbConfig, method: str = "gp", prior: str = "none", parts: Parts = WHOLE) -> None:
        self.config = config
        self.method = method
        self.prior = prior
        self.parts = parts

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, clip: ClipInfo, /) -> MaskBatch:
        """Row 0 keeps everything, row 1 replaces everything, the rest are the bank's masks in order.

        The bank is as large as the budget, of which other priors, BOREx, methods whose maps are asked for and a bank in
        parts ask only the first rows; refinement asks for the rest. So the first round tells the whole budget.
        """
        grid = grid_for(clip.shape)
        family = RISE_FAMILY if self.prior == "rise" else self.config.bank_family(self.method, grid)
        spec = BankSpec(grid=grid, size=self.config.budget, seed=self.config.seed, family=family)
        return MaskBatch(clip_id=clip.id, round_idx=0, ids=np.arange(self.num_rows()), bank=spec)

    def num_rows(self) -> int:
        """Masks of the first round, the two anchors included. Priors from inside the model come before all others."""
        if self.method in ASKED_METHODS:
            return NUM_ANCHORS + max(self.config.budget // TEST_SHARE, 1)
        if self.prior == "rise":
            return NUM_ANCHORS + min(RISE_MASKS, (self.config.budget - NUM_ANCHORS) // 2)
        is_later = self.method in METHODS_THAT_ASK or is_captum(self.prior)
        if is_later:
            return NUM_ANCHORS
        budget = self.config.budget
        return self.parts.stop(0, budget - self.parts.num_adaptive(budget - NUM_ANCHORS))

    def close(self) -> None:
        """Nothing to give back."""
