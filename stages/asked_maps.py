"""Maps that were asked of the scorer (`questions.py`, `attributions.py`) as the maps of a method of their own.

In: the evidence with its answered questions, and the scores of test masks, which no answer has seen. Out: an estimate
like that of any other method. What the maps are, and what they cost, was decided when they were asked; here they get
score per voxel for their unit, and a verdict from the test masks.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import logsumexp

from stages.designs import rows_of
from stages.errors import NumericsError
from stages.estimators import MIN_COVERAGE, Estimate, by_factors, calibrated
from stages.questions import ASKED_METHODS, MASK_OPTIMISATION, Kind, Question
from stages.records import Evidence

NEW_RUN = "explain it in a new run"


def on_cells(
    evidence: Evidence,
    asked: Bool[np.ndarray, " n"],
    y: Float64[np.ndarray, "m o"],
    *,
    target: int,
    rivals: tuple[int, ...] = (),
) -> Estimate:
    """LIME or Kernel-SHAP (Captum, on cells, on the log-odds): one map, outputs differ by the factor that fits best.

    Raises NumericsError for a target that was not asked about.
    """
    found = evidence.attributed(Question(kind="saliency", class_idx=target))
    if found is None:
        raise NumericsError(str(evidence.clip_id), "no map was asked for this class", NEW_RUN)
    return by_factors(rows_of(evidence)[asked], y, found[0].astype(np.float64).reshape(-1), evidence)


def optimised(
    evidence: Evidence,
    asked: Bool[np.ndarray, " n"],
    y: Float64[np.ndarray, "m o"],
    *,
    target: int,
    rivals: tuple[int, ...] = (),
) -> Estimate:
    """The optimised masks (`optimised.py`) as maps: z_t = support - F-TC, lse_n = F-NTC, and each named rival's.

    A mask's map is 1 - m, scaled so that it sums to the change of the score that removing it made. Such a mask knows no
    uncertainty; variance and verdict are those of the other comparators: how well the map predicts masks that it has
    not seen.
    """
    untouched = np.concatenate([scores.values for scores in evidence.scores])[:1].astype(np.float64)

    def part(kind: Kind, class_idx: int) -> Float64[np.ndarray, " g"]:
        found = evidence.attributed(Question(kind=kind, class_idx=class_idx))
        if found is None:
            raise NumericsError(str(evidence.clip_id), "no mask was optimised for this class", NEW_RUN)
        hidden, scores = found[0].astype(np.float64).reshape(-1), found[1].astype(np.float64)[None]
        change = _optimised_score(untouched, kind, class_idx) - _optimised_score(scores, kind, class_idx)
        return np.asarray(hidden * (max(change, 0.0) / max(hidden.sum(), MIN_COVERAGE)))

    z_t, lse_n = part("support", target) - part("f_tc", target), part("f_ntc", target)
    maps = np.stack([z_t, lse_n, z_t - lse_n, *(part("support", rival) for rival in rivals)])
    return replace(calibrated(rows_of(evidence)[asked], y, maps, evidence), mean=maps)


def _optimised_score(scores: Float64[np.ndarray, "1 k"], kind: Kind, class_idx: int) -> float:
    """What the optimisation made smaller (`optimised.evidence_score`, here on what the journal holds)."""
    if kind == "f_ntc":
        return float(logsumexp(np.delete(scores, class_idx, axis=1), axis=1)[0])
    return float(scores[0, class_idx]) * (-1 if kind == "f_tc" else 1)


ASKED_ESTIMATORS: dict[str, Callable[..., Estimate]] = {
    **dict.fromkeys(ASKED_METHODS, on_cells),
    MASK_OPTIMISATION: optimised,
}
