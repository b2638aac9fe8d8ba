"""The two kinds of evidence: one posterior on the grid becomes the maps that people read (docs/method.md, 1).

    support = max(0, s_TC)    F-TC = max(0, -s_TC)    F-NTC = max(0, s_NTC)    net = s_TC - s_NTC, the log-odds saliency

s_TC is the saliency of the output z_t, s_NTC that of lse_n; net is regressed by itself, as the output log_odds, so that
its variance is right (its second look is made of the two: `focus.py`). Films, tables and regions all take their maps
from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

from stages.records import FrameMap, SaliencyMap, expect

EvidenceKind = Literal["support", "f_tc", "f_ntc", "net"]

KINDS: tuple[EvidenceKind, ...] = ("support", "f_tc", "f_ntc", "net")

# A voxel is significant where |posterior mean| > this many posterior standard deviations.
SIGNIFICANT_SD = 2.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvidenceMaps:
    """The four maps of docs/method.md, 1, and where each can be told from noise. Units: score per voxel."""

    values: Mapping[EvidenceKind, Float32[np.ndarray, "*grid"]]
    is_significant: Mapping[EvidenceKind, Bool[np.ndarray, "*grid"]]

    def __getitem__(self, kind: EvidenceKind) -> Float32[np.ndarray, "*grid"]:
        return self.values[kind]

    def totals(self) -> dict[EvidenceKind, float]:
        """Each map summed over its grid: the change of the score that it accounts for."""
        return {kind: float(values.sum(dtype=np.float64)) for kind, values in self.values.items()}


def decompose_arrays(
    outputs: tuple[str, ...], mean: Float32[np.ndarray, "o *grid"], var: Float32[np.ndarray, "o *grid"]
) -> EvidenceMaps:
    """Support, F-TC, F-NTC and net from the posterior of z_t, lse_n and log_odds, on any grid."""
    missing = {"z_t", "lse_n", "log_odds"} - set(outputs)
    expect(not missing, "decompose", f"outputs {sorted(missing)} are missing from {outputs}")
    expect(mean.shape == var.shape, "decompose", "mean and var must have one shape")
    target, others, net = (outputs.index(name) for name in ("z_t", "lse_n", "log_odds"))
    is_clear = np.abs(mean) > SIGNIFICANT_SD * np.sqrt(var)
    return EvidenceMaps(
        values={
            "support": np.maximum(mean[target], 0),
            "f_tc": np.maximum(-mean[target], 0),
            "f_ntc": np.maximum(mean[others], 0),
            "net": mean[net],
        },
        is_significant={
            "support": is_clear[target] & (mean[target] > 0),
            "f_tc": is_clear[target] & (mean[target] < 0),
            "f_ntc": is_clear[others] & (mean[others] > 0),
            "net": is_clear[net],
        },
    )


def decompose(record: FrameMap | SaliencyMap) -> EvidenceMaps:
    """The evidence maps of a stitched frame (Gh Gw) or of a clip's posterior (Gt Gh Gw)."""
    return decompose_arrays(record.outputs, record.mean, record.var)
