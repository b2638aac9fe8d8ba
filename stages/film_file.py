"""The growing film on disk: H.264 in fragmented mp4, with the source's time stamps and its audio beside it.

A fragment is written with every key frame (about one a second), so that what is there can be played while the film
grows, and survives a kill. Audio is copied where mp4 can carry it, otherwise it becomes AAC.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from stages.containers import open_container, open_stream
from stages.errors import DecodeError
from stages.records import VideoSource
from stages.remote import local_copy
from stages.video_io import is_container

AudioFate = Literal["none", "copied", "re-encoded"]

# Codecs that players expect in mp4; everything else (vorbis, pcm, wma ...) is encoded again.
COPIED_AUDIO = {"aac", "mp3", "mp3float", "opus", "libopus", "ac3", "eac3", "alac", "flac"}
DEFAULT_TIME_BASE = Fraction(1, 90_000)
MOV_FLAGS = "frag_keyframe+empty_moov+default_base_moof+delay_moov"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Size, rate (frames per second, a hint) and quality of the film's picture."""

    width: int
    height: int
    fps: float
    crf: int
    preset: str


class _Audio:
    """The source's audio, packet by packet, ready to be muxed."""

    def __init__(self, path: str, stack: ExitStack) -> None:
        self.container = stack.enter_context(open_container(path))
        self.stream: AudioStream | None = self.container.streams.best("audio")  # type: ignore[assignment]  # by kind
        self.fate: AudioFate = "none"
        if self.stream is not None and self.stream.time_base is not None:
            context = self.stream.codec_context
            # Raw AAC (from transport streams) has no header that mp4 could store before the first fragment.
            is_headless = context.name == "aac" and not context.extradata
            self.fate = "copied" if context.name in COPIED_AUDIO and not is_headless else "re-encoded"


class FilmFile:
    """Takes encoded-ready pictures in order and interleaves the source's audio up to the same moment."""

    def __init__(self, path: Path, source: VideoSource, encoding: Encoding) -> None:
        self.path = path
        self._stack = ExitStack()
        self._source = source
        self.time_base, self._audio = self._inspect(source)
        options = {"movflags": MOV_FLAGS, "flush_packets": "1"}
        self._out = av.open(str(path), "w", format="mp4", container_options=options)
        self._video = self._add_video(encoding)
        self._audio_out: AudioStream | None = None
        self._packets: Iterator[Packet[Any]] = iter(())
        self._waiting: Packet[Any] | None = None
        self._first_s: float | None = None
        self._last_pts: int | None = None
        if self._audio is not None and self._audio.fate != "none":
            self._add_audio(self._audio)

    @property
    def audio(self) -> AudioFate:
        """What became of the source's audio."""
        return "none" if self._audio_out is None or self._audio is None else self._audio.fate

    def write(self, picture: VideoFrame, pts_s: float) -> None:
        """Encode one picture (YUV 4:2:0) shown at `pts_s` of the source."""
        pts = round(pts_s / self.time_base)
        if self._last_pts is not None:
            pts = max(pts, self._last_pts + 1)
        self._last_pts = pts
        self._first_s = pts_s if self._first_s is None else self._first_s
        picture.pts, picture.time_base = pts, self.time_base
        self._mux_audio(pts_s)
        self._out.mux(self._video.encode(picture))

    def close(self, until_s: float | None) -> None:
        """End the film; the audio goes on until `until_s` (None: to its end)."""
        self._out.mux(self._video.encode(None))
        self._mux_audio(float("inf") if until_s is None else until_s)
        if self.audio == "re-encoded" and self._audio_out is not None:
            self._out.mux(self._audio_out.encode(None))
        self._out.close()
        self._stack.close()

    def _inspect(self, source: VideoSource) -> tuple[Fraction, _Audio | None]:
        """The video's time base, and the audio; a folder of frames or an animation has neither."""
        if not is_container(source):
            return DEFAULT_TIME_BASE, None
        path = str(self._stack.enter_context(local_copy(source.uri, source.sha256)))
        with open_container(path) as container:
            time_base = open_stream(container, path).time_base or DEFAULT_TIME_BASE
            has_audio = bool(container.streams.audio)
        return time_base, _Audio(path, self._stack) if has_audio else None

    def _add_video(self, encoding: Encoding) -> av.VideoStream:
        rate = Fraction(encoding.fps).limit_denominator(100_000)
        stream = self._out.add_stream(
            "libx264", rate=rate, options={"crf": str(encoding.crf), "preset": encoding.preset, "bf": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = encoding.width, encoding.height, "yuv420p"
        stream.time_base = self.time_base
        context = stream.codec_context
        context.time_base = self.time_base
        context.gop_size = max(1, round(encoding.fps))
        context.thread_count = 2
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return stream

    def _add_audio(self, audio: _Audio) -> None:
        assert audio.stream is not None  # its fate is not "none"
        if audio.fate == "copied":
            self._audio_out = self._out.add_stream_from_template(audio.stream)
            self._packets = self._copied(audio, self._audio_out)
            return
        context = audio.stream.codec_context
        self._audio_out = self._out.add_stream("aac", rate=context.sample_rate or 48_000)
        self._audio_out.codec_context.layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        self._packets = self._encoded(audio, self._audio_out)

    def _copied(self, audio: _Audio, out: AudioStream) -> "Iterator[Packet[Any]]":
        for packet in self._demuxed(audio):
            if packet.dts is not None:
                packet.stream = out
                yield packet

    def _encoded(self, audio: _Audio, out: AudioStream) -> "Iterator[Packet[Any]]":
        target: AudioCodecContext = out.codec_context
        resampler = AudioResampler(format=target.format or "fltp", layout=target.layout, rate=target.sample_rate)
        for packet in self._demuxed(audio):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # a damaged packet is a gap in the sound, no reason to lose the film
            for frame in cast(list[AudioFrame], frames):
                for resampled in resampler.resample(frame):
                    yield from out.encode(resampled)

    def _demuxed(self, audio: _Audio) -> "Iterator[Packet[Any]]":
        try:
            yield from audio.container.demux(audio.stream)
        except (av.FFmpegError, DecodeError) as error:
            logger.warning("video=%s audio ends early: %s", self._source.id, error)

    def _mux_audio(self, until_s: float) -> None:
        """Mux the audio from the film's first frame up to `until_s`."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            time_s = float((packet.pts if packet.pts is not None else packet.dts or 0) * packet.time_base)
            if time_s > until_s:
                self._waiting = packet
                return
            if self._first_s is not None and time_s < self._first_s - _LEAD_S:
                continue
            self._out.mux(packet)


# Audio may begin this much before the first picture: codecs state their warm-up with earlier stamps.
_LEAD_S = 0.1
