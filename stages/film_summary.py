"""What is known of a film that was written."""

from dataclasses import dataclass
from pathlib import Path

from stages.film_sound import AudioFate


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmSummary:
    """What was written. `scale` is the end of the colour bar, in log-odds per 1 % of the clip.

    saturated_share: share of the reliable, seen grid values that lie beyond the scale. frames_lost: maps at the end
    whose frames the source no longer gave. reused_frames: taken over from an earlier attempt, not drawn again.
    """

    path: Path
    frames: int
    height: int
    width: int
    zoom: float
    scale: float
    saturated_share: float
    unseen_frames: int
    frames_lost: int
    reused_frames: int
    audio: AudioFate
    seconds: float

    @property
    def has_audio(self) -> bool:
        """Whether the film carries the source's sound."""
        return self.audio != "none"
