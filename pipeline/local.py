"""The engine without Ray: one thread for every worker, in this process. The box gets torch's own threads."""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.engine import Answer, Capacity, Happening, Problem, Read, StagePlan, WorkerDown, WorkerUp
from pipeline.memory import peak_memory
from pipeline.topology import num_cpus
from pipeline.work import StageName
from pipeline.worker import StageWorker
from stages.errors import ResourceError

CLOSE_TIMEOUT_S = 10.0


@dataclass(slots=True, eq=False)
class _Thread:
    plan: StagePlan
    worker: int
    inbox: "queue.SimpleQueue[tuple[int, object] | None]" = field(default_factory=queue.SimpleQueue)
    seqs: list[int] = field(default_factory=list)
    thread: threading.Thread | None = None
    is_abandoned: bool = False


class LocalEngine:
    """Threads around the same stages; requests and answers are handed over as they are."""

    def __init__(self) -> None:
        self._threads: dict[tuple[StageName, int], _Thread] = {}
        self._outbox: queue.SimpleQueue[tuple[_Thread | None, Happening]] = queue.SimpleQueue()

    def capacity(self) -> Capacity:
        """This process."""
        return Capacity(num_cpus=num_cpus(), is_local=True)

    def start(self, plans: Sequence[StagePlan]) -> None:
        """Start a thread for every worker."""
        for plan in plans:
            for worker in range(plan.workers):
                self._launch(plan, worker)

    def submit(self, seq: int, stage: StageName, worker: int, request: object) -> None:
        """Put the request in the worker's inbox."""
        thread = self._threads[stage, worker]
        thread.seqs.append(seq)
        thread.inbox.put((seq, request))

    def wait(self, timeout_s: float) -> list[Happening]:
        """Everything that has happened; blocks for the first."""
        found: list[Happening] = []
        try:
            self._collect(found, self._outbox.get(timeout=max(timeout_s, 1e-4)))
            while True:
                self._collect(found, self._outbox.get_nowait())
        except queue.Empty:
            return found

    def restart(self, stage: StageName, worker: int) -> None:
        """Leave the thread to itself (threads cannot be killed) and start another."""
        old = self._threads[stage, worker]
        old.is_abandoned = True
        old.inbox.put(None)
        error = ResourceError(f"{stage} worker {worker}", "did not answer in time", "raise engine.score_timeout_s")
        lost = Problem(error=error, kind="Timeout", is_lost=True)
        self._outbox.put((None, WorkerDown(stage=stage, worker=worker)))
        for seq in old.seqs:
            self._outbox.put((None, Answer(seq=seq, problem=lost)))
        self._launch(old.plan, worker)

    def memory(self) -> dict[str, int]:
        """All threads live in the driver."""
        return {"driver": peak_memory()}

    def close(self) -> None:
        """Let the threads end after what they are doing."""
        for thread in self._threads.values():
            thread.inbox.put(None)
        for thread in self._threads.values():
            if thread.thread is not None:
                thread.thread.join(CLOSE_TIMEOUT_S)
        self._threads.clear()

    def _launch(self, plan: StagePlan, worker: int) -> None:
        # Torch's threads serve the whole process here: whoever computes may have them.
        entry = _Thread(replace(plan, threads=None), worker)
        self._threads[plan.name, worker] = entry
        entry.thread = threading.Thread(target=self._serve, args=(entry,), name=f"{plan.name}-{worker}", daemon=True)
        entry.thread.start()

    def _collect(self, found: list[Happening], item: tuple[_Thread | None, Happening]) -> None:
        thread, happening = item
        if thread is not None and thread.is_abandoned:
            return
        if thread is not None and isinstance(happening, Answer):
            thread.seqs.remove(happening.seq)
        found.append(happening)

    def _serve(self, entry: _Thread) -> None:
        worker = StageWorker(entry.plan)
        name = entry.plan.name
        report, problem = worker.setup()
        if problem is not None:
            self._outbox.put((entry, WorkerDown(stage=name, worker=entry.worker, problem=problem)))
            return
        self._outbox.put((entry, WorkerUp(stage=name, worker=entry.worker, report=report)))
        while (item := entry.inbox.get()) is not None:
            seq, request = item
            value, clip, problem, seconds = worker.call(request)
            if isinstance(value, Read):
                value = replace(value, frames=clip)
            del clip, request, item
            self._outbox.put((entry, Answer(seq=seq, value=value, problem=problem, seconds=seconds)))
        worker.close()
