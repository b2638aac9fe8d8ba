"""The sink as a stage: maps in clip order become the files of their video, for several open videos side by side.

Here the state is real (an open film), so the protocol says so: requests of one video go to one worker in order and
carry the epoch of the attempt. A worker that is asked to go on with something it does not have answers with an error,
and the coordinator begins that video again from the journal.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.manifest import RunFolder
from pipeline.sink import SinkSpec, VideoSink
from pipeline.summaries import VideoSummary
from pipeline.work import SinkAction
from stages.errors import ResourceError
from stages.records import ClipInfo, MaskBatch, SaliencyMap, Scores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FinishedClip:
    """A clip whose maps are final, one for each target. `seconds`: what the box spent on it."""

    info: ClipInfo
    maps: tuple[SaliencyMap, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SinkRequest:
    """add `clips`; finish after `num_frames`; or close with `answers` about regions. `is_first`: begin anew."""

    spec: SinkSpec
    epoch: int
    action: SinkAction
    is_first: bool = False
    clips: tuple[FinishedClip, ...] = ()
    num_frames: int = 0
    answers: tuple[Scores, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SinkResult:
    """After finish: what to ask the box about the strongest regions. After close: what the video left."""

    questions: tuple[MaskBatch, ...] = ()
    summary: VideoSummary | None = None


class WriteVideos:
    """Holds the open `VideoSink`s of one worker."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, VideoSink]] = {}

    def setup(self) -> None:
        """Files are opened when their first clip comes."""

    def process(self, request: SinkRequest, /) -> SinkResult:
        """Do what the action says. Raises ResourceError when the disk is full or the video is not open here."""
        sink = self._sink(request)
        if request.action == "add":
            for clip in request.clips:
                sink.add(clip.info, clip.maps, clip.seconds)
            return SinkResult()
        if request.action == "finish":
            return SinkResult(questions=sink.finish(request.num_frames))
        del self._open[request.spec.source.id]
        return SinkResult(summary=sink.close(request.answers))

    def close(self) -> None:
        """Let go of what is still open; it is of no use half-written."""
        for _, sink in self._open.values():
            sink.abort()
        self._open.clear()

    def _sink(self, request: SinkRequest) -> VideoSink:
        video_id = request.spec.source.id
        epoch, sink = self._open.get(video_id, (-1, None))
        if sink is not None and epoch == request.epoch and not request.is_first:
            return sink
        if sink is not None:
            del self._open[video_id]
            sink.abort()
        if not request.is_first:
            raise ResourceError(video_id, "its files are not open in this worker", "the video is written again")
        RunFolder(Path(request.spec.run)).expect_here()
        self._open[video_id] = request.epoch, VideoSink(request.spec)
        return self._open[video_id][1]
