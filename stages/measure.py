"""A clip and its maps through the score stage: the numbers of docs/method.md, 5, for every map alike."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from stages.faithfulness import (
    REMOVAL,
    Curve,
    RemovalGain,
    average_drop,
    curve_auc,
    curve_masks,
    map_mask,
    removal_gain,
    target_probability,
)
from stages.records import Clip, MaskBatch, Scores
from stages.score import Score, ScoreRequest


def ask(score: Score, clip: Clip, batches: Sequence[MaskBatch]) -> tuple[Scores, ...]:
    """Scores of all the batches, in their order, in one request."""
    return score.process(ScoreRequest(batches=tuple(batches), clips={clip.id: clip})).scores


def measure_curves(
    clip: Clip, score: Score, target: int, values: Float[np.ndarray, "t y x"], curves: Mapping[str, Curve]
) -> dict[str, float]:
    """The area under every curve of a map, on the target's p."""
    masks = {name: curve_masks(values, clip.id, clip.shape, curve) for name, curve in curves.items()}
    answers = ask(score, clip, list(masks.values()))
    return {
        name: curve_auc(masks[name], scores, target, curves[name]) for name, scores in zip(masks, answers, strict=True)
    }


def measure_drop(clip: Clip, score: Score, target: int, values: Float[np.ndarray, "t y x"]) -> float:
    """Average drop of one clip: only the map's positive part is shown."""
    whole = MaskBatch(clip_id=clip.id, round_idx=0, ids=np.arange(1), grids=np.full((1, 1, 1, 1), 255, np.uint8))
    before, after = (target_probability(s, target)[0] for s in ask(score, clip, [whole, map_mask(values, clip.id)]))
    return average_drop(float(before), float(after))


def measure_removal(
    clip: Clip, score: Score, target: int, values: Float[np.ndarray, "t y x"], curve: Curve = REMOVAL
) -> RemovalGain:
    """What the target gains while the top of a map of undesirable evidence is removed."""
    masks = curve_masks(values, clip.id, clip.shape, curve)
    return removal_gain(masks, ask(score, clip, [masks])[0], target, curve)
