"""Maps and what is read from them: saliency, frames, regions, explanations, and failures where there is none."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64

from stages.records.clips import ClipId, Geometry, VideoSource, expect

RegionKind = Literal["support", "f_tc", "f_ntc"]

# What one evaluation of the box on every mask tells about a target (docs/method.md, 1). Rivals follow as "rival:N".
OUTPUTS = ("z_t", "lse_n", "log_odds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How far a map can be trusted, from held-out masks (docs/method.md, 3); of the default method, its first look.

    q2: leave-one-out predictive R^2 (1 is perfect, 0 is no better than the mean). coverage: share of held-out scores
    inside their 90 % interval. `is_reliable` is the verdict on one output; it rests on `skill`, the share of
    the squared error beyond the keep-fraction that the map explains, and `log_bayes`, the evidence for it over no map.
    Tables do not carry these two: NaN where a map is read back.
    """

    q2: float
    coverage: float
    is_reliable: bool
    skill: float = math.nan
    log_bayes: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SaliencyMap:
    """The posterior of one clip for one target, on the grid: how much each voxel adds to each output when kept.

    `outputs` names the first axis: z_t, lse_n, log_odds, then rival:INDEX. Units: score per voxel; summed over the
    grid this is the change from the fully replaced clip to the untouched one that the surrogate explains.
    """

    clip_id: ClipId
    target_idx: int
    method: str
    outputs: tuple[str, ...]
    mean: Float32[np.ndarray, "o gt gh gw"]
    var: Float32[np.ndarray, "o gt gh gw"]
    fidelity: Mapping[str, Fidelity]  # by output
    reference: Float32[np.ndarray, " k"]  # log-scores of the untouched clip
    replaced: Float32[np.ndarray, " k"]  # log-scores of the fully replaced clip
    num_evaluations: int
    stop_reason: str
    details: Mapping[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(self.mean.ndim == 4 and self.mean.shape == self.var.shape, "SaliencyMap", "mean and var: O Gt Gh Gw")
        expect(len(self.outputs) == len(self.mean), "SaliencyMap", "one name for every output")
        expect(bool(np.isfinite(self.mean).all() and (self.var >= 0).all()), "SaliencyMap", "finite, var >= 0")

    @property
    def is_reliable(self) -> bool:
        """The verdict on the whole: whether any of z_t, lse_n and log_odds is predicted by its map.

        What saturates can hide in one of them: where the rivals of a sure target wander, its own score still tells.
        """
        return any(found.is_reliable for name, found in self.fidelity.items() if name in OUTPUTS)

    def output(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance (Gt Gh Gw each) of one output."""
        row = self.outputs.index(name)
        return self.mean[row], self.var[row]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameMap:
    """The final, stitched maps of one source frame for one target, on the grid of the model's input.

    `is_seen` is false for a frame that no clip sampled or covered. Units as in SaliencyMap.
    """

    video_id: str
    target_idx: int
    frame_idx: int
    outputs: tuple[str, ...]
    mean: Float32[np.ndarray, "o gh gw"]
    var: Float32[np.ndarray, "o gh gw"]
    is_seen: bool
    is_reliable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What happened when a region was removed for real and the box was asked again (untouched -> removed)."""

    clip_idx: int
    prob_before: float
    prob_after: float
    log_odds_before: float
    log_odds_after: float
    top1_before: int
    top1_after: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """A connected tube of significant voxels in (t, y, x). `boxes` are y0 x0 y1 x1 in source pixels, a row per frame.

    mass: sum of |posterior mean| over the tube, score units. z_score: posterior mean of that sum over its sd.
    """

    video_id: str
    target_idx: int
    kind: RegionKind
    region_idx: int
    frames: tuple[int, int]
    span_s: tuple[float, float]
    boxes: Float32[np.ndarray, "f 4"]
    mass: float
    z_score: float
    peak: tuple[int, float, float]  # frame, y, x in source pixels
    effect: Effect | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """What a run found about one source and one target: the stitched maps of all its frames, its regions, its verdict.

    `mean` and `var` are on the grid of the model's input, units as in SaliencyMap; `fidelity` is that of every clip's
    log-odds, in order. `provenance`: versions, seeds, fingerprints of model and config, enough to compute it again.
    """

    source: VideoSource
    target_idx: int
    target: str
    outputs: tuple[str, ...]
    pts_s: Float64[np.ndarray, " f"]
    mean: Float32[np.ndarray, "o f gh gw"]
    var: Float32[np.ndarray, "o f gh gw"]
    is_seen: Bool[np.ndarray, " f"]
    is_reliable: Bool[np.ndarray, " f"]
    geometry: Geometry
    voxels_per_clip: int
    regions: tuple[Region, ...]
    fidelity: tuple[Fidelity, ...]
    provenance: Mapping[str, object]

    def __post_init__(self) -> None:
        expect(self.mean.ndim == 4 and self.mean.shape == self.var.shape, "Explanation", "mean and var: O F Gh Gw")
        expect(self.mean.shape[:2] == (len(self.outputs), len(self.pts_s)), "Explanation", "a map per output and frame")

    @property
    def is_significant(self) -> bool:
        """Whether any clip carries a signal that can be told from noise."""
        return any(fidelity.is_reliable for fidelity in self.fidelity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A bad input is data: it is recorded, shown and counted, and the rest of the run goes on."""

    video_id: str
    uri: str
    stage: str
    error: str
    reason: str
    remedy: str
    clip_idx: int | None = None
    attempt: int = 1
