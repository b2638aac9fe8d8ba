"""`heatreel compare A B`: two runs on the same inputs, clip by clip: what differs, and whether by chance."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation import IS_MORE_BETTER, NAME, OURS, REMOVAL_METRICS
from pipeline.files import finite
from pipeline.manifest import RunFolder
from pipeline.results import read_explanations, read_rows
from stages.errors import ManifestError
from stages.evidence import KINDS, decompose_arrays
from stages.records import Explanation
from stages.regrid import regrid
from stages.statistics import bootstrap_interval, paired_p, rank_agreement

Key = tuple[str, int, int, int]  # source, target, frames

# Columns of clips.parquet that two runs are compared by: how well the map predicts, and how much evidence it holds.
COLUMNS = ("q2", "coverage", "prob", "for", "f_tc", "f_ntc", "net", "evaluations")


def compare_runs(run_a: Path, run_b: Path) -> dict[str, Any]:
    """Paired differences B - A per clip with Wilcoxon's test, and the rank agreement of the maps of each source.

    Numbers of faithfulness are there when both runs were evaluated with the same substrate and steps. Raises
    ManifestError when the runs have no source and target in common.
    """
    ours, theirs = (_explanations(run) for run in (run_a, run_b))
    common = [key for key in ours if key in theirs]
    if not common:
        raise ManifestError(
            f"{run_a} and {run_b}", "no source and target in common", "compare runs on the same inputs and targets"
        )
    rows_a, rows_b = (_clip_rows(run, found) for run, found in ((run_a, ours), (run_b, theirs)))
    faithful_a, faithful_b, note = _faithfulness(run_a, run_b)
    numbers = {
        **{name: _paired(rows_a, rows_b, name) for name in COLUMNS},
        **{name: _paired(faithful_a, faithful_b, name) for name in IS_MORE_BETTER},
    }
    content: dict[str, Any] = {
        "a": str(run_a),
        "b": str(run_b),
        "differences": {name: found for name, found in numbers.items() if found is not None},
        "agreement": [_agreement(ours[key], theirs[key]) for key in common],
        "note": note,
    }
    known: dict[str, Any] = finite(content)
    return known


def _explanations(run: Path) -> dict[tuple[str, int], Explanation]:
    return {(found.source.sha256, found.target_idx): found for found in read_explanations(run)}


def _clip_rows(run: Path, found: Mapping[tuple[str, int], Explanation]) -> dict[Key, Mapping[str, Any]]:
    return {
        (sha256, target_idx, row["frame_start"], row["frame_stop"]): row
        for (sha256, target_idx), explanation in found.items()
        for row in read_rows(run, "clips", explanation.source.id, target_idx)
    }


def _faithfulness(run_a: Path, run_b: Path) -> tuple[dict[Key, Any], dict[Key, Any], str]:
    contents = [_read(run) for run in (run_a, run_b)]
    missing = [str(run) for run, content in zip((run_a, run_b), contents, strict=True) if content is None]
    if missing:
        return {}, {}, f"for faithfulness, evaluate first: {', '.join(missing)}"
    a, b = (content or {} for content in contents)
    if (a["substrate"], a["steps"]) != (b["substrate"], b["steps"]):
        return {}, {}, "for faithfulness, evaluate both with the same --substrate and --steps"
    return _by_clip(a), _by_clip(b), ""


def _read(run: Path) -> dict[str, Any] | None:
    path = RunFolder.open(run).path / NAME
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _by_clip(content: Mapping[str, Any]) -> dict[Key, Any]:
    """The numbers of each clip's map, and the class that removal was measured for (older files: the target)."""
    return {
        (c["sha256"], c["target_idx"], *c["frames"]): {
            **c["maps"][OURS],
            "wished_idx": c.get("wished_idx", c["target_idx"]),
        }
        for c in content["clips"]
    }


def _paired(a: Mapping[Key, Any], b: Mapping[Key, Any], name: str) -> dict[str, Any] | None:
    common = [key for key in a if key in b]
    if name in REMOVAL_METRICS:  # gains of different classes are no pair
        common = [key for key in common if a[key]["wished_idx"] == b[key]["wished_idx"]]
    ours, theirs = (np.array([_number(rows[key].get(name)) for key in common]) for rows in (a, b))
    if not np.isfinite(theirs - ours).any():
        return None
    interval = bootstrap_interval(theirs - ours)
    return {
        "a": float(np.nanmean(ours)),
        "b": float(np.nanmean(theirs)),
        "difference": {key: getattr(interval, key) for key in ("mean", "low", "high", "num")},
        "p": paired_p(theirs, ours),
    }


def _agreement(ours: Explanation, theirs: Explanation) -> dict[str, Any]:
    """Spearman's rank correlation of each map over all frames, on the grid of the first run."""
    frames = min(len(ours.pts_s), len(theirs.pts_s))
    a, b = (decompose_arrays(found.outputs, found.mean[:, :frames], found.var[:, :frames]) for found in (ours, theirs))
    ranks = {kind: rank_agreement(a[kind], regrid(b[kind], a[kind].shape)) for kind in KINDS}
    return {"uri": ours.source.uri, "target": ours.target, "ranks": ranks}


def _number(value: object) -> float:
    return math.nan if value is None else float(value)  # type: ignore[arg-type]  # numbers of JSON and Parquet
