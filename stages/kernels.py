"""What is believed of a map before anything is scored: how smooth it is, and where there is anything to hide.

`Smooth` is K = K_t (x) K_y (x) K_x, Matern-3/2 along each axis. `Scaled` is D K D: the map is a smooth field times
an amplitude w(v): how much hiding a voxel can change at all (`content.py`), or in a second look the size of the first
map (`focus.py`). w has no sign, so it can make no evidence, for or against; it only says where evidence may lie.

Both act on rows over the grid through `features`; neither forms a matrix over all voxels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from jaxtyping import Float64, UInt8
from scipy.special import logsumexp

Grid = tuple[int, int, int]

# Below D K D, the share of K's variance that is left out along each axis: what is finer than any mask.
LOST_SHARE = 0.02
# Where nothing is known to matter something still may: this share of the mean amplitude.
MIN_AMPLITUDE = 0.05
# Added to the variance of a drawn field, so that long length-scales can be factorised.
JITTER = 1e-9


@dataclass(frozen=True, slots=True)
class Kernel:
    """Matern-3/2 along each axis; length-scales are shares of the clip's duration and of the picture's sides.

    `noise` is the variance of e_n over the mean variance that the masks see of s; `is_scaled`: D K D.
    """

    time: float
    space: float
    noise: float
    is_scaled: bool = False


KernelEvidence = Mapping[Kernel, float]  # log evidence that scores gave for each

NOISES = (0.05, 0.3, 1.5)
# Short, medium and long in space; a few frames, half the clip and nearly static in time (wide lists win).
DEFAULT_KERNELS = tuple(
    Kernel(time, space, noise) for time in (0.1, 0.4, 2.0) for space in (0.08, 0.16, 0.32, 0.6) for noise in NOISES
)
# The amplitude brings the detail, so fewer scales do; they are factorised for every clip.
CONTENT_KERNELS = tuple(
    Kernel(time, space, noise, is_scaled=True) for time in (0.4, 2.0) for space in (0.16, 0.6) for noise in NOISES
)


def matern32(size: int, lengthscale: float) -> Float64[np.ndarray, "g g"]:
    """Matern-3/2 between the centres of `size` cells on [0, 1] (Rasmussen & Williams 2006, eq. 4.17)."""
    at = (np.arange(size) + 0.5) / size
    distance = np.sqrt(3.0) * np.abs(at[:, None] - at[None, :]) / lengthscale
    return np.asarray((1 + distance) * np.exp(-distance))


def kron_apply(
    factors: Sequence[Float64[np.ndarray, "_ _"]], rows: Float64[np.ndarray, "n g"], grid: Grid
) -> Float64[np.ndarray, "n h"]:
    """rows @ (F_t (x) F_y (x) F_x) by three small products: O(n G (Gt + Gh + Gw)). Factors may be narrow or wide."""
    gt, gh, gw = grid
    f_t, f_y, f_x = factors
    field = rows.reshape(-1, gt, gh, gw) @ f_x
    field = np.matmul(f_y.T, field)
    return np.asarray(np.matmul(f_t.T, field.reshape(len(field), gt, -1)).reshape(len(rows), -1))


class Covariance(Protocol):
    """A covariance of voxels K, as rows of masks see it. `has_roots`: A K A^T is F F^T with F the features of A."""

    has_roots: bool

    @property
    def variance(self) -> Float64[np.ndarray, " g"]:
        """diag K."""

    def features(self, rows: Float64[np.ndarray, "n g"]) -> Float64[np.ndarray, "n f"]:
        """What K sees of rows; linear in them."""

    def gram(self, features: Float64[np.ndarray, "n f"]) -> Float64[np.ndarray, "n n"]:
        """A K A^T for rows A given by their features."""

    def expand(self, features: Float64[np.ndarray, "n f"]) -> Float64[np.ndarray, "n g"]:
        """A K for rows A given by their features."""

    def draw(self, rng: np.random.Generator) -> Float64[np.ndarray, " g"]:
        """A field with this covariance."""


class Smooth:
    """K_t (x) K_y (x) K_x; the features of a row are the row itself."""

    has_roots = False

    def __init__(self, grid: Grid, time: float, space: float) -> None:
        self.grid = grid
        self.factors = tuple(matern32(size, scale) for size, scale in zip(grid, (time, space, space), strict=True))
        self.variance = np.ones(int(np.prod(grid)))

    def features(self, rows: Float64[np.ndarray, "n g"]) -> Float64[np.ndarray, "n g"]:
        """The rows themselves."""
        return rows

    def gram(self, features: Float64[np.ndarray, "n g"]) -> Float64[np.ndarray, "n n"]:
        """A K A^T: O(n^2 G)."""
        return np.asarray(self.expand(features) @ features.T)

    def expand(self, features: Float64[np.ndarray, "n g"]) -> Float64[np.ndarray, "n g"]:
        """A K, by one product along each axis."""
        return kron_apply(self.factors, features, self.grid)

    def draw(self, rng: np.random.Generator) -> Float64[np.ndarray, " g"]:
        """L z with L = L_t (x) L_y (x) L_x."""
        roots = [np.linalg.cholesky(factor + JITTER * np.eye(len(factor))).T for factor in self.factors]
        return np.asarray(kron_apply(roots, rng.standard_normal((1, len(self.variance))), self.grid)[0])


class Scaled:
    """D K D with K = F F^T, F = F_t (x) F_y (x) F_x the leading eigenvectors: a row has some hundred features."""

    has_roots = True

    def __init__(self, grid: Grid, time: float, space: float, amplitude: Float64[np.ndarray, " g"]) -> None:
        self.grid = grid
        self.amplitude = amplitude
        self.roots = tuple(_root(size, scale) for size, scale in zip(grid, (time, space, space), strict=True))
        squares = tuple((root**2).sum(1, keepdims=True).T for root in self.roots)
        self.variance = kron_apply(squares, np.ones((1, 1)), (1, 1, 1))[0] * amplitude**2

    def features(self, rows: Float64[np.ndarray, "n g"]) -> Float64[np.ndarray, "n f"]:
        """A D F."""
        return kron_apply(self.roots, rows * self.amplitude, self.grid)

    def gram(self, features: Float64[np.ndarray, "n f"]) -> Float64[np.ndarray, "n n"]:
        """A D F F^T D A^T: O(n^2 r)."""
        return np.asarray(features @ features.T)

    def expand(self, features: Float64[np.ndarray, "n f"]) -> Float64[np.ndarray, "n g"]:
        """A D F F^T D, by one product along each axis."""
        f_t, f_y, f_x = (root.T for root in self.roots)
        smooth = kron_apply((f_t, f_y, f_x), features, (len(f_t), len(f_y), len(f_x)))
        return np.asarray(smooth * self.amplitude)

    def draw(self, rng: np.random.Generator) -> Float64[np.ndarray, " g"]:
        """D F z."""
        num = int(np.prod([root.shape[1] for root in self.roots]))
        return np.asarray(self.expand(rng.standard_normal((1, num)))[0])


def added(so_far: KernelEvidence, own: KernelEvidence) -> KernelEvidence:
    """Log evidence of two sets of clips together."""
    kernels = tuple(dict.fromkeys((*so_far, *own)))
    sums = known_of(so_far, kernels) + known_of(own, kernels)
    return dict(zip(kernels, sums.tolist(), strict=True))


def known_of(log_evidence: KernelEvidence, kernels: tuple[Kernel, ...]) -> Float64[np.ndarray, " kernels"]:
    """The log evidence of `kernels`; for one that those clips did not have, that of their mixture: no opinion."""
    if not log_evidence:
        return np.zeros(len(kernels))
    mixture = float(logsumexp(list(log_evidence.values())) - np.log(len(log_evidence)))
    return np.array([log_evidence.get(kernel, mixture) for kernel in kernels])


def amplitude_of(content: UInt8[np.ndarray, "gt gh gw"]) -> Float64[np.ndarray, " g"]:
    """w(v) of `content_of`'s bytes."""
    return with_floor(np.square(content.reshape(-1) / 255.0))


def with_floor(size: Float64[np.ndarray, " g"]) -> Float64[np.ndarray, " g"]:
    """A size for every voxel, not all zero, as an amplitude: on average a voxel varies as it does under `Smooth`."""
    amplitude = size + MIN_AMPLITUDE * size.mean()
    return np.asarray(amplitude / np.sqrt((amplitude**2).mean()))


@lru_cache(maxsize=64)
def _root(size: int, lengthscale: float) -> Float64[np.ndarray, "g r"]:
    """V sqrt(lambda) of the leading eigenvectors of Matern-3/2, all but LOST_SHARE of its variance."""
    values, vectors = np.linalg.eigh(matern32(size, lengthscale))
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = min(int(np.searchsorted(np.cumsum(values), (1 - LOST_SHARE) * values.sum())) + 1, size)
    return np.asarray(vectors[:, :rank] * np.sqrt(np.maximum(values[:rank], 0)))
