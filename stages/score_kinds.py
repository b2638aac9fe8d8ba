"""What the kind of a box's scores leaves open: probabilities have no absolute level, top-k answers no small scores.

In: log-scores as `box.to_log_scores` gives them, the target and the spec. Out: sentences for whoever reads the maps.
"""

import numpy as np
from jaxtyping import Float

from stages.box import BlackBox, BoxSpec
from stages.questions import MASK_OPTIMISATION

# From so many classes on, what centring mixes into a map cannot be seen.
MANY_CLASSES = 20
# Fewer hidden scores of the target than this share do not matter.
MAX_HIDDEN = 0.1

ONLY_TOP = "the model names only its top classes: the rest of the probability is spread evenly over the others"


def box_warnings(box: BlackBox) -> tuple[str, ...]:
    """What is known before anything is asked: the box's own warnings, and what its kind of scores leaves open."""
    found = tuple(getattr(box, "warnings", ()))
    return (*found, ONLY_TOP) if box.spec.scores == "top_k" else found


def score_warnings(values: Float[np.ndarray, "n k"], target: int, spec: BoxSpec, method: str = "gp") -> tuple[str, ...]:
    """What a reader must know of maps of these scores; nothing where the box gives logits.

    log p is known up to a number that may differ from mask to mask. docs/method.md, 0, takes out the mean over the
    classes, so a class that rises by g lowers every other by g / K: F-TC shows 1 / K of F-NTC, and the reverse.
    Optimised masks show all of it: they hide whatever gains more than its area costs. `method`: that of the maps.
    """
    if spec.scores == "logits":
        return ()
    found = []
    num_classes = values.shape[1]
    if num_classes < MANY_CLASSES:
        mixed = "are one and the same" if num_classes == 2 else f"hold 1/{num_classes} of each other"
        found.append(
            f"the model gives probabilities of {num_classes} classes and no logits: F-TC and F-NTC {mixed}; "
            "the net map is not touched by that"
        )
    if method == MASK_OPTIMISATION:
        found.append(
            f"the model gives no logits: each of the masks that {method} finds for F-TC and F-NTC hides places of both"
        )
    if spec.scores == "top_k":
        found.append(ONLY_TOP)
    if hidden_share(values, target) > MAX_HIDDEN:
        found.append(
            f"the model hides the score of {spec.label(target)} under many masks (too small, or not among the classes "
            "that it names): there the maps rest on a bound"
        )
    return tuple(found)


def hidden_share(values: Float[np.ndarray, "n k"], target: int) -> float:
    """The share of rows in which the target's score is the lowest and not alone: floored, or not named by the box."""
    lowest = values.min(1)
    is_shared = (values == lowest[:, None]).sum(1) > 1
    return float(((values[:, target] == lowest) & is_shared).mean())
