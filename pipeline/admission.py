"""What may start now: the decisions of the scheduler that look forward."""

import heapq

from pipeline.jobs import Job, Video
from pipeline.ledger import Ledger
from pipeline.work import DecodeTask, RefineTask, ScoreTask, SinkAction, SinkTask, Task


class Admission:
    """Hands out tasks while workers and credits last: writing first, then refining, reading, and scoring."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._num_served = 0

    def admit(self, now: float) -> list[Task]:
        """The tasks to start now: writing before refining before reading; scorers last."""
        while self.ledger.later and self.ledger.later[0][0] <= now:
            _, job_id, stage = heapq.heappop(self.ledger.later)
            if job := self.ledger.jobs.get(job_id):
                self.ledger.queue(job, stage)
        tasks: list[Task] = [*self._admit_sinks(now)]
        self._start_replays()
        tasks += self._admit_refines(now)
        tasks += self._admit_decodes(now)
        tasks += self._admit_scores(now)
        return tasks

    def num_clips_allowed(self) -> int:
        """The size of the window now."""
        return self.ledger.window.clips(
            rows_per_clip=self.ledger.rows_per_clip,
            batch_sizes=self.ledger.workers.batch_sizes(),
            num_readers=self.ledger.workers.count("decode"),
        )

    def _admit_sinks(self, now: float) -> list[SinkTask]:
        tasks = []
        for video in list(self.ledger.videos.values()):
            if video.sink_seq is not None or video.sink_not_before > now:
                continue
            action, jobs = self._sink_action(video)
            if action is None:
                continue
            if video.sink_worker is None:
                video.sink_worker = self.ledger.workers.least_loaded(
                    "sink", [v.sink_worker for v in self.ledger.videos.values()]
                )
            if video.sink_worker is None or not self.ledger.workers.has_room("sink", video.sink_worker):
                video.return_ready([(self.ledger.jobs[job].clip_idx, job) for job in jobs])
                continue
            task = SinkTask(
                seq=self.ledger.workers.next_seq(),
                worker=video.sink_worker,
                video=video.name,
                epoch=video.epoch,
                action=action,
                jobs=tuple(jobs),
            )
            video.sink_seq = task.seq
            video.sink_not_before = 0.0
            self.ledger.workers.start(task, now)
            tasks.append(task)
        return tasks

    def _sink_action(self, video: Video) -> tuple[SinkAction | None, list[int]]:
        if jobs := video.take_ready(self.ledger.limits.sink_clips):
            return "add", jobs
        if video.jobs or video.verify or video.is_streaming:
            return None, []
        if video.phase == "stream" and video.num_sunk == 0:
            self.ledger.end_video(video)
            return None, []
        if video.phase == "stream":
            return "finish", []
        return "close", []

    def _start_replays(self) -> None:
        for video in self.ledger.videos.values():
            while video.replays and video.num_replaying < self.ledger.limits.replays and video.phase == "stream":
                job = self.ledger.start(video, video.replays.popleft(), "replay")
                video.num_replaying += 1
                self.ledger.queue(job, "refine")

    def _admit_refines(self, now: float) -> list[RefineTask]:
        tasks = []
        while self.ledger.to_refine and (worker := self.ledger.workers.most_idle("refine")) is not None:
            job = self.ledger.jobs.get(self.ledger.to_refine.popleft())
            if job is not None:
                tasks.append(RefineTask(seq=self.ledger.workers.next_seq(), worker=worker, job=job.id))
                self.ledger.workers.start(tasks[-1], now)
        return tasks

    def _admit_decodes(self, now: float) -> list[DecodeTask]:
        tasks: list[DecodeTask] = []
        while self.ledger.workers.most_idle("decode") is not None:
            task = self._next_decode()
            if task is None:
                break
            self.ledger.workers.start(task, now)
            tasks.append(task)
        return tasks

    def _next_decode(self) -> DecodeTask | None:
        """Urgent reads first; else the video with the fewest clips in flight, the one served longest ago."""
        clips = self.num_clips_allowed()
        for video in sorted(self.ledger.videos.values(), key=lambda v: (not v.is_urgent, len(v.jobs), v.last_served)):
            if video.decode_worker is None:
                others = [v.decode_worker for v in self.ledger.videos.values()]
                video.decode_worker = self.ledger.workers.least_loaded("decode", others)
            worker = video.decode_worker
            if worker is None or not self.ledger.workers.has_room("decode", worker):
                continue
            job = self._next_read(video, clips)
            if job is not None:
                self._num_served += 1
                video.last_served = self._num_served
                return DecodeTask(seq=self.ledger.workers.next_seq(), worker=worker, job=job.id)
        return None

    def _next_read(self, video: Video, clips: int) -> Job | None:
        for job_id in list(video.again):
            job = self.ledger.jobs.get(job_id)
            if job is not None and job.nbytes == 0:
                if not self.ledger.window.has_bytes(self.ledger.clip_bytes):
                    continue  # one behind it may hold the bytes that it waits for
                self.ledger.hold(job, self.ledger.clip_bytes)
            video.again.remove(job_id)
            if job is not None:
                return job
        if video.again or self.ledger.is_stopping or not self.ledger.window.has_room(clips, self.ledger.clip_bytes):
            return None
        if video.phase == "verify" and video.verify:
            job = self.ledger.start(video, video.verify.popleft(), "verify")
        elif video.phase == "stream" and video.peeks:
            job = self.ledger.start(video, video.peeks.popleft(), "peek")
        elif video.phase == "stream" and (idx := video.next_stream_idx()) is not None:
            job = self.ledger.start(video, idx, "screen" if video.is_screening else "stream")
            video.next_idx = idx + 1
        else:
            return None
        self.ledger.hold(job, self.ledger.clip_bytes)
        return job

    def _admit_scores(self, now: float) -> list[ScoreTask]:
        tasks: list[ScoreTask] = []
        may_arrive = self.ledger.workers.is_busy("decode") or self.ledger.workers.is_busy("refine")
        while self.ledger.rows.is_waiting() and (worker := self.ledger.workers.most_idle("score")) is not None:
            size = self.ledger.workers.batch_size(worker)
            is_idle = self.ledger.workers.num_tasks("score", worker) == 0
            pieces = self.ledger.rows.take(worker, size, now, is_idle=is_idle, may_arrive=may_arrive)
            if not pieces:
                break
            for piece in pieces:
                self.ledger.homes[piece.job] = worker
            task = ScoreTask(seq=self.ledger.workers.next_seq(), worker=worker, pieces=pieces, size=size)
            self.ledger.workers.start(task, now)
            tasks.append(task)
        return tasks
