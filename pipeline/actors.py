"""The engine on Ray: one generic actor around any stage, and pools of them.

Only NumPy crosses. A decoded clip is the second return value of its call: it goes from the decoder into the object
store once, and its reference travels in requests; scorers fetch it when they do not have it. An actor that dies is
replaced by a new one, which needs nothing but its plan; the requests that it had are answered as lost.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pipeline.engine import Answer, Capacity, FramesLostError, Happening, Problem, Read, StagePlan, WorkerDown, WorkerUp
from pipeline.logs import LogLine, LogTray, log_again
from pipeline.memory import peak_memory
from pipeline.ray_cluster import actor_options, cluster_capacity, reason, shortage
from pipeline.work import StageName
from pipeline.worker import Outcome, StageWorker
from stages.errors import ResourceError
from stages.records import Clip

_log = logging.getLogger(__name__)

MAX_SETUP_DEATHS = 5
RELAUNCH_S = 1.0  # after a death while setting up; doubles with each further one
WAIT_SAID_S = 15.0  # how long a stage may look for its first place before it is said
LOOK_EVERY_S = 2.0  # how often the size of the cluster is asked
MEMORY_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class HeldClip:
    """A clip in Ray's object store; calling it fetches the pixels (read-only, without a copy on the same machine)."""

    ref: Any

    def __call__(self) -> Clip:
        """Fetch the clip. Raises FramesLostError when its machine is gone."""
        import ray

        try:
            clip: Clip = ray.get(self.ref)
        except (ray.exceptions.ObjectLostError, ray.exceptions.RayTaskError, ray.exceptions.RayActorError) as error:
            raise FramesLostError(str(error)) from error
        return clip


class _Actor:
    """What Ray runs: a StageWorker whose answer and pixels are two objects."""

    def __init__(self, plan: StagePlan) -> None:
        self._tray = LogTray()
        self._worker = StageWorker(plan)

    def setup(self) -> tuple[object, Problem | None]:
        return self._worker.setup()

    def call(self, request: object) -> tuple[tuple[Outcome, tuple[LogLine, ...]], Clip | None]:
        value, clip, problem, seconds = self._worker.call(request)
        return ((value, None, problem, seconds), self._tray.fetch()), clip

    def memory(self) -> int:
        return self._worker.memory()

    def close(self) -> None:
        self._worker.close()


@dataclass(slots=True, eq=False)
class _Slot:
    plan: StagePlan
    worker: int
    actor: Any = None  # None: about to be launched
    is_up: bool = False
    report: object = None  # of its last worker that was up


@dataclass(slots=True, eq=False)
class _Pending:
    slot: _Slot
    actor: Any
    seq: int | None = None  # None: the call of setup
    clip_ref: Any = None


class RayEngine:
    """Pools of actors on the cluster that this process has joined."""

    def __init__(self, *, startup_s: float = 300.0) -> None:
        import ray

        self._ray: Any = ray
        self._startup_s = startup_s
        self._since: dict[StageName, float] = {}  # when a stage was asked for, or had a worker last
        self._waiting: set[StageName] = set()  # stages of which it was said that they have no worker
        self._actor_class = ray.remote(_Actor)
        self._slots: dict[tuple[StageName, int], _Slot] = {}
        self._pending: dict[Any, _Pending] = {}
        self._said: list[Happening] = []
        self._setup_deaths: Counter[tuple[StageName, int]] = Counter()
        self._later: list[tuple[float, _Slot]] = []  # to be launched again, not before
        self._plans: dict[StageName, StagePlan] = {}
        self._next_look = 0.0

    def capacity(self) -> Capacity:
        """What the nodes that are alive offer together."""
        return cluster_capacity()

    def start(self, plans: Sequence[StagePlan]) -> None:
        """Ask Ray for the actors."""
        for plan in plans:
            self._plans[plan.name] = plan
            self._since[plan.name] = time.monotonic()
            for worker in range(plan.workers):
                self._launch(_Slot(plan, worker))

    def submit(self, seq: int, stage: StageName, worker: int, request: object) -> None:
        """Call the actor; returns at once."""
        slot = self._slots[stage, worker]
        answer_ref, clip_ref = slot.actor.call.options(num_returns=2).remote(request)
        self._pending[answer_ref] = _Pending(slot, slot.actor, seq, clip_ref)

    def wait(self, timeout_s: float) -> list[Happening]:
        """Everything that has happened; blocks for the first."""
        self._look_after()
        if not self._said and self._pending:
            refs = list(self._pending)
            first, _ = self._ray.wait(refs, num_returns=1, timeout=max(timeout_s, 0.0))
            if first:
                ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
                for ref in ready or first:
                    self._take(ref)
        elif not self._said:
            time.sleep(timeout_s)
        said, self._said = self._said, []
        return said

    def restart(self, stage: StageName, worker: int) -> None:
        """Kill the actor; its calls are answered as lost, and another takes its place."""
        slot = self._slots[stage, worker]
        self._replace(slot, slot.actor, "did not answer in time")

    def memory(self) -> dict[str, int]:
        """Peak bytes of the driver and of every actor that answers soon."""
        refs = {
            f"{stage}-{worker}": slot.actor.memory.remote()
            for (stage, worker), slot in self._slots.items()
            if slot.is_up
        }
        found = {"driver": peak_memory()}
        ready, _ = (
            self._ray.wait(list(refs.values()), num_returns=max(len(refs), 1), timeout=MEMORY_TIMEOUT_S)
            if refs
            else ([], [])
        )
        for name, ref in refs.items():
            if ref in ready:
                try:
                    found[name] = int(self._ray.get(ref))
                except self._ray.exceptions.RayError:
                    _log.info("worker=%s memory unknown: it died", name)
        return found

    def close(self) -> None:
        """Close the stages, end the actors, and the cluster if it is ours."""
        refs = [slot.actor.close.remote() for slot in self._slots.values() if slot.is_up]
        if refs:
            self._ray.wait(refs, num_returns=len(refs), timeout=CLOSE_TIMEOUT_S)
        for actor in self.hands().values():
            self._ray.kill(actor)
        self._slots.clear()
        self._pending.clear()

    def hands(self) -> dict[tuple[StageName, int], Any]:
        """The handles of all actors: who outlives this process can end them."""
        return {key: slot.actor for key, slot in self._slots.items() if slot.actor is not None}

    def _look_after(self) -> None:
        """Launch what was to wait; follow the cluster, where the number of workers does."""
        now = time.monotonic()
        for entry in [entry for entry in self._later if entry[0] <= now]:
            self._later.remove(entry)
            if self._slots.get((entry[1].plan.name, entry[1].worker)) is entry[1]:
                self._launch(entry[1])
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY_S
        for plan in self._plans.values():
            if plan.wanted is not None:
                self._resize(plan, max(1, plan.wanted(self.capacity())))
            self._expect_place(plan, now)

    def _expect_place(self, plan: StagePlan, now: float) -> None:
        """Say when no worker of a stage has found a place yet, and give up when none can be found in all the time."""
        if any(slot.is_up for (name, _), slot in self._slots.items() if name == plan.name):
            self._since[plan.name] = now  # should all be lost later, a new node has as long to come
            self._waiting.discard(plan.name)
            return
        waited_s = now - self._since[plan.name]
        if waited_s < min(WAIT_SAID_S, self._startup_s):
            return
        fact = shortage(plan.resources, [other.resources for other in self._plans.values()])
        if fact is None or waited_s < self._startup_s:
            if plan.name not in self._waiting:
                _log.warning("stage=%s has no worker yet: %s", plan.name, fact or "it starts, or the cluster is busy")
            self._waiting.add(plan.name)
            return
        remedy = "lower engine.resources, add nodes, or wait longer (engine.startup_s)"
        error = ResourceError("the cluster", f"{fact}, so {plan.name} has no worker", remedy)
        self._said.append(WorkerDown(stage=plan.name, worker=0, problem=Problem(error=error, kind="ResourceError")))
        self._since[plan.name] = now

    def _resize(self, plan: StagePlan, wanted: int) -> None:
        """More workers when there is room for them; those that have found no place any more are not waited for."""
        mine = [slot for (name, _), slot in self._slots.items() if name == plan.name]
        free = (worker for worker in range(wanted + len(mine)) if (plan.name, worker) not in self._slots)
        for worker in islice(free, max(wanted - len(mine), 0)):
            _log.info("stage=%s worker=%d joins: the cluster has grown", plan.name, worker)
            self._launch(_Slot(plan, worker))
        homeless = [slot for slot in reversed(mine) if not slot.is_up]
        for slot in homeless[: max(len(mine) - wanted, 0)]:
            _log.info("stage=%s worker=%d leaves: the cluster has shrunk", plan.name, slot.worker)
            del self._slots[plan.name, slot.worker]
            for ref in [ref for ref, pending in self._pending.items() if pending.slot is slot]:
                del self._pending[ref]
            if slot.actor is not None:
                self._ray.kill(slot.actor)

    def _launch(self, slot: _Slot) -> None:
        plan = slot.plan
        options = actor_options(plan.resources, is_at_home=plan.stays_home, is_spread=plan.is_spread)
        slot.actor = self._actor_class.options(**options, max_restarts=0, max_task_retries=0).remote(plan)
        slot.is_up = False
        self._slots[slot.plan.name, slot.worker] = slot
        self._pending[slot.actor.setup.remote()] = _Pending(slot, slot.actor)

    def _take(self, ref: Any) -> None:
        pending = self._pending.pop(ref, None)
        if pending is None:
            return
        slot, name = pending.slot, pending.slot.plan.name
        try:
            content = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._pending[ref] = pending
            _log.info("stage=%s worker=%d %s: %s", name, slot.worker, type(error).__name__, error)
            if isinstance(error, self._ray.exceptions.OutOfMemoryError):
                self._make_frugal(slot, pending.actor)
            else:
                self._replace(slot, pending.actor, f"died ({type(error).__name__}: {reason(error)})")
            return
        if pending.seq is None:
            report, problem = content
            slot.is_up = problem is None
            self._setup_deaths.pop((name, slot.worker), None)
            if problem is None:
                slot.report = report
                self._said.append(WorkerUp(stage=name, worker=slot.worker, report=report))
            else:
                self._said.append(WorkerDown(stage=name, worker=slot.worker, problem=problem))
            return
        (value, _, problem, seconds), lines = content
        log_again(lines, f"worker={name}-{slot.worker}")
        if isinstance(value, Read) and value.info is not None:
            value = replace(value, frames=HeldClip(pending.clip_ref))
        self._said.append(Answer(seq=pending.seq, value=value, problem=problem, seconds=seconds))

    def _make_frugal(self, slot: _Slot, actor: Any) -> None:
        """Replace an actor that Ray ended for its memory by one that takes less, where its stage knows how."""
        frugal = slot.plan.frugal if slot.actor is actor else None
        smaller = frugal and frugal(slot.report)
        if smaller is not None:
            slot.plan, slot.report = smaller, None
        why = "was ended by Ray: its machine had no memory left (fewer workers or a smaller score.batch_size take less)"
        self._replace(slot, actor, why, is_blameless=smaller is not None)

    def _replace(self, slot: _Slot, actor: Any, why: str, *, is_blameless: bool = False) -> None:
        """Answer all calls of a dead actor as lost, and launch another unless that has been tried too often."""
        name, worker = slot.plan.name, slot.worker
        error = ResourceError(f"{name} worker {worker}", why, "its work is done again by another")
        lost = Problem(error=error, kind="WorkerLost", is_lost=True, is_blameless=is_blameless)
        self._ray.kill(actor)
        dead = [(ref, pending) for ref, pending in self._pending.items() if pending.actor is actor]
        for ref, _ in dead:
            del self._pending[ref]
        if slot.actor is actor and self._slots.get((name, worker)) is slot:
            is_setup = any(pending.seq is None for _, pending in dead)
            self._setup_deaths[name, worker] += is_setup
            deaths = self._setup_deaths[name, worker]
            has_hope = deaths < MAX_SETUP_DEATHS
            _log.warning("stage=%s worker=%d %s", name, worker, why)
            self._said.append(WorkerDown(stage=name, worker=worker, problem=None if has_hope else lost))
            slot.actor, slot.is_up = None, False
            if has_hope:
                self._later.append((time.monotonic() + (RELAUNCH_S * 2.0 ** (deaths - 1) if deaths else 0.0), slot))
        self._said += [Answer(seq=pending.seq, problem=lost) for _, pending in dead if pending.seq is not None]
