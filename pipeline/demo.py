"""The demo: the shipped clip, whom it shows, and how a run's maps compare with the truth.

All numbers come from the run folder; the truth is where the generator of the clip drew its objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipeline.results import read_explanations, read_rows
from stages.evidence import EvidenceKind, decompose_arrays
from stages.metrics import MaskEnergy, cover_of_cells, energy_in_mask
from stages.records import Explanation

MAPS: tuple[EvidenceKind, ...] = ("support", "f_tc", "f_ntc")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoNumbers:
    """What the demo's table shows. `shares`: each map's part of all evidence; `energy[map][object]`.

    `predictions`: how many clips the model gives each class as its first answer.
    """

    target: str
    rival: str
    predictions: Mapping[str, int]
    mean_prob: float
    shares: Mapping[EvidenceKind, float]
    q2: float
    coverage: float
    verdict: str
    energy: Mapping[EvidenceKind, Mapping[str, MaskEnergy]]


def clip_path() -> Path:
    """The shipped clip."""
    from stages.demo.clips import DEMO_VIDEO

    return DEMO_VIDEO


def protagonist_label() -> str:
    """The class of the clip's protagonist, the demo's target."""
    from stages.demo.clips import PROTAGONIST

    return PROTAGONIST


def compare_with_truth(run: Path) -> DemoNumbers:
    """Measure the first explanation of a demo run against the true masks."""
    from stages.demo.clips import RIVAL, demo_truth

    explanation = next(read_explanations(run))
    truth = demo_truth()
    maps = decompose_arrays(explanation.outputs, explanation.mean, explanation.var)
    totals = {kind: float(maps[kind].sum(dtype=np.float64)) for kind in MAPS}
    whole = sum(totals.values()) or 1.0
    clips = read_rows(run, "clips", explanation.source.id, explanation.target_idx)
    answers = [row["top1"] for row in clips]
    objects = {
        name: cells_of(mask, explanation) for name, mask in (("protagonist", truth.protagonist), ("rival", truth.rival))
    }
    return DemoNumbers(
        target=explanation.target,
        rival=RIVAL,
        predictions={label: answers.count(label) for label in sorted(set(answers), key=answers.count, reverse=True)},
        mean_prob=float(np.mean([row["prob"] for row in clips])),
        shares={kind: total / whole for kind, total in totals.items()},
        q2=float(np.median([fidelity.q2 for fidelity in explanation.fidelity])),
        coverage=float(np.mean([fidelity.coverage for fidelity in explanation.fidelity])),
        verdict=explanation.verdict,
        energy={kind: {name: energy_in_mask(maps[kind], cover) for name, cover in objects.items()} for kind in MAPS},
    )


def cells_of(mask: Bool[np.ndarray, "f h w"], explanation: Explanation) -> Float64[np.ndarray, "f gh gw"]:
    """A mask in source pixels on the grid of the maps: the share of every cell that it covers."""
    geometry = explanation.geometry
    rows = _source_pixels(geometry.model_h_px, geometry.scale_y, geometry.offset_y_px, geometry.source_h_px)
    columns = _source_pixels(geometry.model_w_px, geometry.scale_x, geometry.offset_x_px, geometry.source_w_px)
    # Row and column -1 are letterbox bars: nothing of the source is there.
    padded = np.pad(mask, ((0, 0), (0, 1), (0, 1)))
    gh, gw = explanation.mean.shape[2:]
    return cover_of_cells(padded[:, rows][:, :, columns], (gh, gw))


def _source_pixels(num_model_px: int, scale: float, offset_px: float, num_source_px: int) -> Int64[np.ndarray, " n"]:
    """The source pixel under the centre of every model pixel; -1 outside the source."""
    found = np.floor((np.arange(num_model_px) + 0.5) * scale + offset_px).astype(np.int64)
    return np.where((found >= 0) & (found < num_source_px), found, -1)
