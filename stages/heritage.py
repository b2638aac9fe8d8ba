"""What a clip leaves to the next clip of its video: its map, moved in time, and what speaks for each kernel.

In: the log-odds map of the clip before, on its own frames. Out: an initial map for this clip (`--prior previous`) where
the two overlap, and the log evidence of every kernel, added up along the video (`refine.pool_kernels`). How far the
moved map can be trusted is not decided here: its factor is fitted and may be refused (`directions.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from stages.kernels import KernelEvidence
from stages.records import ClipId, Evidence, SaliencyMap

PREVIOUS = "previous"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heritage:
    """What is known once a clip is final, by target. `log_evidence` is the sum over this clip and those before it."""

    clip_id: ClipId
    frame_idx: Int64[np.ndarray, " t"]
    maps: Mapping[int, Float32[np.ndarray, "gt gh gw"]]  # of the log-odds
    log_evidence: Mapping[int, KernelEvidence] = field(default_factory=dict)

    @classmethod
    def of(
        cls, maps: Sequence[SaliencyMap], frame_idx: Int64[np.ndarray, " t"], log_evidence: Mapping[int, KernelEvidence]
    ) -> "Heritage":
        """What the maps of a clip, one for each target, leave."""
        found = {saliency.target_idx: saliency.output("log_odds")[0] for saliency in maps}
        return cls(clip_id=maps[0].clip_id, frame_idx=frame_idx, maps=found, log_evidence=log_evidence)

    def prior_for(self, frame_idx: Int64[np.ndarray, " t"], target: int) -> Float32[np.ndarray, "gt gh gw"] | None:
        """The map of `target` on the frames of the next clip; None where the two have no part of the map in common."""
        values = self.maps[target]
        known, wanted = _centres(self.frame_idx, len(values)), _centres(frame_idx, len(values))
        if wanted[0] > known[-1] or wanted[-1] < known[0]:
            return None
        return moved(values, self.frame_idx, frame_idx)


def with_heritage(
    evidence: Evidence,
    target: int,
    before: Heritage | None,
    frame_idx: Int64[np.ndarray, " t"] | None,
    kind: str,
    is_pooled: bool,
) -> tuple[Evidence, dict[str, str]]:
    """The evidence with what the clip before left, and why there is no prior where one was asked for.

    `kind` of prior that was asked for; `is_pooled`: kernels are weighed along the video.
    """
    if is_pooled and before is not None:
        evidence = replace(evidence, kernel_evidence=before.log_evidence[target])
    if kind != PREVIOUS:
        return evidence, {}
    prior = None if before is None or frame_idx is None else before.prior_for(frame_idx, target)
    notes = {} if prior is not None else {"no_prior": why_no_prior(evidence.clip_id, before)}
    return replace(evidence, prior=prior), notes


def why_no_prior(clip_id: ClipId, before: Heritage | None) -> str:
    """Why a clip starts from nothing although its predecessor's map was asked for."""
    if clip_id.clip_idx == 0:
        return "first clip"
    return "clip before not explained" if before is None else "no overlap"


def moved(
    values: Float32[np.ndarray, "gt gh gw"], source: Int64[np.ndarray, " t"], destination: Int64[np.ndarray, " t"]
) -> Float32[np.ndarray, "gt gh gw"]:
    """A map on the frames `source`, read at the frames `destination`: lines between the centres of cells in time.

    Beyond the cells that the map knows it is 0 and says nothing: to hold its last cell there agreed less with maps of
    many evaluations, at every budget (docs/benchmarks.md).
    """
    cells = len(values)
    known, wanted = _centres(source, cells), _centres(destination, cells)
    weights = np.stack([np.interp(wanted, known, unit, left=0.0, right=0.0) for unit in np.eye(cells)])  # from x to
    return np.asarray(np.einsum("st,syx->tyx", weights, values.astype(np.float64)), np.float32)


def _centres(frame_idx: Int64[np.ndarray, " t"], cells: int) -> Float64[np.ndarray, " gt"]:
    """Where the centres of a clip's cells lie in time, in frames of the source."""
    at = (np.arange(cells) + 0.5) * len(frame_idx) / cells - 0.5
    return np.asarray(np.interp(at, np.arange(len(frame_idx)), frame_idx))
