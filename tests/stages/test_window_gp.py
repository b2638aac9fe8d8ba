"""The kernel over windows is GPyTorch's, and fitting makes the answers likelier within the published bounds."""

import gpytorch
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from stages.window_gp import MAX_PX, MIN_PX, fit_lengthscales, matern32_at


def gpytorch_kernel(scales, *, is_product):
    if not is_product:
        kernel = gpytorch.kernels.MaternKernel(nu=1.5, ard_num_dims=len(scales)).double()
        kernel.lengthscale = torch.from_numpy(scales)
        return kernel
    kernels = [gpytorch.kernels.MaternKernel(nu=1.5, active_dims=(axis,)).double() for axis in range(len(scales))]
    for kernel, scale in zip(kernels, scales, strict=True):
        kernel.lengthscale = float(scale)
    return gpytorch.kernels.ProductKernel(*kernels)


@pytest.mark.parametrize("is_product", [False, True])
def test_the_lattice_s_covariance_is_gpytorch_s(is_product):
    rng = np.random.default_rng(0)
    axes, points, scales = [rng.random(n) * 40 for n in (4, 3, 2)], rng.random((5, 3)) * 40, np.array([12.0, 7.0, 3.0])
    tables = [axis.reshape([-1 if d == a else 1 for d in range(3)]) for a, axis in enumerate(axes)]
    found = matern32_at(tables, points, scales, is_product=is_product)
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    with torch.no_grad():
        kernel = gpytorch_kernel(scales, is_product=is_product)
        expected = kernel(torch.from_numpy(lattice), torch.from_numpy(points)).to_dense().numpy()
    np.testing.assert_allclose(found.reshape(-1, 5), expected, atol=1e-9)


@pytest.mark.parametrize("is_product", [False, True])
def test_fitting_makes_the_answers_likelier(is_product):
    rng = np.random.default_rng(1)
    num_axes = 6 if is_product else 3
    points = rng.random((30, num_axes)) * 40
    truth = np.full(num_axes, 18.0)
    columns = [points[:, axis] for axis in range(num_axes)]

    def likelihood(scales):
        cov = matern32_at(columns, points, scales, is_product=is_product) + 0.01 * np.eye(30)
        return multivariate_normal(cov=cov).logpdf(values)

    values = np.linalg.cholesky(
        matern32_at(columns, points, truth, is_product=is_product) + 0.01 * np.eye(30)
    ) @ rng.standard_normal(30)
    found = fit_lengthscales(points, values, is_product=is_product, noise_var=0.01)
    start = np.array([12.0] * (3 if is_product else 2) + [10.0] * (3 if is_product else 1))
    assert likelihood(found) > likelihood(start)
    assert ((found >= MIN_PX) & (found <= MAX_PX)).all()
