"""How far a map can be trusted: held-out skill, coverage, and the verdict (docs/method.md, 3).

In: the scores of masks, and an estimate's leave-one-out predictions of them. Nothing here looks at the map itself.
"""

import numpy as np
from jaxtyping import Float64
from scipy.stats import norm

from stages.estimators import Estimate
from stages.records import Fidelity

INTERVAL = 0.90
# A map is reliable when it predicts held-out masks better than the keep-fraction alone does, by this share of the
# squared error, and when the evidence for it over no map is this strong (natural logarithm of the Bayes factor).
MIN_SKILL = 0.02
MIN_LOG_BAYES = 5.0
# Scores further from the trend than this many robust standard deviations are drawn in before the verdict is given.
OUTLIER_STD = 3.0
# Scores that move less than this between masks carry nothing but rounding.
MIN_STD = 1e-5


def without_outliers(y: Float64[np.ndarray, "n o"], estimate: Estimate) -> Float64[np.ndarray, "n o"] | None:
    """The scores with those far from the trend in the keep-fraction drawn in to OUTLIER_STD; None where none is far.

    Robust standard deviation: 1.4826 times the median absolute deviation. Where that is nothing (most scores alike),
    the few that differ are what there is to explain, and stay.
    """
    residual = y - estimate.trend_loo
    middle = np.median(residual, axis=0)
    reach = OUTLIER_STD * 1.4826 * np.median(np.abs(residual - middle), axis=0)
    reach = np.where(reach > MIN_STD, reach, np.inf)
    drawn = np.clip(residual, middle - reach, middle + reach)
    return None if np.array_equal(drawn, residual) else np.asarray(estimate.trend_loo + drawn)


def fidelity(y: Float64[np.ndarray, " n"], estimate: Estimate, output: int) -> Fidelity:
    """Leave-one-out Q2, the coverage of the 90 % intervals, and the verdict on the map (docs/method.md, 3).

    Q2 counts what the keep-fraction alone explains; the verdict does not: the map itself must predict.
    """
    error = (y - estimate.loo_mean[:, output]) ** 2
    without_map = (y - estimate.trend_loo[:, output]) ** 2
    spread = float(((y - y.mean()) ** 2).sum())
    if y.std() < MIN_STD:
        return Fidelity(q2=0.0, coverage=1.0, is_reliable=False, skill=0.0, log_bayes=0.0)
    half = norm.ppf(0.5 + INTERVAL / 2) * np.sqrt(estimate.loo_var[:, output])
    skill = float(1 - error.sum() / max(float(without_map.sum()), 1e-300))
    log_bayes = float(estimate.log_bayes[output])
    return Fidelity(
        q2=float(1 - error.sum() / spread),
        coverage=float((np.sqrt(error) <= half).mean()),
        is_reliable=skill > MIN_SKILL and log_bayes > MIN_LOG_BAYES,
        skill=skill,
        log_bayes=log_bayes,
    )
