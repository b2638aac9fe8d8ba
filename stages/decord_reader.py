"""decord as a reader, where it gives what PyAV gives."""

from typing import Any

from stages.containers import PacketIndex, open_container, open_stream
from stages.containers import video_streams as real_streams
from stages.records import VideoSource


def open_decord(source: VideoSource, index: PacketIndex | None) -> tuple[Any, str]:
    """A decord reader that gives what PyAV gives, or None and the reason. Opened here, in the process that reads."""
    with open_container(source.uri) as container:
        stream = open_stream(container, source.uri)
        video_format = stream.codec_context.format
        if index is None:
            return None, "its packets do not state the time of every frame"
        if len(real_streams(container)) > 1:
            return None, "it has several video streams and decord chooses another one"
        if video_format is not None and video_format.components[0].bits > 8:
            return None, "it has more than 8 bits per colour"
        if source.width % 2 or source.height % 2:
            return None, "its size is odd"
    try:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        reader = decord.VideoReader(source.uri, num_threads=1)
        shape = tuple(reader[0].shape)
    except ImportError:
        return None, "it is not installed"
    except Exception:  # noqa: BLE001 - decord raises its own error, whose class is not exported
        return None, "decord cannot open it"
    if shape != (source.height, source.width, 3) or len(reader) != len(index.pts):
        return None, "it sees another size or another number of frames"
    return reader, ""
