"""The sound of a film: the source's, copied where mp4 can carry it, otherwise encoded again as AAC."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Literal, cast

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from stages.containers import open_container
from stages.errors import DecodeError
from stages.records import VideoSource
from stages.remote import local_copy
from stages.video_io import is_container

AudioFate = Literal["none", "copied", "re-encoded"]

# Codecs that players expect in mp4; everything else (vorbis, pcm, wma ...) is encoded again.
COPIED_AUDIO = {"aac", "mp3", "mp3float", "opus", "libopus", "ac3", "eac3", "alac", "flac"}
# Audio may begin this much before the first picture: codecs state their warm-up with earlier stamps.
LEAD_S = 0.1

logger = logging.getLogger(__name__)


class Sound:
    """Adds the source's sound to an open container, up to the moment that is asked for.

    `first_s`: when the film begins; what lies before it is left out. `stack` keeps the source open.
    """

    def __init__(self, source: VideoSource, out: OutputContainer, first_s: float, stack: ExitStack) -> None:
        self.fate: AudioFate = "none"
        self._source, self._out, self._first_s = source, out, first_s
        self._packets: Iterator[Packet[Any]] = iter(())
        self._waiting: Packet[Any] | None = None
        self._encoder: AudioStream | None = None
        if not is_container(source):
            return
        path = stack.enter_context(local_copy(source.uri, source.sha256))
        self._container = stack.enter_context(open_container(str(path)))
        stream = cast(AudioStream | None, self._container.streams.best("audio"))
        if stream is None or stream.time_base is None:
            return
        context = stream.codec_context
        # Raw AAC (from transport streams) has no header that mp4 could store.
        is_headless = context.name == "aac" and not context.extradata
        if context.name in COPIED_AUDIO and not is_headless:
            self.fate = "copied"
            self._packets = self._copied(stream, out.add_stream_from_template(stream))
        else:
            self.fate = "re-encoded"
            self._encoder = out.add_stream("aac", rate=context.sample_rate or 48_000)
            self._encoder.codec_context.layout = "mono" if context.layout.nb_channels == 1 else "stereo"
            self._packets = self._encoded(stream, self._encoder)

    def write(self, until_s: float) -> None:
        """Mux the sound up to `until_s` of the source."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            time_s = float((packet.pts if packet.pts is not None else packet.dts or 0) * packet.time_base)
            if time_s > until_s:
                self._waiting = packet
                return
            if time_s >= self._first_s - LEAD_S:
                self._out.mux(packet)

    def close(self, until_s: float | None) -> None:
        """Write the rest, up to `until_s` (None: to its end)."""
        self.write(float("inf") if until_s is None else until_s)
        if self._encoder is not None:
            self._out.mux(self._encoder.encode(None))

    def _copied(self, stream: AudioStream, out: AudioStream) -> "Iterator[Packet[Any]]":
        for packet in self._demuxed(stream):
            if packet.dts is not None:
                packet.stream = out
                yield packet

    def _encoded(self, stream: AudioStream, out: AudioStream) -> "Iterator[Packet[Any]]":
        target: AudioCodecContext = out.codec_context
        resampler = AudioResampler(format=target.format or "fltp", layout=target.layout, rate=target.sample_rate)
        for packet in self._demuxed(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # a damaged packet is a gap in the sound, no reason to lose the film
            for frame in cast(list[AudioFrame], frames):
                for resampled in resampler.resample(frame):
                    yield from out.encode(resampled)

    def _demuxed(self, stream: AudioStream) -> "Iterator[Packet[Any]]":
        try:
            yield from self._container.demux(stream)
        except (av.FFmpegError, DecodeError) as error:
            logger.warning("video=%s audio ends early: %s", self._source.id, error)
