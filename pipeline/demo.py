"""The demo: the shipped clip, whom it shows, and how a run's maps compare with the truth.

All numbers come from the run folder; the truth is where the generator of the clip drew its objects.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipeline.manifest import RunFolder
from pipeline.results import read_explanations, read_rows
from pipeline.summaries import TargetSummary
from stages.evidence import EvidenceKind, decompose_arrays
from stages.metrics import MaskEnergy, cover_of_cells, energy_in_mask
from stages.records import Explanation

# Evaluations per clip: enough for this clip, and the whole demo takes about a minute on two cores.
BUDGET = 256
MAPS: tuple[EvidenceKind, ...] = ("support", "f_tc", "f_ntc")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoNumbers:
    """What the demo's table shows: the run's summary, and `energy[map][object]`, each map inside each true mask.

    `predictions`: how many clips the model gives each class as its first answer.
    """

    summary: TargetSummary
    rival: str
    predictions: Mapping[str, int]
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

    explanation, summary = next(read_explanations(run)), next(RunFolder.open(run).summaries())
    truth = demo_truth()
    maps = decompose_arrays(explanation.outputs, explanation.mean, explanation.var)
    clips = read_rows(run, "clips", explanation.source.id, explanation.target_idx)
    answers = Counter(str(row["top1"]) for row in clips)
    objects = {
        "protagonist": cells_of(truth.protagonist, explanation),
        "rival": cells_of(truth.rival, explanation),
    }
    return DemoNumbers(
        summary=summary.targets[0],
        rival=RIVAL,
        predictions=dict(answers.most_common()),
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
