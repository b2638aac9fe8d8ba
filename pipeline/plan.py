"""The plan of a screened run: a row for every clip, its rank, whether the budget reaches it, what became of it.

RUN/screening.parquet is written once all clips are screened and keeps the selection when the run is resumed; at the end
the columns `is_explained` and `reason` are brought up to date.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from pipeline.files import atomic_file
from pipeline.orders import Order, Orders
from pipeline.rows import LabelOf
from pipeline.screened import Screened
from pipeline.screening import gains, rank, signals
from stages.records import VideoSource

NAME = "screening.parquet"

_S, _I, _F, _B = pa.string(), pa.int32(), pa.float64(), pa.bool_()
SCHEMA = pa.schema(
    [
        *[("video_id", _S), ("clip_idx", _I), ("frame_start", _I), ("frame_stop", _I), ("is_last", _B)],
        *[
            ("start_s", _F),
            ("end_s", _F),
            ("target_idx", _I),
            ("target", _S),
            ("prob", _F),
            ("change", _F),
            ("contest", _F),
        ],
        *[("priority", _F), ("rank", pa.int64()), ("is_selected", _B), ("is_explained", _B), ("reason", _S)],
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What explaining may cost: a clip, and what a video costs besides (its regions are removed for real).

    `evaluations`, one for the screening of every clip among them, and `clips`: how many there may be, None for any.
    """

    clip_cost: int
    video_cost: int
    evaluations: int | None = None
    clips: int | None = None

    def num_affordable(self, video_of_rank: Int64[np.ndarray, " n"]) -> tuple[int, str]:
        """How many of the first-ranked clips (the video of each is given) can be paid; what lies beyond, in words."""
        _, first = np.unique(video_of_rank, return_index=True)
        cost = np.full(len(video_of_rank), self.clip_cost)
        cost[first] += self.video_cost
        paid = len(cost) if self.evaluations is None else int((np.cumsum(cost) + len(cost) <= self.evaluations).sum())
        if self.clips is not None and self.clips < paid:
            return max(self.clips, 0), "beyond the time"
        return paid, "beyond the budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One screened video, and the classes that are explained in it."""

    video_id: str
    screened: Screened
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The rows of screening.parquet, by video in the order of the inputs, in each by clip."""

    table: pa.Table

    @classmethod
    def make(cls, looks: Iterable[Look], allowance: Allowance, label_of: LabelOf) -> "Plan":
        """Rank all clips of all videos and select as many as the allowance pays for."""
        columns: list[dict[str, Any]] = []
        orders, values = [], []
        for look in looks:
            seen = look.screened
            found = signals(seen.log_scores, seen.clip_idx, look.targets)
            order, gain = gains(found.priority, seen.frames)
            orders.append(order)
            values.append(gain)
            columns.append(
                {
                    "video_id": [look.video_id] * len(seen),
                    "clip_idx": seen.clip_idx,
                    "frame_start": seen.frames[:, 0],
                    "frame_stop": seen.frames[:, 1],
                    "is_last": (seen.clip_idx == seen.clip_idx[-1]) & seen.has_end,
                    "start_s": seen.span_s[:, 0],
                    "end_s": seen.span_s[:, 1],
                    "target_idx": found.target_idx,
                    "target": [label_of(int(idx)) for idx in found.target_idx],
                    **{name: getattr(found, name) for name in ("prob", "change", "contest", "priority")},
                }
            )
        places = rank(values)
        video_of_rank = np.zeros(sum(len(order) for order in orders), np.int64)
        for number, ranks in enumerate(places):
            video_of_rank[ranks] = number
        count, beyond = allowance.num_affordable(video_of_rank)
        tables = []
        for rows, order, ranks in zip(columns, orders, places, strict=True):
            by_clip = np.empty(len(order), np.int64)
            by_clip[order] = ranks
            is_selected = by_clip < count
            reasons = ["" if is_in else beyond for is_in in is_selected]
            more = {"rank": by_clip, "is_selected": is_selected, "reason": reasons}
            tables.append(pa.table({**rows, **more, "is_explained": np.zeros(len(order), bool)}).select(SCHEMA.names))
        return cls(pa.concat_tables([SCHEMA.empty_table(), *(table.cast(SCHEMA) for table in tables)]))

    @classmethod
    def read(cls, run: Path) -> "Plan | None":
        """The plan of a run; None while there is none."""
        path = run / NAME
        return cls(pq.read_table(path)) if path.is_file() else None

    def write(self, run: Path) -> None:
        """Bring the plan to the disk, whole."""
        with atomic_file(run / NAME) as file:
            pq.write_table(self.table, file)

    def videos(self) -> dict[str, dict[str, np.ndarray]]:
        """The numbers of every video, by column."""
        ids = np.asarray(self.table["video_id"].to_pylist(), object)
        names = [name for name in SCHEMA.names if name not in ("video_id", "target", "reason")]
        columns = {name: self.table[name].to_numpy() for name in names}
        starts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1), len(ids)] if len(ids) else [0]
        return {str(ids[a]): {name: column[a:b] for name, column in columns.items()} for a, b in pairwise(starts)}

    def orders(self, targets: Mapping[str, tuple[int, ...]]) -> Orders:
        """The selected clips of every source; sources without any are left alone. The film covers all screened frames.

        `targets`: the classes to explain, by video.
        """
        found = {}
        for video_id, rows in self.videos().items():
            only = frozenset(rows["clip_idx"][rows["is_selected"]].tolist())
            num_frames = int(rows["frame_stop"].max())
            if only:
                found[video_id] = Order(only=only, targets=targets[video_id], num_frames=num_frames)

        def order(source: VideoSource) -> Order | None:
            return found.get(source.id)

        return order

    def brought_up_to_date(
        self, explained: Set[tuple[str, int]], failed: Set[tuple[str, int | None]], missed: str
    ) -> "Plan":
        """The plan with what has become of the selected clips, named by (video, clip); clip None: the whole video.

        `missed`: why those are missing that were neither explained nor failed.
        """
        clips = list(zip(self.table["video_id"].to_pylist(), self.table["clip_idx"].to_pylist(), strict=True))
        is_explained = [clip in explained for clip in clips]
        selected, before = self.table["is_selected"].to_pylist(), self.table["reason"].to_pylist()
        reasons = [
            reason if not is_in else "" if is_done else "failed" if {clip, (clip[0], None)} & failed else missed
            for clip, is_in, is_done, reason in zip(clips, selected, is_explained, before, strict=True)
        ]
        table = self.table
        for name, values in (("is_explained", is_explained), ("reason", reasons)):
            table = table.set_column(
                table.column_names.index(name), SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type)
            )
        return Plan(table)


def coverage(plan: Plan) -> dict[str, Any]:
    """What was and what was not explained: clips, share of the time, and the longest stretch without an explanation.

    A stretch is counted in frames that no explained clip covers, and told in seconds.
    """
    total_s = missing_s = 0.0
    longest: tuple[float, float, str | None] = (0.0, 0.0, None)
    num_clips = num_explained = num_videos = num_untouched = num_cut = 0
    for video_id, rows in plan.videos().items():
        is_done = rows["is_explained"]
        num_videos, num_untouched = num_videos + 1, num_untouched + (not is_done.any())
        num_cut += not rows["is_last"].any()
        num_clips, num_explained = num_clips + len(is_done), num_explained + int(is_done.sum())
        for start_s, end_s, has_map in stretches(rows):
            total_s += end_s - start_s
            if not has_map:
                missing_s += end_s - start_s
                if end_s - start_s > longest[0]:
                    longest = end_s - start_s, start_s, video_id
    return {
        "clips_screened": num_clips,
        "clips_explained": num_explained,
        "clips_not_explained": num_clips - num_explained,
        "videos_screened": num_videos,
        "videos_without_explanation": num_untouched,
        "videos_screened_in_part": num_cut,
        "time_not_explained_share": missing_s / total_s if total_s else (1 - num_explained / max(num_clips, 1)),
        "longest_gap_s": longest[0],
        "longest_gap_at_s": longest[1],
        "longest_gap_video": longest[2],
    }


def stretches(rows: Mapping[str, np.ndarray]) -> list[tuple[float, float, bool]]:
    """A video's time as (start, end, whether it is explained), from the first to the last screened frame."""
    first, stop = int(rows["frame_start"].min()), int(rows["frame_stop"].max())
    is_covered = np.zeros(stop - first, bool)
    for start, end in zip(
        rows["frame_start"][rows["is_explained"]], rows["frame_stop"][rows["is_explained"]], strict=True
    ):
        is_covered[start - first : end - first] = True
    edges = [0, *(np.flatnonzero(is_covered[1:] != is_covered[:-1]) + 1), len(is_covered)]
    times = _times(rows, np.array(edges) + first)
    return [
        (float(a), float(b), bool(is_covered[edge]))
        for a, b, edge in zip(times[:-1], times[1:], edges[:-1], strict=True)
    ]


def _times(rows: Mapping[str, np.ndarray], frames: Sequence[int] | np.ndarray) -> np.ndarray:
    """Seconds at which frames begin, linear between the starts of clips; the end lies one frame after the last."""
    starts, last = rows["frame_start"], int(rows["frame_stop"].argmax())
    length = max(int(rows["frame_stop"][last]) - 1 - int(starts[last]), 0)
    step = (rows["end_s"][last] - rows["start_s"][last]) / length if length else 0.0
    known = np.append(starts, rows["frame_stop"][last])
    return np.asarray(np.interp(frames, known, np.append(rows["start_s"], rows["end_s"][last] + step)))
