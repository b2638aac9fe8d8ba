"""Frames of any source, in order, upright, RGB: the thin layer over PyAV, decord and Pillow.

In: a VideoSource. Out: Frame after Frame with its own time stamp; `idx` counts decoded frames from 0, `pts_s` is the
container's time and never index / rate unless the container states none. Damage in the middle ends the frames with a
warning. Starting at a later frame gives exactly the frames that reading from the start gives.
"""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

from stages.containers import PacketIndex, Turn, apply_turn, index_packets, open_container, open_stream, turn_of
from stages.decord_reader import open_decord
from stages.errors import DecodeError
from stages.pictures import Damage, Warn, is_picture, read_animation, read_folder, read_picture
from stages.records import VideoSource
from stages.remote import local_copy
from stages.stores import is_remote

Backend = Literal["pyav", "decord"]
DEFAULT_FPS = 25.0  # only for frames without any time stamp and rate

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded frame at the source's size."""

    idx: int
    pts_s: float
    rgb: UInt8[np.ndarray, "h w c"]


def read_frames(
    source: VideoSource, *, backend: Backend = "pyav", start_idx: int = 0, on_warning: Warn | None = None
) -> Generator[Frame, None, None]:
    """The frames of a source from `start_idx` on; closing the iterator closes the file.

    Jumps to `start_idx` where the container can be trusted, else decodes up to it. Raises DecodeError when the source
    cannot be opened, or when it is read from its start and no frame decodes.
    """
    if not is_remote(source.uri):
        yield from _read_local(source, backend, start_idx, on_warning)
        return
    with local_copy(source.uri, source.sha256) as path:
        yield from _read_local(replace(source, uri=str(path)), backend, start_idx, on_warning)


def _read_local(
    source: VideoSource, backend: Backend, start_idx: int, on_warning: Warn | None
) -> Generator[Frame, None, None]:
    warn = on_warning or _log_warning(source.id)
    path = Path(source.uri)
    fps = source.fps or DEFAULT_FPS
    if source.kind == "frames":
        for offset, rgb in enumerate(read_folder(path, start_idx, warn)):
            yield Frame(start_idx + offset, (start_idx + offset) / fps, rgb)
        return
    if not path.exists():
        raise DecodeError(source.uri, "there is no such file", "check the path")
    if source.kind == "image":
        if start_idx == 0:
            yield Frame(0, 0.0, read_picture(path))
        return
    frames: Iterator[Frame]
    if is_picture(path):
        timed = enumerate(read_animation(path, warn))
        frames = (Frame(idx, pts_s, rgb) for idx, (pts_s, rgb) in timed if idx >= start_idx)
    else:
        frames = _READERS[backend](source, start_idx, warn)
    num_read = start_idx
    for frame in frames:
        num_read = frame.idx + 1
        yield frame
    if num_read == 0:
        raise DecodeError(
            source.uri, "no frame can be decoded", "play it in a video player; copy it again if that fails"
        )
    if start_idx < num_read < (source.num_frames or 0):
        warn(f"the container states {source.num_frames} frames, {num_read} can be decoded")


def first_pts_s(source: VideoSource) -> float:
    """Time stamp of the first frame, which need not be zero."""
    frames = read_frames(source, on_warning=lambda _: None)
    with closing(frames):
        return next(frames).pts_s


def find_frame(source: VideoSource, at_s: float) -> int:
    """Index of the first frame at or after `at_s` seconds from the first frame; the number of frames when none is."""
    if at_s <= 0 or source.kind == "image":
        return 0
    index = None
    if is_container(source):
        index = packet_index(source.uri, source.sha256)
    if index is not None and index.is_seekable:
        times = (index.pts - index.pts[0]) * float(index.time_base)
        return int(np.searchsorted(times, at_s - 1e-9))
    first_s, count = None, 0
    with closing(read_frames(source, on_warning=lambda _: None)) as frames:
        for frame in frames:
            first_s = frame.pts_s if first_s is None else first_s
            if frame.pts_s - first_s >= at_s - 1e-9:
                return frame.idx
            count = frame.idx + 1
    return count


@lru_cache(maxsize=8)
def packet_index(uri: str, sha256: str) -> PacketIndex | None:
    """The packet index of a file, kept for the last few files (a few bytes per frame)."""
    if not is_remote(uri):
        return index_packets(uri)
    with local_copy(uri, sha256) as path:
        return index_packets(str(path))


def is_container(source: VideoSource) -> bool:
    """Whether the source is read from a video container; else it is a picture, an animation or a folder of frames."""
    if source.kind != "video":
        return False
    with local_copy(source.uri, source.sha256) as path:
        return not is_picture(path)


def to_rgb24(
    frame: VideoFrame, turn: Turn, size: tuple[int, int] | None = None, converter: VideoReformatter | None = None
) -> UInt8[np.ndarray, "h w c"]:
    """RGB pixels, upright, by the frame's own colour matrix and range; `size` (h, w before turning) rescales.

    A `converter` kept for frames of one kind saves half of the time, which goes into setting up a new one.
    """
    height, width = size or (frame.height, frame.width)
    rgb = (converter or VideoReformatter()).reformat(frame, width, height, format="rgb24")
    return apply_turn(rgb.to_ndarray(), turn)


def _log_warning(item: str) -> Warn:
    return lambda text: logger.warning("video=%s %s", item, text)


class _Clock:
    """Time stamps that exist and increase; says once where it had to help."""

    def __init__(self, fps: float, warn: Warn) -> None:
        self._step_s = 1 / fps
        self._warn = warn
        self._last_s: float | None = None
        self._has_warned = False

    def read(self, frame: VideoFrame, idx: int) -> float:
        last_s = self._last_s
        time_base = frame.time_base
        if frame.pts is not None and time_base is not None:
            pts_s, fault = float(frame.pts * time_base), "time stamps do not increase"
        else:
            pts_s, fault = idx * self._step_s, "time stamps are missing"
        is_late = last_s is not None and pts_s <= last_s
        if last_s is not None and is_late:
            pts_s = last_s + self._step_s
        if (is_late or frame.pts is None) and not self._has_warned:
            self._warn(f"{fault} at frame {idx}; filled in from the frame rate")
            self._has_warned = True
        self._last_s = pts_s
        return pts_s


def _read_pyav(source: VideoSource, start_idx: int, warn: Warn) -> Iterator[Frame]:
    index = packet_index(source.uri, source.sha256) if start_idx else None
    if index is not None and index.is_seekable and start_idx < len(index.pts):
        key_pts = index.key_before(start_idx)
        if key_pts is not None:
            found = yield from _read_from_key(source, start_idx, key_pts, int(index.pts[start_idx]), warn)
            if found:
                return
    with open_container(source.uri) as container:
        stream = open_stream(container, source.uri)
        yield from _number(source, _decode(container, stream, warn), 0, start_idx, warn)


def _read_from_key(
    source: VideoSource, start_idx: int, key_pts: int, target_pts: int, warn: Warn
) -> Generator[Frame, None, bool]:  # whether the target was met
    with open_container(source.uri) as container:
        stream = open_stream(container, source.uri)
        container.seek(key_pts, stream=stream, backward=True)
        frames = _decode(container, stream, warn)
        for frame in frames:
            if frame.pts is None or frame.pts > target_pts:
                break
            if frame.pts == target_pts:
                yield from _number(source, _chain(frame, frames), start_idx, start_idx, warn)
                return True
    return False


def _chain(first: VideoFrame, rest: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    yield first
    yield from rest


def _decode(container: InputContainer, stream: VideoStream, warn: Warn) -> Iterator[VideoFrame]:
    """Frames up to the end or to the first packet that does not decode.

    Frames still inside the decoder are dropped there: how many they are would depend on its number of threads.
    """
    last_s = 0.0
    has_only_dts = container.format.name == "avi"  # what it calls pts belongs to other frames where there are B-frames
    try:
        for packet in container.demux(stream):
            for frame in packet.decode():
                if has_only_dts and frame.dts is not None:
                    frame.pts = frame.dts
                last_s = frame.time or last_s
                yield frame
    except av.FFmpegError as error:
        warn(Damage(f"reading stops after {last_s:.2f} s: {error.strerror}; what comes before it is kept"))


def _number(
    source: VideoSource, frames: Iterator[VideoFrame], first_idx: int, start_idx: int, warn: Warn
) -> Iterator[Frame]:
    clock = _Clock(source.fps or DEFAULT_FPS, warn)
    turn: Turn | None = None
    size: tuple[int, int] | None = None
    has_warned = False
    converter, kind = VideoReformatter(), None
    for idx, frame in enumerate(frames, first_idx):
        pts_s = clock.read(frame, idx)
        if turn is None:
            turn = turn_of(frame)
            size = (source.width, source.height) if turn[0] else (source.height, source.width)
        if idx < start_idx:
            continue
        if (frame.height, frame.width) != size and not has_warned:
            warn(f"the picture size changes to {frame.width}x{frame.height} at frame {idx}; scaled back")
            has_warned = True
        now = (frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range)
        converter, kind = (converter if now == kind else VideoReformatter()), now
        yield Frame(idx, pts_s, to_rgb24(frame, turn, size, converter))


def _read_decord(source: VideoSource, start_idx: int, warn: Warn) -> Iterator[Frame]:
    index = packet_index(source.uri, source.sha256)
    reader, reason = open_decord(source, index)
    if reader is None or index is None:
        warn(f"decord is not used: {reason}; PyAV reads it")
        yield from _read_pyav(source, start_idx, warn)
        return
    # decord's own seeking goes wrong where the container cannot be trusted (AVI with B-frames): read forward there.
    for idx in range(start_idx if index.is_seekable else 0, len(index.pts)):
        try:
            rgb = reader[idx].asnumpy()
        except Exception:  # noqa: BLE001 - decord raises its own error, whose class is not exported
            warn(f"decord stops at frame {idx}; PyAV reads on")
            yield from _read_pyav(source, max(idx, start_idx), warn)
            return
        if idx >= start_idx:
            yield Frame(idx, index.pts_s(idx), rgb)


_READERS: dict[Backend, Callable[[VideoSource, int, Warn], Iterator[Frame]]] = {
    "pyav": _read_pyav,
    "decord": _read_decord,
}
