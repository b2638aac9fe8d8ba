"""The Gaussian process over windows that BOREx refits after every query (docs/method.md, 2, step 4).

Matern-3/2 with a length-scale for every axis: jointly over (r, c, s) for pictures, a product over the axes for videos.
Unit variance. GPyTorch fits the length-scales by marginal likelihood; predictions over a lattice are plain NumPy,
because GPyTorch would build the covariance of all windows.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64

MIN_PX, MAX_PX = 1.0, 20.0
START_PLACE_PX, START_SIZE_PX = 12.0, 10.0
NUM_STEPS, LEARNING_RATE = 20, 0.2


def fit_lengthscales(
    points: Float64[np.ndarray, "n d"], values: Float64[np.ndarray, " n"], *, is_product: bool, noise_var: float
) -> Float64[np.ndarray, " d"]:
    """Length-scales within [1, 20] px that make the values most likely, from (12, 12, 10) by 20 steps of Adam."""
    import gpytorch  # slow to import, and only this method needs it

    num_axes = points.shape[1]
    num_places = 3 if is_product else 2
    start = torch.tensor([START_PLACE_PX] * num_places + [START_SIZE_PX] * (num_axes - num_places)).double()
    kernels = [
        gpytorch.kernels.MaternKernel(
            nu=1.5,
            ard_num_dims=1 if is_product else num_axes,
            active_dims=(axis,) if is_product else None,
            lengthscale_constraint=gpytorch.constraints.Interval(MIN_PX, MAX_PX),
        ).double()
        for axis in range(num_axes if is_product else 1)
    ]
    for axis, kernel in enumerate(kernels):
        kernel.lengthscale = start[axis] if is_product else start
    kernel = gpytorch.kernels.ProductKernel(*kernels) if is_product else kernels[0]
    inputs, targets = torch.from_numpy(points), torch.from_numpy(values)
    prior_mean = torch.zeros(len(points), dtype=torch.float64)
    noise = noise_var * torch.eye(len(points), dtype=torch.float64)
    optimiser = torch.optim.Adam(kernel.parameters(), lr=LEARNING_RATE)
    for _ in range(NUM_STEPS):
        optimiser.zero_grad()
        cov = kernel(inputs).to_dense() + noise
        loss = -gpytorch.distributions.MultivariateNormal(prior_mean, cov).log_prob(targets)
        loss.backward()
        optimiser.step()
    found = torch.cat([kernel.lengthscale.detach().reshape(-1) for kernel in kernels])
    return np.asarray(found.numpy())


def matern32_at(
    tables: Sequence[Float64[np.ndarray, "..."]],
    points: Float64[np.ndarray, "n d"],
    scales: Float64[np.ndarray, " d"],
    *,
    is_product: bool,
) -> Float64[np.ndarray, "..."]:
    """Covariance with n points of the places whose coordinates the tables hold, one table per axis, broadcast."""
    distances = [
        np.sqrt(3.0) * np.abs(np.asarray(table)[..., None] - points[:, axis]) / scales[axis]
        for axis, table in enumerate(tables)
    ]
    if is_product:
        parts = [(1 + distance) * np.exp(-distance) for distance in distances]
        found = parts[0]
        for part in parts[1:]:
            found = found * part
        return np.asarray(found)
    distance = np.sqrt(sum(distance**2 for distance in distances))
    return np.asarray((1 + distance) * np.exp(-distance))
