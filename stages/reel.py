"""A film in the making: its segments in order, the one that is being written, and what they are joined to."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from av.video.frame import VideoFrame

from stages.film_file import Encoding, SegmentFile
from stages.film_join import join_film
from stages.film_sound import AudioFate
from stages.records import VideoSource
from stages.segments import Segment, SegmentStore
from stages.ticks import Sketch


class Reel:
    """Pictures go in, segment by segment; `join` makes the film of those that were kept or ended."""

    def __init__(self, path: Path, source: VideoSource, encoding: Encoding, mark: str) -> None:
        self._path, self._source, self._encoding = path, source, encoding
        self._store = SegmentStore(path, mark)
        self._segments: list[Segment] = []
        self._open: SegmentFile | None = None
        self._number = 0

    @property
    def segments(self) -> Sequence[Segment]:
        """What the film consists of so far."""
        return self._segments

    @property
    def is_open(self) -> bool:
        """Whether a segment is being written."""
        return self._open is not None

    def find(self, number: int) -> Segment | None:
        """What an earlier attempt has left of the segment that begins now."""
        self._number = number
        return self._store.find(number)

    def keep(self, segment: Segment) -> None:
        """Take over what an earlier attempt has left."""
        self._segments.append(replace(segment, sketch=[]))

    def drop(self) -> None:
        """Throw away what an earlier attempt has left of the segment that begins now."""
        self._store.drop(self._number)

    def write(self, picture: VideoFrame, pts_s: float) -> None:
        """Encode one picture (YUV 4:2:0), shown at `pts_s` of the source."""
        if self._open is None:
            self._open = self._store.begin(self._number, self._encoding)
        before = self._open.pts or (self._segments[-1].pts if self._segments else ())
        pts = round(pts_s / self._encoding.time_base)
        self._open.write(picture, max(pts, before[-1] + 1) if before else pts)

    def end(self, frames: tuple[int, int], sketch: Sketch, *, is_end_of_source: bool | None, is_final: bool) -> None:
        """End the segment that is being written, if any; one that is final counts for later attempts."""
        if self._open is None:
            return
        file, self._open = self._open, None
        file.close()
        drawn = Segment(
            path=file.path, frames=frames, pts=tuple(file.pts), is_end_of_source=is_end_of_source, sketch=sketch
        )
        self.keep(self._store.save(self._number, drawn) if is_final else drawn)

    def say_end_of_source(self, is_end: bool) -> None:
        """Whether the source has a picture after the last one, where nobody knew."""
        self._segments[-1] = replace(self._segments[-1], is_end_of_source=is_end)

    def join(self) -> AudioFate:
        """Write the film, if there is any picture."""
        if not self._segments:
            return "none"
        partial = self._store.temporary(self._path.name)
        return join_film(
            self._path, partial, self._segments, self._source, self._encoding.time_base, self._encoding.fps
        )

    def let_go(self) -> None:
        """Leave only what is finished."""
        try:
            if self._open is not None:
                self._open.close()
        finally:
            self._open = None
            self._store.tidy()

    def clear(self) -> None:
        """The film is whole: the segments go."""
        self._store.clear()
