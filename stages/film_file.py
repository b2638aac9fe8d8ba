"""The picture of a film on disk: one segment of H.264, a file of its own that begins with a key frame and has no sound.

A fragment is written with every key frame (about one a second), so that what is there can be played while the segment
grows, and survives a kill. There are no B-frames: what is shown next comes next in the file.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from stages.containers import open_container, open_stream
from stages.records import VideoSource
from stages.remote import local_copy
from stages.video_io import is_container

DEFAULT_TIME_BASE = Fraction(1, 90_000)
MOV_FLAGS = "frag_keyframe+empty_moov+default_base_moof+delay_moov"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Size, rate (frames per second, a hint), unit of the time stamps and quality of the film's picture."""

    width: int
    height: int
    fps: float
    time_base: Fraction
    crf: int
    preset: str

    @property
    def rate(self) -> Fraction:
        """The hint as a fraction."""
        return Fraction(self.fps).limit_denominator(100_000)

    @property
    def options(self) -> dict[str, str]:
        """What x264 is told beyond the fields of its context."""
        return {"crf": str(self.crf), "preset": self.preset, "bf": "0"}

    def configure(self, context: VideoCodecContext) -> None:
        """Set up an encoder that is not open yet."""
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base = self.time_base
        context.gop_size = max(1, round(self.fps))
        context.thread_count = 2
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709

    def header(self) -> bytes:
        """The parameter sets of such a picture; segments can be joined where these are the same."""
        context = VideoCodecContext.create("libx264", "w")
        assert isinstance(context, VideoCodecContext)  # by the codec's name
        context.framerate, context.options = self.rate, self.options
        self.configure(context)
        context.flags |= Flags.global_header
        context.open()
        return bytes(context.extradata or b"")


def time_base_of(source: VideoSource) -> Fraction:
    """The unit of the source's time stamps; a folder of frames or an animation has none of its own."""
    if not is_container(source):
        return DEFAULT_TIME_BASE
    with local_copy(source.uri, source.sha256) as path, open_container(str(path)) as container:
        return open_stream(container, str(path)).time_base or DEFAULT_TIME_BASE


class SegmentFile:
    """Takes pictures in order; `pts` are the time stamps written so far, in units of the encoding's time base."""

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self.path, self.pts = path, list[int]()
        self._time_base = encoding.time_base
        options = {"movflags": MOV_FLAGS, "flush_packets": "1"}
        self._out = av.open(str(path), "w", format="mp4", container_options=options)
        self._video = self._out.add_stream("libx264", rate=encoding.rate, options=encoding.options)
        self._video.time_base = encoding.time_base
        encoding.configure(self._video.codec_context)

    def write(self, picture: VideoFrame, pts: int) -> None:
        """Encode one picture (YUV 4:2:0)."""
        self.pts.append(pts)
        picture.pts, picture.time_base = pts, self._time_base
        self._out.mux(self._video.encode(picture))

    def close(self) -> None:
        """End the segment."""
        try:
            self._out.mux(self._video.encode(None))
        finally:
            self._out.close()
