"""The map as a Gaussian process seen through masks (docs/method.md, 3).

Saliencies s on the voxel grid have the prior GP(0, amp K), with K from a list of covariances (`kernels.py`). A mask
row a_n gives y_n = m(k_n) + (a_n - k_n) . s + e_n, with k_n the keep-fraction and m(k) = b + c1 k + c2 k^2 under a flat
prior, so that *how much* is kept does not leak into *where*. amp is profiled out of the restricted likelihood.

What depends on the masks alone (`Design`) is computed once for a shared bank; the few kernels that follow a clip's
content are added to it for that clip (`Design.with_content`). A map is then some small products, all in float64.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8
from scipy.special import logsumexp

from stages.directions import LOG_ODDS, TAUS, Direction, PriorMap, prior_map
from stages.errors import NumericsError
from stages.factorised import KernelDesign
from stages.kernels import (
    CONTENT_KERNELS,
    DEFAULT_KERNELS,
    Covariance,
    Grid,
    Kernel,
    KernelEvidence,
    Scaled,
    Smooth,
    amplitude_of,
    known_of,
)

# A kernel whose weight is below this share of the mixture changes nothing that can be seen.
MIN_WEIGHT = 1e-3
TREND_DEGREE = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Posterior:
    """The mixture over kernels for several outputs at once; `loo_*` are leave-one-out predictions of y."""

    mean: Float64[np.ndarray, "o g"]
    var: Float64[np.ndarray, "o g"]
    loo_mean: Float64[np.ndarray, "n o"]
    loo_var: Float64[np.ndarray, "n o"]
    trend_loo: Float64[np.ndarray, "n o"]  # of the trend in the keep-fraction alone, without a map
    log_bayes: Float64[np.ndarray, " o"]  # log evidence for a map over no map (the trend and noise alone)
    kernel_weights: dict[Kernel, float]
    kernel_evidence: dict[Kernel, float]  # log evidence of these scores alone, all outputs together
    prior_weight: float = 0.0  # posterior odds share of kernels that use the prior map
    prior_beta: tuple[float, ...] = ()  # the factor it enters each output with, averaged over the mixture


_Key = tuple[float, float, bool]  # length-scales in time and space, scaled by an amplitude or not
Option = tuple[Kernel, float]  # a kernel, and tau: how much of the prior map it may use


class Design:
    """Everything that depends on the masks alone, for a list of kernels; shared by all clips of a bank."""

    def __init__(
        self, rows: Float64[np.ndarray, "n g"], grid: Grid, kernels: Sequence[Kernel] = DEFAULT_KERNELS
    ) -> None:
        self.grid = grid
        keep = rows.mean(1)
        self.trend = np.vander(keep - 0.5, TREND_DEGREE + 1, increasing=True)
        if len(rows) <= self.trend.shape[1] + 1:
            raise NumericsError("budget", f"{len(rows)} masks cannot carry a map", "raise --budget to 16 or more")
        self.centred = rows - keep[:, None]
        orthogonal, _ = np.linalg.qr(self.trend, mode="complete")
        self._complement = orthogonal[:, self.trend.shape[1] :]  # Q: N x (N - p)
        # Two kernels that differ in time alone are one and the same on a still picture.
        self.kernels = self._distinct(kernels)
        self._amplitude = np.ones(rows.shape[1])
        self._shared: Design | None = None
        self._designs: dict[_Key, KernelDesign] = {}
        self._var: dict[Kernel, Float64[np.ndarray, " g"]] = {}
        hat = self.trend @ np.linalg.pinv(self.trend)
        self._trend_residual = (np.eye(len(rows)) - hat) / (1 - np.diag(hat))[:, None]

    def with_content(
        self, content: UInt8[np.ndarray, "gt gh gw"], kernels: Iterable[Kernel] = CONTENT_KERNELS
    ) -> "Design":
        """The design for one clip: this one's kernels, shared and not computed again, and those on its content."""
        found = self.scaled(amplitude_of(content), (*self.kernels, *kernels))
        found._shared = self
        return found

    def scaled(self, amplitude: Float64[np.ndarray, " g"], kernels: Iterable[Kernel]) -> "Design":
        """The same masks under kernels that are scaled by an amplitude w(v), whose mean square is 1."""
        found = copy(self)
        found.kernels, found._amplitude = self._distinct(kernels), amplitude
        found._shared, found._designs, found._var = None, {}, {}
        return found

    def kernel_design(self, kernel: Kernel) -> KernelDesign:
        """The factorisation for a kernel's length-scales, made when first asked for."""
        if self._shared is not None and not kernel.is_scaled:
            return self._shared.kernel_design(kernel)
        key = self._key(kernel)
        if key not in self._designs:
            time, space, _ = key
            covariance: Covariance = (
                Scaled(self.grid, time, space, self._amplitude) if kernel.is_scaled else Smooth(self.grid, time, space)
            )
            self._designs[key] = KernelDesign(self.centred, self._complement, covariance)
        return self._designs[key]

    def posterior(
        self,
        y: Float64[np.ndarray, "n o"],
        prior: Float64[np.ndarray, " g"] | None = None,
        kernel_evidence: KernelEvidence | None = None,
    ) -> Posterior:
        """Map, variance and leave-one-out predictions of all outputs, mixed over kernels by marginal likelihood.

        `prior` is an initial map of any scale and sign, or None. `kernel_evidence` of other clips counts in the weights
        of the kernels, and not in the verdict on this clip. All outputs share one set of kernel weights (that of
        their summed likelihood), so that the maps of outputs that are sums of others are the sums of their maps:
        net = s_TC - s_NTC holds to rounding.
        """
        found = None if prior is None else prior_map(self.centred, prior)
        options, log_odds = self._options(found)
        log_likelihood = self._log_likelihoods(y, options, found)
        found_here = log_likelihood.sum(1) + log_odds
        elsewhere = known_of(kernel_evidence or {}, tuple(kernel for kernel, _ in options))
        weights = _weights(options, found_here + elsewhere)
        mean = np.zeros((y.shape[1], self.centred.shape[1]))
        second = np.zeros_like(mean)
        loo_mean, loo_second = np.zeros_like(y), np.zeros_like(y)
        beta = np.zeros(y.shape[1])
        for (kernel, tau), weight in weights.items():
            design = self.kernel_design(kernel)
            projected = design.basis.T @ y
            quadratic = (projected**2 / (design.values + kernel.noise)[:, None]).sum(0)
            alpha = design.weights(projected, kernel.noise)
            kernel_mean = design.posterior_mean(alpha)
            unit_var = self._unit_var(kernel)
            precision = design.precision_diagonal(kernel.noise)[:, None]
            if tau and found is not None:
                direction = Direction(design.basis, design.values + kernel.noise, found.seen)
                tau = tau / design.scale
                factor, row = direction.beta(projected, tau), direction.weights()
                # h less what the kernel makes of h's own scores: the only part of h that is news.
                residual = found.h - design.posterior_mean(row[:, None])[0]
                kernel_mean = kernel_mean + factor[:, None] * residual[None]
                unit_var = unit_var + direction.shrinkage(tau) * residual**2
                quadratic = quadratic - direction.quadratic(projected, tau)
                alpha = alpha - row[:, None] * factor[None]
                precision = precision - direction.shrinkage(tau) * row[:, None] ** 2
                beta += weight * factor
            amp = quadratic / len(projected)
            mean += weight * kernel_mean
            second += weight * (kernel_mean**2 + amp[:, None] * unit_var[None])
            predicted = y - alpha / precision
            loo_mean += weight * predicted
            loo_second += weight * (predicted**2 + amp / precision)
        return Posterior(
            mean=mean,
            var=np.maximum(second - mean**2, 0.0),
            loo_mean=loo_mean,
            loo_var=np.maximum(loo_second - loo_mean**2, 1e-300),
            trend_loo=y - self._trend_residual @ y,
            log_bayes=logsumexp(log_likelihood + log_odds[:, None], axis=0) - self._log_likelihood_of_trend(y),
            kernel_weights={
                kernel: sum(weight for (other, _), weight in weights.items() if other == kernel)
                for kernel, _ in weights
            },
            kernel_evidence=dict(
                zip(self.kernels, logsumexp(found_here.reshape(len(self.kernels), -1), axis=1).tolist(), strict=True)
            ),
            prior_weight=sum(weight for (_, tau), weight in weights.items() if tau),
            prior_beta=() if found is None else tuple(float(factor) for factor in beta),
        )

    def _options(self, prior: PriorMap | None) -> tuple[list[Option], Float64[np.ndarray, " options"]]:
        """What is mixed, and the log odds of each before anything was scored."""
        taus, log_odds = ((0.0,), np.zeros(1)) if prior is None else (TAUS, LOG_ODDS)
        options = [(kernel, tau) for kernel in self.kernels for tau in taus]
        return options, np.tile(log_odds, len(self.kernels)) - np.log(len(self.kernels))

    def _log_likelihoods(
        self, y: Float64[np.ndarray, "n o"], options: Sequence[Option], prior: PriorMap | None
    ) -> Float64[np.ndarray, "options o"]:
        projected = {self._key(kernel): self.kernel_design(kernel).basis.T @ y for kernel in self.kernels}
        found = []
        for kernel, tau in options:
            design, seen = self.kernel_design(kernel), projected[self._key(kernel)]
            likelihood = design.log_likelihood(seen, kernel.noise)
            if tau and prior is not None:
                direction = Direction(design.basis, design.values + kernel.noise, prior.seen)
                likelihood = likelihood + direction.gain(seen, tau / design.scale)
            found.append(likelihood)
        return np.array(found)

    def _log_likelihood_of_trend(self, y: Float64[np.ndarray, "n o"]) -> Float64[np.ndarray, " o"]:
        """Restricted log likelihood, up to the same constant, when the map is nothing and all else is noise."""
        projected = self.kernel_design(self.kernels[0]).basis.T @ y
        return np.asarray(-0.5 * len(projected) * np.log(np.maximum((projected**2).mean(0), 1e-300)))

    def _unit_var(self, kernel: Kernel) -> Float64[np.ndarray, " g"]:
        if self._shared is not None and not kernel.is_scaled:
            return self._shared._unit_var(kernel)
        if kernel not in self._var:
            same = [k for k in self.kernels if self._key(k) == self._key(kernel)]
            found = self.kernel_design(kernel).posterior_vars([k.noise for k in same])
            self._var.update(zip(same, found, strict=True))
        return self._var[kernel]

    def _distinct(self, kernels: Iterable[Kernel]) -> tuple[Kernel, ...]:
        return tuple({(self._key(kernel), kernel.noise): kernel for kernel in kernels}.values())

    def _key(self, kernel: Kernel) -> _Key:
        """What tells covariances apart on this grid: a still picture has no time."""
        return (kernel.time if self.grid[0] > 1 else 1.0, kernel.space, kernel.is_scaled)


def _weights(options: Sequence[Option], log_likelihood: Float64[np.ndarray, " options"]) -> dict[Option, float]:
    """Posterior weights of the options; those that would change nothing are left out."""
    weights = np.exp(log_likelihood - log_likelihood.max())
    weights /= weights.sum()
    kept = {option: float(w) for option, w in zip(options, weights, strict=True) if w > MIN_WEIGHT}
    total = sum(kept.values())
    return {option: weight / total for option, weight in kept.items()}
