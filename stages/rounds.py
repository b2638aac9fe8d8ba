"""Which masks to ask next, from what has been asked: nothing but the evidence is remembered between rounds.

The first round tells the budget: its bank is that large, whether all of it was asked or not (`perturb.py`).
"""

import numpy as np

from stages.masks import NUM_ANCHORS
from stages.perturb import FAMILY_OF_METHOD
from stages.records import BankSpec, Evidence, MaskBatch


def next_masks(evidence: Evidence, method: str, prior: str) -> MaskBatch | None:
    """The masks of the next round, or None when the budget is spent."""
    first = evidence.masks[0].bank
    if first is None or prior != "rise" or len(evidence.masks) > 1:
        return None
    left = first.size - evidence.num_evaluations
    if left <= 0:
        return None
    # After the masks of the prior, those of the method: the same rows as without a prior, only fewer.
    spec = BankSpec(
        grid=first.grid, size=NUM_ANCHORS + left, seed=first.seed, family=FAMILY_OF_METHOD.get(method, "mixture")
    )
    ids = np.arange(NUM_ANCHORS, spec.size)
    return MaskBatch(clip_id=evidence.clip_id, round_idx=1, ids=ids, bank=spec)
