"""A pipeline without work: the scheduler drives workers that only take time, on a clock that jumps from event to event.

It knows what it asked for and counts what was answered, so that tests can check that nothing is lost or done twice.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from pipeline.orders import Order
from pipeline.scheduler import Scheduler
from pipeline.window import Limits
from pipeline.work import (
    DecodeTask,
    JobEnded,
    JobStarted,
    Mishap,
    PeeksDone,
    RefineTask,
    RoundScored,
    ScoreTask,
    SinkTask,
    StageName,
    Task,
    VideoEnded,
)

CLIP_BYTES = 100


@dataclass
class Simulation:
    limits: Limits
    clips: Mapping[str, int]  # clips of every video
    rows: int = 8
    rounds: int = 1  # refinement asks again until this many have been scored
    batch_size: int = 4
    workers: Mapping[StageName, int] = field(default_factory=lambda: {"decode": 1, "score": 2, "refine": 1, "sink": 1})
    seconds: Mapping[StageName, float] = field(
        default_factory=lambda: {"decode": 0.1, "score": 1.0, "refine": 0.1, "sink": 0.1}
    )
    peeks: int = 0
    done: Mapping[str, set[int]] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)
    verify: tuple[int, ...] = ()
    fails: Callable[[Task, "Simulation"], str | None] = lambda task, sim: None
    kills: list[tuple[float, StageName, int]] = field(default_factory=list)
    stop_at: float | None = None
    begin_no_more_at: float | None = None
    is_chained: bool = False
    damaged: Mapping[str, set[int]] = field(default_factory=dict)  # clips of `done` that turn out not to be there
    seed: int = 0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.limits, clip_bytes=CLIP_BYTES, rows_per_clip=self.rows)
        self.rng = Random(self.seed)
        self.now = 0.0
        self.agenda: list[tuple[float, int, Task]] = []
        self.ups: list[tuple[float, StageName, int]] = []
        self.jobs: dict[int, JobStarted] = {}
        self.scored: Counter[tuple[str, int, str, int, int]] = Counter()  # video, clip, purpose, round, row
        self.decoded: Counter[tuple[str, int]] = Counter()
        self.batches: list[ScoreTask] = []
        self.started: list[tuple[float, Task]] = []
        self.written: dict[str, list[int]] = {}
        self.actions: dict[str, list[str]] = {}
        self.ended: dict[str, bool] = {}
        self.dropped: list[tuple[JobStarted, str]] = []
        self.most_open = self.most_bytes = 0
        self.busy_s: Counter[int] = Counter()
        self.free_at: dict[tuple[StageName, int], float] = {}
        self.rounds_done: Counter[int] = Counter()
        self.finals: list[tuple[float, str, int]] = []  # when the maps of a clip were final
        self.all_jobs: dict[int, JobStarted] = {}

    def run(self, most_steps: int = 200_000) -> "Simulation":
        for stage, count in self.workers.items():
            for worker in range(count):
                self.scheduler.worker_up(stage, worker, batch_size=self.batch_size)
        todo = list(self.clips)
        self.kills.sort(reverse=True)
        for _ in range(most_steps):
            while todo and self.scheduler.wants_video():
                name = todo.pop(0)
                order = self.orders.get(name, Order())
                done = self.done.get(name, ())
                self.scheduler.add_video(
                    name, peek=range(self.peeks), done=done, order=order, is_chained=self.is_chained
                )
            if self.scheduler.is_done and (not todo or self.stop_at is not None):
                return self
            self._admit()
            if not self._advance() and not todo and not self.scheduler.is_done:
                raise AssertionError(f"deadlock at {self.now}: {self.scheduler.ledger.videos}")
        raise AssertionError("does not end")

    def _admit(self) -> None:
        tasks = self.scheduler.admit(self.now)
        self._take_events()
        window = self.scheduler.ledger.window
        self.most_open, self.most_bytes = max(self.most_open, window.num_open), max(self.most_bytes, window.num_bytes)
        for task in tasks:
            key = (task.stage, task.worker)
            seconds = self.seconds[task.stage] * self.rng.uniform(0.9, 1.1)
            begin = max(self.now, self.free_at.get(key, 0.0))
            self.free_at[key] = begin + seconds
            if isinstance(task, ScoreTask):
                self.batches.append(task)
                self.busy_s[task.worker] += seconds
            self.started.append((begin, task))
            heapq.heappush(self.agenda, (begin + seconds, task.seq, task))

    def _advance(self) -> bool:
        """Jump to the next thing that happens; False when nothing ever will."""
        times = [self.agenda[0][0]] if self.agenda else []
        wake = self.scheduler.next_wakeup(self.now)
        times += [wake] if wake is not None else []
        times += [self.kills[-1][0]] if self.kills else []
        times += [self.ups[0][0]] if self.ups else []
        if not times:
            self.scheduler.take_events()
            return bool(self.scheduler.admit(self.now)) or self.scheduler.is_done
        self.now = max(self.now, min(times))
        if self.stop_at is not None and self.now >= self.stop_at and not self.scheduler.ledger.is_stopping:
            self.scheduler.stop()
        if self.begin_no_more_at is not None and self.now >= self.begin_no_more_at:
            self.scheduler.ledger.begin_no_more()
        while self.ups and self.ups[0][0] <= self.now:
            _, stage, worker = heapq.heappop(self.ups)
            self.scheduler.worker_up(stage, worker, batch_size=self.batch_size)
        while self.kills and self.kills[-1][0] <= self.now:
            self._kill(*self.kills.pop()[1:])
        while self.agenda and self.agenda[0][0] <= self.now:
            self._answer(heapq.heappop(self.agenda)[2])
        self._take_events()
        return True

    def _kill(self, stage: StageName, worker: int) -> None:
        self.scheduler.worker_down(stage, worker, self.now)
        for entry in [entry for entry in self.agenda if entry[2].stage == stage and entry[2].worker == worker]:
            self.agenda.remove(entry)
            self.scheduler.failed(entry[1], self.now, Mishap())
        heapq.heapify(self.agenda)
        self.free_at.pop((stage, worker), None)
        heapq.heappush(self.ups, (self.now + 0.7, stage, worker))

    def _answer(self, task: Task) -> None:
        how = self.fails(task, self)
        if how is not None:
            flags = {"permanent": "is_permanent", "frames": "has_lost_frames", "blameless": "is_blameless"}
            self.scheduler.failed(task.seq, self.now, Mishap(**{flags[how]: True} if how in flags else {}))
        elif isinstance(task, DecodeTask):
            self._decode(task)
        elif isinstance(task, ScoreTask):
            for piece in task.pieces:
                if started := self.jobs.get(piece.job):
                    for row in range(piece.start, piece.stop):
                        is_all = started.purpose == "peek" and self.clips[started.video] == 1
                        purpose = "stream" if is_all else started.purpose
                        self.scored[(started.video, started.clip_idx, purpose, piece.round_idx, row)] += 1
            self.scheduler.scored(task.seq, self.now, seconds=self.seconds["score"])
        elif isinstance(task, RefineTask):
            self._refine(task)
        elif isinstance(task, SinkTask):
            self._sink(task)

    def _decode(self, task: DecodeTask) -> None:
        started = self.jobs.get(task.job)
        if started is None:
            return self.scheduler.decoded(task.seq, self.now, seconds=0.1, rows=0, nbytes=0, is_last=False)
        count = self.clips[started.video]
        is_there, is_last = started.clip_idx < count, started.clip_idx == count - 1
        is_new = started.clip_idx not in self.done.get(started.video, ())
        is_first_look = started.purpose == "peek" and is_last and started.clip_idx == 0 and is_new
        is_one = started.purpose == "screen" or (started.purpose == "peek" and not is_first_look)
        rows = 1 if is_one else 2 if started.purpose == "verify" else self.rows
        self.decoded[(started.video, started.clip_idx)] += is_there
        return self.scheduler.decoded(
            task.seq,
            self.now,
            seconds=0.1,
            rows=rows if is_there else 0,
            nbytes=CLIP_BYTES if is_there else 0,
            is_last=is_last,
            is_first_look=is_first_look,
        )

    def _refine(self, task: RefineTask) -> None:
        started = self.jobs.get(task.job)
        done = 1 if started is None else max(self.rounds_done[task.job], 1)
        is_replay = started is not None and started.purpose == "replay"
        is_gone = started is not None and started.clip_idx in self.damaged.get(started.video, ())
        if is_replay and is_gone and not self.rounds_done[task.job]:
            return self.scheduler.not_journalled(task.seq, self.now)
        more = 0 if is_replay or done >= self.rounds else self.rows // 2
        if started is not None and more == 0:
            self.finals.append((self.now, started.video, started.clip_idx))
        return self.scheduler.refined(task.seq, self.now, seconds=0.1, more_rows=more, round_idx=done)

    def _sink(self, task: SinkTask) -> None:
        video = self.scheduler.ledger.videos.get(task.video)
        if video is not None and video.sink_seq == task.seq:
            key = f"{task.video}/{task.epoch}"
            self.actions.setdefault(key, []).append(task.action)
            self.written.setdefault(key, []).extend(self.all_jobs[job].clip_idx for job in task.jobs)
        verify = self.verify if task.action == "finish" else ()
        self.scheduler.sunk(task.seq, self.now, seconds=0.1, verify=verify)

    def _take_events(self) -> None:
        for event in self.scheduler.take_events():
            if isinstance(event, JobStarted):
                self.jobs[event.job] = self.all_jobs[event.job] = event
            elif isinstance(event, RoundScored):
                self.rounds_done[event.job] += 1
            elif isinstance(event, JobEnded):
                started = self.jobs.pop(event.job)
                if event.failed_in:
                    self.dropped.append((started, event.failed_in))
            elif isinstance(event, PeeksDone):
                self.scheduler.open_gate(event.video)
            elif isinstance(event, VideoEnded):
                self.ended[event.video] = event.is_complete

    def last_written(self, video: str) -> list[int]:
        """The clips in the last attempt to write this video, in order."""
        epochs = [key for key in self.written if key.rsplit("/", 1)[0] == video]
        return self.written[max(epochs, key=lambda key: int(key.rsplit("/", 1)[1]))] if epochs else []

    @property
    def fill(self) -> float:
        return sum(task.rows for task in self.batches) / sum(task.size for task in self.batches)

    @property
    def efficiency(self) -> float:
        """Share of the time in which the scorers worked."""
        return sum(self.busy_s.values()) / (self.now * self.workers["score"])


def limits(**changes) -> Limits:
    return Limits(**{"deadline_s": 0.5, "backoff_s": 0.1, "timeout_s": {}, **changes})


def expect_complete(sim: Simulation) -> None:
    """Every video closed, every clip written once and in order, every row of every round answered once."""
    assert sim.ended == dict.fromkeys(sim.clips, True)
    for video, count in sim.clips.items():
        assert sim.last_written(video) == list(range(count))
    streamed = {key: n for key, n in sim.scored.items() if key[2] == "stream"}
    expected = {
        (video, clip, "stream", round_idx, row)
        for video, count in sim.clips.items()
        for clip in range(count)
        if clip not in sim.done.get(video, ())
        for round_idx in range(sim.rounds)
        for row in range(sim.rows if round_idx == 0 else sim.rows // 2)
    }
    assert set(streamed) == expected
    assert set(streamed.values()) <= {1}
