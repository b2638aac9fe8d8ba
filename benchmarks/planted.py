"""Planted boxes: black boxes whose support, F-TC and F-NTC are known exactly, so that maps can be checked by number.

In: a clip, of noise or of real footage, and places in it with their gains. Out: logits; the truth on the voxel grid.
Which boxes the benchmarks draw: `known_boxes.py`. Tests use the same boxes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from stages.box import BoxSpec
from stages.evidence import EvidenceKind
from stages.masks import grid_for
from stages.records import Clip
from stages.regrid import regrid
from stages.score import Score, ScoreConfig

Cuboid = tuple[slice, ...]  # of pixels, (t, y, x)


@dataclass(eq=False)
class PlantedBox:
    """Logits that rise by `gain` times the share of a cuboid that still shows the original clip.

    `evidence[k]` lists (cuboid, gain) for class k; `pairs[k]` lists interactions (cuboid, cuboid, gain), where the gain
    is times both shares: either place alone says nothing. Gaussian noise comes before `squash`: a box that is saturated
    is quiet as well, so that its evidence is not drowned. The box holds the untouched clip: a white box for the truth,
    a black one for heatreel. `calls` counts the clips it was asked about.
    """

    clip: Clip
    evidence: dict[int, list[tuple[Cuboid, float]]]
    num_classes: int = 3
    squash: Callable[[Tensor], Tensor] = lambda z: z
    pairs: dict[int, list[tuple[Cuboid, Cuboid, float]]] = field(default_factory=dict)
    noise_std: float = 0.0
    noise: torch.Generator | None = None
    batch_size: int = 16
    calls: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    weights_sha256: str = "planted"

    @property
    def spec(self) -> BoxSpec:
        t, h, w = self.clip.shape
        return BoxSpec(name="planted", clip_len=t, height=h, width=w, resize="squash", batch_size=self.batch_size)

    def to(self, device: torch.device) -> Self:
        return self

    def __call__(self, frames: Tensor) -> Tensor:
        """N T C H W in [0, 1] -> N K logits."""
        self.calls += len(frames)
        original = torch.from_numpy(self.clip.frames.copy()).float() / 255
        kept = 1 - (frames - original).abs().mean(2)  # n t h w, 1 where untouched

        def shown(cuboid: Cuboid) -> Tensor:
            return kept[(slice(None), *cuboid)].mean((1, 2, 3))

        logits = torch.zeros(len(frames), self.num_classes)
        for k, parts in self.evidence.items():
            for cuboid, gain in parts:
                logits[:, k] += gain * shown(cuboid)
        for k, pairs in self.pairs.items():
            for one, other, gain in pairs:
                logits[:, k] += gain * shown(one) * shown(other)
        if self.noise is not None:
            logits = logits + self.noise_std * torch.randn(logits.shape, generator=self.noise)
        return self.squash(logits)

    def truth(self, k: int) -> np.ndarray:
        """Signed evidence for class k on the voxel grid, before `squash`: gain times the share of a cell that is inside
        the cuboid. Each place of a pair has half of its gain (its Shapley value)."""
        full = np.zeros(self.clip.shape)
        for cuboid, gain in self._places(k):
            full[cuboid] += gain
        return regrid(full, grid_for(self.clip.shape))

    def places(self, k: int, sign: int) -> np.ndarray:
        """The pixels that speak for (1) or against (-1) class k, bool (t, y, x)."""
        found = np.zeros(self.clip.shape, bool)
        for cuboid, gain in self._places(k):
            if gain * sign > 0:
                found[cuboid] = True
        return found

    def truths(self, target: int = 0) -> dict[EvidenceKind, np.ndarray]:
        """The voxels (bool, on the grid) at least half of which are support, F-TC or F-NTC of the target."""
        speaks_for_others = [self.places(k, 1) for k in range(self.num_classes) if k != target]
        pixels: dict[EvidenceKind, np.ndarray] = {
            "support": self.places(target, 1),
            "f_tc": self.places(target, -1),
            "f_ntc": np.any(speaks_for_others, axis=0),
        }
        grid = grid_for(self.clip.shape)
        return {kind: regrid(where.astype(float), grid) >= 0.5 for kind, where in pixels.items()}

    def _places(self, k: int) -> list[tuple[Cuboid, float]]:
        pairs = [(place, gain / 2) for *both, gain in self.pairs.get(k, []) for place in both]
        return [*self.evidence.get(k, []), *pairs]


def bent(bend: float) -> Callable[[Tensor], Tensor]:
    """Saturation: scores that level off at `bend`."""
    return lambda z: bend * torch.tanh(z / bend)


def scorer(box: PlantedBox, **settings: object) -> Score:
    """A set-up scorer around a box; substrate mean unless the settings say otherwise."""
    score = Score(ScoreConfig.model_validate({"substrate": "mean", "device": "cpu", **settings}), lambda: box)
    score.setup()
    return score


def auc(values: np.ndarray, is_true: np.ndarray) -> float:
    """Area under the ROC curve of a map for a true region, ties counted half (Mann-Whitney)."""
    ranks, inside = rankdata(values.ravel()), is_true.ravel()
    n, m = int(inside.sum()), int((~inside).sum())
    return float((ranks[inside].sum() - n * (n + 1) / 2) / (n * m))
