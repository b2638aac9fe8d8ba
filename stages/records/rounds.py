"""Rounds: what a box was asked about a clip, and what it answered."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from stages.kernels import KernelEvidence
from stages.questions import AttributionSpec, Question
from stages.records.clips import ClipId, expect


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
    how much hiding each voxel can change, where that is known. `kernel_evidence`: what other clips of the video say of
    the kernels (nothing unless it is pooled). Rounds that asked for maps are kept apart, in
    `attributions`.
    """

    clip_id: ClipId
    masks: tuple[MaskBatch, ...]
    scores: tuple[Scores, ...]
    prior: Float32[np.ndarray, "gt gh gw"] | None = None
    content: UInt8[np.ndarray, "gt gh gw"] | None = None
    attributions: tuple[tuple[MaskBatch, Scores], ...] = ()
    kernel_evidence: KernelEvidence = field(default_factory=dict)

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
