"""The books of the scheduler: open videos, clips on their way, credits, and the small steps that keep them consistent.

Every step that others must know of leaves an event. Decisions are taken elsewhere (`admission.py`, `scheduler.py`).
"""

from collections import deque

from pipeline.batching import RowQueue
from pipeline.jobs import Job, Video
from pipeline.window import Limits, Window
from pipeline.work import Event, FramesDropped, JobEnded, JobStarted, PeeksDone, Piece, Purpose, StageName, VideoEnded
from pipeline.workers import Workers


class Ledger:
    """All state of the scheduler. `clip_bytes`: what a clip is expected to hold until it has been read."""

    def __init__(self, limits: Limits, *, clip_bytes: int, rows_per_clip: int) -> None:
        self.limits = limits
        self.clip_bytes = clip_bytes
        self.rows_per_clip = rows_per_clip
        self.window = Window(limits)
        self.rows = RowQueue(deadline_s=limits.deadline_s, starvation_s=limits.starvation_s)
        self.workers = Workers(limits)
        self.videos: dict[str, Video] = {}
        self.jobs: dict[int, Job] = {}
        self.homes: dict[int, int] = {}  # job -> the scorer that saw it last
        self.to_refine: deque[int] = deque()
        self.later: list[tuple[float, int, StageName]] = []  # a heap of retries: (not before, job, stage)
        self.events: list[Event] = []
        self.is_stopping = False
        self._next_job = 0

    def start(self, video: Video, clip_idx: int, purpose: Purpose) -> Job:
        """Take in a clip."""
        job = Job(id=self._next_job, video=video.name, clip_idx=clip_idx, purpose=purpose)
        self._next_job += 1
        self.jobs[job.id] = job
        video.jobs.add(job.id)
        self.window.num_open += job.is_in_window
        self.events.append(JobStarted(job.id, video.name, clip_idx, purpose))
        return job

    def queue(self, job: Job, stage: StageName) -> None:
        """Let a job wait for a stage; refinement is held until the target is known, and in a chain the clip before.

        The clip before may have to be read yet, so a clip held for it lets go of its pixels.
        """
        video = self.videos[job.video]
        if stage == "decode":
            video.again.append(job.id)
        elif video.is_gated:
            video.held.append(job.id)
        elif video.is_chained and not video.has_settled(job.clip_idx - 1):
            self.drop_frames(job)
            video.held.append(job.id)
        else:
            self.to_refine.append(job.id)

    def queue_held(self, video: Video) -> None:
        """Something that refinement waited for has come about."""
        held, video.held = video.held, []
        for job_id in held:
            if job := self.jobs.get(job_id):
                self.queue(job, "refine")

    def ask(self, job: Job, now: float) -> None:
        """Let the current round of a job wait for the scorers."""
        home = self.homes.get(job.id)
        if job.is_in_stream:
            self.window.observe_round(job.rows)
        self.rows.put(
            Piece(job.id, job.round_idx, 0, job.rows), now, home if self.workers.is_up("score", home) else None
        )

    def hold(self, job: Job, nbytes: int) -> None:
        """Account for the bytes of a job."""
        self.window.num_bytes += nbytes - job.nbytes
        job.nbytes = nbytes

    def drop_frames(self, job: Job) -> None:
        """The pixels of a job are not needed any more."""
        self.hold(job, 0)
        if job.has_frames:
            job.has_frames = False
            self.events.append(FramesDropped(job.id))

    def stop(self) -> None:
        """Take in nothing new; what is missing then is missing."""
        self.is_stopping = True
        for video in self.videos.values():
            video.stop()
            self.check_peeks(video)
            self.queue_held(video)

    def begin_no_more(self) -> None:
        """Begin no further clip; those that were begun go the whole way, and their videos end in good order."""
        for video in self.videos.values():
            video.end_here()
            self.check_peeks(video)
            self.queue_held(video)

    def give_up(self, job: Job, stage: StageName) -> None:
        """A stage could not do a job: the clip is left out, the rest of the video goes on."""
        video = self.videos[job.video]
        if job.is_in_stream:
            video.skip(job.clip_idx)
        self.end(job, stage)
        self.queue_held(video)

    def end(self, job: Job, failed_in: StageName | None = None) -> None:
        """The job leaves the pipeline, well or not."""
        video = self.videos[job.video]
        self.drop_frames(job)
        self.rows.drop(job.id)
        video.jobs.discard(job.id)
        video.is_unseen &= job.clip_idx > 0
        video.num_replaying -= job.purpose == "replay"
        self.window.num_open -= job.is_in_window
        self.homes.pop(job.id, None)
        del self.jobs[job.id]
        self.events.append(JobEnded(job.id, failed_in))
        if job.purpose == "peek" or job.is_first_look:
            self.answer_peek(video)

    def answer_peek(self, video: Video) -> None:
        """One of the clips looked at before the target is chosen is settled."""
        video.num_peeks -= 1
        self.check_peeks(video)

    def check_peeks(self, video: Video) -> None:
        """Say so when all of them are."""
        if video.is_gated and video.num_peeks == 0 and not video.is_failed:
            self.events.append(PeeksDone(video.name))

    def start_over(self, video: Video) -> None:
        """The sink lost its state: write the video again, from the journal."""
        if video.is_failed:
            self.end_video(video)
            return
        again = [self.jobs[job_id] for job_id in video.jobs if self._is_written_again(video, self.jobs[job_id])]
        for job in again:
            self.end(job)
        video.start_over(job.clip_idx for job in again if job.purpose == "replay")

    def sink_lost(self, video: Video, now: float) -> None:
        """The sink died. One that dies again and again at the same place may do so because of what it was asked."""
        if video.sink_seq is None:
            self.start_over(video)
        else:
            self.sink_failed(video, now, is_permanent=False)

    def sink_failed(self, video: Video, now: float, *, is_permanent: bool) -> None:
        """The sink could not do what it was asked: write the video again after a while, or give it up."""
        video.sink_attempts += 1
        if is_permanent or video.is_failed or video.sink_attempts >= self.limits.attempts:
            video.sink_worker = None
            self.drop(video)
        else:
            video.sink_not_before = now + self.backoff(video.sink_attempts)
            self.start_over(video)

    def drop(self, video: Video) -> None:
        """Give up a video: what has been written is closed, the rest is forgotten."""
        video.is_failed = True
        for job_id in list(video.jobs):
            self.end(self.jobs[job_id])
        video.give_up()
        if video.sink_worker is None or (video.num_sunk == 0 and video.sink_seq is None):
            self.end_video(video)

    def end_video(self, video: Video) -> None:
        """Nothing more will happen to this video."""
        for job_id in list(video.jobs):
            self.end(self.jobs[job_id])
        del self.videos[video.name]
        is_complete = (video.num_sunk > 0 or video.is_screening) and not (video.is_failed or video.is_cut)
        self.events.append(VideoEnded(video.name, is_complete))

    def backoff(self, attempts: int) -> float:
        """How long to wait before attempt number `attempts` + 1."""
        return self.limits.backoff_s * 2.0 ** max(attempts - 1, 0)

    def _is_written_again(self, video: Video, job: Job) -> bool:
        """Whether the journal will give what this job was about to; replays begin anew, to come in clip order."""
        if job.purpose == "stream":
            return job.clip_idx < video.next_sink
        return job.purpose in ("verify", "replay")
