"""Tiny media files whose truth is known: the grey level of frame i is `level(i)`."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def level(frame_idx: int) -> int:
    return 20 + 3 * (frame_idx % 70)


def grey_frame(frame_idx: int, height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), level(frame_idx), np.uint8)


def write_video(
    path: Path,
    num_frames: int,
    *,
    size: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    fps: int = 10,
    gop: int = 12,
    pixel_format: str = "yuv420p",
    pts: Sequence[int] | None = None,
    pictures: Sequence[np.ndarray] | None = None,
    rotation: int = 0,
) -> Path:
    """A video of grey frames, or of `pictures`, nearly lossless, with B-frames; `pts` in 1/1000 s."""
    height, width = size if pictures is None else pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        options = {"crf": "1", "bf": "2"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for idx in range(num_frames):
            rgb = grey_frame(idx, height, width) if pictures is None else pictures[idx]
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = idx * 1000 // fps if pts is None else pts[idx]
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_audio(path: Path) -> Path:
    """A tenth of a second of silence in a container that could hold video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
