"""Where one frame of a film is composed: source pixels, words and strip in RGB, maps in YUV, ready for the encoder."""

from collections.abc import Generator

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from jaxtyping import UInt8

from stages.overlay import Layer
from stages.panels import Layout, Panel
from stages.records import VideoSource
from stages.strip import Moment
from stages.video_io import Backend, Frame, read_frames


class Pictures:
    """The source's frames, read in order; stretches that nobody asks for are jumped over where that is exact."""

    def __init__(self, source: VideoSource, backend: Backend, *, can_seek: bool) -> None:
        self._source, self._backend, self._can_seek = source, backend, can_seek
        self._frames: Generator[Frame, None, None] | None = None
        self._last_idx = -1
        self._is_over = False

    def at(self, frame_idx: int) -> Frame | None:
        """A frame, which must lie behind the last one asked for; None when the source ends earlier."""
        if self._is_over:
            return None
        if self._frames is None:
            self._frames = read_frames(self._source, backend=self._backend, start_idx=frame_idx)
        picture = next((frame for frame in self._frames if frame.idx == frame_idx), None)
        self._last_idx, self._is_over = frame_idx, picture is None
        return picture

    def skip(self) -> None:
        """The next frame lies further on."""
        if self._can_seek:
            self.close()

    def end(self) -> None:
        """The source is known to have no further frame."""
        self._is_over = True

    def is_over_after(self, frame_idx: int) -> bool:
        """Whether there is no frame after this one."""
        if self._last_idx < frame_idx:
            self.at(frame_idx)
        return self._is_over or self._frames is None or next(self._frames, None) is None

    def close(self) -> None:
        """Close the source."""
        if self._frames is not None:
            self._frames.close()
        self._frames = None


class Screen:
    """Composes the frames of one film, one after the other, on one canvas."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._rgb = VideoFrame(layout.width, layout.height, "rgb24")
        self._canvas = _pixels(self._rgb, 3)
        self._convert = VideoReformatter()
        layout.blank(self._canvas)

    def compose(
        self, picture: Frame, layers: list[tuple[Panel, Layer]], moment: Moment, *, is_seen: bool
    ) -> VideoFrame:
        """The frame in YUV 4:2:0."""
        self.layout.paint(self._canvas, picture.rgb, is_seen=is_seen)
        self.layout.strip.draw(self.layout.strip_part(self._canvas), moment)
        yuv = self._convert.reformat(
            self._rgb,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
        y, u, v = (_plane(yuv, index) for index in range(3))
        height, width = self.layout.picture_size
        for panel, layer in layers:
            rows, columns = slice(panel.y, panel.y + height), slice(panel.x, panel.x + width)
            half_rows = slice(panel.y // 2, (panel.y + height + 1) // 2)
            half_columns = slice(panel.x // 2, (panel.x + width + 1) // 2)
            self.layout.overlay.draw_yuv(
                y[rows, columns], u[half_rows, half_columns], v[half_rows, half_columns], layer
            )
        return yuv


def _plane(frame: VideoFrame, index: int) -> UInt8[np.ndarray, "h w"]:
    """A writable view on one plane of a frame."""
    plane = frame.planes[index]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]  # a buffer
    return np.asarray(rows[:, : plane.width])


def _pixels(frame: VideoFrame, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """A writable view on an interleaved frame."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]  # a buffer
    return np.lib.stride_tricks.as_strided(
        rows, (frame.height, frame.width, channels), (plane.line_size, channels, 1), writeable=True
    )
