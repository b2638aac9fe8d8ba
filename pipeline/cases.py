"""The data of what is in flight: of every job its clip, masks and scores, of every video its targets.

Requests to the stages are put together here; the scheduler never sees what is in them.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from pipeline.engine import Frames
from pipeline.work import Piece, Purpose
from stages.box import BoxSpec
from stages.heritage import Heritage
from stages.records import ClipId, ClipInfo, Evidence, MaskBatch, SaliencyMap, Scores, VideoSource
from stages.refine import RefineRequest
from stages.targets import mean_probabilities, needs_scores, resolve_targets

NUM_PEEKS = 8


@dataclass(slots=True, eq=False)
class VideoCase:
    """An open video. `looks`: log-scores of untouched clips, from which the target is chosen."""

    source: VideoSource
    targets: tuple[int, ...] | None = None
    looks: dict[int, Float32[np.ndarray, " k"]] = field(default_factory=dict)  # by clip
    expected_clips: int = 0
    num_frames: int = 0
    epoch: int = -1  # of the sink that has begun to write
    questions: dict[int, MaskBatch] = field(default_factory=dict)  # by clip
    answers: dict[int, Scores] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    left: dict[int, Heritage] = field(default_factory=dict)  # by clip, for the one after it
    is_begun: bool = False  # a clip of it was taken in, to be explained or screened

    def hand_on(self, left: Heritage | None) -> None:
        """Keep what a clip that is final leaves."""
        if left is not None:
            self.left[left.clip_id.clip_idx] = left

    def goes_to_sink(self, clip_idx: int) -> None:
        """The clips before are done with; should they be written again, they are refined again, from the first on."""
        self.left = {idx: left for idx, left in self.left.items() if idx >= clip_idx}

    def clips_to_look_at(self, target: str) -> list[int]:
        """Clips spread over the video that decide what the target is; none where that is known."""
        if self.targets is not None or not needs_scores(target):
            return []
        return sorted({int(idx) for idx in np.linspace(0, (self.expected_clips or NUM_PEEKS) - 1, NUM_PEEKS)})

    def choose_targets(self, target: str, spec: BoxSpec) -> tuple[int, ...]:
        """Fix the targets by what was seen so far. Raises ConfigError for a name that is no class."""
        if self.targets is None:
            seen = np.stack([self.looks[clip_idx] for clip_idx in sorted(self.looks)])
            self.targets = resolve_targets(target, mean_probabilities(seen), spec)
            self.looks.clear()
        return self.targets


@dataclass(slots=True, eq=False)
class ClipCase:
    """A clip on its way: the rounds that are complete, and the one that is being scored."""

    id: ClipId
    purpose: Purpose
    is_look: bool = False
    is_last: bool = False  # no clip comes after it
    info: ClipInfo | None = None
    frames: Frames | None = None
    rounds: list[tuple[MaskBatch, Scores]] = field(default_factory=list)
    masks: MaskBatch | None = None
    values: Float32[np.ndarray, "n k"] | None = None
    found: Float32[np.ndarray, "n gt gh gw"] | None = None  # of questions about maps
    maps: tuple[SaliencyMap, ...] = ()
    seconds: float = 0.0  # of the box

    def ask(self, masks: MaskBatch) -> None:
        """Begin a round."""
        self.masks, self.values, self.found = masks, None, None

    def piece(self, piece: Piece) -> MaskBatch:
        """The masks of some rows of the current round."""
        assert self.masks is not None, f"{self.id} has no round"
        return self.masks.rows(piece.start, piece.stop)

    def answer(self, piece: Piece, scores: Scores) -> None:
        """Take in the scores of some rows."""
        assert self.masks is not None, f"{self.id} has no round"
        if self.values is None:
            self.values = np.full((len(self.masks), scores.values.shape[1]), np.nan, np.float32)
        self.values[piece.start : piece.stop] = scores.values
        if scores.maps is not None:
            if self.found is None:
                self.found = np.full((len(self.masks), *scores.maps.shape[1:]), np.nan, np.float32)
            self.found[piece.start : piece.stop] = scores.maps

    def end_round(self) -> tuple[MaskBatch, Scores]:
        """The current round with all its scores; it becomes part of the evidence."""
        masks, values = self.masks, self.values
        assert masks is not None, f"{self.id} has no round"
        assert values is not None, f"{self.id} has no scores"
        scores = Scores(clip_id=self.id, round_idx=masks.round_idx, ids=masks.ids, values=values, maps=self.found)
        self.rounds.append((masks, scores))
        self.masks = self.values = self.found = None
        return self.rounds[-1]

    def untouched(self) -> Float32[np.ndarray, " k"]:
        """Log-scores of the clip as it is: row 0 of the first round."""
        row: np.ndarray = self.rounds[0][1].values[0]
        return row

    def refine_request(self, targets: tuple[int, ...], before: Heritage | None) -> RefineRequest:
        """All that is known of the clip."""
        assert self.info is not None, f"{self.id} was not read"
        evidence = Evidence.of(self.id, self.rounds, content=self.info.content)
        return RefineRequest(evidence=evidence, targets=targets, frame_idx=self.info.frame_idx, before=before)
