"""Opening video containers with PyAV: which stream is the video, how it is turned, and an index of its packets.

In: a local path. Out: an open container and facts about it. Only listed formats are opened, so that a playlist or a
text file that calls itself a video cannot make the demuxer read other files.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Int64, UInt8

from stages.errors import DecodeError

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,mxf,nut,ivf,rm,dv,vob,h264,hevc,obu,m4v,"
    "mjpeg,yuv4mpegpipe,gif,wav,mp3,flac,aac,aiff,amr,ac3,eac3,opus,caf"
)
# One packet is one shown frame and carries its time, so that counting packets is counting frames. VP8 is not among
# them: its invisible reference frames are packets of their own.
INDEXED_CODECS = {
    "h264",
    "hevc",
    "vp9",
    "libvpx-vp9",
    "av1",
    "libdav1d",
    "libaom-av1",
    "mpeg4",
    "mjpeg",
    "prores",
    "ffv1",
}
SEEKABLE_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
MAX_THREADS = 4  # decoders run side by side: more threads each would only cost memory
NOT_A_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails

Turn = tuple[bool, bool, bool]  # swap the axes, then flip y, then flip x
UPRIGHT: Turn = (False, False, False)


@contextmanager
def open_container(path: str) -> Iterator[InputContainer]:
    """The open container. Raises DecodeError with the reason, told apart by the content of the file."""
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path}", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DecodeError(path, *_why_not(path, error)) from None
    try:
        yield container
    finally:
        container.close()


def _why_not(path: str, error: Exception) -> tuple[str, str]:
    if not os.path.exists(path):
        return "there is no such file", "check the path"
    if isinstance(error, PermissionError):
        return "reading it is not permitted", "change its permissions or the user"
    if os.path.getsize(path) == 0:
        return "the file is empty", "copy it again from its origin"
    with Path(path).open("rb") as file:
        head = file.read(512)
    if head[4:8] == b"ftyp":
        return "the mp4 file is cut off before its index", "copy it again, or repair it from the recording device"
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n\f\x1b" for byte in head):
        return "it contains text, not a video or a picture", "give a media file, or a list of paths named *.txt"
    return "it is not a video or a picture that can be read", "convert it to mp4, webm, jpg or png, or leave it out"


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The real video streams in file order, without attached pictures and thumbnails."""
    return [stream for stream in container.streams.video if not int(stream.disposition) & int(NOT_A_VIDEO)]


def open_stream(container: InputContainer, path: str) -> VideoStream:
    """The first real video stream, decoding on several threads. Raises DecodeError when there is none."""
    streams = video_streams(container)
    if not streams:
        fact = "it has audio but no video" if container.streams.audio else "it has no video stream"
        raise DecodeError(path, fact, "give a file with a video stream")
    stream = streams[0]
    if stream.codec_context is None:
        fact = "its video has an unknown codec, or the file is cut off"
        raise DecodeError(path, fact, "play it in a video player; convert it or copy it again")
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
    return stream


def turn_of(frame: VideoFrame) -> Turn:
    """How the display matrix of a frame turns and mirrors it, to the nearest right angle.

    The matrix maps (x, y) to (a x + c y, b x + d y), x to the right and y down.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(cast(Buffer, matrix)), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0


def rotation_deg(turn: Turn) -> int:
    """Clockwise degrees of a turn (0, 90, 180, 270); mirroring is not counted."""
    swap, flip_y, flip_x = turn
    if swap:
        return 90 if flip_x else 270
    return 180 if flip_y and flip_x else 0


def apply_turn(rgb: UInt8[np.ndarray, "h w c"], turn: Turn) -> UInt8[np.ndarray, "h2 w2 c"]:
    """The picture as it is meant to be seen, contiguous."""
    swap, flip_y, flip_x = turn
    rgb = rgb.swapaxes(0, 1) if swap else rgb
    return np.ascontiguousarray(rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


@dataclass(frozen=True, slots=True, eq=False)
class PacketIndex:
    """Time stamps of all frames, from the packets alone: nothing is decoded.

    Position in `pts` (sorted) is the frame's index. `is_seekable`: jumping to a key frame gives the frames that reading
    from the start gives.
    """

    pts: Int64[np.ndarray, " n"]
    key_pts: tuple[int, ...]
    time_base: Fraction
    is_seekable: bool

    def pts_s(self, frame_idx: int) -> float:
        """Presentation time of a frame in seconds, as the decoder would state it."""
        return float(int(self.pts[frame_idx]) * self.time_base)

    def key_before(self, frame_idx: int) -> int | None:
        """Time stamp of the last key frame at or before a frame; None when that is the first one or there is none."""
        position = bisect_right(self.key_pts, int(self.pts[frame_idx])) - 1
        return self.key_pts[position] if position > 0 else None


def index_packets(path: str) -> PacketIndex | None:
    """The index of the video stream, or None where packets do not tell the frames. Reads the file once."""
    with open_container(path) as container:
        stream = open_stream(container, path)
        if stream.codec_context.name not in INDEXED_CODECS or stream.time_base is None:
            return None
        pts: list[int] = []
        keys: list[int] = []
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.pts is None or packet.is_corrupt:
                    return None
                pts.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        except av.FFmpegError:
            return None
        ordered = np.unique(np.asarray(pts, np.int64))
        if len(ordered) != len(pts) or not pts:
            return None
        is_seekable = container.format.name in SEEKABLE_FORMATS and stream.codec_context.name != "mpeg4"
        return PacketIndex(ordered, tuple(sorted(keys)), stream.time_base, is_seekable)
