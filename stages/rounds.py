"""Which masks to ask next, from what has been asked: nothing but the evidence is remembered between rounds.

The first round tells the budget: its bank is that large, whether all of it was asked or not (`perturb.py`).
"""

import numpy as np
from jaxtyping import Bool, Float64

from stages.borex import grids_for, next_ids, windows_of
from stages.estimators import borex_answers, grid_of, prior_of
from stages.masks import NUM_ANCHORS
from stages.perturb import FAMILY_OF_METHOD
from stages.records import BankSpec, Evidence, MaskBatch


def evaluations_left(evidence: Evidence) -> int:
    """Evaluations of the budget that have not been made."""
    first = evidence.masks[0].bank
    return 0 if first is None else max(first.size - evidence.num_evaluations, 0)


def after_the_prior(evidence: Evidence, method: str) -> MaskBatch | None:
    """After the masks of a RISE prior those of the method: the same rows as without a prior, only fewer."""
    first, left = evidence.masks[0].bank, evaluations_left(evidence)
    if first is None or not left or len(evidence.masks) > 1:
        return None
    spec = BankSpec(grid=first.grid, size=NUM_ANCHORS + left, seed=first.seed, family=FAMILY_OF_METHOD[method])
    ids = np.arange(NUM_ANCHORS, spec.size)
    return MaskBatch(clip_id=evidence.clip_id, round_idx=1, ids=ids, bank=spec)


def next_windows(
    evidence: Evidence, asked: Bool[np.ndarray, " n"], y: Float64[np.ndarray, "m o"], *, num: int
) -> MaskBatch | None:
    """The next `num` queries of BOREx, two masks each, as far as the budget goes."""
    num = min(num, evaluations_left(evidence) // 2)
    if not num:
        return None
    windows = windows_of(grid_of(evidence))
    told, seed = borex_answers(evidence, asked, y)
    ids = next_ids(windows, told, prior_of(evidence), seed, evidence.clip_id, num)
    return MaskBatch(clip_id=evidence.clip_id, round_idx=len(evidence.masks), ids=ids, grids=grids_for(windows, ids))
