"""A shard: one coordinator with workers of its own, for a share of the videos. A run has one, or several on a cluster.

It is built from plain data, where it works: in the driver (threads) or in a Ray actor. All that passes between a shard
and the dispatcher are `Message`s and `Report`s; a shard that dies is built again and given its open videos again, and
what the journal holds is not asked twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from pipeline.bounds import limits_of
from pipeline.casework import Casework
from pipeline.config import Config
from pipeline.coordinator import POLL_S, Coordinator
from pipeline.engine import Engine, Happening, WorkerDown, WorkerUp
from pipeline.journal_writer import BackgroundJournal
from pipeline.logs import LogLine, log_trace
from pipeline.manifest import RunFolder
from pipeline.orders import Assignment, Feed
from pipeline.scheduler import Scheduler
from pipeline.stats import Stats
from pipeline.summaries import VideoSummary
from pipeline.topology import ScorerReport, Share, other_plans, scorer_plan
from stages.errors import ExplainError
from stages.records import Failure

AHEAD = 1  # videos that wait in a shard, so that it need not wait for the dispatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """All that a shard is built from. `run`: the run folder as coordinators and sinks see it."""

    config: Config
    run: str
    share: Share


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish what is in flight; a second one: close the films as they are."""


@dataclass(frozen=True, slots=True)
class NoMore:
    """There are no further videos."""


@dataclass(frozen=True, slots=True)
class TimeOver:
    """Begin no further clip of the videos that are open; what was begun is finished."""


@dataclass(frozen=True, slots=True)
class TargetsChosen:
    """The classes to explain in a video are decided."""

    video_id: str
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VideoGone:
    """Nothing more will happen to a video, finished or not."""

    video_id: str


Message = Assignment | Stop | NoMore | TimeOver
Saying = TargetsChosen | VideoSummary | Failure | VideoGone


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What has happened in a shard since its last report.

    `wants`: videos that it could begin now, besides the `num_assigned` it got; `error`: why it cannot go on; `is_lost`:
    it died, and a new one stands in its place.
    """

    said: tuple[Saying, ...] = ()
    wants: int = 0
    num_assigned: int = 0
    has_ended: bool = False
    error: ExplainError | None = None
    stats: Stats | None = None
    logs: tuple[LogLine, ...] = ()
    is_lost: bool = False


class _Mail:
    """The coordinator's `Record`, kept until the next report."""

    def __init__(self) -> None:
        self.said: list[Saying] = []

    def has_targets(self, video_id: str, targets: tuple[int, ...]) -> None:
        self.said.append(TargetsChosen(video_id, targets))

    def completed(self, summary: VideoSummary) -> None:
        self.said.append(summary)

    def failed(self, failure: Failure) -> None:
        self.said.append(failure)

    def ended(self, video_id: str) -> None:
        self.said.append(VideoGone(video_id))


class Shard:
    """Brings up its workers (`start`), then works in turns (`advance`)."""

    def __init__(self, plan: ShardPlan, engine: Engine) -> None:
        self.plan = plan
        self.engine = engine
        self._stats = Stats()
        self._feed = Feed()
        self._mail = _Mail()
        self._journal = BackgroundJournal(Path(plan.run) / "journal")
        self._coordinator: Coordinator | None = None
        self._num_assigned = 0
        self._error: ExplainError | None = None

    def start(self) -> ScorerReport:
        """Bring up the scorers, learn from the first what the box is, and build the rest on that.

        Raises ModelError and the like when there can be no scorer, ConfigError where the run folder is not seen.
        """
        config, share = self.plan.config, self.plan.share
        folder = RunFolder(Path(self.plan.run))
        folder.expect_here()
        self.engine.start([scorer_plan(config, self.engine.capacity(), share)])
        report, said = self._first_scorer()
        spec = report.spec
        self.engine.start(other_plans(config, spec, self.engine.capacity(), share))
        limits = limits_of(config, self.engine.capacity(), share)
        clip_bytes = 3 * spec.clip_len * spec.height * spec.width
        self._coordinator = Coordinator(
            Casework(config, spec, self._journal, self.plan.run, self._mail.has_targets),
            Scheduler(limits, clip_bytes=clip_bytes, rows_per_clip=config.budget),
            self.engine,
            self._feed,
            self._mail,
            self._stats,
            weights_sha256=folder.manifest.model.get("weights_sha256") or report.weights_sha256,
        )
        for happening in said:
            self._coordinator.take(happening)
        return report

    def advance(self, messages: Sequence[Message], seconds: float) -> Report:
        """Take the messages and work for about so long, or until there is something to say."""
        coordinator = self._coordinator
        assert coordinator is not None, "start() has not run"
        for message in messages:
            if isinstance(message, Assignment):
                self._feed.waiting.append(message)
                self._num_assigned += 1
            elif isinstance(message, NoMore):
                self._feed.has_ended = True
            elif isinstance(message, TimeOver):
                coordinator.begin_no_more()
            else:
                self.stop()
        has_ended = False
        until = monotonic() + seconds
        try:
            while not (has_ended := coordinator.step(min(seconds, POLL_S))):
                if self._mail.said or monotonic() >= until:
                    break
            if has_ended and coordinator.error is None:
                self._journal.flush()
        except ExplainError as error:  # the journal cannot be written
            self._error, has_ended = error, True
        said, self._mail.said = tuple(self._mail.said), []
        return Report(
            said=said,
            wants=coordinator.scheduler.num_wanted() + AHEAD - len(self._feed.waiting),
            num_assigned=self._num_assigned,
            has_ended=has_ended,
            error=coordinator.error or self._error,
            stats=self._stats,
        )

    def stop(self) -> None:
        """As the message `Stop`, at once. Safe to call from a signal handler."""
        if self._coordinator is not None:
            self._coordinator.stop()

    def close(self) -> None:
        """End the workers."""
        self.engine.close()
        self._journal.close()

    def _first_scorer(self) -> tuple[ScorerReport, list[Happening]]:
        said: list[Happening] = []
        while True:
            for happening in self.engine.wait(1.0):
                said.append(happening)
                if isinstance(happening, WorkerDown) and happening.problem is not None:
                    log_trace(f"stage={happening.stage} worker={happening.worker}", happening.problem.trace)
                    raise happening.problem.error
                if isinstance(happening, WorkerUp) and isinstance(happening.report, ScorerReport):
                    return happening.report, said
