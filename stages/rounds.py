"""Which masks to ask next, from what has been asked: nothing but the evidence is remembered between rounds.

The first round tells the budget: its bank is that large, whether all of it was asked or not (`perturb.py`).
"""

import numpy as np
from jaxtyping import Bool, Float64

from stages.adaptive import chosen_masks
from stages.borex import grids_for, next_ids, windows_of
from stages.designs import grid_of
from stages.errors import NumericsError
from stages.estimators import borex_answers, prior_of
from stages.masks import NUM_ANCHORS
from stages.parts import WHOLE, Parts
from stages.perturb import family_for
from stages.questions import (
    ASKED_METHODS,
    MASK_OPTIMISATION,
    MAX_STEPS,
    AttributionSpec,
    Question,
    captum_method,
    optimised_kinds,
    saliencies,
)
from stages.records import BankSpec, Evidence, MaskBatch

# A step and the scores of its mask, or the untouched clip and two samples.
MIN_CHARGE = 3


def evaluations_left(evidence: Evidence) -> int:
    """Evaluations of the budget that have not been made."""
    first = evidence.masks[0].bank
    return 0 if first is None else max(first.size - evidence.num_evaluations, 0)


def after_the_prior(evidence: Evidence, method: str, parts: Parts) -> MaskBatch | None:
    """After the masks of a RISE prior those of the method: the same rows as without a prior, only fewer."""
    first, left = evidence.masks[0].bank, evaluations_left(evidence)
    if first is None or not left or len(evidence.masks) > 1:
        return None
    family = family_for(method, first.grid)
    spec = BankSpec(grid=first.grid, size=NUM_ANCHORS + left, seed=first.seed, family=family)
    return _next_rows(evidence, spec, NUM_ANCHORS, parts)


def rest_of_bank(evidence: Evidence, parts: Parts) -> MaskBatch | None:
    """After a prior that was asked of the model itself: the bank's masks after the anchors, as far as the budget goes.

    They are the first rows that every clip asks without a prior, so that all clips share one design.
    """
    first = evidence.masks[0].bank
    if first is None or not evaluations_left(evidence) or len(evidence.masks) > 1:
        return None
    return _next_rows(evidence, first, NUM_ANCHORS, parts)


def next_part(evidence: Evidence, targets: tuple[int, ...], parts: Parts) -> MaskBatch | None:
    """The rows of the bank up to the next look, then masks chosen for this clip; None where no more are wanted."""
    banks = [masks for masks in evidence.masks if masks.bank is not None]
    if parts == WHOLE or not banks or banks[-1].bank is None:
        return None
    if more := _next_rows(evidence, banks[-1].bank, int(banks[-1].ids[-1]) + 1, parts):
        return more
    left = evaluations_left(evidence) if parts.adaptive_share else 0
    return chosen_masks(evidence, targets, left) if left else None


def _next_rows(evidence: Evidence, bank: BankSpec, start: int, parts: Parts) -> MaskBatch | None:
    """A bank is as large as what may be asked of it, less the passes for a prior from inside the model."""
    num_masks = bank.size - NUM_ANCHORS - sum(masks.num_evaluations for masks, _ in evidence.attributions)
    stop = parts.stop(start, NUM_ANCHORS + num_masks - parts.num_adaptive(num_masks))
    if stop <= start:
        return None
    ids = np.arange(start, stop)
    return MaskBatch(clip_id=evidence.clip_id, round_idx=evidence.num_rounds, ids=ids, bank=bank)


def prior_questions(evidence: Evidence, prior: str, targets: tuple[int, ...]) -> MaskBatch | None:
    """One of Captum's maps for every target that has none; methods that sample take at most half of what is left."""
    open_ = _open(evidence, saliencies(targets))
    if not open_:
        return None
    left = evaluations_left(evidence)
    charge = captum_method(prior).charge(grid_of(evidence), left // 2 // len(open_))
    if charge * len(open_) >= left:
        raise NumericsError("budget", f"{left} evaluations do not pay for {prior} and masks", "raise --budget")
    return _questions(evidence, prior, open_, charge)


def method_questions(
    evidence: Evidence, method: str, targets: tuple[int, ...], rivals: tuple[int, ...]
) -> MaskBatch | None:
    """The maps of a method of `ASKED_METHODS` that are not there yet; the budget left is shared out between them.

    LIME and Kernel-SHAP fit one class at a time: with two targets each has half of the evaluations.
    """
    is_optimised = method == MASK_OPTIMISATION
    open_ = _open(evidence, optimised_kinds(targets, rivals) if is_optimised else saliencies(targets))
    if not open_:
        return None
    left = evaluations_left(evidence)
    charge = left // len(open_)
    if charge < MIN_CHARGE:
        fact = f"{left} evaluations do not pay for {len(open_)} maps by {method}"
        raise NumericsError("budget", fact, "raise --budget")
    return _questions(
        evidence, ASKED_METHODS[method], open_, min(charge, 2 * MAX_STEPS + 1) if is_optimised else charge
    )


def _open(evidence: Evidence, questions: tuple[Question, ...]) -> tuple[Question, ...]:
    return tuple(question for question in questions if evidence.attributed(question) is None)


def _questions(evidence: Evidence, method: str, questions: tuple[Question, ...], charge: int) -> MaskBatch:
    bank = evidence.masks[0].bank
    spec = AttributionSpec(
        method=method,
        questions=questions,
        grid=grid_of(evidence),
        evaluations=charge,
        seed=0 if bank is None else bank.seed,
    )
    ids = np.arange(len(questions))
    return MaskBatch(clip_id=evidence.clip_id, round_idx=evidence.num_rounds, ids=ids, attribution=spec)


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
    return MaskBatch(clip_id=evidence.clip_id, round_idx=evidence.num_rounds, ids=ids, grids=grids_for(windows, ids))
