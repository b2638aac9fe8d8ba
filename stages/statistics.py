"""Statistics over clips: bootstrap intervals, paired Wilcoxon tests; how maps agree (docs/method.md, 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata, wilcoxon

NUM_RESAMPLES = 2000
LEVEL = 0.95
TOP_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The mean of a number over clips, and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    num: int


def bootstrap_interval(values: Float[np.ndarray, " n"], *, seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean; NaN are left out. One value alone is its own interval."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return Interval(mean=float("nan"), low=float("nan"), high=float("nan"), num=0)
    draws = np.random.default_rng(seed).integers(len(known), size=(NUM_RESAMPLES, len(known)))
    low, high = np.quantile(known[draws].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean=float(known.mean()), low=float(low), high=float(high), num=len(known))


def paired_p(ours: Float[np.ndarray, " n"], theirs: Float[np.ndarray, " n"]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test over pairs; 1 where all are equal, NaN without a pair."""
    difference = (ours - theirs)[np.isfinite(ours - theirs)]
    if not len(difference):
        return float("nan")
    if not np.any(difference):
        return 1.0
    return float(wilcoxon(difference).pvalue)


def rank_agreement(a: Float[np.ndarray, "*grid"], b: Float[np.ndarray, "*grid"]) -> float:
    """Spearman's rank correlation of two maps on one grid; NaN when one of them is constant."""
    if a.shape != b.shape:
        raise ValueError(f"rank_agreement: maps {a.shape} and {b.shape} must have one shape")
    ranks = [rankdata(values.ravel()) for values in (a, b)]
    centred = [values - values.mean() for values in ranks]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float(centred[0] @ centred[1]) / scale if scale > 0 else float("nan")


def top_overlap(a: Float[np.ndarray, "*grid"], b: Float[np.ndarray, "*grid"], share: float = TOP_SHARE) -> float:
    """Intersection over union of the voxels with the largest values, this share of all, in two maps on one grid.

    Maps that know nothing of each other reach share / (2 - share): .05 for a tenth.
    """
    if a.shape != b.shape:
        raise ValueError(f"top_overlap: maps {a.shape} and {b.shape} must have one shape")
    count = max(1, round(share * a.size))
    tops = [set(np.argsort(-values.ravel(), kind="stable")[:count].tolist()) for values in (a, b)]
    return len(tops[0] & tops[1]) / len(tops[0] | tops[1])


def stability(maps: Sequence[Float[np.ndarray, "*grid"]]) -> dict[str, float]:
    """How maps of one clip from several seeds agree: rank correlation and overlap of the top tenth, over all pairs."""
    pairs = list(combinations(maps, 2))
    return {
        "stability_rank": float(np.mean([rank_agreement(a, b) for a, b in pairs])) if pairs else float("nan"),
        "stability_top": float(np.mean([top_overlap(a, b) for a, b in pairs])) if pairs else float("nan"),
    }


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p for many tests at once (Holm 1979); NaN stays and does not count."""
    known = [number for number in range(len(p)) if np.isfinite(p[number])]
    found = [float("nan")] * len(p)
    largest = 0.0
    for rank, number in enumerate(sorted(known, key=lambda number: p[number])):
        largest = max(largest, min(1.0, (len(known) - rank) * p[number]))
        found[number] = largest
    return found
