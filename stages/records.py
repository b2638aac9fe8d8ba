"""Every record that moves between stages. Frozen; NumPy arrays only; each checks its own shapes where it is born.

Axes are (t, y, x), ranges half-open. Masks: 1 keeps, 0 replaces. Saliency: positive supports the target, in units of
the score. Suffixes carry units: `_s` seconds, `_px` pixels, `_idx` counts from 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from stages.questions import AttributionSpec, Question

SourceKind = Literal["video", "image", "frames"]
RegionKind = Literal["support", "f_tc", "f_ntc"]

# What one evaluation of the box on every mask tells about a target (METHOD.md, section 1). Rivals follow as "rival:N".
OUTPUTS = ("z_t", "lse_n", "log_odds")


def expect(condition: bool, record: str, fact: str) -> None:
    """Raise ValueError (a broken invariant, hence a bug) with the record's name when `condition` does not hold."""
    if not condition:
        raise ValueError(f"{record}: {fact}")


@dataclass(frozen=True, slots=True, order=True)
class ClipId:
    """`video_id` is unique in a run; `clip_idx` counts the clips of a video from 0."""

    video_id: str
    clip_idx: int

    def __str__(self) -> str:
        return f"{self.video_id}#{self.clip_idx}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Geometry:
    """The axis-aligned affine map from pixels of the model's input to pixels of the displayed source.

    source = scale * model + offset, on continuous coordinates where pixel i covers [i, i + 1). Model pixels outside
    the source (letterbox bars) map outside [0, source size).
    """

    source_h_px: int
    source_w_px: int
    model_h_px: int
    model_w_px: int
    scale_y: float
    scale_x: float
    offset_y_px: float = 0.0
    offset_x_px: float = 0.0

    def box_to_source(self, y0: float, x0: float, y1: float, x1: float) -> tuple[float, float, float, float]:
        """Map a half-open box (model pixels) to source pixels, clipped to the picture."""
        ys = np.clip(np.array([y0, y1]) * self.scale_y + self.offset_y_px, 0, self.source_h_px)
        xs = np.clip(np.array([x0, x1]) * self.scale_x + self.offset_x_px, 0, self.source_w_px)
        return float(ys[0]), float(xs[0]), float(ys[1]), float(xs[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """Something to explain: a video file, a picture or a folder of frames. All sizes are those after rotation.

    `num_frames` and `duration_s` are what the container says and may be None; only decoding tells the truth.
    """

    id: str
    uri: str
    kind: SourceKind
    sha256: str
    height: int
    width: int
    fps: float | None = None
    num_frames: int | None = None
    duration_s: float | None = None
    has_audio: bool = False
    rotation_deg: int = 0
    codec: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """`clip_len` frames in the geometry of the model, ready for the box.

    frame_idx counts decoded frames of the source from 0; padded frames (`is_padded`) repeat an edge frame because the
    source is shorter than one clip. `covers` is the half-open range of source frames this clip speaks for.
    """

    id: ClipId
    frames: UInt8[np.ndarray, "t c h w"]  # RGB
    frame_idx: Int64[np.ndarray, " t"]
    pts_s: Float64[np.ndarray, " t"]
    is_padded: Bool[np.ndarray, " t"]
    covers: tuple[int, int]
    geometry: Geometry
    content: UInt8[np.ndarray, "gt gh gw"] | None = None  # how much hiding each voxel can change (content.py)

    def __post_init__(self) -> None:
        t = self.frames.shape[0]
        expect(self.frames.ndim == 4 and self.frames.dtype == np.uint8, "Clip", "frames must be uint8 T C H W")
        expect(
            self.frame_idx.shape == self.pts_s.shape == self.is_padded.shape == (t,),
            "Clip",
            f"frame_idx, pts_s and is_padded must have {t} entries",
        )
        expect(bool(np.all(np.diff(self.frame_idx) >= 0)), "Clip", "frame_idx must not decrease")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(t, y, x) of the model's input."""
        t, _, h, w = self.frames.shape
        return t, h, w

    @property
    def info(self) -> "ClipInfo":
        """The clip without its pixels."""
        return ClipInfo(
            id=self.id,
            shape=self.shape,
            frame_idx=self.frame_idx,
            pts_s=self.pts_s,
            is_padded=self.is_padded,
            covers=self.covers,
            geometry=self.geometry,
            nbytes=self.frames.nbytes,
            content=self.content,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipInfo:
    """A Clip without its pixels: what the scheduler, the stitching and the journal need of it (some kilobytes)."""

    id: ClipId
    shape: tuple[int, int, int]  # t, y, x of the model's input
    frame_idx: Int64[np.ndarray, " t"]
    pts_s: Float64[np.ndarray, " t"]
    is_padded: Bool[np.ndarray, " t"]
    covers: tuple[int, int]
    geometry: Geometry
    nbytes: int
    content: UInt8[np.ndarray, "gt gh gw"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BankSpec:
    """The recipe of a mask bank: with `size` and `seed` it is rebuilt, bit for bit, in every process."""

    grid: tuple[int, int, int]
    size: int
    seed: int
    family: str = "mixture"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskBatch:
    """Masks as recipes, never as pixels: rows of a shared bank, or coarse grids of this clip's own.

    `ids` number the masks of a clip from 0 over all rounds; bank masks carry their row number in the bank.
    Instead of masks a round may hold questions about maps; then `ids` number these. Exactly one of `bank`, `grids` and
    `attribution` is given.
    """

    clip_id: ClipId
    round_idx: int
    ids: Int64[np.ndarray, " n"]
    bank: BankSpec | None = None
    grids: UInt8[np.ndarray, "n gt gh gw"] | None = None  # 255 keeps, 0 replaces
    attribution: AttributionSpec | None = None

    def __post_init__(self) -> None:
        given = [part is not None for part in (self.bank, self.grids, self.attribution)]
        expect(sum(given) == 1, "MaskBatch", "give either a bank, or grids, or questions")
        expect(
            self.grids is None or len(self.grids) == len(self.ids), "MaskBatch", "grids and ids must have one length"
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_evaluations(self) -> int:
        """What these rows cost: one evaluation for each mask; questions are charged with their passes."""
        return len(self) * (1 if self.attribution is None else self.attribution.evaluations)

    def rows(self, start: int, stop: int) -> "MaskBatch":
        """The masks [start, stop) of this batch, as a batch of their own."""
        return MaskBatch(
            clip_id=self.clip_id,
            round_idx=self.round_idx,
            ids=self.ids[start:stop],
            bank=self.bank,
            grids=None if self.grids is None else self.grids[start:stop],
            attribution=self.attribution,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """What the box answered: log-scores of all classes (logits, or centred log-probabilities) for every mask.

    For a question about a map `maps` holds it, and `values` the scores of the clip that it leaves (optimised masks), or
    of the untouched clip.
    """

    clip_id: ClipId
    round_idx: int
    ids: Int64[np.ndarray, " n"]
    values: Float32[np.ndarray, "n k"]
    maps: Float32[np.ndarray, "n gt gh gw"] | None = None

    def __post_init__(self) -> None:
        expect(self.values.ndim == 2 and len(self.values) == len(self.ids), "Scores", "values must be N x K")
        expect(bool(np.isfinite(self.values).all()), "Scores", "values must be finite")
        if self.maps is not None:
            expect(self.maps.ndim == 4 and len(self.maps) == len(self.ids), "Scores", "maps must be N x Gt x Gh x Gw")
            expect(bool(np.isfinite(self.maps).all()), "Scores", "maps must be finite")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """All rounds of one clip so far; keeps `refine` stateless. Masks and scores are in the same order.

    `prior` is an initial saliency map (Gt Gh Gw, any scale) that refinement may start from, or None. `content`:
    how much hiding each voxel can change, where that is known. Rounds that asked for maps are kept apart, in `attributions`.
    """

    clip_id: ClipId
    masks: tuple[MaskBatch, ...]
    scores: tuple[Scores, ...]
    prior: Float32[np.ndarray, "gt gh gw"] | None = None
    content: UInt8[np.ndarray, "gt gh gw"] | None = None
    attributions: tuple[tuple[MaskBatch, Scores], ...] = ()

    def __post_init__(self) -> None:
        expect(len(self.masks) == len(self.scores), "Evidence", "one Scores for every MaskBatch")
        for masks, scores in zip(self.masks, self.scores, strict=True):
            expect(np.array_equal(masks.ids, scores.ids), "Evidence", "masks and scores must name the same ids")
            expect(masks.attribution is None, "Evidence", "masks must not be questions")

    @classmethod
    def of(
        cls,
        clip_id: ClipId,
        rounds: Sequence[tuple[MaskBatch, Scores]],
        content: UInt8[np.ndarray, "gt gh gw"] | None = None,
    ) -> "Evidence":
        """The rounds of a clip in order, of both kinds."""
        plain = [(masks, scores) for masks, scores in rounds if masks.attribution is None]
        return cls(
            clip_id=clip_id,
            masks=tuple(masks for masks, _ in plain),
            scores=tuple(scores for _, scores in plain),
            content=content,
            attributions=tuple(asked for asked in rounds if asked[0].attribution is not None),
        )

    @property
    def num_rounds(self) -> int:
        """Rounds so far: the index of the next one."""
        return len(self.masks) + len(self.attributions)

    @property
    def num_evaluations(self) -> int:
        """Evaluations of the box so far."""
        return sum(masks.num_evaluations for masks in (*self.masks, *(masks for masks, _ in self.attributions)))

    def attributed(self, question: Question) -> tuple[np.ndarray, np.ndarray] | None:
        """The map (Gt Gh Gw) that answers a question, and the scores that came with it; None: it was not asked."""
        for masks, scores in self.attributions:
            if masks.attribution is None or scores.maps is None:
                continue
            for row, id_ in enumerate(masks.ids):
                if masks.attribution.questions[int(id_)] == question:
                    return scores.maps[row], scores.values[row]
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How far a map can be trusted, from held-out masks (METHOD.md, section 3).

    q2: leave-one-out predictive R^2 (1 is perfect, 0 is no better than the mean). coverage: share of held-out scores
    inside their 90 % interval. `is_reliable` is the verdict that the report prints.
    """

    q2: float
    coverage: float
    is_reliable: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SaliencyMap:
    """The posterior of one clip for one target, on the grid: how much each voxel adds to each output when kept.

    `outputs` names the first axis: z_t, lse_n, log_odds, then rival:INDEX. Units: score per voxel; summed over the
    grid this is the change from the fully replaced clip to the untouched one that the surrogate explains.
    """

    clip_id: ClipId
    target_idx: int
    method: str
    outputs: tuple[str, ...]
    mean: Float32[np.ndarray, "o gt gh gw"]
    var: Float32[np.ndarray, "o gt gh gw"]
    fidelity: Mapping[str, Fidelity]  # by output
    reference: Float32[np.ndarray, " k"]  # log-scores of the untouched clip
    replaced: Float32[np.ndarray, " k"]  # log-scores of the fully replaced clip
    num_evaluations: int
    stop_reason: str
    details: Mapping[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(self.mean.ndim == 4 and self.mean.shape == self.var.shape, "SaliencyMap", "mean and var: O Gt Gh Gw")
        expect(len(self.outputs) == len(self.mean), "SaliencyMap", "one name for every output")
        expect(bool(np.isfinite(self.mean).all() and (self.var >= 0).all()), "SaliencyMap", "finite, var >= 0")

    def output(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance (Gt Gh Gw each) of one output."""
        row = self.outputs.index(name)
        return self.mean[row], self.var[row]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameMap:
    """The final, stitched maps of one source frame for one target, on the grid of the model's input.

    `is_seen` is false for a frame that no clip sampled or covered. Units as in SaliencyMap.
    """

    video_id: str
    target_idx: int
    frame_idx: int
    outputs: tuple[str, ...]
    mean: Float32[np.ndarray, "o gh gw"]
    var: Float32[np.ndarray, "o gh gw"]
    is_seen: bool
    is_reliable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What happened when a region was removed for real and the box was asked again (untouched -> removed)."""

    clip_idx: int
    prob_before: float
    prob_after: float
    log_odds_before: float
    log_odds_after: float
    top1_before: int
    top1_after: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """A connected tube of significant voxels in (t, y, x). `boxes` are y0 x0 y1 x1 in source pixels, a row per frame.

    mass: sum of |posterior mean| over the tube, score units. z_score: posterior mean of that sum over its sd.
    """

    video_id: str
    target_idx: int
    kind: RegionKind
    region_idx: int
    frames: tuple[int, int]
    span_s: tuple[float, float]
    boxes: Float32[np.ndarray, "f 4"]
    mass: float
    z_score: float
    peak: tuple[int, float, float]  # frame, y, x in source pixels
    effect: Effect | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """What a run found about one source and one target: the stitched maps of all its frames, its regions, its verdict.

    `mean` and `var` are on the grid of the model's input, units as in SaliencyMap; `fidelity` is that of every clip's
    log-odds, in order. `provenance`: versions, seeds, fingerprints of model and config, enough to compute it again.
    """

    source: VideoSource
    target_idx: int
    target: str
    outputs: tuple[str, ...]
    pts_s: Float64[np.ndarray, " f"]
    mean: Float32[np.ndarray, "o f gh gw"]
    var: Float32[np.ndarray, "o f gh gw"]
    is_seen: Bool[np.ndarray, " f"]
    is_reliable: Bool[np.ndarray, " f"]
    geometry: Geometry
    voxels_per_clip: int
    regions: tuple[Region, ...]
    fidelity: tuple[Fidelity, ...]
    provenance: Mapping[str, object]

    def __post_init__(self) -> None:
        expect(self.mean.ndim == 4 and self.mean.shape == self.var.shape, "Explanation", "mean and var: O F Gh Gw")
        expect(self.mean.shape[:2] == (len(self.outputs), len(self.pts_s)), "Explanation", "a map per output and frame")

    @property
    def is_significant(self) -> bool:
        """Whether any clip carries a signal that can be told from noise."""
        return any(fidelity.is_reliable for fidelity in self.fidelity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A bad input is data: it is recorded, shown and counted, and the rest of the run goes on."""

    video_id: str
    uri: str
    stage: str
    error: str
    reason: str
    remedy: str
    clip_idx: int | None = None
    attempt: int = 1
