"""What the fitted Gaussian process says of masks that it has never seen: mean and variance of their scores.

In: the masks and scores of a fit, its mixture of kernels, fresh masks. Out: a prediction for every fresh mask and
output. These are the equations of universal kriging with dense matrices, written without the short cuts of
`stages/gp.py` (Rasmussen & Williams 2006, section 2.7), so that the two can be checked against each other.
"""

from collections.abc import Mapping

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from stages.gp import TREND_DEGREE
from stages.kernels import Covariance, Grid, Kernel, Scaled, Smooth, amplitude_of


def predict(
    rows: np.ndarray,  # n g, the masks that were asked
    y: np.ndarray,  # n o
    fresh: np.ndarray,  # m g
    grid: Grid,
    kernel_weights: Mapping[Kernel, float],
    content: np.ndarray | None = None,  # gt gh gw, of the clip
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (m o each) of the scores of fresh masks, noise included."""
    trend, new_trend = _trend(rows), _trend(fresh)
    centred, new = rows - rows.mean(1, keepdims=True), fresh - fresh.mean(1, keepdims=True)
    mean = np.zeros((len(fresh), y.shape[1]))
    second = np.zeros_like(mean)
    for kernel, weight in kernel_weights.items():
        covariance = _covariance(kernel, grid, content)
        gram = covariance.expand(covariance.features(centred)) @ centred.T
        scale = np.trace(gram) / len(gram)
        seen = covariance.expand(covariance.features(new))
        cross, own = seen @ centred.T / scale, (seen * new).sum(1) / scale
        factor = cho_factor(gram / scale + kernel.noise * np.eye(len(gram)), lower=True)
        weighted_trend = cho_solve(factor, trend)
        information = trend.T @ weighted_trend
        beta = np.linalg.solve(information, weighted_trend.T @ y)
        residual = y - trend @ beta
        alpha = cho_solve(factor, residual)
        amp = np.maximum((residual * alpha).sum(0), 1e-300) / (len(y) - trend.shape[1])
        unsure = new_trend - cross @ weighted_trend  # what the trend's own uncertainty adds
        unit = own - (cross * cho_solve(factor, cross.T).T).sum(1) + kernel.noise
        unit += (unsure * np.linalg.solve(information, unsure.T).T).sum(1)
        found = new_trend @ beta + cross @ alpha
        mean += weight * found
        second += weight * (found**2 + np.maximum(unit, 0)[:, None] * amp)
    return mean, np.maximum(second - mean**2, 1e-300)


def _covariance(kernel: Kernel, grid: Grid, content: np.ndarray | None) -> Covariance:
    time = kernel.time if grid[0] > 1 else 1.0
    if not kernel.is_scaled:
        return Smooth(grid, time, kernel.space)
    assert content is not None, "a kernel on content needs it"
    return Scaled(grid, time, kernel.space, amplitude_of(content))


def _trend(rows: np.ndarray) -> np.ndarray:
    return np.vander(rows.mean(1) - 0.5, TREND_DEGREE + 1, increasing=True)
