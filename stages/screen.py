"""Where one frame of a film is composed: source pixels, words and strip in RGB, maps in YUV, then to the encoder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from jaxtyping import UInt8

from stages.film_file import AudioFate, Encoding, FilmFile
from stages.overlay import Layer
from stages.panels import Layout, Panel
from stages.records import VideoSource
from stages.render import RenderConfig
from stages.strip import Moment
from stages.video_io import Frame

MIN_SPAN_S = 2.0


class Screen:
    """Composes and encodes the frames of one film; opened when the scale is known."""

    def __init__(
        self,
        path: Path,
        source: VideoSource,
        layout: Layout,
        config: RenderConfig,
        *,
        fps: float,
        frames: Iterator[Frame],
        whole_span_s: tuple[float, float] | None,
    ) -> None:
        self._frames, self._fps = frames, fps
        self.layout, self._config = layout, config
        self._whole_span_s = whole_span_s
        encoding = Encoding(width=layout.width, height=layout.height, fps=fps, crf=config.crf, preset=config.preset)
        self._film = FilmFile(path, source, encoding)
        self._rgb = VideoFrame(layout.width, layout.height, "rgb24")
        self._canvas = _pixels(self._rgb, 3)
        self._convert = VideoReformatter()
        self._last_s = 0.0
        layout.blank(self._canvas)

    def picture(self, frame_idx: int) -> Frame | None:
        """The source's frame, which must not lie before the last one asked for; None when the source ends earlier."""
        return next((frame for frame in self._frames if frame.idx == frame_idx), None)

    def span_around(self, now_s: float) -> tuple[float, float]:
        """The seconds that the profile shows: the whole video if it is short, else a window around the playhead."""
        half = max(self._config.look_ahead_s, MIN_SPAN_S / 2)
        return self._whole_span_s or (now_s - half, now_s + half)

    def show(self, picture: Frame, layers: list[tuple[Panel, Layer]], moment: Moment, *, is_seen: bool) -> None:
        """Compose one frame and hand it to the encoder."""
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
        self._film.write(yuv, picture.pts_s)
        self._last_s = picture.pts_s

    def close(self) -> AudioFate:
        """End the film. Its sound ends with its last picture, or with the source when that has no further picture."""
        is_at_end = next(self._frames, None) is None
        self._film.close(None if is_at_end else self._last_s + 1 / self._fps)
        return self._film.audio


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
