"""The loop of a run, for one group of videos: admit, wait, complete, drain.

It joins the scheduler (who is next), the casework (what is in it) and an engine (who does it). It needs nothing of the
process it lives in: the caller turns the crank (`step`), fills the feed, turns signals into `stop()`, and hears what
happened through the `Record`.
"""

import logging
import time
from collections.abc import Callable

from pipeline.casework import Casework
from pipeline.engine import Answer, Engine, Happening, Problem, WorkerDown, WorkerUp
from pipeline.logs import log_trace
from pipeline.orders import Assignment, Feed
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
    Mishap,
    PeeksDone,
    RefineTask,
    RoundScored,
    ScoreTask,
    SinkTask,
    Task,
    VideoEnded,
)
from stages.errors import ConfigError, DiskFullError, ExplainError

_log = logging.getLogger(__name__)

POLL_S = 0.25
DRAIN_S = 20.0  # after the first stop: for what is in flight
CLOSE_S = 20.0  # after the second: for films to be closed


class Coordinator:
    """Drives the videos of `feed` through `engine`, whose workers have been asked to start.

    `weights_sha256`: what every scorer must have loaded, those that join late and those that are built again too.
    """

    def __init__(
        self,
        casework: Casework,
        scheduler: Scheduler,
        engine: Engine,
        feed: Feed,
        record: Record,
        stats: Stats,
        *,
        weights_sha256: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.casework = casework
        self.scheduler = scheduler
        self.engine = engine
        self.feed = feed
        self.outcomes = Outcomes(record, stats)
        self.stats = stats
        self._weights_sha256 = weights_sha256
        self._clock = clock
        self._is_screening = self._is_time_over = False
        self._num_stops = 0
        self._stop_by: float | None = None
        self.error: ExplainError | None = None  # why the run had to end

    @property
    def is_stopped(self) -> bool:
        """Whether the run was asked to stop."""
        return self._num_stops > 0

    def stop(self) -> None:
        """Once: finish what is in flight. Twice: close the films as they are."""
        self._num_stops += 1

    def begin_no_more(self) -> None:
        """The time is over: begin no further clip; those that were begun are all there is."""
        self._is_time_over = True
        for assignment in self.feed.waiting:
            self.outcomes.record.ended(assignment.source.id)
        self.feed.waiting.clear()
        self.scheduler.ledger.begin_no_more()

    def step(self, timeout_s: float = POLL_S) -> bool:
        """One turn of the loop, of about `timeout_s` at most; True when every video has ended or has been given up."""
        now = self._clock()
        self.stats.tick(now)
        self._heed_stop(now)
        while self.feed.waiting and self.scheduler.wants_video() and not self.is_stopped and self.error is None:
            self._open(self.feed.waiting.popleft())
        if self.scheduler.is_done and (self.feed.has_ended or self.is_stopped or self.error):
            return True
        if self._stop_by is not None and now > self._stop_by + CLOSE_S:
            return True
        self._start_tasks(now)
        # After that: the scheduler hears of the restart from `wait`, and must not hand anything to who is gone.
        for task in self.scheduler.overdue(now):
            _log.warning("stage=%s worker=%d seq=%d took too long", task.stage, task.worker, task.seq)
            self.engine.restart(task.stage, task.worker)
        for happening in self.engine.wait(self._patience(now, timeout_s)):
            self.take(happening)
        return False

    def take(self, happening: Happening) -> None:
        """Deal with what an engine says."""
        now = self._clock()
        if isinstance(happening, WorkerUp):
            self._worker_up(happening, now)
        elif isinstance(happening, WorkerDown):
            if happening.problem is not None:
                log_trace(f"stage={happening.stage} worker={happening.worker}", happening.problem.trace)
                self._end_run(happening.problem.error)
            self.stats.lost_workers += 1
            if happening.stage == "score":
                self.stats.scorer_down(happening.worker, now)
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
            if (refusal := up.report.refusal(up.worker, self._weights_sha256)) is not None:
                self._end_run(refusal)
                return
            batch_size = up.report.tuning.batch_size
            self.stats.scorer_up(up.worker, up.report.tuning.evaluations_per_s, now)
        self.scheduler.worker_up(up.stage, up.worker, batch_size=batch_size)

    def _open(self, assignment: Assignment) -> None:
        source, order = assignment.source, assignment.order
        if order.is_screening != self._is_screening:
            self._is_screening = order.is_screening
            self.scheduler.ledger.window.forget_rounds()
        peek, done = self.casework.open_video(source, order, assignment.targets)
        self.stats.expect(self.casework.videos[source.id].expected_clips, is_screening=order.is_screening)
        is_chained = self.casework.config.refine.is_chained
        self.scheduler.add_video(source.id, peek=peek, done=done, order=order, is_chained=is_chained)

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
        """Close what is open: going on is useless."""
        self.error = self.error or error
        self.feed.close()
        self.scheduler.abandon()
        self._stop_by = self._clock()

    def _patience(self, now: float, timeout_s: float) -> float:
        wake = self.scheduler.next_wakeup(now)
        return timeout_s if wake is None else min(max(wake - now, 0.001), timeout_s)

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
                self.scheduler.failed(task.seq, now, Mishap())
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
            evaluations = self.casework.take_scores(task, answer.value)
            self.stats.evaluations += evaluations
            self.stats.batches += 1
            # A question (LIME, optimised masks) is one row, whose samples go through the box in batches of their own.
            self.stats.capacity += max(task.size, evaluations)
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
            self.outcomes.record.completed(summary)

    def _problem_with(self, task: Task, problem: Problem, now: float) -> None:
        ids = f"stage={task.stage} worker={task.worker} seq={task.seq} {self._about(task)}"
        _log.warning("%s %s: %s", ids, problem.kind, problem.error)
        log_trace(ids, problem.trace)
        if isinstance(problem.error, ConfigError | DiskFullError):
            self._end_run(problem.error)
            return
        self.stats.retries += 1
        self.casework.forget(task)
        self.outcomes.problem = problem
        self.scheduler.failed(task.seq, now, problem)
        self._handle_events()
        self.outcomes.problem = None

    def _about(self, task: Task) -> str:
        """The video or the clips of a task, for the log."""
        if isinstance(task, SinkTask):
            return f"video={task.video}"
        jobs = [task.job] if isinstance(task, DecodeTask | RefineTask) else []
        if isinstance(task, ScoreTask):
            jobs = sorted({piece.job for piece in task.pieces})
        clips = dict.fromkeys(str(case.id) for job in jobs if (case := self.casework.clips.get(job)))
        return f"clip={','.join(clips) or '-'}"  # - where the clip has been given up already

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
            self.stats.screened += case.purpose == "screen" and bool(case.rounds)
            if event.failed_in is not None:
                source = self.casework.videos[case.id.video_id].source
                self.outcomes.clip_given_up(case, source, event.failed_in)
        elif isinstance(event, VideoEnded):
            video = self.casework.close_video(event.video)
            is_cut = self.is_stopped or self.error is not None or (self._is_time_over and not video.is_begun)
            self.outcomes.video_ended(video.source, is_complete=event.is_complete, is_cut=is_cut)
