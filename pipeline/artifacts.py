"""What a run leaves for other programs: tables (Parquet) and maps on the grid (zarr).

The rows of a video are streamed into a part file of its own, which appears whole when the video is finished; the run's
tables are the parts in the order of the inputs, put together again whenever a run ends. Memory does not grow with the
number of videos or frames.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from pipeline.files import atomic_file, remove, safe_name, sync_folder, writing
from stages.records import FrameMap, Geometry

Table = Literal["clips", "frames", "regions"]

_S, _I, _F, _B = pa.string(), pa.int32(), pa.float64(), pa.bool_()
_KEYS = [("video_id", _S), ("target_idx", _I), ("target", _S)]

# frames: means over the frame's grid in log-odds per 1 % of the clip; uncertainty: the same of the posterior sd of
# net. clips: evidence totals in units of the score (their sum over the grid); prior_weight: posterior probability that
# the prior is of use, prior_beta: the factor it enters the log-odds map with (empty where the method fits none),
# no_prior: why a clip has none although `prior previous` was asked for.
# regions: mass in units of the score.
SCHEMAS: Mapping[Table, pa.Schema] = {
    "clips": pa.schema(
        [
            *_KEYS,
            *[("clip_idx", _I), ("frame_start", _I), ("frame_stop", _I), ("start_s", _F), ("end_s", _F)],
            *[("top1_idx", _I), ("top1", _S), ("prob", _F), ("prob_replaced", _F)],
            *[(name, _F) for name in ("z_t", "lse_n", "log_odds", "z_t_replaced", "lse_n_replaced")],
            *[(name, _F) for name in ("log_odds_replaced", "for", "f_tc", "f_ntc", "net")],
            ("rivals", pa.map_(_S, _F)),
            *[("q2", _F), ("coverage", _F), ("q2_z_t", _F), ("q2_lse_n", _F), ("is_reliable", _B)],
            *[("method", _S), ("evaluations", _I), ("stop_reason", _S), ("seconds", _F)],
            *[("prior_weight", _F), ("prior_beta", _F), ("is_prior_refused", _B), ("no_prior", _S)],
        ]
    ),
    "frames": pa.schema(
        [
            *_KEYS,
            *[("frame_idx", _I), ("pts_s", _F), ("for", _F), ("f_tc", _F), ("f_ntc", _F), ("net", _F)],
            *[("uncertainty", _F), ("peak_y_px", _F), ("peak_x_px", _F), ("is_seen", _B), ("is_reliable", _B)],
        ]
    ),
    "regions": pa.schema(
        [
            *_KEYS,
            *[("region_idx", _I), ("kind", _S), ("frame_start", _I), ("frame_stop", _I), ("start_s", _F)],
            *[("end_s", _F), ("mass", _F), ("z_score", _F), ("peak_frame", _I), ("peak_y_px", _F), ("peak_x_px", _F)],
            ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
            *[("effect_clip_idx", _I), ("prob_before", _F), ("prob_after", _F), ("log_odds_before", _F)],
            *[("log_odds_after", _F), ("top1_before", _S), ("top1_after", _S)],
        ]
    ),
}

ROWS_IN_MEMORY = 4096
FRAMES_PER_CHUNK = 32
STORE_THREADS = 2  # of zarr, for small local files


class PartWriter:
    """The rows of one video for one table, streamed to parts/TABLE/VIDEO.parquet; there only after `close`."""

    def __init__(self, run: Path, table: Table, video_id: str) -> None:
        self.path = part_path(run, table, video_id)
        self._schema = SCHEMAS[table]
        self._temporary = self.path.with_name(f".{self.path.name}.tmp")
        self._rows: list[Mapping[str, Any]] = []
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._temporary, self._schema)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row; a key that the schema does not have is a bug."""
        if len(row) != len(self._schema) or any(name not in row for name in self._schema.names):
            raise ValueError(f"row has {sorted(row)}, the table {sorted(self._schema.names)}")
        self._rows.append(row)
        if len(self._rows) >= ROWS_IN_MEMORY:
            self._flush()

    def close(self) -> None:
        """Make the part appear, whole."""
        self._flush()
        with writing(self.path):
            self._writer.close()
            with self._temporary.open("rb+") as file:
                os.fsync(file.fileno())
            self._temporary.replace(self.path)
            sync_folder(self.path.parent)

    def abort(self) -> None:
        """Drop what was written."""
        self._rows.clear()
        self._writer.close()
        remove(self._temporary)

    def _flush(self) -> None:
        if self._rows:
            with writing(self.path):
                self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()


def part_path(run: Path, table: Table, video_id: str) -> Path:
    """Where the rows of one video lie."""
    return run / "parts" / table / f"{safe_name(video_id)}.parquet"


def merge_tables(run: Path, video_ids: Iterable[str]) -> dict[str, int]:
    """(Re)build the run's tables from the parts of these videos, in this order; returns the rows of each."""
    order = list(video_ids)
    return {table: _merge(run, table, order) for table in SCHEMAS}


def _merge(run: Path, table: Table, order: Sequence[str]) -> int:
    schema = SCHEMAS[table]
    num_rows = 0
    with atomic_file(run / f"{table}.parquet") as file, pq.ParquetWriter(file, schema) as writer:
        waiting: list[pa.RecordBatch] = []
        for path in (part_path(run, table, video_id) for video_id in order):
            if not path.exists():
                continue
            for batch in pq.ParquetFile(path).iter_batches(ROWS_IN_MEMORY):
                waiting.append(batch)
                num_rows += batch.num_rows
                if sum(batch.num_rows for batch in waiting) >= ROWS_IN_MEMORY:
                    writer.write_table(pa.Table.from_batches(waiting, schema))
                    waiting = []
        writer.write_table(pa.Table.from_batches(waiting, schema))
    return num_rows


class MapStore:
    """maps/VIDEO.TARGET.zarr: `mean` and `var` (output, frame, gy, gx) float32, written as frames become final.

    Beside them lie `pts_s`, `is_seen` and `is_reliable`, an entry per frame. Whole chunks are written; the attribute
    `is_complete` becomes true with `close`.
    """

    def __init__(self, path: Path, *, outputs: tuple[str, ...], grid_hw: tuple[int, int], about: Mapping[str, Any]):
        self.path = path
        self._frames: list[FrameMap] = []
        self._pts_s: list[float] = []
        # Left alone, zarr starts another thread whenever it finds none free, hours into a run as well.
        if zarr.config.get("threading.max_workers") is None:
            zarr.config.set({"threading.max_workers": STORE_THREADS})
        with writing(path):
            remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._group = zarr.open_group(path, mode="w")
            shape, chunks = (len(outputs), 0, *grid_hw), (len(outputs), FRAMES_PER_CHUNK, *grid_hw)
            for name in ("mean", "var"):
                self._group.create_array(
                    name,
                    shape=shape,
                    chunks=chunks,
                    dtype="float32",
                    dimension_names=("output", "frame", "gy", "gx"),
                )
            for name, dtype in (("pts_s", "float64"), ("is_seen", "bool"), ("is_reliable", "bool")):
                self._group.create_array(name, shape=(0,), chunks=(4096,), dtype=dtype, dimension_names=("frame",))
            self._group.attrs.update({"outputs": list(outputs), "is_complete": False, **about})

    def append(self, frame: FrameMap, pts_s: float) -> None:
        """Add the next frame; frames come in order from 0."""
        self._frames.append(frame)
        self._pts_s.append(pts_s)
        if len(self._frames) >= FRAMES_PER_CHUNK:
            self._flush()

    def close(self) -> None:
        """Write the last, partial chunk and mark the store complete."""
        self._flush()
        with writing(self.path):
            self._group.attrs["is_complete"] = True

    def _flush(self) -> None:
        if not self._frames:
            return
        with writing(self.path):
            _append(self._group, "mean", np.stack([frame.mean for frame in self._frames], axis=1), axis=1)
            _append(self._group, "var", np.stack([frame.var for frame in self._frames], axis=1), axis=1)
            _append(self._group, "pts_s", np.array(self._pts_s))
            _append(self._group, "is_seen", np.array([frame.is_seen for frame in self._frames]))
            _append(self._group, "is_reliable", np.array([frame.is_reliable for frame in self._frames]))
        self._frames.clear()
        self._pts_s.clear()


def about_maps(
    *, video_id: str, target_idx: int, target: str, geometry: Geometry, grid: tuple[int, int, int], frames_per_clip: int
) -> dict[str, Any]:
    """The attributes that make a map store readable by itself."""
    return {
        "video_id": video_id,
        "target_idx": target_idx,
        "target": target,
        "unit": "score per voxel; summed over a clip's grid: the change from the replaced to the untouched clip",
        "voxels_per_clip": int(np.prod(grid)),
        "clip_grid": list(grid),
        "frames_per_clip": frames_per_clip,
        "geometry": asdict(geometry),
        "upsampling": "bilinear in the model's picture, cell centres at (i + 0.5) * model_px / cells; then "
        "source_px = scale * model_px + offset_px",
    }


def _append(group: zarr.Group, name: str, values: np.ndarray, axis: int = 0) -> None:
    array = group[name]
    assert isinstance(array, zarr.Array)
    array.append(values, axis=axis)
