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
    untouched,
)
from stages.records import Clip, MaskBatch, Scores
from stages.score import Score, ScoreRequest


def ask(score: Score, clip: Clip, batches: Sequence[MaskBatch]) -> tuple[Scores, ...]:
    """Scores of all the batches, in their order, in one request."""
    return score.process(ScoreRequest(batches=tuple(batches), clips={clip.id: clip})).scores


def two_first(score: Score, clip: Clip) -> tuple[int, int]:
    """The first and the second answer to the untouched clip."""
    values = ask(score, clip, [untouched(clip.id)])[0].values[0]
    first, second = np.argsort(-values, kind="stable")[:2]
    return int(first), int(second)


def wished_class(score: Score, clip: Clip, target: int) -> int:
    """The class whose gain is measured: the target, or the runner-up where the target is the clip's first answer.

    What is the first answer already cannot become it, and hardly anything of the clip speaks against it.
    """
    first, second = two_first(score, clip)
    return second if target == first else target


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
    answers = ask(score, clip, [untouched(clip.id), map_mask(values, clip.id)])
    before, after = (target_probability(scores, target)[0] for scores in answers)
    return average_drop(float(before), float(after))


def measure_removal(
    clip: Clip, score: Score, target: int, values: Float[np.ndarray, "t y x"], curve: Curve = REMOVAL
) -> RemovalGain:
    """What the target gains while the top of a map of undesirable evidence is removed."""
    masks = curve_masks(values, clip.id, clip.shape, curve)
    return removal_gain(masks, ask(score, clip, [masks])[0], target, curve)
