"""Which workers are there, and which tasks are with them. The sequence numbers of tasks are given out here."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.window import Limits
from pipeline.work import StageName, Task


@dataclass(slots=True)
class _Worker:
    batch_size: int = 1
    is_up: bool = True
    tasks: dict[int, float] = field(default_factory=dict)  # seq -> when it was handed over


class Workers:
    """Counts tasks per worker against the depth of its queue. A worker may be away and come back."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._workers: dict[StageName, dict[int, _Worker]] = {"decode": {}, "score": {}, "refine": {}, "sink": {}}
        self._tasks: dict[int, Task] = {}
        self._num_running: dict[StageName, int] = dict.fromkeys(self._workers, 0)
        self._next_seq = 0

    def up(self, stage: StageName, worker: int, batch_size: int) -> None:
        """The worker is there (again)."""
        known = self._workers[stage].setdefault(worker, _Worker())
        known.batch_size, known.is_up = batch_size, True

    def down(self, stage: StageName, worker: int) -> None:
        """The worker gets no further tasks."""
        if known := self._workers[stage].get(worker):
            known.is_up = False

    def is_up(self, stage: StageName, worker: int | None) -> bool:
        """Whether the worker can be given tasks at all."""
        return worker is not None and worker in self._workers[stage] and self._workers[stage][worker].is_up

    def count(self, stage: StageName) -> int:
        """Workers that are there."""
        return sum(worker.is_up for worker in self._workers[stage].values())

    def batch_size(self, worker: int) -> int:
        """Masks that this scorer takes at once."""
        return self._workers["score"][worker].batch_size

    def batch_sizes(self) -> list[int]:
        """Batch sizes of the scorers that are there."""
        return [worker.batch_size for worker in self._workers["score"].values() if worker.is_up]

    def num_tasks(self, stage: StageName, worker: int) -> int:
        """Tasks that the worker has."""
        return len(self._workers[stage][worker].tasks)

    def has_room(self, stage: StageName, worker: int) -> bool:
        """Whether the worker's queue takes one more."""
        return self.is_up(stage, worker) and self.num_tasks(stage, worker) < self._limits.queued[stage]

    def most_idle(self, stage: StageName) -> int | None:
        """The worker with the shortest queue, if any has room."""
        free = [worker for worker in self._workers[stage] if self.has_room(stage, worker)]
        return min(free, key=lambda worker: self.num_tasks(stage, worker), default=None)

    def least_loaded(self, stage: StageName, taken: Iterable[int | None]) -> int | None:
        """The worker that serves the fewest videos; `taken` names the worker of every open video."""
        busy = list(taken)
        here = [worker for worker, known in self._workers[stage].items() if known.is_up]
        return min(here, key=busy.count, default=None)

    def is_busy(self, stage: StageName) -> bool:
        """Whether any worker of the stage has a task."""
        return self._num_running[stage] > 0

    def next_seq(self) -> int:
        """A number that was never given out before."""
        self._next_seq += 1
        return self._next_seq

    def start(self, task: Task, now: float) -> None:
        """The task was handed to its worker."""
        self._tasks[task.seq] = task
        self._workers[task.stage][task.worker].tasks[task.seq] = now
        self._num_running[task.stage] += 1

    def finish(self, seq: int, now: float) -> Task | None:
        """The task has been answered; None when it was answered before, or never asked."""
        task = self._tasks.pop(seq, None)
        if task is not None:
            tasks = self._workers[task.stage][task.worker].tasks
            del tasks[seq]
            if tasks:  # the next one begins now; until now it only waited
                tasks[next(iter(tasks))] = now
            self._num_running[task.stage] -= 1
        return task

    def task(self, seq: int) -> Task | None:
        """The task with this number, while it runs."""
        return self._tasks.get(seq)

    def running(self) -> list[Task]:
        """All tasks that have not been answered."""
        return list(self._tasks.values())

    def next_timeout(self) -> float | None:
        """When the first running task will have run out of time."""
        return min(self._deadlines().values(), default=None)

    def overdue(self, now: float) -> list[Task]:
        """The tasks that have run out of time: the oldest of each worker (the ones behind it are only waiting)."""
        return [self._tasks[seq] for seq, deadline in self._deadlines().items() if deadline <= now]

    def _deadlines(self) -> dict[int, float]:
        found = {}
        for stage, limit in self._limits.timeout_s.items():
            for worker in self._workers[stage].values():
                if worker.tasks:
                    seq, started = next(iter(worker.tasks.items()))
                    found[seq] = started + limit
        return found
