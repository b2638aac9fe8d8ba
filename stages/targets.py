"""Which class is explained: names, indices and the words top1, second, top3."""

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from stages.box import BoxSpec, class_index

RANKED = {"top1": (0,), "second": (1,), "top3": (0, 1, 2)}


def needs_scores(target: str) -> bool:
    """Whether the target depends on what the box says of the video, so that it must be asked first."""
    return any(word.strip() in RANKED for word in target.split(","))


def resolve_targets(target: str, mean_probs: Float[np.ndarray, " k"], spec: BoxSpec) -> tuple[int, ...]:
    """Class indices for a comma-separated target such as "top1" or "tiger cat,281"; duplicates are dropped.

    `mean_probs`: class probabilities averaged over some untouched clips of the video (only its length matters for
    names). Raises ConfigError for an unknown class, naming the nearest.
    """
    order = np.argsort(-mean_probs, kind="stable")
    found: list[int] = []
    for word in _split(target, spec):
        if word in RANKED:
            found += [int(order[rank]) for rank in RANKED[word] if rank < len(order)]
        else:
            found.append(class_index(word, spec, len(mean_probs)))
    return tuple(dict.fromkeys(found))


def mean_probabilities(log_scores: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Softmax of each row, averaged: what the box says of a video over several clips."""
    return np.asarray(softmax(log_scores.astype(np.float64), axis=1).mean(0), np.float32)


def _split(target: str, spec: BoxSpec) -> list[str]:
    """Split at commas, unless the whole is a label that has commas of its own ("goldfish, Carassius auratus")."""
    if target.strip().lower() in (label.lower() for label in spec.labels):
        return [target.strip()]
    return [word.strip() for word in target.split(",") if word.strip()]
