"""From masks and scores to a map: the Gaussian process, RISE, centred RISE, occlusion, BOREx, behind one signature.

Every map is in score per voxel. The comparators know only relative importance; theirs is brought to that unit by the
one factor that makes it predict the scores best (least squares): ranks are untouched, units become comparable. Methods
whose maps are asked of the scorer have theirs in `asked_maps.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import logsumexp

from stages.borex import Answers, answers, refined_map, windows_of
from stages.designs import clip_design, grid_of, rows_of
from stages.errors import NumericsError
from stages.focus import focused
from stages.gp import Posterior
from stages.kernels import KernelEvidence
from stages.masks import Grid
from stages.records import OUTPUTS, Evidence

# Below this total weight a voxel was never asked about (RISE divides by it).
MIN_COVERAGE = 1e-6
# Scores that change by less than this with a voxel do not change: the rest is rounding.
MIN_SLOPE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """Maps and variances of all outputs (O x G), and leave-one-out predictions of the scores (N x O)."""

    grid: Grid
    mean: Float64[np.ndarray, "o g"]
    var: Float64[np.ndarray, "o g"]
    loo_mean: Float64[np.ndarray, "n o"]
    loo_var: Float64[np.ndarray, "n o"]
    trend_loo: Float64[np.ndarray, "n o"]  # what the keep-fraction alone predicts
    log_bayes: Float64[np.ndarray, " o"]  # log evidence for a map over no map
    details: dict[str, float | str]
    kernel_evidence: KernelEvidence = field(default_factory=dict)  # where the method has kernels


def regression_targets(
    scores: Float64[np.ndarray, "n k"], target: int, rivals: tuple[int, ...] = ()
) -> Float64[np.ndarray, "n o"]:
    """z_t, LSE_N and their difference, the log-odds (docs/method.md, eq. 1), then z of each named rival."""
    others = np.delete(scores, target, axis=1)
    z_t, lse_n = scores[:, target], logsumexp(others, axis=1)
    return np.stack([z_t, lse_n, z_t - lse_n, *(scores[:, rival] for rival in rivals)], axis=1)


def gaussian_process(
    evidence: Evidence, asked: Bool[np.ndarray, " n"], y: Float64[np.ndarray, "m o"], *, looks_twice: bool = True
) -> Estimate:
    """The default (docs/method.md, 3): a GP on the voxels, mixed over kernels, and a second look (`focus.py`).

    `asked` leaves out the anchors.
    """
    design = clip_design(evidence, asked)
    prior = prior_of(evidence)
    posterior = design.posterior(y, None if prior is None else prior.reshape(-1), evidence.kernel_evidence)
    if looks_twice:
        posterior = focused(design, y, posterior)
    best = max(posterior.kernel_weights, key=lambda kernel: posterior.kernel_weights[kernel])
    return Estimate(
        grid=design.grid,
        mean=posterior.mean,
        var=posterior.var,
        loo_mean=posterior.loo_mean,
        loo_var=posterior.loo_var,
        trend_loo=posterior.trend_loo,
        log_bayes=posterior.log_bayes,
        details={
            "kernel_time": best.time,
            "kernel_space": best.space,
            "kernel_noise": best.noise,
            "content_weight": sum(weight for kernel, weight in posterior.kernel_weights.items() if kernel.is_scaled),
            **_prior_details(posterior),
        },
        kernel_evidence=posterior.kernel_evidence,
    )


def rise(evidence: Evidence, asked: Bool[np.ndarray, " n"], y: Float64[np.ndarray, "m o"]) -> Estimate:
    """S(v) = sum_i f(x M_i) M_i(v) / sum_i M_i(v)   (RISE, Petsiuk et al. 2018, section 3; E[M] from the sample)."""
    rows = rows_of(evidence)[asked]
    return calibrated(rows, y, weighted_mean(rows, y), evidence)


def centred_rise(evidence: Evidence, asked: Bool[np.ndarray, " n"], y: Float64[np.ndarray, "m o"]) -> Estimate:
    """(A - mean A)^T (f - mean f): RISE without the offset that drowns it (docs/method.md, 4)."""
    rows = rows_of(evidence)[asked]
    return calibrated(rows, y, (y - y.mean(0)).T @ (rows - rows.mean(0)), evidence)


def occlusion(evidence: Evidence, asked: Bool[np.ndarray, " n"], y: Float64[np.ndarray, "m o"]) -> Estimate:
    """The mean drop of the score over the windows that hid a voxel (Zeiler & Fergus 2014), complements left out."""
    rows = rows_of(evidence)[asked]
    windows = rows.mean(1) > 0.5
    hidden = 1 - rows[windows]
    drop = weighted_mean(hidden, y[windows].mean(0) - y[windows])
    return calibrated(rows, y, drop, evidence)


def borex(evidence: Evidence, asked: Bool[np.ndarray, " n"], y: Float64[np.ndarray, "m o"]) -> Estimate:
    """BOREx as published (`stages/borex.py`): one map of p_t; outputs differ by the factor that fits them best."""
    told, seed = borex_answers(evidence, asked, y)
    if not len(told.y):
        raise NumericsError("budget", "no window was asked about", "raise --budget")
    found = refined_map(windows_of(grid_of(evidence)), told, prior_of(evidence), seed, evidence.clip_id)
    return by_factors(rows_of(evidence)[asked], y, found.reshape(-1), evidence)


def borex_answers(
    evidence: Evidence, asked: Bool[np.ndarray, " n"], y: Float64[np.ndarray, "m o"]
) -> tuple[Answers, int]:
    """The windows asked about so far, with what was answered, and the seed of the run."""
    ids = np.concatenate([masks.ids for masks in evidence.masks])
    rounds = np.repeat([masks.round_idx for masks in evidence.masks], [len(masks) for masks in evidence.masks])
    spec = evidence.masks[0].bank
    told = answers(ids[asked], rounds[asked], y[:, OUTPUTS.index("log_odds")])
    return told, 0 if spec is None else spec.seed


def prior_of(evidence: Evidence) -> Float64[np.ndarray, "gt gh gw"] | None:
    """The prior map of a clip, if any."""
    return None if evidence.prior is None else evidence.prior.astype(np.float64)


Estimator = Callable[[Evidence, np.ndarray, np.ndarray], Estimate]

ESTIMATORS: dict[str, Estimator] = {
    "gp": gaussian_process,
    "rise": rise,
    "centred-rise": centred_rise,
    "occlusion": occlusion,
    "borex": borex,
}


def _prior_details(posterior: Posterior) -> dict[str, float | str]:
    if not posterior.prior_beta:
        return {}
    return {"prior_weight": posterior.prior_weight, "prior_beta": posterior.prior_beta[OUTPUTS.index("log_odds")]}


def weighted_mean(weights: Float64[np.ndarray, "n g"], y: Float64[np.ndarray, "n o"]) -> Float64[np.ndarray, "o g"]:
    """Sum_i y_i w_i(v) / sum_i w_i(v) for every voxel and output: RISE's estimate where w are masks."""
    return np.asarray(y.T @ weights / np.maximum(weights.sum(0), MIN_COVERAGE))


def calibrated(
    rows: Float64[np.ndarray, "n g"],
    y: Float64[np.ndarray, "n o"],
    maps: Float64[np.ndarray, "o g"],
    evidence: Evidence,
    *,
    keeps_sign: Bool[np.ndarray, " o"] | None = None,  # None: all do
) -> Estimate:
    """Scale each map so that y = b + c k + beta A h fits best (k: keep-fraction); leave-one-out from the hat matrix.

    Without k, masks that keep much and their complements would decide the sign of beta. A map that predicts scores only
    when it is turned over is not turned over: it stays what its method says, and is never called reliable.
    """
    shape = maps.shape
    is_turned = np.zeros(shape[0], bool)
    centred_map = maps - maps.mean(1, keepdims=True)
    mean, var = np.zeros(shape), np.zeros(shape)
    loo_mean, loo_var = np.zeros_like(y), np.zeros_like(y)
    spread = np.maximum(((rows - rows.mean(0)) ** 2).sum(0), MIN_COVERAGE)
    for o in range(shape[0]):
        regressors = np.column_stack([np.ones(len(rows)), rows.mean(1), rows @ centred_map[o]])
        hat = regressors @ np.linalg.pinv(regressors)
        beta = np.linalg.lstsq(regressors, y[:, o], rcond=None)[0][2]
        is_turned[o] = beta < 0 and (keeps_sign is None or keeps_sign[o])
        residual = y[:, o] - hat @ y[:, o]
        leverage = np.clip(np.diag(hat), 0, 1 - 1e-9)
        noise = residual @ residual / max(len(rows) - 3, 1)
        mean[o] = (-beta if is_turned[o] else beta) * maps[o]
        # The standard error of a voxel's own weight, on the same scale as the calibrated map.
        slope = float(np.abs(_slopes(rows, y[:, o])).mean())
        per_voxel = float(np.abs(mean[o]).mean()) / slope if slope > MIN_SLOPE else 0.0
        var[o] = noise / spread * per_voxel**2
        loo_mean[:, o] = y[:, o] - residual / (1 - leverage)
        loo_var[:, o] = noise * (1 + leverage) + 1e-300
    keep = np.vander(rows.mean(1) - 0.5, 3, increasing=True)
    hat = keep @ np.linalg.pinv(keep)
    trend_loo = y - (y - hat @ y) / (1 - np.clip(np.diag(hat), 0, 1 - 1e-9))[:, None]
    # These methods have no likelihood: held-out Gaussian log densities stand in for it.
    gain = ((y - trend_loo) ** 2).mean(0) / np.maximum(((y - loo_mean) ** 2).mean(0), 1e-300)
    log_bayes = np.where(is_turned, 0.0, 0.5 * len(y) * np.log(np.maximum(gain, 1e-300)))
    return Estimate(
        grid=grid_of(evidence),
        mean=mean,
        var=var,
        loo_mean=loo_mean,
        loo_var=loo_var,
        trend_loo=trend_loo,
        log_bayes=log_bayes,
        details={},
    )


def by_factors(
    rows: Float64[np.ndarray, "n g"],
    y: Float64[np.ndarray, "n o"],
    values: Float64[np.ndarray, " g"],
    evidence: Evidence,
) -> Estimate:
    """One map of how probable the target is, for all outputs: they differ by the factor that fits each best."""
    maps = np.tile(values, (y.shape[1], 1))
    # What speaks for the target may well speak against others.
    follows = np.isin(np.arange(len(maps)), [OUTPUTS.index("z_t"), OUTPUTS.index("log_odds")])
    return calibrated(rows, y, maps, evidence, keeps_sign=follows)


def _slopes(rows: Float64[np.ndarray, "n g"], y: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " g"]:
    centred = rows - rows.mean(0)
    return np.asarray(centred.T @ (y - y.mean()) / np.maximum((centred**2).sum(0), MIN_COVERAGE))
