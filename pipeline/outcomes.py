"""How clips and videos end, and what becomes a failure."""

import logging
from typing import Protocol

from pipeline.cases import ClipCase
from pipeline.engine import Problem
from pipeline.stats import Stats
from pipeline.summaries import VideoSummary
from pipeline.work import StageName
from stages.errors import DecodeError, ResourceError
from stages.records import Failure, VideoSource

_log = logging.getLogger(__name__)


class Record(Protocol):
    """Where a coordinator says what happens to its videos."""

    def has_targets(self, video_id: str, targets: tuple[int, ...]) -> None:
        """The classes to explain in this video are decided."""

    def completed(self, summary: VideoSummary) -> None:
        """A video is finished."""

    def failed(self, failure: Failure) -> None:
        """An input, or a part of it, could not be explained."""

    def ended(self, video_id: str) -> None:
        """Nothing more will happen to this video."""


class Outcomes:
    """Turns what was given up into records."""

    def __init__(self, record: Record, stats: Stats) -> None:
        self.record = record
        self.stats = stats
        self.problem: Problem | None = None  # of the answer that is being dealt with
        self._has_failure: set[str] = set()

    def clip_given_up(self, case: ClipCase, source: VideoSource, stage: StageName) -> None:
        """A stage gave up a clip; an extra look at a clip that gives up is only worth a line in the log."""
        if self.problem is None:
            return
        is_extra = case.purpose == "verify" or (case.purpose == "peek" and case.id.clip_idx > 0)
        if is_extra or (case.purpose == "peek" and not self.problem.is_permanent):
            _log.warning("clip=%s stage=%s %s given up: %s", case.id, stage, case.purpose, self.problem.error)
            return
        self._fail_with(source, stage, self.problem, case.id.clip_idx)

    def video_ended(self, source: VideoSource, *, is_complete: bool, is_cut: bool) -> None:
        """A video ended; one without a result, and without a failure that says why, gets one."""
        if not is_complete and not is_cut and source.id not in self._has_failure:
            error = ResourceError(source.uri, "no clip of it could be explained", "look at log.jsonl")
            problem = self.problem or Problem(error=error, kind="ResourceError")
            self._fail_with(source, "sink" if self.problem else "decode", problem, None)
        self._has_failure.discard(source.id)
        self.record.ended(source.id)

    def source_damaged(self, source: VideoSource, damage: str) -> None:
        """A source breaks off: what comes before is explained, and the failure says what is missing."""
        error = DecodeError(source.uri, damage, "copy it again from its origin, or explain it as it is")
        self._fail_with(source, "decode", Problem(error=error, kind="DecodeError"), None)

    def _fail_with(self, source: VideoSource, stage: str, problem: Problem, clip_idx: int | None) -> None:
        self._has_failure.add(source.id)
        self.stats.failures += 1
        self.record.failed(
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
