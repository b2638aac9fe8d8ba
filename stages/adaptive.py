"""Masks for one clip alone: what would tell most about its map as it is known so far (docs/method.md, 3).

Candidates are the highest-valued places of maps drawn from the posterior, at many sizes: sets that the clip's evidence
may consist of. Of these the ones are asked, each with its complement, that lower the posterior variance most where
the map is large or unknown. All chance derives from (seed, clip, round).
"""

import numpy as np
from jaxtyping import Float64

from stages.designed import most_telling
from stages.designs import clip_design, grid_of, rows_of
from stages.estimators import regression_targets
from stages.factorised import KernelDesign
from stages.gp import Design
from stages.kernels import Kernel
from stages.masks import NUM_ANCHORS, soft_set
from stages.records import OUTPUTS, Evidence, MaskBatch
from stages.seeds import clip_rng

# Masks of a round; a rest of less than half a round goes with the one before.
ROUND = 32
# Pairs that are drawn, and the kernels they are drawn from: those with at least this share of the best one's weight.
NUM_CANDIDATES = 96
MIN_SHARE = 0.1
# Share of the voxels in a set.
SMALLEST, LARGEST = 0.05, 0.6


def chosen_masks(evidence: Evidence, targets: tuple[int, ...], left: int) -> MaskBatch:
    """The next round of masks for this clip, as far as `left` evaluations go."""
    num = left if left < 3 * ROUND // 2 else ROUND
    first = evidence.masks[0].bank
    seed = 0 if first is None else first.seed
    rng = clip_rng(seed, evidence.clip_id, round_idx=evidence.num_rounds)
    design, weights, y = _posterior(evidence, targets)
    posterior = design.posterior(y)
    unknown = posterior.mean**2 + posterior.var
    importance = (unknown / np.maximum(unknown.sum(1, keepdims=True), 1e-300)).sum(0)
    sets = _candidates(design, weights, y, rng)
    best = max(weights, key=lambda kernel: weights[kernel])
    centred = sets - sets.mean(1, keepdims=True)
    told = what_is_left(design.kernel_design(best), best.noise, centred)
    chosen = most_telling(told, centred, importance, best.noise / 2, -(-num // 2))
    grids = np.round(255 * sets[chosen]).astype(np.uint8).reshape(-1, *grid_of(evidence))
    pairs = np.stack([grids, 255 - grids], axis=1).reshape(-1, *grids.shape[1:])[:num]
    begin = max(int(masks.ids.max()) for masks in evidence.masks) + 1
    return MaskBatch(
        clip_id=evidence.clip_id, round_idx=evidence.num_rounds, ids=np.arange(begin, begin + num), grids=pairs
    )


def what_is_left(design: KernelDesign, noise: float, centred: Float64[np.ndarray, "c g"]) -> Float64[np.ndarray, "c g"]:
    """K' a for every candidate, K' the covariance that the masks of the design leave, in units of what they see."""
    covariance, cross = design.covariance, design.covariance.expand(design.basis.T @ design.seen) / design.scale
    seen = cross @ centred.T
    seen /= np.sqrt(design.values + noise)[:, None]
    cross /= np.sqrt(design.values + noise)[:, None]
    return np.asarray(covariance.expand(covariance.features(centred)) / design.scale - seen.T @ cross)


def _posterior(
    evidence: Evidence, targets: tuple[int, ...]
) -> tuple[Design, dict[Kernel, float], Float64[np.ndarray, "n o"]]:
    """The design of all masks so far with the kernels that count, their weights, and the targets' log-odds.

    The kernels are weighed by the masks of the bank, whose design is shared.
    """
    scores = np.concatenate([round_.values for round_ in evidence.scores]).astype(np.float64)
    y = np.stack([regression_targets(scores, target)[:, OUTPUTS.index("log_odds")] for target in targets], axis=1)
    asked = np.concatenate([masks.ids for masks in evidence.masks]) >= NUM_ANCHORS
    shared = np.repeat([masks.bank is not None for masks in evidence.masks], [len(masks) for masks in evidence.masks])
    design = clip_design(evidence, asked & shared)
    found = design.posterior(y[asked & shared]).kernel_weights
    weights = {kernel: weight for kernel, weight in found.items() if weight >= MIN_SHARE * max(found.values())}
    if not shared.all():
        smooth, own = ([kernel for kernel in weights if kernel.is_scaled == is_own] for is_own in (False, True))
        design = Design(rows_of(evidence)[asked], grid_of(evidence), smooth)
        if own and evidence.content is not None:
            design = design.with_content(evidence.content, own)
    return design, weights, y[asked]


def _candidates(
    design: Design, weights: dict[Kernel, float], y: Float64[np.ndarray, "n o"], rng: np.random.Generator
) -> Float64[np.ndarray, "c g"]:
    """The top of draws from the posterior, of one target after the other; as masks in [0, 1]."""
    kernels = list(weights)
    share = np.array([weights[kernel] for kernel in kernels])
    drawn = rng.choice(len(kernels), size=NUM_CANDIDATES, p=share / share.sum())
    sets = [
        soft_set(posterior_draw(design, kernels[k], y[:, i % y.shape[1]], rng).reshape(design.grid), keep)
        for i, (k, keep) in enumerate(zip(drawn, rng.uniform(SMALLEST, LARGEST, NUM_CANDIDATES), strict=True))
    ]
    return np.stack(sets).reshape(len(sets), -1)


def posterior_draw(
    design: Design, kernel: Kernel, y: Float64[np.ndarray, " n"], rng: np.random.Generator
) -> Float64[np.ndarray, " g"]:
    """s* = u + B^T P (y - A u - e): a draw u from the prior, corrected by what the scores say of its error."""
    found = design.kernel_design(kernel)
    projected = found.basis.T @ y
    amp = float((projected**2 / (found.values + kernel.noise)).mean())
    u = found.covariance.draw(rng) * np.sqrt(amp / found.scale)
    error = y - design.centred @ u - np.sqrt(amp * kernel.noise) * rng.standard_normal(len(y))
    alpha = found.weights(found.basis.T @ error[:, None], kernel.noise)
    return np.asarray(u + found.posterior_mean(alpha)[0])
