"""Who works on what next: queues, credits, retries. Pure Python, no Ray, no clock of its own; ids, counts, bytes only.

The coordinator calls `admit` for the tasks that may start now (last stage first), hands them to an engine, and reports
every answer with `decoded`, `scored`, `refined`, `sunk` or `failed`. What follows from it comes out of `take_events`.

Why this cannot deadlock: a clip takes its credit (a place and bytes in the window) once, before it is read, and keeps
it until it is written, so rounds that come back from refinement need no room. Clips of a video are taken in order; one
that waits to be written waits only for earlier clips of its video, which hold credits already, or for replays, which
have credits of their own in every video; so does one that waits, without pixels, for the clip before it to be refined
(a chain). Peeks come before the clips that wait for their target.
"""

import heapq
from collections.abc import Iterable, Sequence

from pipeline.admission import Admission
from pipeline.jobs import Job, Video
from pipeline.ledger import Ledger
from pipeline.orders import EVERYTHING, Order
from pipeline.window import Limits
from pipeline.work import DecodeTask, Event, Mishap, RefineTask, RoundScored, ScoreTask, SinkTask, StageName, Task


class Scheduler:
    """Decides; does nothing itself. `clip_bytes`: what a clip is expected to hold until it has been read."""

    def __init__(self, limits: Limits, *, clip_bytes: int, rows_per_clip: int) -> None:
        self.limits = limits
        self.ledger = Ledger(limits, clip_bytes=clip_bytes, rows_per_clip=rows_per_clip)
        self.admission = Admission(self.ledger)

    # --- workers and videos ---

    def worker_up(self, stage: StageName, worker: int, *, batch_size: int = 1) -> None:
        """This worker can be given tasks; a scorer takes `batch_size` masks at once."""
        self.ledger.workers.up(stage, worker, batch_size)

    def worker_down(self, stage: StageName, worker: int, now: float) -> None:
        """This worker is gone; its tasks are reported by `failed`. What a sink was writing is begun again."""
        self.ledger.workers.down(stage, worker)
        for video in list(self.ledger.videos.values()):
            if stage == "sink" and video.sink_worker == worker:
                self.ledger.sink_lost(video, now)
            if stage == "decode" and video.decode_worker == worker:
                video.decode_worker = None

    def wants_video(self) -> bool:
        """Whether another video may be opened now."""
        return self.num_wanted() > 0

    def num_wanted(self) -> int:
        """How many further videos may be opened now."""
        if self.ledger.is_stopping:
            return 0
        streaming = sum(video.is_streaming for video in self.ledger.videos.values())
        return min(self.limits.max_videos - streaming, 2 * self.limits.max_videos - len(self.ledger.videos))

    def add_video(
        self,
        name: str,
        *,
        peek: Iterable[int] = (),
        done: Iterable[int] = (),
        order: Order = EVERYTHING,
        is_chained: bool = False,
    ) -> None:
        """Open a video. `peek`: clips to look at before the target is known; `done`: clips found in the journal.

        `is_chained`: a clip is refined when the clip before it is final.
        """
        self.ledger.videos[name] = Video(name, peek=peek, done=done, order=order, is_chained=is_chained)

    def open_gate(self, name: str) -> None:
        """The target of this video is known: its clips may be refined."""
        if video := self.ledger.videos.get(name):
            video.is_gated = False
            self.ledger.queue_held(video)

    def drop_video(self, name: str) -> None:
        """Give up a video: what has been written is closed, the rest is forgotten."""
        if video := self.ledger.videos.get(name):
            self.ledger.drop(video)

    def task(self, seq: int) -> Task | None:
        """The task with this number; None when it has been answered already."""
        return self.ledger.workers.task(seq)

    def stop(self) -> None:
        """Take in nothing new; finish what is in flight."""
        self.ledger.stop()

    def abandon(self) -> None:
        """Stop waiting for what is in flight: close every video as it is."""
        self.stop()
        for name in list(self.ledger.videos):
            self.drop_video(name)

    def take_events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        events, self.ledger.events = self.ledger.events, []
        return events

    @property
    def is_done(self) -> bool:
        """Whether no video is open."""
        return not self.ledger.videos

    # --- what may start ---

    def admit(self, now: float) -> list[Task]:
        """The tasks to start now; the caller hands all of them over."""
        return self.admission.admit(now)

    def next_wakeup(self, now: float) -> float | None:
        """The clock time, after `now`, at which waiting alone changes what `admit` or `overdue` would answer."""
        times = [
            self.ledger.later[0][0] if self.ledger.later else None,
            self.ledger.rows.next_change(),
            self.ledger.workers.next_timeout(),
        ]
        times += [video.sink_not_before for video in self.ledger.videos.values() if video.sink_not_before]
        return min((time for time in times if time is not None and time > now), default=None)

    def overdue(self, now: float) -> list[Task]:
        """Tasks whose time limit has passed; their workers hang."""
        return self.ledger.workers.overdue(now)

    # --- what has happened ---

    def decoded(
        self,
        seq: int,
        now: float,
        *,
        seconds: float,
        rows: int,
        nbytes: int,
        is_last: bool,
        is_first_look: bool = False,
    ) -> None:
        """A clip has been read and `rows` masks of it are wanted; no rows: there is no such clip.

        `is_first_look`: the peek found that this clip is all there is, so it goes the whole way.
        """
        task = self._finish(seq, now, "decode", seconds)
        job = self.ledger.jobs.get(task.job) if isinstance(task, DecodeTask) else None
        if job is None:
            return
        video = self.ledger.videos[job.video]
        is_streamed = job.is_in_stream
        video.is_unseen &= job.clip_idx > 0
        if is_first_look and job.purpose == "peek":
            job.purpose, job.is_first_look, is_streamed = "stream", True, True
            video.num_peeks -= len(video.peeks)
            video.peeks.clear()
            video.next_idx = job.clip_idx + 1
        if rows == 0 or (is_streamed and video.end_idx is not None and job.clip_idx >= video.end_idx):
            if is_streamed:
                video.end_at(job.clip_idx)
                video.skip(job.clip_idx)
            self.ledger.end(job)
            self.ledger.queue_held(video)
            return
        if is_last and is_streamed:
            video.end_at(job.clip_idx + 1)
        self.ledger.hold(job, nbytes)
        job.has_frames = True
        for piece in job.parked:
            self.ledger.rows.put_alone(piece, now)
        if not job.parked:
            job.rows = job.rows or rows  # a later round of a replayed clip has been counted already
            self.ledger.ask(job, now)
        job.parked.clear()

    def scored(self, seq: int, now: float, *, seconds: float) -> None:
        """A batch has been answered."""
        task = self._finish(seq, now, "score", seconds)
        for piece in task.pieces if isinstance(task, ScoreTask) else ():
            job = self.ledger.jobs.get(piece.job)
            if job is None or job.round_idx != piece.round_idx:
                continue
            job.attempts = 0
            job.num_scored += len(piece)
            if job.num_scored < job.rows:
                continue
            self.ledger.events.append(RoundScored(job.id))
            if job.is_first_look and job.round_idx == 0:
                job.is_first_look = False
                self.ledger.answer_peek(self.ledger.videos[job.video])
            if job.purpose in ("peek", "screen", "verify"):
                self.ledger.end(job)
            else:
                self.ledger.queue(job, "refine")

    def not_journalled(self, seq: int, now: float) -> None:
        """A clip that was to be replayed is not in the journal after all: read it and ask the box."""
        task = self._finish(seq, now)
        if isinstance(task, RefineTask) and (job := self.ledger.jobs.get(task.job)):
            self.ledger.queue(job, "decode")

    def refined(self, seq: int, now: float, *, seconds: float, more_rows: int, round_idx: int) -> None:
        """Maps are final (`more_rows` 0), or refinement asks for that many more masks as round `round_idx`."""
        task = self._finish(seq, now, "refine", seconds)
        job = self.ledger.jobs.get(task.job) if isinstance(task, RefineTask) else None
        if job is None:
            return
        job.attempts = 0
        if more_rows == 0:
            self.ledger.drop_frames(job)
            video = self.ledger.videos[job.video]
            video.ready[job.clip_idx] = job.id
            self.ledger.queue_held(video)
            return
        job.rows, job.num_scored, job.round_idx = more_rows, 0, round_idx
        if job.has_frames:
            self.ledger.ask(job, now)
        else:
            self.ledger.videos[job.video].again.append(job.id)

    def sunk(self, seq: int, now: float, *, seconds: float, verify: Sequence[int] = ()) -> None:
        """A sink has done what it was asked; after `finish` it may want clips to be asked again."""
        task = self._finish(seq, now, "sink", seconds)
        video = self.ledger.videos.get(task.video) if isinstance(task, SinkTask) else None
        if video is None or not isinstance(task, SinkTask) or video.sink_seq != seq:
            return
        video.sink_seq = None
        for job_id in task.jobs:
            video.num_sunk += 1
            if job := self.ledger.jobs.get(job_id):
                self.ledger.end(job)
        if video.num_sunk > video.most_sunk:  # what is written again after a loss is no progress
            video.most_sunk, video.sink_attempts = video.num_sunk, 0
        if task.action == "finish" and verify and not (video.is_failed or self.ledger.is_stopping):
            video.phase = "verify"
            video.verify.extend(verify)
        elif task.action == "finish":
            video.phase, video.is_cut = "close", video.is_cut or bool(verify)
        elif task.action == "close":
            self.ledger.end_video(video)

    def failed(self, seq: int, now: float, mishap: Mishap) -> None:
        """A task came to nothing, or its worker died."""
        task = self._finish(seq, now)
        if isinstance(task, ScoreTask):
            self._batch_failed(task, now, mishap)
        elif isinstance(task, SinkTask):
            video = self.ledger.videos.get(task.video)
            if video is not None and video.sink_seq == seq:
                self.ledger.sink_failed(video, now, is_permanent=mishap.is_permanent)
        elif isinstance(task, DecodeTask | RefineTask) and (job := self.ledger.jobs.get(task.job)):
            self._retry(job, task.stage, now, is_permanent=mishap.is_permanent)

    def _batch_failed(self, task: ScoreTask, now: float, mishap: Mishap) -> None:
        """A clip that failed alone is to blame; one that failed in company is tried alone first."""
        is_alone = len({piece.job for piece in task.pieces}) == 1
        for piece in task.pieces:
            job = self.ledger.jobs.get(piece.job)
            if job is None or job.round_idx != piece.round_idx:
                continue
            job.attempts += is_alone and not mishap.is_blameless
            if mishap.has_lost_frames and job.attempts < self.limits.attempts:
                if not job.parked:
                    self.ledger.queue(job, "decode")
                job.parked.append(piece)
            elif job.attempts >= self.limits.attempts or (is_alone and mishap.is_permanent):
                self.ledger.give_up(job, "score")
            else:
                self.ledger.rows.put_alone(piece, now + (self.ledger.backoff(job.attempts) if is_alone else 0.0))

    def _retry(self, job: Job, stage: StageName, now: float, *, is_permanent: bool) -> None:
        job.attempts += 1
        if is_permanent or job.attempts >= self.limits.attempts:
            video = self.ledger.videos[job.video]
            self.ledger.give_up(job, stage)
            if stage == "decode" and is_permanent and job.purpose in ("screen", "stream", "peek"):
                self._end_stream(video, job)
        else:
            heapq.heappush(self.ledger.later, (now + self.ledger.backoff(job.attempts), job.id, stage))

    def _end_stream(self, video: Video, job: Job) -> None:
        """Nothing can be read from this clip on; what came before it stays."""
        if job.clip_idx == 0:
            self.drop_video(video.name)
        elif job.purpose != "peek":
            video.end_at(job.clip_idx)

    def _finish(self, seq: int, now: float, stage: StageName | None = None, seconds: float = 0.0) -> Task | None:
        task = self.ledger.workers.finish(seq, now)
        if task is not None and stage is not None:
            self.ledger.window.observe(stage, seconds)
        return task
