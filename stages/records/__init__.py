"""Every record that moves between stages. Frozen; NumPy arrays only; each checks its own shapes where it is born.

Axes are (t, y, x), ranges half-open. Masks: 1 keeps, 0 replaces. Saliency: positive supports the target, in units of
the score. Suffixes carry units: `_s` seconds, `_px` pixels, `_idx` counts from 0.
"""

from stages.records.clips import Clip, ClipId, ClipInfo, Geometry, SourceKind, VideoSource, expect
from stages.records.maps import (
    OUTPUTS,
    Effect,
    Explanation,
    Failure,
    Fidelity,
    FrameMap,
    Region,
    RegionKind,
    SaliencyMap,
)
from stages.records.rounds import BankSpec, Evidence, MaskBatch, Scores

__all__ = [
    "OUTPUTS",
    "BankSpec",
    "Clip",
    "ClipId",
    "ClipInfo",
    "Effect",
    "Evidence",
    "Explanation",
    "Failure",
    "Fidelity",
    "FrameMap",
    "Geometry",
    "MaskBatch",
    "Region",
    "RegionKind",
    "SaliencyMap",
    "Scores",
    "SourceKind",
    "VideoSource",
    "expect",
]
