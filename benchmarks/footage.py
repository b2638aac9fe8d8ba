"""Footage of any length at no cost: a minute is encoded once, then its packets are copied again and again."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (48, 64)
FPS = 2


def write_scene(path: Path, num_frames: int, seed: int = 0) -> Path:
    """A drifting texture in which one quadrant after the other lights up; an H.264 mp4 without B-frames."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    picture = rng.integers(40, 160, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for idx in range(num_frames):
            rgb = np.ascontiguousarray(np.roll(picture, 2 * idx, 1))
            quadrant = idx // (2 * FPS) % 4
            y, x = quadrant // 2 * height // 2, quadrant % 2 * width // 2
            rgb[y : y + height // 2, x : x + width // 2] += 90
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = idx, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_loop(path: Path, scene: Path, times: int) -> Path:
    """The scene `times` over: packets are copied with later time stamps, nothing is encoded."""
    with av.open(str(path), "w") as out:
        offset = 0
        stream = None
        for _ in range(times):
            with av.open(str(scene)) as container:
                source = container.streams.video[0]
                stream = stream or out.add_stream_from_template(source)
                end = offset
                for packet in container.demux(source):
                    if packet.dts is None or packet.pts is None:
                        continue  # the end of the stream
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.stream = stream
                    out.mux(packet)
                offset = end
    return path
