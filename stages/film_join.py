"""Segments -> film: their packets one after the other, not encoded again, with the source's time stamps and sound."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
from av.packet import Packet

from stages.containers import open_container
from stages.film_sound import AudioFate, Sound
from stages.records import VideoSource
from stages.segments import Segment


def join_film(
    path: Path, partial: Path, segments: Sequence[Segment], source: VideoSource, time_base: Fraction, fps: float
) -> AudioFate:
    """Write the film of these segments (in order, at least one); it appears whole at `path` or not at all.

    Sound ends with the last picture, or with the source when that has no further picture. `partial`: a name on the
    same disk to write to.
    """
    last = segments[-1]
    end_s = float(last.pts[-1] * time_base) + 1 / fps
    try:
        with ExitStack() as stack:
            out = av.open(str(partial), "w", format="mp4", container_options=_options(time_base))
            stack.callback(out.close)
            first = stack.enter_context(open_container(str(segments[0].path)))
            video = out.add_stream_from_template(first.streams.video[0])
            video.time_base = time_base
            sound = Sound(source, out, float(segments[0].pts[0] * time_base), stack)
            stop = max(last.pts[-1] + 1, round(end_s / time_base))
            stamps = pairwise(chain(chain.from_iterable(segment.pts for segment in segments), (stop,)))
            for packet, (pts, next_pts) in zip(_packets(segments), stamps, strict=True):
                packet.pts = packet.dts = pts
                packet.duration = next_pts - pts
                packet.time_base = time_base
                packet.stream = video
                sound.write(float(pts * time_base))
                out.mux(packet)
            sound.close(None if last.is_end_of_source else end_s)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return sound.fate


def _options(time_base: Fraction) -> dict[str, str]:
    """The index comes first, and the film's clock is as fine as the source's: the start of a part must be exact."""
    clock = time_base.denominator
    while clock < 10_000:
        clock *= 2
    return {"movflags": "faststart", "movie_timescale": str(clock)}


def _packets(segments: Sequence[Segment]) -> "Iterator[Packet[Any]]":
    for segment in segments:
        with open_container(str(segment.path)) as container:
            yield from (packet for packet in container.demux(container.streams.video[0]) if packet.size)
