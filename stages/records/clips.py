"""Sources and clips: what is explained, and where it lies in the footage."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

SourceKind = Literal["video", "image", "frames"]


def expect(condition: bool, record: str, fact: str) -> None:
    """Raise ValueError (a broken invariant, hence a bug) with the record's name when `condition` does not hold."""
    if not condition:
        raise ValueError(f"{record}: {fact}")


@dataclass(frozen=True, slots=True, order=True)
class ClipId:
    """`video_id` is unique in a run; `clip_idx` counts the clips of a video from 0."""

    video_id: str
    clip_idx: int

    def __str__(self) -> str:
        return f"{self.video_id}#{self.clip_idx}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Geometry:
    """The axis-aligned affine map from pixels of the model's input to pixels of the displayed source.

    source = scale * model + offset, on continuous coordinates where pixel i covers [i, i + 1). Model pixels outside
    the source (letterbox bars) map outside [0, source size).
    """

    source_h_px: int
    source_w_px: int
    model_h_px: int
    model_w_px: int
    scale_y: float
    scale_x: float
    offset_y_px: float = 0.0
    offset_x_px: float = 0.0

    def box_to_source(self, y0: float, x0: float, y1: float, x1: float) -> tuple[float, float, float, float]:
        """Map a half-open box (model pixels) to source pixels, clipped to the picture."""
        ys = np.clip(np.array([y0, y1]) * self.scale_y + self.offset_y_px, 0, self.source_h_px)
        xs = np.clip(np.array([x0, x1]) * self.scale_x + self.offset_x_px, 0, self.source_w_px)
        return float(ys[0]), float(xs[0]), float(ys[1]), float(xs[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """Something to explain: a video file, a picture or a folder of frames. All sizes are those after rotation.

    `num_frames` and `duration_s` are what the container says and may be None; only decoding tells the truth.
    """

    id: str
    uri: str
    kind: SourceKind
    sha256: str
    height: int
    width: int
    fps: float | None = None
    num_frames: int | None = None
    duration_s: float | None = None
    has_audio: bool = False
    rotation_deg: int = 0
    codec: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """`clip_len` frames in the geometry of the model, ready for the box.

    frame_idx counts decoded frames of the source from 0; padded frames (`is_padded`) repeat an edge frame because the
    source is shorter than one clip. `covers` is the half-open range of source frames this clip speaks for.
    """

    id: ClipId
    frames: UInt8[np.ndarray, "t c h w"]  # RGB
    frame_idx: Int64[np.ndarray, " t"]
    pts_s: Float64[np.ndarray, " t"]
    is_padded: Bool[np.ndarray, " t"]
    covers: tuple[int, int]
    geometry: Geometry
    content: UInt8[np.ndarray, "gt gh gw"] | None = None  # how much hiding each voxel can change (content.py)

    def __post_init__(self) -> None:
        t = self.frames.shape[0]
        expect(self.frames.ndim == 4 and self.frames.dtype == np.uint8, "Clip", "frames must be uint8 T C H W")
        expect(
            self.frame_idx.shape == self.pts_s.shape == self.is_padded.shape == (t,),
            "Clip",
            f"frame_idx, pts_s and is_padded must have {t} entries",
        )
        expect(bool(np.all(np.diff(self.frame_idx) >= 0)), "Clip", "frame_idx must not decrease")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(t, y, x) of the model's input."""
        t, _, h, w = self.frames.shape
        return t, h, w

    @property
    def info(self) -> "ClipInfo":
        """The clip without its pixels."""
        return ClipInfo(
            id=self.id,
            shape=self.shape,
            frame_idx=self.frame_idx,
            pts_s=self.pts_s,
            is_padded=self.is_padded,
            covers=self.covers,
            geometry=self.geometry,
            nbytes=self.frames.nbytes,
            content=self.content,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipInfo:
    """A Clip without its pixels: what the scheduler, the stitching and the journal need of it (some kilobytes)."""

    id: ClipId
    shape: tuple[int, int, int]  # t, y, x of the model's input
    frame_idx: Int64[np.ndarray, " t"]
    pts_s: Float64[np.ndarray, " t"]
    is_padded: Bool[np.ndarray, " t"]
    covers: tuple[int, int]
    geometry: Geometry
    nbytes: int
    content: UInt8[np.ndarray, "gt gh gw"] | None = None
