"""The end of the colour bar: symmetric, one for a whole video, in the unit shown, never fitted to a single frame."""

from collections.abc import Sequence

import numpy as np

from stages.evidence import decompose
from stages.records import FrameMap

# Share of the values of the look-ahead that the scale covers; the few beyond saturate and are counted.
COVERED_PERCENTILE = 99.5


def choose_scale(frames: Sequence[FrameMap], voxels_per_clip: int) -> float:
    """The 99.5th percentile of |net| over these frames, in log-odds per 1 % of the clip.

    Frames that are not seen do not count, nor do unreliable ones if there are any others. 1 when all is zero.
    """
    seen = [frame for frame in frames if frame.is_seen]
    trusted = [frame for frame in seen if frame.is_reliable] or seen
    if not trusted:
        return 1.0
    magnitudes = np.concatenate([np.abs(decompose(frame)["net"]).ravel() for frame in trusted])
    scale = float(np.percentile(magnitudes, COVERED_PERCENTILE)) or float(magnitudes.max())
    return scale * voxels_per_clip / 100 or 1.0


class Saturation:
    """Counts how much of what is drawn lies beyond the scale."""

    def __init__(self) -> None:
        self._drawn = self._beyond = 0

    def count(self, frame: FrameMap, per_scale: float) -> None:
        """Take in a frame; `per_scale` turns score per voxel into units of the scale."""
        if frame.is_seen and frame.is_reliable:
            net = decompose(frame)["net"]
            self._drawn += net.size
            self._beyond += int((np.abs(net) * per_scale > 1 + 1e-6).sum())

    @property
    def share(self) -> float:
        """Share of the values beyond the scale."""
        return self._beyond / self._drawn if self._drawn else 0.0
