"""Stage 6 of 6: final FrameMaps, in order -> a film with the source's size, time stamps and audio, and a strip below.

The writer reads the source itself, frame by frame, so that full frames are never held in flight. Maps (small) wait
until `look_ahead_s` of them are there: they fix the colour scale of the whole video and feed the time profile. The film
is written as maps come in; a kill leaves a film that plays up to there.
"""

from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from types import TracebackType

import numpy as np

from stages.containers import PacketIndex
from stages.evidence import EvidenceKind, decompose
from stages.film_file import AudioFate
from stages.panels import Layout, LayoutKind, layers_of
from stages.records import FrameMap, Geometry, VideoSource, expect
from stages.render import RenderConfig
from stages.scale import Saturation, choose_scale
from stages.screen import Screen
from stages.strip import Caption, Moment, note_of
from stages.timeline import Profile
from stages.video_io import DEFAULT_FPS, Backend, is_container, packet_index, read_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmSummary:
    """What was written. `scale` is the end of the colour bar, in log-odds per 1 % of the clip.

    saturated_share: share of the reliable, seen grid values that lie beyond the scale. frames_lost: maps at the end
    whose frames the source no longer gave.
    """

    path: Path
    frames: int
    height: int
    width: int
    zoom: float
    scale: float
    saturated_share: float
    unseen_frames: int
    frames_lost: int
    audio: AudioFate
    seconds: float

    @property
    def has_audio(self) -> bool:
        """Whether the film carries the source's sound."""
        return self.audio != "none"


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    """What the profile needs of a frame: kept for the frames around the playhead."""

    pts_s: float
    totals: dict[EvidenceKind, float]
    is_seen: bool
    is_reliable: bool


class FilmWriter:
    """Writes one film (one video, one target): `write` each frame's map in order, then `close`."""

    def __init__(
        self,
        path: Path,
        source: VideoSource,
        geometry: Geometry,
        caption: Caption,
        config: RenderConfig,
        *,
        backend: Backend = "pyav",
    ) -> None:
        self._path, self._source, self._geometry = path, source, geometry
        self._caption, self._config, self._backend = caption, config, backend
        self._fps = source.fps or DEFAULT_FPS
        self._index = _index_of(source)
        self._buffer: deque[tuple[FrameMap, float]] = deque()
        self._moments: deque[_Moment] = deque()
        self._saturation = Saturation()
        self._scale = 0.0
        self._screen: Screen | None = None
        self._next_idx: int | None = None
        self._frames = self._unseen = self._lost = 0
        self._started_s = perf_counter()
        self._summary: FilmSummary | None = None

    def __enter__(self) -> "FilmWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, frame: FrameMap, pts_s: float | None = None) -> None:
        """Take the map of the next frame. `pts_s`, if known, places it in the profile before its picture is read.

        Frames left out between two maps are shown as not seen.
        """
        expect(self._summary is None, "FilmWriter", "write after close")
        expect(self._next_idx is None or frame.frame_idx >= self._next_idx, "FilmWriter", "frames must come in order")
        while self._next_idx is not None and self._next_idx < frame.frame_idx:
            self._take(_unseen(frame, self._next_idx), None)
        self._take(frame, pts_s)

    def close(self) -> FilmSummary:
        """Write what still waits and end the file. Can be called twice."""
        if self._summary is None:
            while self._buffer:
                self._show_next()
            layout = self._screen.layout if self._screen else None
            audio: AudioFate = self._screen.close() if self._screen else "none"
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
                audio=audio,
                seconds=perf_counter() - self._started_s,
            )
        return self._summary

    def _take(self, frame: FrameMap, pts_s: float | None) -> None:
        self._next_idx = frame.frame_idx + 1
        at_s = self._time_of(frame.frame_idx) if pts_s is None else pts_s
        self._buffer.append((frame, at_s))
        self._moments.append(_Moment(at_s, decompose(frame).totals(), frame.is_seen, frame.is_reliable))
        while self._buffer and at_s - self._buffer[0][1] >= self._config.look_ahead_s:
            self._show_next()

    def _time_of(self, frame_idx: int) -> float:
        if self._index is not None and frame_idx < len(self._index.pts):
            return self._index.pts_s(frame_idx)
        return frame_idx / self._fps

    def _show_next(self) -> None:
        screen = self._screen or self._begin()
        frame, _ = self._buffer.popleft()
        picture = screen.picture(frame.frame_idx)
        if picture is None:
            self._lost += 1
            return
        span_s = screen.span_around(picture.pts_s)
        while self._moments[0].pts_s < span_s[0] - 1 / self._fps and len(self._moments) > len(self._buffer) + 1:
            self._moments.popleft()
        per_scale = self._caption.voxels_per_clip / 100 / self._scale
        self._saturation.count(frame, per_scale)
        layers = layers_of(frame, screen.layout, per_scale, self._config.fade)
        moment = Moment(now_s=picture.pts_s, span_s=span_s, profile=self._profile(), note=note_of(frame))
        screen.show(picture, layers, moment, is_seen=frame.is_seen)
        self._frames += 1
        self._unseen += not frame.is_seen

    def _begin(self) -> Screen:
        """The look-ahead is full: fix the scales and open the film."""
        maps = [frame for frame, _ in self._buffer]
        self._scale = self._config.scale or choose_scale(maps, self._caption.voxels_per_clip)
        _, gh, gw = maps[0].mean.shape
        kind: LayoutKind = "panels" if self._config.side_by_side else "single"
        layout = Layout(self._geometry, (gh, gw), self._caption, kind, has_profile=True)
        sums = [max(m.totals["support"], m.totals["f_tc"] + m.totals["f_ntc"]) for m in self._moments if m.is_seen]
        layout.strip.prepare(self._scale, full_height=1.05 * max(sums, default=0.0))
        first_s, end_s = self._buffer[0][1], self._buffer[-1][1] + 1 / self._fps
        self._screen = Screen(
            self._path,
            self._source,
            layout,
            self._config,
            fps=self._fps,
            frames=read_frames(self._source, backend=self._backend, start_idx=maps[0].frame_idx),
            whole_span_s=(first_s, end_s) if end_s - first_s <= self._config.look_ahead_s else None,
        )
        return self._screen

    def _profile(self) -> Profile:
        moments = self._moments
        return Profile(
            pts_s=np.array([m.pts_s for m in moments]),
            support=np.array([m.totals["support"] for m in moments]),
            f_tc=np.array([m.totals["f_tc"] for m in moments]),
            f_ntc=np.array([m.totals["f_ntc"] for m in moments]),
            is_seen=np.array([m.is_seen for m in moments]),
            is_reliable=np.array([m.is_reliable for m in moments]),
            end_s=moments[-1].pts_s + 1 / self._fps,
        )


def _index_of(source: VideoSource) -> PacketIndex | None:
    return packet_index(source.uri, source.sha256) if is_container(source) else None


def _unseen(like: FrameMap, frame_idx: int) -> FrameMap:
    """The map of a frame that was left out."""
    nothing = np.zeros_like(like.mean)
    return replace(like, frame_idx=frame_idx, mean=nothing, var=nothing, is_seen=False)
