"""The covariance of mask scores under one kernel, factorised once for all clips of a bank (docs/method.md, 3).

In: mask rows, centred, and a covariance of voxels. Out: likelihoods, posterior means and variances, leave-one-out
precisions, for any noise ratio, by products. All in float64.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from scipy.linalg import LinAlgError, eigh, qr

from stages.errors import NumericsError
from stages.kernels import Covariance

# Posterior variance is a difference of like numbers; this much below zero is rounding.
VARIANCE_ROUNDING = 1e-8


class KernelDesign:
    """One covariance of voxels over one set of mask rows, for every noise ratio.

    In the space orthogonal to the trend (a basis Q with Q^T H = 0), Q^T A K A^T Q is diagonalised once, so any noise
    ratio r costs O(N) afterwards. Neither K nor B = A K is kept: a map is K (A^T alpha).
    """

    def __init__(
        self, centred: Float64[np.ndarray, "n g"], complement: Float64[np.ndarray, "n m"], covariance: Covariance
    ) -> None:
        self.covariance = covariance
        self.seen = covariance.features(centred)
        is_narrow = covariance.has_roots and self.seen.shape[1] < complement.shape[1]
        gram = None if is_narrow else covariance.gram(self.seen)
        # K is scaled so that a mask sees unit variance on average: then `noise` means the same for every kernel.
        self.scale = float((self.seen**2).sum() if gram is None else np.trace(gram)) / len(centred)
        if not np.isfinite(self.scale) or self.scale <= 0:
            raise NumericsError("masks", "they all look alike to the kernel", "use more masks or another mask family")
        try:
            if gram is None:
                values, vectors = _diagonalise_root(complement.T @ self.seen / np.sqrt(self.scale))
            else:
                values, vectors = eigh(complement.T @ (gram / self.scale) @ complement)
        except LinAlgError as error:
            raise NumericsError(
                "masks", f"their covariance cannot be factorised ({error})", "use other masks"
            ) from error
        self.values = np.maximum(values, 0.0)
        self.basis = complement @ vectors  # U: N x (N - p), U^T H = 0

    def log_likelihood(self, projected: Float64[np.ndarray, "m o"], noise: float) -> Float64[np.ndarray, " o"]:
        """Restricted log likelihood of U^T y for each output, amp at its maximum, up to a constant (R&W eq. 2.45)."""
        spectrum = self.values + noise
        dof = len(spectrum)
        quadratic = np.maximum((projected**2 / spectrum[:, None]).sum(0), 1e-300)
        return np.asarray(-0.5 * dof * np.log(quadratic / dof) - 0.5 * np.log(spectrum).sum())

    def weights(self, projected: Float64[np.ndarray, "m o"], noise: float) -> Float64[np.ndarray, "n o"]:
        """alpha = P y, where P is the inverse covariance with the trend projected out."""
        return np.asarray(self.basis @ (projected / (self.values + noise)[:, None]))

    def precision_diagonal(self, noise: float) -> Float64[np.ndarray, " n"]:
        """diag P: leave-one-out residuals are (P y)_n / P_nn, their variances amp / P_nn (R&W eq. 5.12)."""
        return np.asarray((self.basis**2 / (self.values + noise)).sum(1))

    def posterior_mean(self, alpha: Float64[np.ndarray, "n o"]) -> Float64[np.ndarray, "o g"]:
        """K A^T alpha."""
        return self.covariance.expand(alpha.T @ self.seen) / self.scale

    def posterior_vars(self, noises: Sequence[float]) -> list[Float64[np.ndarray, " g"]]:
        """diag(K - K A^T P A K) for unit amp, for several noise ratios at once: O(N^2 G)."""
        cross = self.covariance.expand(self.basis.T @ self.seen) / self.scale  # U^T B
        cross *= cross
        prior = self.covariance.variance / self.scale
        found = []
        for noise in noises:
            var = prior - (1.0 / (self.values + noise)) @ cross
            if float(var.min()) < -VARIANCE_ROUNDING * float(prior.max()):
                raise NumericsError("posterior variance", f"{var.min():.2e} is below zero", "raise the kernel's noise")
            found.append(np.maximum(var, 0.0))
        return found


def _diagonalise_root(
    root: Float64[np.ndarray, "m r"],
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, "m m"]]:
    """Eigenvalues and eigenvectors of R R^T for a narrow R: those of the small r x r, and what is orthogonal to R."""
    rank = root.shape[1]
    vectors, triangle = qr(root)
    small, turn = eigh(triangle[:rank] @ triangle[:rank].T)
    vectors[:, :rank] = vectors[:, :rank] @ turn
    return np.concatenate([small, np.zeros(len(root) - rank)]), vectors
