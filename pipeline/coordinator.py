"""The loop of a run, for one group of videos: admit, wait, complete, drain.

It joins the scheduler (who is next), the casework (what is in it) and an engine (who does it). It needs nothing of the
process it lives in: signals are turned into `stop()` by the caller, and what it knows goes to the `Record` it is given.
"""

import logging
import time
from collections.abc import Callable, Mapping

import numpy as np

from pipeline.cases import VideoCase
from pipeline.casework import Casework
from pipeline.engine import Answer, Engine, Happening, Problem, WorkerDown, WorkerUp
from pipeline.feed import SourceFeed
from pipeline.outcomes import Outcomes, Record
from pipeline.scheduler import Scheduler
from pipeline.stats import Stats
from pipeline.topology import ScorerReport
from pipeline.work import (
    DecodeTask,
    Event,
    FramesDropped,
    JobEnded,
    JobStarted,
    PeeksDone,
    RefineTask,
    RoundScored,
    ScoreTask,
    SinkTask,
    Task,
    VideoEnded,
)
from stages.decode import estimate_clips
from stages.errors import ConfigError, ExplainError
from stages.records import Failure, VideoSource
from stages.targets import needs_scores

_log = logging.getLogger(__name__)

POLL_S = 0.25
DRAIN_S = 20.0  # after the first stop: for what is in flight
CLOSE_S = 20.0  # after the second: for films to be closed
NUM_PEEKS = 8


class Coordinator:
    """Drives the videos of `feed` through `engine`, whose workers have been asked to start.

    `targets`: what an earlier, unfinished run has chosen, by video.
    """

    def __init__(
        self,
        casework: Casework,
        scheduler: Scheduler,
        engine: Engine,
        feed: SourceFeed,
        record: Record,
        stats: Stats,
        *,
        targets: Mapping[str, tuple[int, ...]] | None = None,
        show: Callable[[Stats, float], None] = lambda stats, now: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.casework = casework
        self.scheduler = scheduler
        self.engine = engine
        self.feed = feed
        self.record = record
        self.outcomes = Outcomes(record, stats, max_failures=casework.config.engine.max_failures)
        self.stats = stats
        self._targets = targets or {}
        self._show = show
        self._clock = clock
        self._num_stops = 0
        self._stop_by: float | None = None
        self._has_closed = False

    @property
    def is_stopped(self) -> bool:
        """Whether the run was asked to stop."""
        return self._num_stops > 0

    def stop(self) -> None:
        """Once: finish what is in flight. Twice: close the films as they are. Safe to call from a signal handler."""
        self._num_stops += 1

    def run(self) -> None:
        """Until every video has ended. Raises what makes going on useless, after closing what is open."""
        while True:
            now = self._clock()
            self._heed_stop(now)
            self._take_sources()
            if self.outcomes.fatal is not None and not self._has_closed:
                self._end_run(self.outcomes.fatal)
            if self.scheduler.is_done and (self.feed.has_ended or self.is_stopped or self.outcomes.fatal):
                break
            if self._stop_by is not None and now > self._stop_by + CLOSE_S:
                break
            for task in self.scheduler.overdue(now):
                _log.warning("stage=%s worker=%d seq=%d took too long", task.stage, task.worker, task.seq)
                self.engine.restart(task.stage, task.worker)
            self._start_tasks(now)
            for happening in self.engine.wait(self._patience(now)):
                self.take(happening)
            self._show(self.stats, self._clock())
        self.stats.ended = self._clock()
        if self.outcomes.fatal is not None:
            raise self.outcomes.fatal

    def take(self, happening: Happening) -> None:
        """Deal with what an engine says."""
        now = self._clock()
        if isinstance(happening, WorkerUp):
            self._worker_up(happening, now)
        elif isinstance(happening, WorkerDown):
            if happening.problem is not None:
                self._end_run(happening.problem.error)
            self.stats.lost_workers += 1
            self.scheduler.worker_down(happening.stage, happening.worker, now)
        else:
            task = self.scheduler.task(happening.seq)
            if task is not None and happening.problem is not None:
                self._problem_with(task, happening.problem, now)
            elif task is not None:
                self._answered(task, happening, now)
        self._handle_events()

    def _worker_up(self, up: WorkerUp, now: float) -> None:
        batch_size = 1
        if isinstance(up.report, ScorerReport):
            batch_size = up.report.tuning.batch_size
            self.stats.bare_rates[up.worker] = up.report.tuning.evaluations_per_s
            self.stats.began = now if self.stats.began is None else self.stats.began
        self.scheduler.worker_up(up.stage, up.worker, batch_size=batch_size)

    # --- sources and stopping ---

    def _take_sources(self) -> None:
        while self.scheduler.wants_video() and not self.is_stopped and self.outcomes.fatal is None:
            item = self.feed.poll()
            if item is None:
                return
            if isinstance(item, Failure):
                self.outcomes.fail(item)
            else:
                self._open(item)

    def _open(self, source: VideoSource) -> None:
        try:
            if not self.record.opened(source):
                return
        except ExplainError as error:  # it is not what it was when the run began
            self._end_run(error)
            return
        config, spec = self.casework.config, self.casework.spec
        count = estimate_clips(source, spec, config.decode)
        video = VideoCase(source, targets=self._targets.get(source.id), expected_clips=count or 0)
        self.casework.videos[source.id] = video
        self.stats.expected_clips += count or 0
        peek: list[int] = []
        if video.targets is None and needs_scores(config.target):
            peek = sorted({int(idx) for idx in np.linspace(0, (count or NUM_PEEKS) - 1, NUM_PEEKS)})
        done = [clip.clip_idx for clip in self.casework.journal.clips(source.id)]
        self.scheduler.add_video(source.id, peek=peek, done=done)

    def _heed_stop(self, now: float) -> None:
        if self._num_stops and self._stop_by is None:
            _log.warning("stopping: finishing what is in flight")
            self._stop_by = now + DRAIN_S
            self.feed.close()
            self.scheduler.stop()
        if self._num_stops and self._stop_by is not None and (self._num_stops > 1 or now > self._stop_by):
            self._stop_by = min(self._stop_by, now)
            self.scheduler.abandon()
        self._handle_events()

    def _end_run(self, error: ExplainError) -> None:
        """Close what is open, then raise."""
        self.outcomes.fatal = self.outcomes.fatal or error
        self._has_closed = True
        self.feed.close()
        self.scheduler.abandon()
        self._stop_by = self._clock()

    def _patience(self, now: float) -> float:
        if not self.feed.has_ended and self.scheduler.wants_video():
            return 0.02
        wake = self.scheduler.next_wakeup(now)
        return POLL_S if wake is None else min(max(wake - now, 0.001), POLL_S)

    # --- tasks ---

    def _start_tasks(self, now: float) -> None:
        tasks = self.scheduler.admit(now)
        self._handle_events()
        self.stats.note(self.scheduler.ledger.window, self.scheduler.ledger.rows)
        for task in tasks:
            try:
                request = self.casework.request(task)
            except ConfigError as error:  # the target is no class of this box
                self._end_run(error)
                return
            if request is not None:
                self.engine.submit(task.seq, task.stage, task.worker, request)
            elif isinstance(task, RefineTask):
                self.scheduler.not_journalled(task.seq, now)
            else:
                self.scheduler.failed(task.seq, now)
        self._handle_events()

    def _answered(self, task: Task, answer: Answer, now: float) -> None:
        seconds = answer.seconds
        self.stats.busy_s[task.stage] += seconds
        if isinstance(task, DecodeTask):
            for source, damage in self.casework.new_damage(task, answer.value):
                self.outcomes.source_damaged(source, damage)
            rows, is_all = self.casework.take_read(task, answer.value)
            info = answer.value.info
            self.scheduler.decoded(
                task.seq,
                now,
                seconds=seconds,
                rows=rows,
                nbytes=0 if info is None else info.nbytes,
                is_last=answer.value.is_last,
                is_first_look=is_all,
            )
        elif isinstance(task, ScoreTask):
            self.stats.evaluations += self.casework.take_scores(task, answer.value)
            self.stats.batches += 1
            self.stats.capacity += task.size
            self.scheduler.scored(task.seq, now, seconds=seconds)
        elif isinstance(task, RefineTask):
            more, round_idx = self.casework.take_refined(task, answer.value)
            self.scheduler.refined(task.seq, now, seconds=seconds, more_rows=more, round_idx=round_idx)
        elif isinstance(task, SinkTask):
            self._sunk(task, answer, now)

    def _sunk(self, task: SinkTask, answer: Answer, now: float) -> None:
        for job in task.jobs:
            if case := self.casework.clips.get(job):
                self.stats.replayed += case.purpose == "replay"
                self.stats.clips += 1
        verify, summary = self.casework.take_sunk(task, answer.value)
        self.scheduler.sunk(task.seq, now, seconds=answer.seconds, verify=verify)
        if summary is not None and any(
            isinstance(event, VideoEnded) and event.is_complete and event.video == task.video
            for event in self.scheduler.ledger.events
        ):
            self.stats.videos += 1
            self.record.completed(summary)

    def _problem_with(self, task: Task, problem: Problem, now: float) -> None:
        _log.warning("stage=%s worker=%d seq=%d %s: %s", task.stage, task.worker, task.seq, problem.kind, problem.error)
        if problem.trace:
            _log.debug("seq=%d\n%s", task.seq, problem.trace)
        if isinstance(problem.error, ConfigError):
            self._end_run(problem.error)
            return
        self.stats.retries += 1
        self.outcomes.problem = problem
        self.scheduler.failed(task.seq, now, is_permanent=problem.is_permanent, has_lost_frames=problem.has_lost_frames)
        self._handle_events()
        self.outcomes.problem = None

    # --- events ---

    def _handle_events(self) -> None:
        while events := self.scheduler.take_events():
            for event in events:
                self._handle(event)

    def _handle(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            self.casework.open_clip(event)
        elif isinstance(event, RoundScored):
            self.casework.end_round(event.job)
        elif isinstance(event, FramesDropped):
            self.casework.drop_frames(event.job)
        elif isinstance(event, PeeksDone):
            try:
                self.casework.peeks_done(event.video)
            except ConfigError as error:
                self._end_run(error)
            else:
                self.scheduler.open_gate(event.video)
        elif isinstance(event, JobEnded):
            case = self.casework.close_clip(event.job)
            if event.failed_in is not None:
                source = self.casework.videos[case.id.video_id].source
                self.outcomes.clip_given_up(case, source, event.failed_in)
        elif isinstance(event, VideoEnded):
            source = self.casework.videos.pop(event.video).source
            is_cut = self.is_stopped or self.outcomes.fatal is not None
            self.outcomes.video_ended(source, is_complete=event.is_complete, is_cut=is_cut)
