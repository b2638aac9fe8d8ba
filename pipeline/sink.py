"""The sink of one video: its clips' maps, in order, become film, map store, table rows and regions, as frames end.

Built from plain data, it lives in a thread or in a Ray actor and needs nothing else: fed the same maps again (from the
journal, after a crash) it writes the same files again. The order is `add` per clip, `finish`, `close`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import MapStore, PartWriter, about_maps
from pipeline.files import SoleWriter, hash_file
from pipeline.manifest import RunFolder
from pipeline.product import Product, open_product
from pipeline.rows import clip_row, frame_row, region_row
from pipeline.summaries import TargetSummary, VideoSummary
from pipeline.tally import FrameTimes, Tally
from stages.aggregate import AggregateConfig, Stitcher
from stages.errors import ExplainError
from stages.evidence import decompose
from stages.records import (
    ClipId,
    ClipInfo,
    FrameMap,
    Geometry,
    MaskBatch,
    Region,
    SaliencyMap,
    Scores,
    VideoSource,
    expect,
)
from stages.regions import RegionTracker, Tube, effect_of_removal, regions_to_verify, removal_grid, strongest_clip
from stages.render import RenderConfig
from stages.strip import Caption
from stages.video_io import Backend

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSpec:
    """All that a sink must know before the first map. `labels` may be shorter than the number of classes, or empty."""

    run: str
    source: VideoSource
    targets: tuple[int, ...]
    labels: tuple[str, ...]
    model: str
    aggregate: AggregateConfig = field(default_factory=AggregateConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    backend: Backend = "pyav"

    def label(self, class_idx: int) -> str:
        """The name of a class."""
        return self.labels[class_idx] if class_idx < len(self.labels) else f"class {class_idx}"


class VideoSink:
    """Everything that is written for one video, for all its targets."""

    def __init__(self, spec: SinkSpec) -> None:
        self.spec = spec
        self._run = RunFolder(Path(spec.run))
        video_id = spec.source.id
        self._right = SoleWriter(self._run.path, video_id)
        self._parts = {table: PartWriter(self._run.path, table, video_id) for table in ("clips", "frames", "regions")}
        self._targets: tuple[_TargetSink, ...] = ()
        self._infos: dict[int, ClipInfo] = {}
        self._times = FrameTimes()
        self._grid = (1, 1, 1)
        self._num_frames = 0

    def add(self, info: ClipInfo, maps: Sequence[SaliencyMap], seconds: float | None = None) -> None:
        """Take in the next clip (in clip order), a map for each target; frames that are final now are written."""
        expect(
            tuple(saliency.target_idx for saliency in maps) == self.spec.targets,
            "VideoSink",
            f"clip {info.id} must bring one map for each of the targets {self.spec.targets}",
        )
        if not self._targets:
            self._open(info, maps[0])
        # One geometry serves the whole video: keep what a removed region needs, a few hundred bytes a clip.
        # Copies: arrays that came through Ray's object store hold the whole request there, maps and all.
        own = {name: getattr(info, name).copy() for name in ("frame_idx", "pts_s", "is_padded")}
        self._infos[info.id.clip_idx] = replace(info, geometry=self._targets[0].geometry, content=None, **own)
        self._times.learn(info)
        for target, saliency in zip(self._targets, maps, strict=True):
            self._parts["clips"].add(clip_row(info, saliency, self.spec.label, seconds))
            self._write(target, target.take(info, saliency))
        self._times.forget_before(info.covers[0])

    def finish(self, num_frames: int) -> tuple[MaskBatch, ...]:
        """Write the last frames; returns what is to be asked of the box to verify the strongest regions.

        One batch for each clip that is needed again: mask 0 keeps everything, each further one removes a region.
        """
        expect(bool(self._targets), "VideoSink", "finish needs at least one clip")
        self._num_frames = num_frames
        for target in self._targets:
            self._write(target, target.stitcher.finish(num_frames))
            target.end_frames()
        removals: dict[int, list[_Removal]] = {}
        for target in self._targets:
            for removal in target.find_regions(self.spec.aggregate.verified_regions, self._infos):
                removals.setdefault(removal.clip_idx, []).append(removal)
        return tuple(self._question(clip_idx, found) for clip_idx, found in sorted(removals.items()))

    def close(self, answers: Sequence[Scores] = ()) -> VideoSummary:
        """Write the regions (with their effects, where the box answered) and all that is left."""
        by_clip = {scores.clip_id.clip_idx: scores for scores in answers}
        for target in self._targets:
            for region in target.regions_with_effects(by_clip):
                self._parts["regions"].add(region_row(region, self.spec.label))
        for part in self._parts.values():
            part.close()
        outputs = {path: hash_file(self._run.path / path) for target in self._targets for path in target.files}
        for target in self._targets:
            target.release()
        self._right.give_back()
        source = self.spec.source
        return VideoSummary(
            video_id=source.id,
            uri=source.uri,
            kind=source.kind,
            num_frames=self._num_frames,
            num_clips=len(self._infos),
            duration_s=self._times.span_s(self._num_frames) if source.kind != "image" else 0.0,
            targets=tuple(target.summary() for target in self._targets),
            outputs=outputs,
            warnings=source.warnings,
        )

    def abort(self) -> None:
        """Let go of all files, whatever state they are in; the next sink writes them anew, but for whole segments."""
        for part in self._parts.values():
            part.abort()
        for target in self._targets:
            try:
                target.abort()
            except (ExplainError, OSError, ValueError) as error:
                _log.warning("video=%s not closed: %s", self.spec.source.id, error)
        self._right.give_back()

    def _open(self, info: ClipInfo, saliency: SaliencyMap) -> None:
        gt, gh, gw = saliency.mean.shape[1:]
        self._grid = (gt, gh, gw)
        self._targets = tuple(
            _TargetSink(self.spec, self._run, target_idx, info, saliency) for target_idx in self.spec.targets
        )

    def _write(self, target: "_TargetSink", frames: Sequence[FrameMap]) -> None:
        for frame in frames:
            self._parts["frames"].add(target.write(frame, self._times.at(frame.frame_idx)))

    def _question(self, clip_idx: int, removals: "list[_Removal]") -> MaskBatch:
        info = self._infos[clip_idx]
        grids = [np.full(self._grid, 255, np.uint8)]
        for number, removal in enumerate(removals, start=1):
            removal.mask_id = number
            grids.append(removal_grid(removal.tube, info, self._grid))
        ids = np.arange(len(grids))
        return MaskBatch(clip_id=ClipId(self.spec.source.id, clip_idx), round_idx=0, ids=ids, grids=np.stack(grids))


@dataclass(slots=True, eq=False)
class _Removal:
    """A region that is removed for real in one clip, as mask `mask_id` of that clip's question."""

    position: int  # in the target's list of regions
    tube: Tube
    clip_idx: int
    mask_id: int = 0


class _TargetSink:
    """Film, map store, regions and totals of one class."""

    def __init__(self, spec: SinkSpec, run: RunFolder, target_idx: int, info: ClipInfo, saliency: SaliencyMap) -> None:
        self.target_idx, self.label = target_idx, spec.label(target_idx)
        self.geometry: Geometry = info.geometry
        self.stitcher = Stitcher(spec.source.id, target_idx)
        self._spec = spec
        self._tracker = RegionTracker(spec.aggregate, info.geometry, spec.source.id, target_idx)
        gt, gh, gw = saliency.mean.shape[1:]
        self._voxels_per_clip = gt * gh * gw
        about = about_maps(
            video_id=spec.source.id,
            target_idx=target_idx,
            target=self.label,
            geometry=info.geometry,
            grid=(gt, gh, gw),
            frames_per_clip=len(info.frame_idx),
        )
        path = run.maps_path(spec.source.id, target_idx, self.label)
        self._store = MapStore(path, outputs=saliency.outputs, grid_hw=(gh, gw), about=about)
        is_picture = spec.source.kind == "image"
        product = (run.picture_path if is_picture else run.film_path)(spec.source.id, target_idx, self.label)
        caption = Caption(
            target=self.label,
            model=spec.model,
            voxels_per_clip=self._voxels_per_clip,
            predicted=spec.label(int(saliency.reference.argmax())),
        )
        self._product: Product = open_product(product, spec.source, info.geometry, caption, spec.render, spec.backend)
        self.files = [str(product.relative_to(run.path)), str(path.relative_to(run.path))]
        self._is_open = True
        self._found: list[tuple[Region, Tube]] = []
        self._removals: list[_Removal] = []
        self._tally = Tally()

    def take(self, info: ClipInfo, saliency: SaliencyMap) -> list[FrameMap]:
        """Count the clip in; returns the frames that are final."""
        self._tally.add(saliency)
        return self.stitcher.add(info, saliency)

    def write(self, frame: FrameMap, pts_s: float) -> dict[str, Any]:
        """Film, store and regions take a final frame; returns its row."""
        self._store.append(frame, pts_s)
        self._tracker.add(frame, pts_s)
        self._product.write(frame, pts_s)
        return frame_row(
            frame,
            decompose(frame),
            pts_s=pts_s,
            target=self.label,
            geometry=self.geometry,
            voxels_per_clip=self._voxels_per_clip,
        )

    def end_frames(self) -> None:
        """There are no further frames."""
        if self._is_open:
            self._is_open = False
            self._store.close()
            self._product.close()

    def abort(self) -> None:
        """The video is not finished."""
        if self._is_open:
            self._is_open = False
            self._store.close()
            self._product.abort()

    def release(self) -> None:
        """Everything of the video is written."""
        self._product.release()

    def find_regions(self, num_verified: int, infos: dict[int, ClipInfo]) -> list[_Removal]:
        """All regions are known now; returns those to be removed for real, each in its strongest clip."""
        self._found = self._tracker.finish()
        positions = {id(tube): position for position, (_, tube) in enumerate(self._found)}
        for region, tube in regions_to_verify(self._found, num_verified):
            start, stop = region.frames
            covers = {idx: i.covers for idx, i in infos.items() if i.covers[0] < stop and start < i.covers[1]}
            self._removals.append(_Removal(positions[id(tube)], tube, strongest_clip(tube, covers)))
        return self._removals

    def regions_with_effects(self, answers: dict[int, Scores]) -> list[Region]:
        """The regions, those that were removed for real with what happened."""
        regions = [region for region, _ in self._found]
        for removal in self._removals:
            scores = answers.get(removal.clip_idx)
            if scores is None:
                _log.warning("video=%s clip=%d region not verified", self._spec.source.id, removal.clip_idx)
                continue
            rows = {int(mask_id): row for row, mask_id in enumerate(scores.ids)}
            before, after = scores.values[rows[0]], scores.values[rows[removal.mask_id]]
            effect = effect_of_removal(removal.clip_idx, self.target_idx, before, after)
            regions[removal.position] = replace(regions[removal.position], effect=effect)
        return regions

    def summary(self) -> TargetSummary:
        """What the run folder says of this target."""
        product, maps = self.files
        return self._tally.summary(
            target_idx=self.target_idx,
            target=self.label,
            label_of=self._spec.label,
            num_regions=len(self._found),
            product=product,
            maps=maps,
        )
