"""What a run writes down about its inputs, in its folder, and what it finds there when it goes on."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from pipeline.files import append_line, read_lines
from pipeline.manifest import RunFolder
from pipeline.summaries import VideoSummary
from stages.records import Failure, VideoSource

_log = logging.getLogger(__name__)


class RunRecord:
    """Implements the coordinator's `Record` on a run folder. Lines of videos.jsonl say what happened, in order."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._path = run.path / "videos.jsonl"
        self._known = run.inputs()
        self._done = {summary.video_id for summary in run.summaries()}
        marks = [row["failures"] for row in read_lines(self._path) if row.get("event") == "screened"]
        of_screening = [Failure(**row) for row in (marks[-1] if marks else ())]
        found = (*of_screening, *(failure for failure in run.failures() if failure.video_id in self._done))
        self._earlier: dict[object, Failure] = {_key(failure): failure for failure in found}
        self._failures: dict[object, Failure] = {}
        rows = (row for row in read_lines(self._path) if row.get("event") == "allowed")
        self.allowed: dict[str, tuple[int | None, int]] = {
            row["video_id"]: (row["clips"], row["evaluations"]) for row in rows
        }

    def asked_for(self, sources: Sequence[str]) -> None:
        """Write down what the user named, for resume."""
        append_line(self._path, {"event": "sources", "args": list(sources)})

    def sources(self) -> list[str]:
        """What the user named."""
        for row in read_lines(self._path):
            if row.get("event") == "sources":
                return [str(arg) for arg in row["args"]]
        return [source.uri for source in self._known.values()]

    def targets(self) -> Mapping[str, tuple[int, ...]]:
        """The classes that were chosen, by video."""
        rows = (row for row in read_lines(self._path) if row.get("event") == "targets")
        return {row["video_id"]: tuple(row["targets"]) for row in rows}

    def failures(self) -> list[Failure]:
        """The failures that stand: of this session, of earlier screening, and of videos finished earlier."""
        return list((self._earlier | self._failures).values())

    def opened(self, source: VideoSource) -> bool:
        """Take in a source; False when it is finished. Raises ManifestError when it changed since the run began."""
        if source.id in self._done:
            return False
        if source.id in self._known:
            self._run.expect_same(source.uri, self._known[source.id].sha256, source.sha256)
        else:
            self._run.register(source)
            self._known[source.id] = source
        _log.info("video=%s opened: %s", source.id, source.uri)
        return True

    def allow(self, video_id: str, clips: int | None, evaluations: int) -> None:
        """So many clips of this video (None: all) may be asked about, at this cost, and no more in a later session."""
        self.allowed[video_id] = clips, evaluations
        append_line(self._path, {"event": "allowed", "video_id": video_id, "clips": clips, "evaluations": evaluations})

    def screened(self) -> None:
        """Screening is over; it is not done again, so its failures stand."""
        append_line(self._path, {"event": "screened", "failures": [asdict(failure) for failure in self.failures()]})

    def has_targets(self, video_id: str, targets: tuple[int, ...]) -> None:
        """The classes to explain in this video are decided."""
        append_line(self._path, {"event": "targets", "video_id": video_id, "targets": list(targets)})
        _log.info("video=%s targets=%s", video_id, ",".join(str(target) for target in targets))

    def completed(self, summary: VideoSummary) -> None:
        """A video is finished."""
        self._run.complete(summary)
        _log.info("video=%s done: %d clips, %d frames", summary.video_id, summary.num_clips, summary.num_frames)

    def failed(self, failure: Failure) -> None:
        """An input, or a part of it, could not be explained."""
        is_known = _key(failure) in self._failures or _key(failure) in self._earlier
        self._failures[_key(failure)] = failure
        if not is_known:
            self._run.fail(failure)
            where = "" if failure.clip_idx is None else f" clip={failure.video_id}#{failure.clip_idx}"
            _log.warning("video=%s%s stage=%s failed: %s", failure.video_id, where, failure.stage, failure.reason)


def _key(failure: Failure) -> tuple[str, int | None, str, str]:
    """What makes two failures the same."""
    return failure.video_id, failure.clip_idx, failure.stage, failure.reason
