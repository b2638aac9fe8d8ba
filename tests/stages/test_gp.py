"""The cached path against the book's formulas, and the laws a map must keep."""

import gpytorch
import numpy as np
import pytest
import torch
from scipy.linalg import solve
from scipy.stats import multivariate_normal

from stages.errors import NumericsError
from stages.gp import Design
from stages.kernels import Kernel, kron_apply, matern32

GRID = (3, 5, 4)


@pytest.fixture
def rows():
    return np.random.default_rng(0).random((24, 60))


def dense_kernel(kernel: Kernel) -> np.ndarray:
    return np.kron(np.kron(matern32(3, kernel.time), matern32(5, kernel.space)), matern32(4, kernel.space))


def dense_model(rows: np.ndarray, kernel: Kernel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trend, centred rows and the scaled voxel covariance, written out."""
    keep = rows.mean(1)
    centred = rows - keep[:, None]
    prior = dense_kernel(kernel)
    prior /= np.trace(centred @ prior @ centred.T) / len(rows)
    return np.vander(keep - 0.5, 3, increasing=True), centred, prior


def test_matern_is_gpytorch_s():
    at = torch.linspace(0.5 / 7, 6.5 / 7, 7, dtype=torch.float64)[:, None]
    kernel = gpytorch.kernels.MaternKernel(nu=1.5).double()
    kernel.lengthscale = 0.3
    np.testing.assert_allclose(matern32(7, 0.3), kernel(at).to_dense().detach().numpy(), atol=1e-7)


def test_kronecker_product_is_the_dense_one(rows):
    kernel = Kernel(0.4, 0.3, 0.1)
    factors = (matern32(3, 0.4), matern32(5, 0.3), matern32(4, 0.3))
    np.testing.assert_allclose(kron_apply(factors, rows, GRID), rows @ dense_kernel(kernel), rtol=1e-12)


def test_posterior_is_the_universal_kriging_of_the_book(rows):
    """Dense Rasmussen & Williams (2.41-2.42) with an explicit trend, amp profiled."""
    kernel = Kernel(0.4, 0.3, 0.2)
    y = np.random.default_rng(1).standard_normal((24, 2))
    found = Design(rows, GRID, [kernel]).posterior(y)

    trend, centred, prior = dense_model(rows, kernel)
    cov = centred @ prior @ centred.T + kernel.noise * np.eye(24)
    inv = np.linalg.inv(cov)
    projected = inv - inv @ trend @ solve(trend.T @ inv @ trend, trend.T @ inv)
    amp = np.einsum("no,nm,mo->o", y, projected, y) / (24 - 3)
    cross = prior @ centred.T
    np.testing.assert_allclose(found.mean, (cross @ projected @ y).T, atol=1e-9)
    var = np.diag(prior - cross @ projected @ cross.T)
    np.testing.assert_allclose(found.var, amp[:, None] * var[None], atol=1e-9)


def test_leave_one_out_is_what_leaving_one_out_gives(rows):
    kernel = Kernel(0.4, 0.3, 0.2)
    y = np.random.default_rng(2).standard_normal((24, 1))
    found = Design(rows, GRID, [kernel]).posterior(y)
    trend, centred, prior = dense_model(rows, kernel)
    for left_out in (0, 7, 23):
        others = np.arange(24) != left_out
        a, h = centred[others], trend[others]
        inv = np.linalg.inv(a @ prior @ a.T + kernel.noise * np.eye(23))
        coefficients = solve(h.T @ inv @ h, h.T @ inv @ y[others])
        expected = trend[left_out] @ coefficients + centred[left_out] @ prior @ a.T @ inv @ (
            y[others] - h @ coefficients
        )
        np.testing.assert_allclose(found.loo_mean[left_out], expected, atol=1e-8)


def test_likelihood_prefers_the_kernel_that_made_the_data():
    rng = np.random.default_rng(3)
    grid, rows = (1, 12, 12), rng.random((150, 144))
    short, long = Kernel(1.0, 0.05, 0.1), Kernel(1.0, 0.6, 0.1)
    for truth, other in ((short, long), (long, short)):
        prior = np.kron(matern32(12, truth.space), matern32(12, truth.space))
        saliency = multivariate_normal(cov=prior, allow_singular=True).rvs(random_state=4)
        y = (rows - rows.mean(1, keepdims=True)) @ saliency
        y = y + 0.1 * y.std() * rng.standard_normal(150)
        weights = Design(rows, grid, [truth, other]).posterior(y[:, None]).kernel_weights
        assert weights[truth] > 0.9


def test_outputs_that_are_sums_have_maps_that_are_sums(rows):
    y = np.random.default_rng(5).standard_normal((24, 2))
    found = Design(rows, GRID).posterior(np.column_stack([y, y[:, 0] - y[:, 1]]))
    np.testing.assert_allclose(found.mean[2], found.mean[0] - found.mean[1], atol=1e-9)


def test_the_keep_fraction_does_not_leak_into_the_map(rows):
    keep = rows.mean(1)
    y = (5 + 40 * keep - 30 * keep**2)[:, None]
    found = Design(rows, GRID).posterior(y)
    assert np.abs(found.mean).max() < 1e-6


def test_order_of_masks_does_not_matter(rows):
    y = np.random.default_rng(6).standard_normal((24, 1))
    order = np.random.default_rng(7).permutation(24)
    straight, shuffled = Design(rows, GRID).posterior(y), Design(rows[order], GRID).posterior(y[order])
    np.testing.assert_allclose(shuffled.mean, straight.mean, atol=1e-9)
    np.testing.assert_allclose(shuffled.loo_mean, straight.loo_mean[order], atol=1e-9)


def test_too_few_masks_are_refused():
    with pytest.raises(NumericsError, match="cannot carry a map"):
        Design(np.random.default_rng(0).random((4, 60)), GRID)
