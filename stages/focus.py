"""A second look: half of the map from a prior that is large where the first map is large.

A smooth prior spreads evidence over its length-scale, wherever it lies. Evidence is often in few places, so each
output's map is found once more under D K D, where the amplitude w(v) is the size of its first map: the step of FOCUSS
(Gorodnitsky & Rao 1997), which leads to maps that are small in most places. The second map has seen the scores twice,
so its own error bars are too short. It is therefore mixed with the first in equal parts, and where the two disagree
the map is unsure; leave-one-out predictions, and with them the verdict, stay those of the first.

Every output has an amplitude of its own: with one for all, F-NTC would show in the map of F-TC. The net map is the
difference of its two parts in the second look as well; of its variance the first look alone is asked.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from stages.gp import Design, Posterior
from stages.kernels import NOISES, Kernel, with_floor
from stages.records import OUTPUTS

# The amplitude brings the detail, so one length-scale does.
FOCUS_KERNELS = tuple(Kernel(0.5, 0.15, noise, is_scaled=True) for noise in NOISES)
# A map no larger than this share of the scores is their rounding.
ROUNDING = 1e-12
Z_T, LSE_N, NET = (OUTPUTS.index(name) for name in ("z_t", "lse_n", "log_odds"))


def focused(design: Design, y: Float64[np.ndarray, "n o"], first: Posterior) -> Posterior:
    """`first` with half of its mean and variance from the second look. Outputs begin as in `records.OUTPUTS`.

    A prior map is not given again: where it was taken, the first map is large where it is.
    """
    mean, var = first.mean.copy(), first.var.copy()
    shown = np.abs(first.mean).max(1) > ROUNDING * np.abs(y).max(0)
    for o in np.flatnonzero(shown):
        if o != NET:
            second = design.scaled(with_floor(np.abs(first.mean[o])), FOCUS_KERNELS).posterior(y[:, [o]])
            mean[o], var[o] = second.mean[0], second.var[0]
    if shown[[Z_T, LSE_N]].any():
        mean[NET] = mean[Z_T] - mean[LSE_N]
    return replace(first, mean=(first.mean + mean) / 2, var=(first.var + var) / 2 + ((first.mean - mean) / 2) ** 2)
