"""Reading a run back: the run folder becomes `Explanation` records with their arrays in memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import zarr

from pipeline.artifacts import Table
from pipeline.manifest import Manifest, RunFolder
from pipeline.summaries import TargetSummary
from stages.errors import ManifestError
from stages.records import Effect, Explanation, Fidelity, Geometry, Region, VideoSource


def read_explanations(run: Path) -> Iterator[Explanation]:
    """Every finished explanation of a run: one for each source and target, in the order in which they were finished.

    Raises ManifestError when `run` is no run folder, or when a map of it is missing or damaged.
    """
    folder = RunFolder.open(run)
    manifest, sources = folder.manifest, folder.inputs()
    for summary in folder.summaries():
        for target in summary.targets:
            maps_sha256 = summary.outputs.get(target.maps, "")
            yield _explanation(run, manifest, sources[summary.video_id], target, maps_sha256)


def read_rows(run: Path, table: Table, video_id: str, target_idx: int) -> list[dict[str, Any]]:
    """The rows of one source and target in one of the run's tables; none where the run did not get that far."""
    path = run / f"{table}.parquet"
    if not path.is_file():
        return []
    wanted = [("video_id", "==", video_id), ("target_idx", "==", target_idx)]
    rows: list[dict[str, Any]] = pq.read_table(path, filters=wanted).to_pylist()
    return rows


def _explanation(
    run: Path, manifest: Manifest, source: VideoSource, target: TargetSummary, maps_sha256: str
) -> Explanation:
    arrays, about = _read_maps(run / target.maps)
    clips = read_rows(run, "clips", source.id, target.target_idx)
    regions = read_rows(run, "regions", source.id, target.target_idx)
    return Explanation(
        source=source,
        target_idx=target.target_idx,
        target=target.target,
        outputs=tuple(about["outputs"]),
        pts_s=arrays["pts_s"],
        mean=arrays["mean"],
        var=arrays["var"],
        is_seen=arrays["is_seen"],
        is_reliable=arrays["is_reliable"],
        geometry=Geometry(**about["geometry"]),
        voxels_per_clip=int(about["voxels_per_clip"]),
        regions=tuple(_region(row, manifest.model.get("labels", ())) for row in regions),
        fidelity=tuple(Fidelity(**{name: row[name] for name in ("q2", "coverage", "is_reliable")}) for row in clips),
        provenance={
            "run_id": manifest.run_id,
            "config_sha256": manifest.config_sha256,
            "model": manifest.model,
            "seeds": manifest.seeds,
            "versions": manifest.versions,
            "maps_sha256": maps_sha256,
        },
    )


def _read_maps(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
    try:
        group = zarr.open_group(path, mode="r")
        arrays = {name: np.asarray(group[name][...]) for name in ("mean", "var", "pts_s", "is_seen", "is_reliable")}  # type: ignore[index]  # arrays, not groups
    except (OSError, KeyError, ValueError) as error:
        raise ManifestError(
            str(path), f"the maps cannot be read ({error})", "run `heatreel verify` on the run"
        ) from error
    return arrays, dict(group.attrs)


def _region(row: Mapping[str, Any], labels: Sequence[str]) -> Region:
    return Region(
        video_id=row["video_id"],
        target_idx=row["target_idx"],
        kind=row["kind"],
        region_idx=row["region_idx"],
        frames=(row["frame_start"], row["frame_stop"]),
        span_s=(row["start_s"], row["end_s"]),
        boxes=np.asarray(row["boxes"], np.float32).reshape(-1, 4),
        mass=row["mass"],
        z_score=row["z_score"],
        peak=(row["peak_frame"], row["peak_y_px"], row["peak_x_px"]),
        effect=_effect(row, labels),
    )


def _effect(row: Mapping[str, Any], labels: Sequence[str]) -> Effect | None:
    if row["effect_clip_idx"] is None:
        return None
    numbers = {name: row[name] for name in ("prob_before", "prob_after", "log_odds_before", "log_odds_after")}
    top1 = {name: _class_of(row[name], labels) for name in ("top1_before", "top1_after")}
    return Effect(clip_idx=row["effect_clip_idx"], **numbers, **top1)


def _class_of(name: str, labels: Sequence[str]) -> int:
    """The index of a class name as tables write it: a label, or "class N" where the model names none."""
    return labels.index(name) if name in labels else int(name.removeprefix("class "))
