"""5  SaliencyMap... -> FrameMap...: the clips of a video become one map per source frame, as frames become final.

Where clips overlap, their posteriors are averaged by precision, on the grid. A frame is final when no later clip covers
it; it is then handed on and forgotten, so memory does not grow with the video.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64
from pydantic import Field

from stages.base import Settings
from stages.records import ClipInfo, FrameMap, SaliencyMap, expect

# A posterior this certain is as good as exact; the floor keeps precisions finite.
MIN_VAR = 1e-30


class AggregateConfig(Settings):
    """How clips become a video: which tubes of significant voxels count as regions."""

    min_region_voxels: int = Field(default=6, ge=1, description="smaller tubes are dropped as specks")
    max_region_frames: int = Field(default=1500, ge=1, description="longer tubes are cut, so that memory stays bounded")
    max_regions: int = Field(default=50, ge=1, description="per kind and video, the strongest by mass")
    verified_regions: int = Field(default=3, ge=0, description="removed for real: this many for, this many against")


@dataclass(slots=True, eq=False)
class _Frame:
    """A frame that is not final yet: sums over the clips that cover it, per output and cell."""

    weighted: Float64[np.ndarray, "o gh gw"]
    precision: Float64[np.ndarray, "o gh gw"]
    is_reliable: bool


@dataclass(slots=True, eq=False)
class Stitcher:
    """Precision-weighted stitching of one video for one target. Clips must come in the order of their index."""

    video_id: str
    target_idx: int
    _open: dict[int, _Frame] = field(default_factory=dict)
    _next_frame: int = 0
    _last_clip: int = -1
    _outputs: tuple[str, ...] = ()
    _grid: tuple[int, int] = (1, 1)

    def add(self, info: ClipInfo, saliency: SaliencyMap) -> list[FrameMap]:
        """Take in the next clip; returns the frames before its start, which are final now."""
        expect(info.id.clip_idx > self._last_clip, "Stitcher", f"clip {info.id} came out of order")
        expect(saliency.target_idx == self.target_idx, "Stitcher", f"clip {info.id} explains another target")
        self._last_clip = info.id.clip_idx
        self._outputs, self._grid = saliency.outputs, saliency.mean.shape[2:]
        final = self._close_before(info.covers[0])
        is_reliable = saliency.is_reliable
        for frame_idx, mean, var in frame_slices(info, saliency):
            precision = 1.0 / np.maximum(var, MIN_VAR)
            if frame_idx in self._open:
                frame = self._open[frame_idx]
                frame.weighted += precision * mean
                frame.precision += precision
                frame.is_reliable |= is_reliable
            else:
                self._open[frame_idx] = _Frame(precision * mean, precision, is_reliable)
        return final

    def finish(self, num_frames: int) -> list[FrameMap]:
        """The rest of the frames, up to the end of the video; those that no clip covered are marked as not seen."""
        return self._close_before(num_frames)

    def _close_before(self, stop: int) -> list[FrameMap]:
        nothing = np.zeros((len(self._outputs), *self._grid), np.float32)  # one for all: gaps may be long
        final = [self._frame_map(idx, self._open.pop(idx, None), nothing) for idx in range(self._next_frame, stop)]
        self._next_frame = max(self._next_frame, stop)
        return final

    def _frame_map(self, frame_idx: int, frame: _Frame | None, nothing: Float32[np.ndarray, "o gh gw"]) -> FrameMap:
        mean = nothing if frame is None else (frame.weighted / frame.precision).astype(np.float32)
        var = nothing if frame is None else (1.0 / frame.precision).astype(np.float32)
        return FrameMap(
            video_id=self.video_id,
            target_idx=self.target_idx,
            frame_idx=frame_idx,
            outputs=self._outputs,
            mean=mean,
            var=var,
            is_seen=frame is not None,
            is_reliable=frame is not None and frame.is_reliable,
        )


def frame_slices(info: ClipInfo, saliency: SaliencyMap) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(frame, mean, variance) for every source frame that a clip speaks for, linear between the cells in time.

    Frames between the sampled ones (`frame_step` > 1) lie between their cells; an edge frame that was repeated to fill
    the clip gets the mean of its copies. Variances are interpolated like means, which never understates them.
    """
    gt = saliency.mean.shape[1]
    frames = np.arange(*info.covers)
    unique, inverse = np.unique(info.frame_idx, return_inverse=True)
    position = np.bincount(inverse, weights=np.arange(len(info.frame_idx))) / np.bincount(inverse)
    at = np.interp(frames, unique, position)
    cell = np.clip((at + 0.5) * gt / len(info.frame_idx) - 0.5, 0, gt - 1)
    low = np.minimum(cell.astype(int), max(gt - 2, 0))
    high = np.minimum(low + 1, gt - 1)
    found = []
    for frame_idx, a, b, w in zip(frames, low, high, cell - low, strict=True):
        mean = (1 - w) * saliency.mean[:, a] + w * saliency.mean[:, b]
        var = (1 - w) * saliency.var[:, a] + w * saliency.var[:, b]
        found.append((int(frame_idx), mean.astype(np.float64), var.astype(np.float64)))
    return found
