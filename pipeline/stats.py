"""What a run measures about itself: evaluations, how full the batches were, who worked how long, memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.batching import RowQueue
from pipeline.window import Window
from pipeline.work import STAGES, StageName


@dataclass(slots=True)
class Stats:
    """Counters of a run. Times are of the coordinator's clock; `began` is when the scorers were ready.

    Scorers come and go: `possible` and `scorer_s` are the evaluations that the bare model could have made on those that
    were up, while they were, and the seconds that they were up; `tick` goes on counting.
    """

    began: float | None = None
    bare_rates: dict[int, float] = field(default_factory=dict)  # of the scorers that are up
    possible: float = 0.0
    scorer_s: float = 0.0
    ticked: float | None = None
    evaluations: int = 0
    batches: int = 0
    capacity: int = 0  # masks that the batches could have held
    busy_s: dict[StageName, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    clips: int = 0
    replayed: int = 0
    expected_clips: int = 0
    screened: int = 0
    expected_screened: int = 0
    is_time_over: bool = False
    videos: int = 0
    failures: int = 0
    retries: int = 0
    lost_workers: int = 0
    clips_in_flight: int = 0
    bytes_in_flight: int = 0
    rows_waiting: int = 0
    most_clips: int = 0
    most_bytes: int = 0
    memory: Mapping[str, int] = field(default_factory=dict)

    def plus(self, *others: "Stats") -> "Stats":
        """These counters and others together; what each had at most, at whatever moment, is added up too."""
        total = Stats(began=self.began, bare_rates=dict(self.bare_rates), memory=self.memory)
        for one in (self, *others):
            for name in _COUNTERS:
                setattr(total, name, getattr(total, name) + getattr(one, name))
            for stage, seconds in one.busy_s.items():
                total.busy_s[stage] += seconds
        for one in others:
            total.bare_rates |= {len(total.bare_rates) + at: rate for at, rate in enumerate(one.bare_rates.values())}
        return total

    def scorer_up(self, worker: int, rate: float, now: float) -> None:
        """A scorer is ready, whose bare model makes `rate` evaluations per second."""
        self.tick(now)
        self.bare_rates[worker] = rate
        self.began = now if self.began is None else self.began

    def scorer_down(self, worker: int, now: float) -> None:
        """A scorer is gone."""
        self.tick(now)
        self.bare_rates.pop(worker, None)

    def tick(self, now: float) -> None:
        """Time has passed for the scorers that are up."""
        passed = 0.0 if self.ticked is None else now - self.ticked
        self.possible += passed * sum(self.bare_rates.values())
        self.scorer_s += passed * len(self.bare_rates)
        self.ticked = now

    def nothing_left(self) -> None:
        """What was on its way is lost with its coordinator: it is begun again, and counted there."""
        self.bare_rates.clear()
        self.expected_clips, self.expected_screened = self.clips, self.screened
        self.clips_in_flight = self.bytes_in_flight = self.rows_waiting = 0

    def note(self, window: Window, rows: RowQueue) -> None:
        """How much is on its way now."""
        self.clips_in_flight, self.bytes_in_flight = window.num_open, window.num_bytes
        self.rows_waiting = rows.num_rows
        self.most_clips = max(self.most_clips, window.num_open)
        self.most_bytes = max(self.most_bytes, window.num_bytes)

    def expect(self, clips: int, *, is_screening: bool) -> None:
        """So many more clips are likely to come."""
        if is_screening:
            self.expected_screened += clips
        else:
            self.expected_clips += clips

    @property
    def progress(self) -> tuple[int, int, str]:
        """How many clips are done, of how many (0: not known), and what is done with them."""
        if self.expected_clips == 0 and self.clips == 0 and self.expected_screened:
            return self.screened, self.expected_screened, "screened"
        return self.clips, self.expected_clips, ""

    def elapsed_s(self, now: float) -> float:
        """Seconds since the first scorer was ready."""
        return 0.0 if self.began is None else max(now - self.began, 1e-9)

    def rate(self, now: float) -> float:
        """Evaluations per second of the whole pipeline so far."""
        return self.evaluations / self.elapsed_s(now) if self.began is not None else 0.0

    def efficiency(self) -> float | None:
        """The headline figure: evaluations over those of the bare model in a tight loop, on the scorers while up."""
        return self.evaluations / self.possible if self.possible and self.evaluations else None

    def eta_s(self, now: float) -> float | None:
        """Seconds to go by the clips done so far; None when that cannot be said."""
        done = self.clips
        if not done or self.expected_clips <= done:
            return None
        return self.elapsed_s(now) * (self.expected_clips - done) / done

    def summary(self, now: float) -> dict[str, Any]:
        """The figures for the manifest and the last line of a run. Shares are of the time that the run took."""
        wall_s = self.elapsed_s(now)
        return {
            "seconds": wall_s,
            "evaluations": self.evaluations,
            "evaluations_per_s": self.rate(now),
            "bare_evaluations_per_s": sum(self.bare_rates.values()) or None,
            "efficiency": self.efficiency(),
            "scorer_busy_share": self.busy_s["score"] / self.scorer_s if self.evaluations and self.scorer_s else None,
            "batch_fill": self.evaluations / self.capacity if self.capacity else None,
            "refine_share": self.busy_s["refine"] / wall_s if wall_s else None,
            "decode_share": self.busy_s["decode"] / wall_s if wall_s else None,
            "write_share": self.busy_s["sink"] / wall_s if wall_s else None,
            "clips": self.clips,
            "screened_clips": self.screened,
            "replayed_clips": self.replayed,
            "retries": self.retries,
            "lost_workers": self.lost_workers,
            "most_clips_in_flight": self.most_clips,
            "most_bytes_in_flight": self.most_bytes,
            "peak_memory_bytes": dict(self.memory),
        }


_COUNTERS = [one.name for one in fields(Stats) if one.type in (int, float)]
