"""How much may be in flight: bounds in clips and bytes, and the window that keeps scorers busy, measured on the way.

A scorer that takes B rows in t_batch seconds, rounds of M rows, and a round trip of t_other seconds outside the scorers
(decode, refine, write) need W >= (S B q / M) (1 + t_other / t_batch) clips for S scorers with q batches queued each
(docs/scaling.md), plus the clips at home on the scorers and the ones being read. Late rounds of adaptive runs are
small, so M is the mean over all rounds asked so far.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.work import StageName

SMOOTHING = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of a run. `max_clips` None: as many as the measured window asks for, at most `most_clips`."""

    max_videos: int = 4
    max_clips: int | None = None
    most_clips: int = 256
    max_bytes: int = 1 << 30
    queued: Mapping[StageName, int] = field(
        default_factory=lambda: {"decode": 2, "score": 2, "refine": 2, "sink": 2}
    )  # requests per worker
    replays: int = 2  # clips of one video replayed at a time, outside the window
    sink_clips: int = 8  # clips handed to a sink at once
    deadline_s: float = 2.0
    starvation_s: float = 60.0
    attempts: int = 3
    backoff_s: float = 0.5
    timeout_s: Mapping[StageName, float] = field(default_factory=lambda: {"score": 600.0})


class Window:
    """Credits for clips: how many are open, how many bytes they hold, how many may be."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seconds: dict[StageName, float] = {}
        self._rounds = self._rows = 0
        self.num_open = 0
        self.num_bytes = 0

    def observe(self, stage: StageName, seconds: float) -> None:
        """Note how long one request took."""
        known = self._seconds.get(stage, seconds)
        self._seconds[stage] = known + SMOOTHING * (seconds - known)

    def observe_round(self, rows: int) -> None:
        """Note how many masks a round asks about."""
        self._rounds += 1
        self._rows += rows

    def forget_rounds(self) -> None:
        """What was asked so far says nothing about what will be asked."""
        self._rounds = self._rows = 0

    def clips(self, *, rows_per_clip: float, batch_sizes: list[int], num_readers: int) -> int:
        """The clips that may be open now."""
        if self._limits.max_clips is not None:
            return self._limits.max_clips
        rows = self._rows / self._rounds if self._rounds else rows_per_clip
        ahead = self._limits.queued["score"] * sum(batch_sizes) / max(rows, 1.0)
        other = sum(self._seconds.get(stage, 0.0) for stage in ("decode", "refine", "sink"))
        wait = other / max(self._seconds.get("score", other or 1.0), 1e-6)
        reading = self._limits.queued["decode"] * max(num_readers, 1)
        wanted = math.ceil(ahead * (1 + wait)) + len(batch_sizes) + reading + 1
        return min(wanted, self._limits.most_clips)

    def has_room(self, clips: int, nbytes: int) -> bool:
        """Whether one more clip of `nbytes` may be opened; the first may always."""
        if self.num_open == 0:
            return True
        return self.num_open < clips and self.has_bytes(nbytes)

    def has_bytes(self, nbytes: int) -> bool:
        """Whether `nbytes` more may be held; a single clip may always."""
        return self.num_bytes == 0 or self.num_bytes + nbytes <= self._limits.max_bytes
