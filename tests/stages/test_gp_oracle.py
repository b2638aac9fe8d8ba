"""The cached path against an ordinary exact GP in GPyTorch: a kernel over mask rows, A1 K A2^T (docs/method.md, 3)."""

from dataclasses import replace

import gpytorch
import numpy as np
import pytest
import torch

from stages.gp import Design
from stages.kernels import LOST_SHARE, MIN_AMPLITUDE, Kernel

GRID = (3, 5, 4)
KERNEL = Kernel(0.4, 0.3, 0.2)
# The flat prior on the trend, as a variance so large that it is one to rounding.
FLAT_VAR = 1e7


class MaskKernel(gpytorch.kernels.Kernel):
    """k(a1, a2) = amp a1 K a2^T + v h1 h2^T: the voxels' Matern-3/2 seen through centred rows, and the trend.

    On content K is D K' D, with K' the leading eigenvectors along each axis and D the amplitude.
    """

    def __init__(self, amp: float, amplitude: np.ndarray | None) -> None:
        super().__init__()
        axes = []
        for size, scale in zip(GRID, (KERNEL.time, KERNEL.space, KERNEL.space), strict=True):
            matern = gpytorch.kernels.MaternKernel(nu=1.5).double()
            matern.lengthscale = scale
            at = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) / size
            axes.append(matern(at).to_dense().detach())
        if amplitude is not None:
            axes = [leading(axis) for axis in axes]
        self.voxels = amp * torch.kron(torch.kron(axes[0], axes[1]), axes[2])
        if amplitude is not None:
            self.voxels = self.voxels * torch.from_numpy(np.outer(amplitude, amplitude))

    def forward(self, x1, x2, diag=False, **params):
        """Inputs: a centred row, or a one-hot voxel, beside the trend's three regressors (0 for voxels)."""
        (a1, h1), (a2, h2) = (x.split([60, 3], dim=-1) for x in (x1, x2))
        cov = a1 @ self.voxels @ a2.mT + FLAT_VAR * h1 @ h2.mT
        return cov.diagonal(dim1=-2, dim2=-1) if diag else cov


def leading(axis: torch.Tensor) -> torch.Tensor:
    """The fewest eigenvectors that hold all but LOST_SHARE of the variance."""
    left, values, right = torch.linalg.svd(axis)
    rank = 1
    while values[:rank].sum() < (1 - LOST_SHARE) * values.sum():
        rank += 1
    return (left[:, :rank] * values[:rank]) @ right[:rank]


class MaskGP(gpytorch.models.ExactGP):
    """Saliency as an exact GP whose training inputs are masks and whose test inputs are voxels."""

    def __init__(self, inputs, y, likelihood, amp, amplitude):
        super().__init__(inputs, y, likelihood)
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = MaskKernel(amp, amplitude)

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_cached_path_is_an_exact_gp_over_mask_rows(seed, is_scaled):
    """At fixed hyper-parameters: amp and noise are those that the cached path found."""
    rng = np.random.default_rng(seed)
    rows = rng.random((24, 60))
    keep = rows.mean(1)
    y = 2 + 3 * keep + (rows - keep[:, None]) @ rng.standard_normal(60) + 0.1 * rng.standard_normal(24)
    kernel, amplitude = replace(KERNEL, is_scaled=is_scaled), None
    design = Design(rows, GRID, [] if is_scaled else [kernel])
    if is_scaled:
        content = rng.integers(0, 256, GRID).astype(np.uint8)
        design = design.with_content(content, [kernel])
        amplitude = (content.ravel() / 255.0) ** 2
        amplitude = amplitude + MIN_AMPLITUDE * amplitude.mean()
        amplitude = amplitude / np.sqrt((amplitude**2).mean())
    found = design.posterior(y[:, None])
    kernel_design = design.kernel_design(kernel)
    projected = kernel_design.basis.T @ y
    amp = float((projected**2 / (kernel_design.values + KERNEL.noise)).mean())

    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.GreaterThan(1e-12))
    likelihood = likelihood.double()
    likelihood.noise = amp * KERNEL.noise
    # Only the span of the trend matters where its prior is flat.
    masks = np.hstack([design.centred, np.linalg.qr(design.trend)[0]])
    voxels = np.hstack([np.eye(60), np.zeros((60, 3))])
    model = MaskGP(
        torch.from_numpy(masks), torch.from_numpy(y), likelihood, amp / kernel_design.scale, amplitude
    ).double()
    model.eval()
    with torch.no_grad(), gpytorch.settings.max_cholesky_size(2000), gpytorch.settings.fast_computations(*[False] * 3):
        posterior = model(torch.from_numpy(voxels))
        mean, var = posterior.mean.numpy(), posterior.variance.numpy()
    np.testing.assert_allclose(found.mean[0], mean, atol=1e-6 * np.abs(mean).max())
    np.testing.assert_allclose(found.var[0], var, atol=1e-6 * var.max())
