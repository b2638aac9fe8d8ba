"""What is known of a video when it is finished: a line per video in videos.jsonl, read by resume, report and CLI."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSummary:
    """One class explained on one video. Paths are relative to the run folder.

    `prob` is the mean probability over the untouched clips and `top1` the class with the largest mean. The shares split
    all evidence found (for + F-TC + F-NTC = 1; all 0 where nothing was found). `q2` and `coverage` are means over the
    clips, for the log-odds.
    """

    target_idx: int
    target: str
    prob: float
    top1_idx: int
    top1: str
    share_for: float
    share_f_tc: float
    share_f_ntc: float
    q2: float
    coverage: float
    num_clips: int
    num_reliable_clips: int
    num_regions: int
    evaluations: int
    method: str
    stop_reasons: Mapping[str, int]
    product: str  # the film or the picture
    maps: str

    @property
    def is_reliable(self) -> bool:
        """Whether any clip carries a signal that can be told from noise."""
        return self.num_reliable_clips > 0

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "TargetSummary":
        """The summary as JSON holds it; numbers that JSON does not know were written as null."""
        known: dict[str, Any] = {key: math.nan if value is None else value for key, value in _known(cls, row).items()}
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSummary:
    """What a finished video left in the run folder; `outputs` maps every file or store to its SHA-256."""

    video_id: str
    uri: str
    kind: str
    num_frames: int
    num_clips: int
    duration_s: float
    targets: tuple[TargetSummary, ...]
    outputs: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def is_reliable(self) -> bool:
        """Whether any target has a reliable map."""
        return any(target.is_reliable for target in self.targets)

    @property
    def films(self) -> dict[str, str]:
        """Film or picture by class index."""
        return {str(target.target_idx): target.product for target in self.targets}

    @property
    def maps(self) -> dict[str, str]:
        """Map store by class index."""
        return {str(target.target_idx): target.maps for target in self.targets}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "VideoSummary":
        """The summary in a line of videos.jsonl."""
        targets = tuple(TargetSummary.from_row(target) for target in row["targets"])
        known = {**_known(cls, row), "targets": targets, "warnings": tuple(row["warnings"])}
        return cls(**known)


def _known(record: type, row: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: row[field.name] for field in fields(record) if field.name in row}
