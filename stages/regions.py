"""Regions: connected tubes of significant voxels in (t, y, x), found while the frames stream by.

Voxels of two neighbouring frames belong to one tube when they touch in the grid (8-neighbourhood in the plane, the same
cell in time). Tubes that meet become one. Only the strongest are kept, a bit for each
cell, so memory does not grow with the video.
"""

import heapq
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from scipy import ndimage

from stages.aggregate import AggregateConfig
from stages.estimators import regression_targets
from stages.evidence import EvidenceKind, decompose
from stages.records import ClipInfo, Effect, FrameMap, Geometry, Region, RegionKind

REGION_KINDS: tuple[RegionKind, ...] = ("support", "f_tc", "f_ntc")
OUTPUT_OF_KIND: dict[EvidenceKind, str] = {"support": "z_t", "f_tc": "z_t", "f_ntc": "lse_n", "net": "log_odds"}
EIGHT_NEIGHBOURS = np.ones((3, 3), int)
_HEAD = struct.Struct("<qddddhh")  # all of a slice but its cells


@dataclass(slots=True, eq=False)
class _Slice:
    """What a tube holds of one frame: its cells and the sums over them."""

    frame_idx: int
    pts_s: float
    cells: Bool[np.ndarray, "gh gw"]
    mass: float
    std: float
    peak: tuple[float, int, int]  # value, cell y, cell x

    def packed(self) -> bytes:
        """The slice in a seventh of the memory: an hour of video can hold a hundred thousand of them."""
        value, y, x = self.peak
        head = _HEAD.pack(self.frame_idx, self.pts_s, self.mass, self.std, value, y, x)
        return head + np.packbits(self.cells).tobytes()

    @classmethod
    def unpacked(cls, packed: bytes, grid: tuple[int, int]) -> "_Slice":
        """The slice again."""
        frame_idx, pts_s, mass, std, value, y, x = _HEAD.unpack_from(packed)
        bits = np.frombuffer(packed, np.uint8, offset=_HEAD.size)
        cells = np.unpackbits(bits, count=grid[0] * grid[1]).astype(bool).reshape(grid)
        return cls(frame_idx, pts_s, cells, mass, std, (value, y, x))


@dataclass(slots=True, eq=False)
class Tube:
    """A tube and the voxels it is made of, on a grid of cells in the plane."""

    kind: RegionKind
    grid: tuple[int, int]
    _packed: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._packed)

    @property
    def slices(self) -> Iterator[_Slice]:
        """What the tube holds, in the order in which it was found."""
        return (_Slice.unpacked(packed, self.grid) for packed in self._packed)

    def append(self, part: _Slice) -> None:
        """One more slice."""
        self._packed.append(part.packed())

    def take_in(self, other: "Tube") -> None:
        """All slices of another tube."""
        self._packed += other._packed

    @property
    def mass(self) -> float:
        """Sum of the posterior mean over the tube, in units of the score."""
        return sum(part.mass for part in self.slices)

    @property
    def num_voxels(self) -> int:
        """Cells over all frames."""
        return sum(int(part.cells.sum()) for part in self.slices)

    def merged(self) -> dict[int, _Slice]:
        """One slice per frame: pieces of a tube that met later are joined."""
        frames: dict[int, _Slice] = {}
        for part in self.slices:
            if part.frame_idx in frames:
                have = frames[part.frame_idx]
                part = replace(
                    part,
                    cells=have.cells | part.cells,
                    mass=have.mass + part.mass,
                    std=have.std + part.std,
                    peak=max(have.peak, part.peak),
                )
            frames[part.frame_idx] = part
        return dict(sorted(frames.items()))


class RegionTracker:
    """Finds the tubes of one video for one target. Feed it final frames in order, then `finish`."""

    def __init__(self, config: AggregateConfig, geometry: Geometry, video_id: str, target_idx: int) -> None:
        self.config = config
        self.geometry = geometry
        self.video_id = video_id
        self.target_idx = target_idx
        self._alive: dict[RegionKind, dict[int, Tube]] = {kind: {} for kind in REGION_KINDS}
        self._labels: dict[RegionKind, Int64[np.ndarray, "gh gw"] | None] = dict.fromkeys(REGION_KINDS)
        self._done: dict[RegionKind, list[tuple[float, int, Tube]]] = {kind: [] for kind in REGION_KINDS}
        self._count = 0

    def add(self, frame: FrameMap, pts_s: float) -> None:
        """Extend the tubes by one frame; tubes that end here are completed."""
        maps = decompose(frame)
        for kind in REGION_KINDS:
            std = np.sqrt(frame.var[frame.outputs.index(OUTPUT_OF_KIND[kind])])
            is_in = maps.is_significant[kind] & frame.is_seen & frame.is_reliable
            self._extend(kind, frame.frame_idx, pts_s, is_in, maps[kind], std)

    def finish(self) -> list[tuple[Region, Tube]]:
        """All regions, the strongest of each kind first, with the tubes that tell which voxels they are."""
        found = []
        for kind in REGION_KINDS:
            for tube in self._alive[kind].values():
                self._complete(tube)
            self._alive[kind] = {}
            ranked = sorted(self._done[kind], key=lambda entry: (-entry[0], entry[1]))
            found += [(self._region(tube, rank), tube) for rank, (_, _, tube) in enumerate(ranked)]
        return found

    def _extend(
        self,
        kind: RegionKind,
        frame_idx: int,
        pts_s: float,
        is_in: Bool[np.ndarray, "gh gw"],
        value: Float32[np.ndarray, "gh gw"],
        std: Float32[np.ndarray, "gh gw"],
    ) -> None:
        labels, count = ndimage.label(is_in, EIGHT_NEIGHBOURS)
        before, alive = self._labels[kind], self._alive[kind]
        now: dict[int, Tube] = {}
        ids = np.zeros(labels.shape, np.int64)
        for label in range(1, count + 1):
            cells = labels == label
            touched = [] if before is None else [int(i) for i in np.unique(before[cells]) if i in alive or i in now]
            met = [now.pop(i) if i in now else alive.pop(i) for i in touched]
            ids[np.isin(ids, touched)] = -1
            # The longest takes the others in, so that a long tube is never copied.
            tube = max(met, key=len, default=Tube(kind, labels.shape))
            for other in met:
                if other is not tube:
                    tube.take_in(other)
            if len(tube) and frame_idx - next(tube.slices).frame_idx >= self.config.max_region_frames:
                self._complete(tube)
                tube = Tube(kind, labels.shape)
            tube.append(_slice(frame_idx, pts_s, cells, value, std))
            self._count += 1
            ids[cells | (ids == -1)] = self._count
            now[self._count] = tube
            if before is not None and touched:
                # A later component of this frame that touches the same tube must find it under its new number.
                before = np.where(np.isin(before, touched), self._count, before)
        for tube in alive.values():
            self._complete(tube)
        self._alive[kind], self._labels[kind] = now, ids

    def _complete(self, tube: Tube) -> None:
        if tube.num_voxels < self.config.min_region_voxels:
            return
        self._count += 1
        heap = self._done[tube.kind]
        heapq.heappush(heap, (tube.mass, self._count, tube))
        if len(heap) > self.config.max_regions:
            heapq.heappop(heap)

    def _region(self, tube: Tube, rank: int) -> Region:
        frames = tube.merged()
        gh, gw = next(iter(frames.values())).cells.shape
        cell_y, cell_x = self.geometry.model_h_px / gh, self.geometry.model_w_px / gw
        boxes = []
        for part in frames.values():
            ys, xs = np.nonzero(part.cells)
            corners = (ys.min() * cell_y, xs.min() * cell_x, (ys.max() + 1) * cell_y, (xs.max() + 1) * cell_x)
            boxes.append(self.geometry.box_to_source(*corners))
        top = max(frames.values(), key=lambda part: part.peak[0])
        y0, x0, y1, x1 = self.geometry.box_to_source(
            top.peak[1] * cell_y, top.peak[2] * cell_x, (top.peak[1] + 1) * cell_y, (top.peak[2] + 1) * cell_x
        )
        first, last = min(frames), max(frames)
        return Region(
            video_id=self.video_id,
            target_idx=self.target_idx,
            kind=tube.kind,
            region_idx=rank,
            frames=(first, last + 1),
            span_s=(frames[first].pts_s, frames[last].pts_s),
            boxes=np.asarray(boxes, np.float32),
            mass=tube.mass,
            z_score=tube.mass / max(sum(part.std for part in frames.values()), 1e-30),
            peak=(top.frame_idx, (y0 + y1) / 2, (x0 + x1) / 2),
        )


def regions_to_verify(found: list[tuple[Region, Tube]], count: int) -> list[tuple[Region, Tube]]:
    """The `count` strongest for (support) and the `count` strongest against (F-TC and F-NTC together), by mass."""
    strongest = sorted(found, key=lambda entry: -entry[0].mass)
    chosen = [entry for entry in strongest if entry[0].kind == "support"][:count]
    return chosen + [entry for entry in strongest if entry[0].kind != "support"][:count]


def strongest_clip(tube: Tube, covers: dict[int, tuple[int, int]]) -> int:
    """The clip (by index) whose frames hold most of a tube's mass: where its removal is tried. Ties: the first."""
    parts = [(part.frame_idx, part.mass) for part in tube.slices]
    mass = {idx: sum(mass for at, mass in parts if a <= at < b) for idx, (a, b) in covers.items()}
    return max(sorted(mass), key=lambda idx: mass[idx])


def removal_grid(tube: Tube, info: ClipInfo, grid: tuple[int, int, int]) -> UInt8[np.ndarray, "gt gh gw"]:
    """The mask on a clip's grid that replaces a tube's voxels and keeps all others (255 keeps)."""
    keep = np.full(grid, 255, np.uint8)
    frames = tube.merged()
    for position, frame_idx in enumerate(info.frame_idx):
        part = frames.get(int(frame_idx))
        if part is not None:
            keep[min(int((position + 0.5) * grid[0] / len(info.frame_idx)), grid[0] - 1)][part.cells] = 0
    return keep


def effect_of_removal(
    clip_idx: int, target_idx: int, before: Float32[np.ndarray, " k"], after: Float32[np.ndarray, " k"]
) -> Effect:
    """Probability, log-odds and top-1 with and without a region, from log-scores (docs/method.md, eq. 1)."""
    scores = np.stack([before, after]).astype(np.float64)
    log_odds = regression_targets(scores, target_idx)[:, 2]
    prob = 1 / (1 + np.exp(-log_odds))
    return Effect(
        clip_idx=clip_idx,
        prob_before=float(prob[0]),
        prob_after=float(prob[1]),
        log_odds_before=float(log_odds[0]),
        log_odds_after=float(log_odds[1]),
        top1_before=int(scores[0].argmax()),
        top1_after=int(scores[1].argmax()),
    )


def _slice(
    frame_idx: int, pts_s: float, cells: Bool[np.ndarray, "gh gw"], value: np.ndarray, std: np.ndarray
) -> _Slice:
    inside = np.where(cells, value, -np.inf)
    y, x = np.unravel_index(int(inside.argmax()), cells.shape)
    # The sd of a sum of strongly correlated voxels: the sum of their sds bounds it from above.
    return _Slice(
        frame_idx,
        pts_s,
        cells,
        float(value[cells].sum()),
        float(std[cells].sum()),
        (float(value[y, x]), int(y), int(x)),
    )
