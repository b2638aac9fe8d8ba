"""A prior map as one more direction of the Gaussian process: K + tau h h^T (docs/method.md, 3, "Prior maps").

h is an initial map from any method. It enters the posterior as beta h with beta fitted, and tau = 0 is always among the
choices, so that the marginal likelihood can refuse it. h is scaled to the variance that the kernel gives a voxel, not
to what masks see of it: a map too rough for masks to see could otherwise grow without limit. All of it is a rank-one
addition to what `factorised.py` has cached: O(N^2) for a clip and pair of length-scales; nothing is factorised again.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

# Mean square of beta h over the variance that the kernel gives to a voxel; 0 refuses it.
# Outputs that are sums of each other are counted as if they were independent, so chance finds more than it should.
PRIOR_ODDS = 0.005  # that a prior map is of use; a good one has a Bayes factor of many thousands
TAUS = (0.0, 0.3, 1.0, 3.0)
LOG_ODDS = np.log([1 - PRIOR_ODDS, *[PRIOR_ODDS / (len(TAUS) - 1)] * (len(TAUS) - 1)])
# A prior map that differs by less than this share of its largest value says nothing about where.
MIN_CONTRAST = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class PriorMap:
    """h with mean 0 and mean square 1, and what the masks see of it (centred rows times h)."""

    h: Float64[np.ndarray, " g"]
    seen: Float64[np.ndarray, " n"]


def prior_map(centred: Float64[np.ndarray, "n g"], h: Float64[np.ndarray, " g"]) -> PriorMap | None:
    """The prior as the masks see it; None where they see nothing of it, as of a constant."""
    size = float(np.abs(h).max(initial=0.0))
    h = h - h.mean()
    rms = float(np.sqrt((h**2).mean()))
    if not np.isfinite(rms) or rms <= MIN_CONTRAST * size:
        return None
    return PriorMap(h / rms, centred @ (h / rms))


class Direction:
    """A prior map beside one kernel: U, s = values + noise and g = U^T A h, with q = g^T s^-1 g."""

    def __init__(
        self,
        basis: Float64[np.ndarray, "n m"],
        spectrum: Float64[np.ndarray, " m"],
        seen: Float64[np.ndarray, " n"],
    ) -> None:
        self.basis = basis
        self.spectrum = spectrum
        self.solved = (basis.T @ seen) / spectrum
        self.information = float(self.solved**2 @ spectrum)

    def gain(self, projected: Float64[np.ndarray, "m o"], tau: float) -> Float64[np.ndarray, " o"]:
        """By how much the direction raises the restricted log likelihood; amp is at its maximum with and without."""
        dof = len(projected)
        without = np.maximum((projected**2 / self.spectrum[:, None]).sum(0), 1e-300)
        with_prior = np.maximum(without - self.quadratic(projected, tau), 1e-300)
        return np.asarray(0.5 * dof * np.log(without / with_prior) - 0.5 * np.log(1 + tau * self.information))

    def beta(self, projected: Float64[np.ndarray, "m o"], tau: float) -> Float64[np.ndarray, " o"]:
        """The posterior mean of the factor that h enters with, for each output."""
        return np.asarray(self.shrinkage(tau) * (self.solved @ projected))

    def quadratic(self, projected: Float64[np.ndarray, "m o"], tau: float) -> Float64[np.ndarray, " o"]:
        """What the direction takes from y^T P y."""
        return np.asarray(self.shrinkage(tau) * (self.solved @ projected) ** 2)

    def weights(self) -> Float64[np.ndarray, " n"]:
        """v = U s^-1 g: alpha loses beta v, and the precision becomes P - tau / (1 + tau q) v v^T."""
        return np.asarray(self.basis @ self.solved)

    def shrinkage(self, tau: float) -> float:
        """tau / (1 + tau q): the posterior variance of beta, for unit amp."""
        return tau / (1 + tau * self.information)
