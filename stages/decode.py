"""Stage 1: VideoSource -> Clip after Clip, in the geometry of the box.

In: a request for clip k of a source. Out: the clip, with its content, and whether it is the last one. Asked in order,
every frame is decoded once and resized once; overlapping clips are cut from a sliding window of resized frames. Any
other order gives the same clips, at the price of reading again. Pictures are sources of one frame.

Clip k starts k * stride frames after the first frame (of `from_s`); the last clip is shifted back to end at the last
frame. A source shorter than one clip gives one clip in which the last frame is repeated and marked as padded.
"""

from collections import OrderedDict, deque
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from pydantic import Field, model_validator

from stages.base import Settings
from stages.box import BoxSpec
from stages.content import content_of
from stages.errors import DecodeError
from stages.fit import Fit, fit_to
from stages.records import Clip, ClipId, VideoSource
from stages.video_io import Backend, Frame, find_frame, first_pts_s, read_frames

# Up to so many clips further on, reading what lies between is cheaper than opening the source again.
READ_ON = 8


class DecodeConfig(Settings):
    """How sources are read and cut into clips. Times count from the first frame of the source."""

    backend: Backend = Field(default="pyav", description="pyav, or decord where it can read the file")
    clip_stride: int | None = Field(default=None, ge=1, description="Frames between clip starts; None: half a clip")
    from_s: float = Field(default=0.0, ge=0, description="Explain from this second on")
    to_s: float | None = Field(default=None, gt=0, description="Explain up to this second; None: to the end")
    max_open: int = Field(default=4, ge=1, description="Sources that one worker keeps open side by side")

    @model_validator(mode="after")
    def _from_is_before_to(self) -> "DecodeConfig":
        if self.to_s is not None and self.to_s <= self.from_s:
            raise ValueError(f"to_s {self.to_s} is not after from_s {self.from_s}")
        return self

    def stride(self, spec: BoxSpec) -> int:
        """Frames between the starts of two clips."""
        return self.clip_stride or max(1, spec.clip_span // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRequest:
    """Clip `clip_idx` (from 0) of a source."""

    source: VideoSource
    clip_idx: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodeResult:
    """`clip` is None when the source has no such clip; `is_last`: no clip comes after this one.

    `warnings` are those that came up while this clip was read; a `Damage` among them means that footage is lost.
    """

    clip: Clip | None
    is_last: bool
    warnings: tuple[str, ...] = ()


def clip_starts(num_frames: int, spec: BoxSpec, config: DecodeConfig) -> list[int]:
    """First frames of all clips of `num_frames` frames, counted from the first one that is explained."""
    if num_frames <= 0:
        return []
    last = max(0, num_frames - spec.clip_span)
    return [*range(0, last, config.stride(spec)), last]


def estimate_clips(source: VideoSource, spec: BoxSpec, config: DecodeConfig) -> int | None:
    """How many clips the source will give by what its container states; None when that is too little to say."""
    if source.kind == "image":
        return 1
    num_frames = source.num_frames
    if num_frames is None and source.duration_s and source.fps:
        num_frames = round(source.duration_s * source.fps)
    if num_frames is None:
        return None
    if config.from_s or config.to_s is not None:
        if not source.fps:
            return None
        stop = num_frames if config.to_s is None else min(num_frames, round(config.to_s * source.fps))
        num_frames = stop - round(config.from_s * source.fps)
    return len(clip_starts(num_frames, spec, config))


class Decode:
    """The decode stage. Not for two threads at once: give each worker its own. `substrate` replaces hidden voxels."""

    def __init__(self, config: DecodeConfig, spec: BoxSpec, substrate: str = "blur") -> None:
        self._config = config
        self._spec = spec
        self._substrate = substrate
        self._cursors: OrderedDict[tuple[str, str], _Cursor] = OrderedDict()

    def setup(self) -> None:
        """Nothing is costly here; readers open when they are asked."""

    def process(self, request: DecodeRequest, /) -> DecodeResult:
        """The clip that was asked for. Raises DecodeError when the source gives no frame at all."""
        key = (request.source.id, request.source.uri)
        cursor = self._cursors.pop(key, None) or _Cursor(request.source, self._spec, self._config, self._substrate)
        self._cursors[key] = cursor
        while len(self._cursors) > self._config.max_open:
            self._cursors.popitem(last=False)[1].close()
        try:
            return cursor.clip(request.clip_idx)
        except DecodeError:
            self._cursors.pop(key).close()
            raise

    def close(self) -> None:
        """Close all readers."""
        while self._cursors:
            self._cursors.popitem()[1].close()


@dataclass(frozen=True, slots=True, eq=False)
class _Resized:
    idx: int
    pts_s: float
    pixels: UInt8[np.ndarray, "c h w"]


class _Cursor:
    """One source being read: a frame iterator and the last span + 1 frames, resized.

    The frame beyond the span is the look-ahead that tells whether a clip is the last one.
    """

    def __init__(self, source: VideoSource, spec: BoxSpec, config: DecodeConfig, substrate: str) -> None:
        self._source = source
        self._spec = spec
        self._substrate = substrate
        self._config = config
        self._stride = config.stride(spec)
        self._fit: Fit = fit_to(spec, source.height, source.width, source.uri)
        self._first, self._stop_s = self._range()
        self._frames: Generator[Frame, None, None] | None = None
        self._window: deque[_Resized] = deque(maxlen=spec.clip_span + 1)
        self._clip_idx: int | None = None
        self._warnings: list[str] = []

    def clip(self, clip_idx: int) -> DecodeResult:
        if self._clip_idx is None or not 0 <= clip_idx - self._clip_idx <= READ_ON:
            # The clip exists if the frame after the span of its predecessor does; a shifted last clip starts later.
            self._open(self._first + max(0, (clip_idx - 1) * self._stride + 1))
        self._clip_idx = clip_idx
        start = self._first + clip_idx * self._stride
        stop = start + self._spec.clip_span
        has_ended = not self._read_to(stop)
        end = self._window[-1].idx + 1 if self._window else 0
        clip: Clip | None
        if not has_ended:
            clip = self._cut(start, stop)
        elif clip_idx == 0 and not self._window:
            raise DecodeError(
                self._source.uri,
                f"no frame between {self._config.from_s:g} s and {self._config.to_s or float('inf'):g} s",
                "set --from and --to inside the duration of the video",
            )
        elif clip_idx == 0 or end > stop - self._stride:
            clip = self._cut(max(self._first, end - self._spec.clip_span), end)
        else:
            clip = None
        warnings = tuple(self._warnings)
        self._warnings.clear()
        return DecodeResult(clip=clip, is_last=has_ended, warnings=warnings)

    def close(self) -> None:
        if self._frames is not None:
            self._frames.close()
        self._frames = None
        self._window.clear()

    def _range(self) -> tuple[int, float]:
        """Index of the first frame to explain, and the time at which to stop."""
        config, source = self._config, self._source
        if source.kind == "image" or (config.from_s == 0 and config.to_s is None):
            return 0, float("inf")
        stop_s = float("inf") if config.to_s is None else first_pts_s(source) + config.to_s - 1e-9
        return find_frame(source, config.from_s), stop_s

    def _open(self, start_idx: int) -> None:
        self.close()
        self._frames = read_frames(
            self._source, backend=self._config.backend, start_idx=start_idx, on_warning=self._warnings.append
        )

    def _read_to(self, frame_idx: int) -> bool:
        """Read up to and with a frame; False when the source ends before it."""
        while not self._window or self._window[-1].idx < frame_idx:
            frame = None if self._frames is None else next(self._frames, None)
            if frame is None or frame.pts_s >= self._stop_s:
                return False
            self._window.append(_Resized(frame.idx, frame.pts_s, self._fit.apply(frame.rgb)))
        return True

    def _cut(self, start: int, stop: int) -> Clip:
        wanted = start + self._spec.frame_step * np.arange(self._spec.clip_len, dtype=np.int64)
        frame_idx = np.minimum(wanted, stop - 1)
        chosen = [self._window[int(idx) - self._window[0].idx] for idx in frame_idx]
        frames = np.stack([frame.pixels for frame in chosen])
        return Clip(
            id=ClipId(self._source.id, self._clip_idx or 0),
            frames=frames,
            frame_idx=frame_idx,
            pts_s=np.array([frame.pts_s for frame in chosen], np.float64),
            is_padded=wanted >= stop,
            covers=(start, stop),
            geometry=self._fit.geometry,
            content=content_of(frames, self._substrate),
        )
