"""The driver's loop: hands the videos of the feed to the shards, writes down what they say, and ends the run."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Protocol

from pipeline.coordinator import CLOSE_S, DRAIN_S
from pipeline.fleet import Fleet
from pipeline.logs import log_again
from pipeline.orders import Assignment, Order, Orders, explain_everything
from pipeline.shards import NoMore, Report, Saying, Stop, TargetsChosen, TimeOver, VideoGone
from pipeline.stats import Stats
from pipeline.summaries import VideoSummary
from stages.errors import ExplainError, ResourceError
from stages.records import Failure, VideoSource

_log = logging.getLogger(__name__)

HUNGRY_S = 0.02  # how long to wait while a shard wants a video that the feed may have any moment
QUIET_S = 0.25
GRACE_S = 10.0  # after a shard should have closed everything


class Sources(Protocol):
    """Where the videos come from (`feed.SourceFeed`)."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing will come any more."""
        ...

    def poll(self) -> VideoSource | Failure | None:
        """The next source, or why it is none, if one is there."""
        ...

    def close(self) -> None:
        """List no further."""


class _NoSources:
    """Before the first pass."""

    has_ended = True

    def poll(self) -> VideoSource | Failure | None:
        return None

    def close(self) -> None:
        pass


class Notes(Protocol):
    """Where the run writes down what happens (`record.RunRecord`)."""

    def opened(self, source: VideoSource) -> bool:
        """A source is taken in; False when an earlier run has finished it."""
        ...

    def has_targets(self, video_id: str, targets: tuple[int, ...]) -> None:
        """The classes to explain in this video are decided."""

    def completed(self, summary: VideoSummary) -> None:
        """A video is finished."""

    def failed(self, failure: Failure) -> None:
        """An input, or a part of it, could not be explained."""


@dataclass(slots=True)
class _Shard:
    wants: int = 1
    num_assigned: int = 0  # since it was built
    open: dict[str, Assignment] = field(default_factory=dict)
    has_ended: bool = False
    stats: Stats = field(default_factory=Stats)


class Dispatcher:
    """Drives the shards of `fleet`, which have started. `targets`: what an earlier, unfinished run has chosen."""

    def __init__(
        self,
        fleet: Fleet,
        num_shards: int,
        notes: Notes,
        *,
        max_failures: int | None = None,
        targets: Mapping[str, tuple[int, ...]] | None = None,
        show: Callable[[Stats, float], None] = lambda stats, now: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._fleet = fleet
        self._notes = notes
        self._max_failures = max_failures
        self._targets = dict(targets or {})
        self._show = show
        self._clock = clock
        self._shards = [_Shard() for _ in range(num_shards)]
        self._lost = Stats()  # what shards had done when they died
        self._began = clock()
        self._feed: Sources = _NoSources()
        self._orders: Orders = explain_everything
        self._deadline: float | None = None
        self.is_time_over = False
        self._has_told_no_more = False
        self._known_failures: set[tuple[str, int | None, str, str]] = set()
        self._num_failures = 0
        self._num_stops = self._num_stops_told = 0
        self._give_up_at: float | None = None
        self._fatal: ExplainError | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether the run was asked to stop."""
        return self._num_stops > 0

    def stop(self) -> None:
        """Once: finish what is in flight. Twice: close the films as they are. Safe to call from a signal handler."""
        self._num_stops += 1
        self._heed_stops()

    def run_pass(self, feed: Sources, orders: Orders = explain_everything, deadline: float | None = None) -> None:
        """Have all sources of `feed` done as `orders` say, and wait for it; no clip is begun after `deadline`.

        Raises what makes going on useless, after closing what is open.
        """
        self._feed, self._orders, self._deadline = feed, orders, deadline
        self.is_time_over = False
        while not (self._feed.has_ended and not any(shard.open for shard in self._shards)):
            self._heed_stops()
            self._heed_deadline()
            self._turn(is_hungry=self._hand_out())
            if self.is_stopped and self._is_over():
                break
        self._raise_fatal()

    def finish(self) -> None:
        """End the shards, which bring what they have to the disk. Raises as `run_pass`."""
        for index in range(len(self._shards)):
            self._fleet.tell(index, NoMore())
        self._has_told_no_more = True
        while not self._is_over():
            self._heed_stops()
            self._turn(is_hungry=False)
        self._raise_fatal()

    def now(self) -> float:
        """The time on the dispatcher's clock."""
        return self._clock()

    def stats(self) -> Stats:
        """The figures of all shards together."""
        total = self._lost.plus(*(shard.stats for shard in self._shards))
        total.began, total.failures, total.is_time_over = self._began, self._num_failures, self.is_time_over
        return total

    def _turn(self, *, is_hungry: bool) -> None:
        for index, report in self._fleet.wait(HUNGRY_S if is_hungry else QUIET_S):
            self._take(index, report)
        self._show(self.stats(), self._clock())

    def _is_over(self) -> bool:
        """Whether all shards have ended, or have been waited for long enough."""
        if all(shard.has_ended for shard in self._shards):
            return True
        if self._give_up_at is None or self._clock() <= self._give_up_at:
            return False
        _log.warning("%d shards did not end in time", sum(not shard.has_ended for shard in self._shards))
        return True

    def _raise_fatal(self) -> None:
        if self._fatal is not None:
            while not self._is_over():
                self._heed_stops()
                self._turn(is_hungry=False)
            raise self._fatal

    def _hand_out(self) -> bool:
        """Give out what is there to those who want it, the emptiest first; True while one still wants."""
        while not (self._feed.has_ended or self._num_stops or self._fatal):
            hungry = [shard for shard in self._shards if shard.wants > 0 and not shard.has_ended]
            if not hungry:
                return False
            item = self._feed.poll()
            if item is None:
                return not self._feed.has_ended
            if isinstance(item, Failure):
                self._failed(item)
                continue
            try:
                order = self._orders(item) if self._notes.opened(item) else None
            except ExplainError as error:  # it is not what it was when the run began
                self._end_run(error)
                return False
            if order is not None:
                self._assign(min(hungry, key=lambda shard: len(shard.open)), item, order)
        return False

    def _assign(self, shard: _Shard, source: VideoSource, order: Order) -> None:
        shard.open[source.id] = Assignment(source=source, order=order, targets=self._targets.get(source.id))
        shard.wants -= 1
        shard.num_assigned += 1
        self._fleet.tell(self._shards.index(shard), shard.open[source.id])

    def _heed_deadline(self) -> None:
        if self._deadline is None or self.is_time_over or self._clock() < self._deadline:
            return
        self.is_time_over = True
        self._feed.close()
        for index in range(len(self._shards)):
            self._fleet.tell(index, TimeOver())

    def _take(self, index: int, report: Report) -> None:
        shard = self._shards[index]
        log_again(report.logs, f"coordinator={index}")
        if report.stats is not None:
            shard.stats = report.stats
        if report.is_lost:
            self._begin_again(index, shard)
        for saying in report.said:
            self._hear(shard, saying)
        shard.wants = report.wants - (shard.num_assigned - report.num_assigned)  # some orders may be on their way
        shard.has_ended |= report.has_ended
        if report.error is not None:
            self._end_run(report.error)

    def _hear(self, shard: _Shard, saying: Saying) -> None:
        if isinstance(saying, TargetsChosen):
            self._targets[saying.video_id] = saying.targets
            self._notes.has_targets(saying.video_id, saying.targets)
        elif isinstance(saying, VideoSummary):
            self._notes.completed(saying)
        elif isinstance(saying, Failure):
            self._failed(saying)
        elif isinstance(saying, VideoGone):
            shard.open.pop(saying.video_id, None)
            self._targets.pop(saying.video_id, None)

    def _begin_again(self, index: int, shard: _Shard) -> None:
        """A coordinator died with all that it knew: the journal knows it too."""
        self._lost = self._lost.plus(shard.stats)
        self._lost.nothing_left()
        self._lost.lost_workers += 1
        shard.stats, shard.num_assigned = Stats(), len(shard.open)
        if self._num_stops or self._fatal:
            shard.has_ended = True
            return
        for video_id, assignment in shard.open.items():
            shard.open[video_id] = replace(assignment, targets=self._targets.get(video_id))
            self._fleet.tell(index, shard.open[video_id])
        if self.is_time_over:
            self._fleet.tell(index, TimeOver())
        if self._has_told_no_more:
            self._fleet.tell(index, NoMore())

    def _failed(self, failure: Failure) -> None:
        """Write a failure down; what both passes of a screened run meet counts once."""
        key = (failure.uri, failure.clip_idx, failure.stage, failure.reason)
        if key in self._known_failures:
            return
        self._known_failures.add(key)
        self._notes.failed(failure)
        self._num_failures += 1
        most = self._max_failures
        if most is not None and self._num_failures > most:
            fact = f"more than {most} failures; the last: {failure.uri}: {failure.reason}"
            self._end_run(ResourceError("the run", fact, "mend the inputs, or raise engine.max_failures"))

    def _end_run(self, error: ExplainError) -> None:
        """Close what is open everywhere, then raise."""
        self._fatal = self._fatal or error
        self._num_stops = max(self._num_stops, 2)

    def _heed_stops(self) -> None:
        while self._num_stops_told < min(self._num_stops, 2):
            self._num_stops_told += 1
            self._feed.close()
            for index in range(len(self._shards)):
                self._fleet.tell(index, Stop())
            drain_s = DRAIN_S if self._num_stops_told == 1 else 0.0
            self._give_up_at = self._clock() + drain_s + CLOSE_S + GRACE_S
