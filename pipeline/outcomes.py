"""How clips and videos end: what becomes a failure, and when failures end the run."""

import logging
from typing import Protocol

from pipeline.cases import ClipCase
from pipeline.engine import Problem
from pipeline.stats import Stats
from pipeline.summaries import VideoSummary
from pipeline.work import StageName
from stages.errors import DecodeError, ExplainError, ResourceError
from stages.records import Failure, VideoSource

_log = logging.getLogger(__name__)


class Record(Protocol):
    """Where a run writes down what happens to its videos."""

    def opened(self, source: VideoSource) -> bool:
        """A source is taken in; False when an earlier run has finished it."""
        ...

    def completed(self, summary: VideoSummary) -> None:
        """A video is finished."""

    def failed(self, failure: Failure) -> None:
        """An input, or a part of it, could not be explained."""


class Outcomes:
    """Turns what was given up into records. `fatal`: why the run must end, once it must."""

    def __init__(self, record: Record, stats: Stats, *, max_failures: int | None) -> None:
        self.record = record
        self.stats = stats
        self.fatal: ExplainError | None = None
        self.problem: Problem | None = None  # of the answer that is being dealt with
        self._max_failures = max_failures
        self._has_failure: set[str] = set()
        self._known: set[tuple[str, int | None, str, str]] = set()

    def clip_given_up(self, case: ClipCase, source: VideoSource, stage: StageName) -> None:
        """A stage gave up a clip; an extra look at a clip that gives up is only worth a line in the log."""
        if self.problem is None:
            return
        is_extra = case.purpose == "verify" or (case.purpose == "peek" and case.id.clip_idx > 0)
        if is_extra or (case.purpose == "peek" and not self.problem.is_permanent):
            _log.warning("clip=%s purpose=%s given up: %s", case.id, case.purpose, self.problem.error)
            return
        self._fail_with(source, stage, self.problem, case.id.clip_idx)

    def video_ended(self, source: VideoSource, *, is_complete: bool, is_cut: bool) -> None:
        """A video ended; one without a result, and without a failure that says why, gets one."""
        if not is_complete and not is_cut and source.id not in self._has_failure:
            error = ResourceError(source.uri, "no clip of it could be explained", "look at log.jsonl")
            problem = self.problem or Problem(error=error, kind="ResourceError")
            self._fail_with(source, "sink" if self.problem else "decode", problem, None)
        self._has_failure.discard(source.id)

    def source_damaged(self, source: VideoSource, damage: str) -> None:
        """A source breaks off: what comes before is explained, and the failure says what is missing."""
        error = DecodeError(source.uri, damage, "copy it again from its origin, or explain it as it is")
        self._fail_with(source, "decode", Problem(error=error, kind="DecodeError"), None)

    def fail(self, failure: Failure) -> None:
        """Record a failure; too many of them are fatal. What both passes of a screened run meet counts once."""
        key = (failure.video_id, failure.clip_idx, failure.stage, failure.reason)
        if key in self._known:
            return
        self._known.add(key)
        self.record.failed(failure)
        self.stats.failures += 1
        most = self._max_failures
        if most is not None and self.stats.failures > most and self.fatal is None:
            fact = f"more than {most} failures; the last: {failure.uri}: {failure.reason}"
            self.fatal = ResourceError("the run", fact, "mend the inputs, or raise engine.max_failures")

    def _fail_with(self, source: VideoSource, stage: str, problem: Problem, clip_idx: int | None) -> None:
        self._has_failure.add(source.id)
        self.fail(
            Failure(
                video_id=source.id,
                uri=source.uri,
                stage=stage,
                error=problem.kind,
                reason=problem.error.fact,
                remedy=problem.error.remedy,
                clip_idx=clip_idx,
            )
        )
