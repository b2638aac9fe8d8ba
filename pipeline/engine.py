"""What the coordinator asks of an engine, and what an engine tells it. `local.py` and `actors.py` are the two engines.

An engine keeps workers, each a `StageWorker` around one stage, numbered from 0 in every stage. It carries out requests
in the order in which a worker got them and knows nothing of clips or videos. A clip's pixels stay where the engine
keeps them: `Read.frames` is the clip itself, or a function that fetches it where it is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.work import Mishap, StageName
from stages.base import Resources, Stage
from stages.errors import ExplainError
from stages.records import Clip, ClipInfo

Frames = Clip | Callable[[], Clip]


class FramesLostError(Exception):
    """The pixels of a clip are gone with the machine that kept them; reading the clip again brings them back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the machines under an engine offer together, at this moment. `is_local`: this process alone.

    `store_bytes`: of the smallest object store of a machine that works; None where there is none. `num_stores`: how
    many machines have one.
    """

    num_cpus: float
    num_gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)
    is_local: bool = False
    store_bytes: int | None = None
    num_stores: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """A stage and its workers. `build` makes the stage where it runs; `report` says what the coordinator must know.

    `threads`: how many torch may use in a process of its own; None leaves it alone. `wanted`: how many workers a
    capacity calls for, where their number follows the cluster. `stays_home`: on the coordinator's machine if it can.
    `is_spread`: over as many machines as can be.
    `frugal`: the plan for a worker that was ended because its machine had no memory left, made of its last report (None
    where it had made none); it gives None where the worker cannot take less.
    """

    name: StageName
    build: Callable[[], Stage[Any, Any]]
    workers: int = 1
    resources: Resources = field(default_factory=Resources)
    report: Callable[[Any], object] | None = None
    threads: int | None = None
    wanted: Callable[[Capacity], int] | None = None
    stays_home: bool = False
    is_spread: bool = False
    frugal: "Callable[[object], StagePlan | None] | None" = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """What `decode` answers here: the clip without its pixels, and where those are."""

    info: ClipInfo | None
    is_last: bool
    warnings: tuple[str, ...]
    frames: Frames | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Mishap):
    """Why a request came to nothing. `error`: the expected ones as they are, bugs described.

    `is_lost`: the worker died. `has_lost_frames`: see FramesLostError. `is_blameless`: see StagePlan.frugal.
    """

    error: ExplainError
    kind: str
    trace: str = ""
    is_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A request has been carried out, or not: then `problem` says why and `value` is None."""

    seq: int
    value: Any = None
    problem: Problem | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerUp:
    """A worker has been set up (again); `report` is what its stage has to say."""

    stage: StageName
    worker: int
    report: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDown:
    """A worker is gone. `problem`: it could not be set up at all; None: it died and comes back if it can."""

    stage: StageName
    worker: int
    problem: Problem | None = None


Happening = Answer | WorkerUp | WorkerDown


class Engine(Protocol):
    """Carries out requests somewhere else."""

    def capacity(self) -> Capacity:
        """What there is to work on."""
        ...

    def start(self, plans: Sequence[StagePlan]) -> None:
        """Bring up the workers of these stages; `wait` tells when each is there."""

    def submit(self, seq: int, stage: StageName, worker: int, request: object) -> None:
        """Hand a request to a worker; returns at once."""

    def wait(self, timeout_s: float) -> list[Happening]:
        """What has happened since the last call, in order; waits until something has, or for `timeout_s`."""
        ...

    def restart(self, stage: StageName, worker: int) -> None:
        """Give up a worker that hangs and start another in its place; its requests are answered as lost."""

    def memory(self) -> dict[str, int]:
        """Peak resident bytes of this process ("driver") and of every worker process that is there."""
        ...

    def close(self) -> None:
        """End all workers."""
