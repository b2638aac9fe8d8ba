"""Masks fitted by gradients: the mask-optimisation form of undesirable pixels (docs/method.md, 1).

    F-TC : min_m l1 mean(1-m) + l2 TV_3(m) - [z_t(Phi(x; m)) - z_t(x)]
    F-NTC: min_m l1 mean(1-m) + l2 TV_3(m) + [LSE_N(z(Phi(x; m))) - LSE_N(z(x))]
    map = 1 - m

Support, and the evidence of a named rival, are the same with + [z_c(Phi(x; m)) - z_c(x)], as in the parent method
(meaningful perturbation, Fong & Vedaldi 2017). TV_3 is the mean cubed difference of neighbours along each axis, as in
public code of that method. The mask lives on the voxel grid and is rendered as every other mask is.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.gradients import Found, Opened
from stages.masks import spread_masks
from stages.questions import MAX_STEPS, Kind, Question
from stages.substrates import apply_mask

AREA_WEIGHT = 0.01
SMOOTHNESS_WEIGHT = 0.1
TV_EXPONENT = 3
LEARNING_RATE = 0.1
PIXEL_JITTER_STD = 0.03


def optimised_mask(
    inside: Opened,
    frames: Float[Tensor, "t c h w"],
    substrate: Float[Tensor, "t c h w"],
    question: Question,
    grid: tuple[int, int, int],
    *,
    evaluations: int,
    seed: int,
    is_freeze: bool = False,
) -> Found:
    """1 - m, and the scores of the clip without what m hides: two evaluations for a step, one for the scores."""
    jitter = torch.Generator().manual_seed(seed)
    shape = (len(frames), *frames.shape[2:])
    mask = torch.ones(1, *grid, device=frames.device, requires_grad=True)
    adam = torch.optim.Adam([mask], lr=LEARNING_RATE)
    for _ in range(num_steps(evaluations)):
        noise = PIXEL_JITTER_STD * torch.randn(frames.shape, generator=jitter).to(frames)
        shown = apply_mask(frames, spread_masks(mask, (shape[0], shape[1], shape[2])), substrate, is_freeze=is_freeze)
        scores = inside.log_scores((shown + noise).clamp(0, 1))
        # z(x) is a constant of the loss: it moves no mask.
        loss = AREA_WEIGHT * (1 - mask).mean() + SMOOTHNESS_WEIGHT * total_variation(mask) + wanted(scores, question)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        adam.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
    with torch.no_grad():
        keep = spread_masks(mask, (shape[0], shape[1], shape[2]))
        scores = inside.log_scores(apply_mask(frames, keep, substrate, is_freeze=is_freeze))
    return (1 - mask.detach())[0].cpu().numpy().astype(np.float32), scores[0].float().cpu().numpy()


def num_steps(evaluations: int) -> int:
    """Steps that a question's evaluations pay for."""
    return max(min((evaluations - 1) // 2, MAX_STEPS), 0)


def wanted(scores: Float[Tensor, "1 k"], question: Question) -> Float[Tensor, ""]:
    """What falls as the mask hides the evidence asked about: z_c (support), -z_c (F-TC) or LSE_N (F-NTC)."""
    return evidence_score(scores, question.kind, question.class_idx).sum()


def evidence_score(scores: Float[Tensor, "n k"], kind: Kind, class_idx: int) -> Float[Tensor, " n"]:
    """The score that removal of this kind of evidence lowers."""
    if kind == "f_ntc":
        others = torch.arange(scores.shape[1], device=scores.device) != class_idx
        return scores[:, others].logsumexp(1)
    return scores[:, class_idx] * (-1 if kind == "f_tc" else 1)


def total_variation(mask: Float[Tensor, "1 gt gh gw"]) -> Float[Tensor, ""]:
    """TV_3: the mean cubed difference of neighbours, summed over time, rows and columns."""
    steps = [mask.diff(dim=axis).abs() for axis in (1, 2, 3) if mask.shape[axis] > 1]
    return torch.stack([(step**TV_EXPONENT).mean() for step in steps]).sum() if steps else mask.sum() * 0
