"""The inside of a worker, in a thread or in a Ray actor: one stage, and the edge where its errors become data."""

import time
import traceback
from typing import Any

from pipeline.engine import FramesLostError, Problem, Read, StagePlan
from pipeline.memory import keep_freed_memory, peak_memory
from stages.base import Stage
from stages.decode import DecodeResult
from stages.errors import ConfigError, DecodeError, ExplainError, NumericsError
from stages.records import Clip

Outcome = tuple[Any, Clip | None, Problem | None, float]


class StageWorker:
    """Builds a stage and lets it answer. Never raises: what goes wrong comes back as a Problem."""

    def __init__(self, plan: StagePlan) -> None:
        self._plan = plan
        self._stage: Stage[Any, Any] | None = None

    def setup(self) -> tuple[object, Problem | None]:
        """Load what is costly; returns the stage's report."""
        keep_freed_memory()
        try:
            if self._plan.threads is not None:
                import torch

                torch.set_num_threads(self._plan.threads)
            self._stage = self._plan.build()
            self._stage.setup()
            return (self._plan.report(self._stage) if self._plan.report else None), None
        except Exception as error:  # noqa: BLE001 - the worker's edge: errors become data here
            return None, self._problem(error)

    def call(self, request: object) -> Outcome:
        """The answer, pixels that must not travel with it, or the problem; and the seconds it took."""
        start = time.perf_counter()
        try:
            assert self._stage is not None, "setup() has not run"
            answer = self._stage.process(request)
        except Exception as error:  # noqa: BLE001 - the worker's edge, as above
            return None, None, self._problem(error), time.perf_counter() - start
        light, heavy = detach(answer)
        return light, heavy, None, time.perf_counter() - start

    def memory(self) -> int:
        """Peak resident bytes of this process."""
        return peak_memory()

    def close(self) -> None:
        """Give back what the stage holds."""
        if self._stage is not None:
            self._stage.close()
            self._stage = None

    def _problem(self, error: Exception) -> Problem:
        trace = "".join(traceback.format_exception(error))
        kind = type(error).__name__
        if isinstance(error, FramesLostError):
            told = ExplainError(self._plan.name, "the frames were lost with their worker", "they are read again")
            return Problem(error=told, kind=kind, has_lost_frames=True)
        if isinstance(error, ExplainError):
            is_permanent = isinstance(error, DecodeError | NumericsError | ConfigError) or self._plan.name == "sink"
            return Problem(error=error, kind=kind, trace=trace, is_permanent=is_permanent)
        told = ExplainError(self._plan.name, f"{kind}: {error}", "see log.jsonl in the run folder, and report it")
        return Problem(error=told, kind=kind, trace=trace)


def detach(answer: object) -> tuple[object, Clip | None]:
    """Split a decoded clip from what is said about it; other answers travel whole."""
    if not isinstance(answer, DecodeResult):
        return answer, None
    info = None if answer.clip is None else answer.clip.info
    return Read(info=info, is_last=answer.is_last, warnings=answer.warnings, frames=None), answer.clip
