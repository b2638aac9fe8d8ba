"""Stage 6 of 6: final FrameMaps, in order -> a film with the source's size, time stamps and audio, and a strip below.

The writer reads the source itself, frame by frame, so that full frames are never held in flight. Maps (small) wait
until `look_ahead_s` of them are there: they fix the colour scale of the whole video and feed the time profile.

The film grows in segments of about 24 s in a hidden folder beside it; `close` joins them without encoding again. A film
that is begun again with the same maps takes over the segments that are finished, and neither reads nor draws them.
"""

from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from types import TracebackType

import numpy as np

from stages.containers import PacketIndex
from stages.film_file import Encoding, time_base_of
from stages.film_sound import AudioFate
from stages.film_summary import FilmSummary
from stages.panels import Layout, LayoutKind, layers_of
from stages.records import FrameMap, Geometry, VideoSource, expect
from stages.reel import Reel
from stages.render import RenderConfig
from stages.scale import Saturation, choose_scale
from stages.screen import Pictures, Screen
from stages.segments import Segment, fingerprint, segment_frames
from stages.strip import Caption, Moment, note_of
from stages.ticks import Ticks
from stages.video_io import DEFAULT_FPS, Backend, is_container, packet_index

__all__ = ["FilmSummary", "FilmWriter"]

MIN_SPAN_S = 2.0
# Share of the colour scale by which a map may differ from the one that a segment was drawn from: not to be seen.
SAME_MAP = 2e-3


@dataclass(frozen=True, slots=True, eq=False)
class _Due:
    """A frame whose look-ahead is there. It and the maps up to `known` (exclusive) decide what is drawn."""

    frame: FrameMap
    number: int  # among the ticks
    known: int


class FilmWriter:
    """Writes one film (one video, one target): `write` each frame's map in order, then `close`, or `abort`."""

    def __init__(
        self,
        path: Path,
        source: VideoSource,
        geometry: Geometry,
        caption: Caption,
        config: RenderConfig,
        *,
        backend: Backend = "pyav",
        frames_per_segment: int | None = None,
    ) -> None:
        self._path, self._source, self._geometry = path, source, geometry
        self._caption, self._config, self._backend = caption, config, backend
        self._fps = source.fps or DEFAULT_FPS
        self._per_segment = frames_per_segment or segment_frames(self._fps)
        self._half_s = max(config.look_ahead_s, MIN_SPAN_S / 2)
        self._index = _index_of(source)
        can_seek = source.kind == "frames" or (self._index is not None and self._index.is_seekable)
        self._pictures = Pictures(source, backend, can_seek=can_seek)
        self._buffer: deque[tuple[FrameMap, float]] = deque()
        self._ticks = Ticks()
        self._saturation = Saturation()
        self._scale = 0.0
        self._whole_span_s: tuple[float, float] | None = None
        self._screen: Screen | None = None
        self._reel: Reel | None = None
        self._next_idx: int | None = None
        # The segment at hand: its number, frames and ticks (half-open), and what an earlier attempt has left of it.
        self._segment: int | None = None
        self._span, self._sketched = (0, 0), (0, 0)
        self._kept: Segment | None = None
        self._pending: list[_Due] = []
        self._is_stopping = False
        self._frames = self._unseen = self._lost = self._reused = 0
        self._started_s = perf_counter()
        self._summary: FilmSummary | None = None

    def __enter__(self) -> "FilmWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def write(self, frame: FrameMap, pts_s: float | None = None) -> None:
        """Take the map of the next frame. `pts_s`, if known, places it in the profile before its picture is read.

        Frames left out between two maps are shown as not seen.
        """
        expect(self._summary is None, "FilmWriter", "write after close")
        expect(self._next_idx is None or frame.frame_idx >= self._next_idx, "FilmWriter", "frames must come in order")
        while self._next_idx is not None and self._next_idx < frame.frame_idx:
            self._take(_unseen(frame, self._next_idx), None)
        self._take(frame, pts_s)

    def close(self, *, keep_segments: bool = False) -> FilmSummary:
        """Write what still waits and join the film. Can be called twice; the segments stay until `clear` if asked."""
        if self._summary is None:
            audio = self._finish()
            layout = self._screen.layout if self._screen else None
            self._summary = FilmSummary(
                path=self._path,
                frames=self._frames,
                height=layout.height if layout else 0,
                width=layout.width if layout else 0,
                zoom=layout.zoom if layout else 1.0,
                scale=self._scale,
                saturated_share=self._saturation.share,
                unseen_frames=self._unseen,
                frames_lost=self._lost,
                reused_frames=self._reused,
                audio=audio,
                seconds=perf_counter() - self._started_s,
            )
            if not keep_segments and not self._is_stopping:
                self.clear()
        return self._summary

    def abort(self) -> FilmSummary:
        """Stop early: leave a film that plays as far as it got, and the finished segments for the next attempt."""
        self._is_stopping = self._is_stopping or self._summary is None
        return self.close()

    def clear(self) -> None:
        """Remove the segments of a film that is whole."""
        if self._reel is not None:
            self._reel.clear()

    def _finish(self) -> AudioFate:
        try:
            while self._buffer:
                self._show_next()
            if self._reel is None:
                return "none"
            self._end_segment(is_last=True)
            last = self._reel.segments[-1] if self._reel.segments else None
            if last is not None and last.is_end_of_source is None and not self._is_stopping:
                self._reel.say_end_of_source(self._pictures.is_over_after(last.frames[0] + len(last.pts) - 1))
            return self._reel.join()
        finally:
            self._pictures.close()
            if self._reel is not None:
                self._reel.let_go()

    def _take(self, frame: FrameMap, pts_s: float | None) -> None:
        self._next_idx = frame.frame_idx + 1
        at_s = self._time_of(frame.frame_idx) if pts_s is None else pts_s
        self._buffer.append((frame, at_s))
        self._ticks.add(frame, at_s)
        while self._buffer and at_s - self._buffer[0][1] >= self._config.look_ahead_s:
            self._show_next()

    def _time_of(self, frame_idx: int) -> float:
        if self._index is not None and frame_idx < len(self._index.pts):
            return self._index.pts_s(frame_idx)
        return frame_idx / self._fps

    def _show_next(self) -> None:
        reel = self._reel or self._begin()
        frame, at_s = self._buffer.popleft()
        due = _Due(frame, len(self._ticks) - len(self._buffer) - 1, len(self._ticks))
        number = frame.frame_idx // self._per_segment
        if number != self._segment and not (self._is_stopping and reel.is_open):
            self._end_segment(is_last=False)
            self._begin_segment(reel, number, due, at_s)
        self._span, self._sketched = (self._span[0], frame.frame_idx + 1), (self._sketched[0], due.known)
        self._saturation.count(frame, self._per_scale)
        if self._kept is None:
            self._draw(due)
        else:
            self._pending.append(due)

    def _begin_segment(self, reel: Reel, number: int, due: _Due, at_s: float) -> None:
        # A second more than the profile reaches back: times that were interpolated may differ from the pictures'.
        first = min(due.number, self._ticks.at(at_s - self._half_s - 1 / self._fps - 1))
        self._ticks.forget_before(first)
        self._segment = number
        self._span, self._sketched = (due.frame.frame_idx, due.frame.frame_idx), (first, first)
        # When stopped early the scales may be those of a part of the look-ahead: what is there is left alone.
        self._kept = None if self._is_stopping else reel.find(number)

    def _end_segment(self, *, is_last: bool) -> None:
        """Take over what is there, if it was drawn from these maps; else draw what waits, and keep that."""
        reel, kept, pending = self._reel, self._kept, self._pending
        if reel is None or self._segment is None:
            return
        self._kept, self._pending = None, []
        sketch = self._ticks.sketch(*self._sketched)
        # A film that is stopped early shows what is there: whether it holds is for the next attempt to say.
        if kept is not None and (self._is_stopping or kept.holds(self._span, sketch, SAME_MAP / self._per_scale)):
            self._reuse(reel, kept, pending)
            return
        if kept is not None:
            reel.drop()
        for due in pending:
            self._draw(due)
        is_final = not self._is_stopping
        is_end = self._pictures.is_over_after(self._span[1] - 1) if is_last and is_final and reel.is_open else None
        reel.end(self._span, sketch, is_end_of_source=is_end, is_final=is_final)

    def _reuse(self, reel: Reel, kept: Segment, pending: list[_Due]) -> None:
        reel.keep(kept)
        shown = pending[: len(kept.pts)]
        self._frames += len(shown)
        self._reused += len(shown)
        self._lost += len(pending) - len(shown)
        self._unseen += sum(not due.frame.is_seen for due in shown)
        self._pictures.skip()
        if len(shown) < len(pending):
            self._pictures.end()

    def _draw(self, due: _Due) -> None:
        assert self._screen is not None  # set with the reel
        assert self._reel is not None
        frame = due.frame
        picture = self._pictures.at(frame.frame_idx)
        if picture is None:
            self._lost += 1
            return
        span_s = self._whole_span_s or (picture.pts_s - self._half_s, picture.pts_s + self._half_s)
        first = min(due.number, self._ticks.at(span_s[0] - 1 / self._fps))
        profile = self._ticks.profile(first, due.known, 1 / self._fps)
        moment = Moment(now_s=picture.pts_s, span_s=span_s, profile=profile, note=note_of(frame))
        layers = layers_of(frame, self._screen.layout, self._per_scale, self._config.fade)
        self._reel.write(self._screen.compose(picture, layers, moment, is_seen=frame.is_seen), picture.pts_s)
        self._frames += 1
        self._unseen += not frame.is_seen

    @property
    def _per_scale(self) -> float:
        """Turns score per voxel into units of the colour scale."""
        return self._caption.voxels_per_clip / 100 / self._scale

    def _begin(self) -> Reel:
        """The look-ahead is full: fix the scales and open the film."""
        maps = [frame for frame, _ in self._buffer]
        self._scale = self._config.scale or choose_scale(maps, self._caption.voxels_per_clip)
        _, gh, gw = maps[0].mean.shape
        kind: LayoutKind = "panels" if self._config.side_by_side else "single"
        layout = Layout(self._geometry, (gh, gw), self._caption, kind, has_profile=True)
        full_height = 1.05 * self._ticks.largest_sum()
        layout.strip.prepare(self._scale, full_height=full_height)
        first_s, end_s = self._buffer[0][1], self._buffer[-1][1] + 1 / self._fps
        self._whole_span_s = (first_s, end_s) if end_s - first_s <= self._config.look_ahead_s else None
        self._screen = Screen(layout)
        encoding = Encoding(
            width=layout.width,
            height=layout.height,
            fps=self._fps,
            time_base=time_base_of(self._source),
            crf=self._config.crf,
            preset=self._config.preset,
        )
        mark = fingerprint(
            source=(self._source.sha256, self._source.kind, self._source.height, self._source.width, self._fps),
            backend=self._backend,
            geometry=asdict(self._geometry),
            caption=asdict(self._caption),
            config=self._config.model_dump(),
            grid=(gh, gw),
            header=encoding.header().hex(),
            encoding=asdict(encoding),
            frames_per_segment=self._per_segment,
            first_frame=maps[0].frame_idx,
            whole_span_s=self._whole_span_s,
            scales=(f"{self._scale:.4g}", f"{full_height:.4g}"),  # as far as can be seen
        )
        self._reel = Reel(self._path, self._source, encoding, mark)
        return self._reel


def _index_of(source: VideoSource) -> PacketIndex | None:
    return packet_index(source.uri, source.sha256) if is_container(source) else None


def _unseen(like: FrameMap, frame_idx: int) -> FrameMap:
    """The map of a frame that was left out."""
    nothing = np.zeros_like(like.mean)
    return replace(like, frame_idx=frame_idx, mean=nothing, var=nothing, is_seen=False)
