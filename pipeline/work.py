"""The words that scheduler, coordinator and engines share: what can be asked of a worker, and what has happened.

Only ids, counts and bytes: no pixels, no masks, no scores. A `Task` is one request to one worker; its `seq` never
repeats, so that an answer which comes late or twice is recognised and ignored. A `job` is one clip on its way.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

StageName = Literal["decode", "score", "refine", "sink"]
Purpose = Literal["peek", "screen", "stream", "replay", "verify"]
SinkAction = Literal["add", "finish", "close"]

STAGES: tuple[StageName, ...] = ("decode", "score", "refine", "sink")


@dataclass(frozen=True, slots=True)
class Piece:
    """Mask rows [start, stop) of one round of one job."""

    job: int
    round_idx: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One request to worker number `worker` of `stage`, the stage whose workers can do this."""

    stage: ClassVar[StageName]
    seq: int
    worker: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTask(Task):
    """Read one clip."""

    stage: ClassVar[StageName] = "decode"
    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTask(Task):
    """One batch for the box, filled from any number of clips; `size` is what the scorer could have taken."""

    stage: ClassVar[StageName] = "score"
    pieces: tuple[Piece, ...]
    size: int

    @property
    def rows(self) -> int:
        """Masks in the batch."""
        return sum(len(piece) for piece in self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineTask(Task):
    """Turn the evidence of one clip into maps, or into more masks."""

    stage: ClassVar[StageName] = "refine"
    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkTask(Task):
    """Write: add the maps of `jobs` (in clip order), finish the frames of a video, or close its files."""

    stage: ClassVar[StageName] = "sink"
    video: str
    epoch: int
    action: SinkAction
    jobs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """How a task came to nothing.

    `is_permanent`: trying again is useless. `has_lost_frames`: the pixels are gone and must be read again.
    `is_blameless`: the scorer was the reason and is changed; this is no attempt of a batch.
    """

    is_permanent: bool = False
    has_lost_frames: bool = False
    is_blameless: bool = False


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A clip was taken in: the coordinator opens a place for its data."""

    job: int
    video: str
    clip_idx: int
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class RoundScored:
    """Every row of the job's current round has been answered."""

    job: int


@dataclass(frozen=True, slots=True)
class PeeksDone:
    """All clips that were to be looked at before the target is chosen have been scored, or cannot be."""

    video: str


@dataclass(frozen=True, slots=True)
class FramesDropped:
    """No more questions will be asked about this job's pixels: let them go."""

    job: int


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The job left the pipeline. `failed_in` names the stage that gave it up, None when all went well."""

    job: int
    failed_in: StageName | None = None


@dataclass(frozen=True, slots=True)
class VideoEnded:
    """Nothing more will happen to this video. `is_complete`: its files were closed in order."""

    video: str
    is_complete: bool


Event = JobStarted | RoundScored | PeeksDone | FramesDropped | JobEnded | VideoEnded
