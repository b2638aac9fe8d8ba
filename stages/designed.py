"""Which masks tell most: greedy reduction of the posterior variance (docs/method.md, 3).

One more mask a lowers the posterior variance by (K a)^2 / (sig2 + a^T K a), whatever its score turns out to be. So
masks can be put in an order before anything is scored, in which every prefix tells nearly as much as so many masks of
the pool can.
"""

import numpy as np
from jaxtyping import Float64, UInt8

from stages.kernels import Kernel, Smooth

# What is believed of a map before it is known: the middle of the list that the posterior weighs.
BELIEF = Kernel(time=0.4, space=0.16, noise=0.3)
# Gains that agree to so many digits are the same: machines that round otherwise hardly ever differ in the order.
DIGITS = 9


def most_telling(
    told: Float64[np.ndarray, "c g"],
    rows: Float64[np.ndarray, "c g"],
    importance: Float64[np.ndarray, " g"],
    noise: float,
    num: int,
) -> list[int]:
    """The `num` candidates that lower sum(importance * variance) most, one after the other.

    `rows`: the candidates, centred; `told`: K a for each of them, K in units of the variance that masks see; `noise`:
    the variance of a candidate's score in these units, half of one mask's where it is asked with its complement.
    """
    # Products of what candidates tell, and of what they see of each other. A chosen candidate takes from both what it
    # explains; that is kept as columns and subtracted where it is looked at: O(c num) a step.
    products, gram = (told * importance) @ told.T, told @ rows.T
    left, seen = np.diag(products).copy(), np.diag(gram).copy()
    explained, columns = np.empty((2, len(rows), num))
    scales = np.empty(num)
    chosen: list[int] = []
    for k in range(num):
        gain = left / (seen + noise)
        gain[chosen] = -np.inf
        best = int(np.round(gain / max(gain.max(), 1e-300), DIGITS).argmax())
        chosen.append(best)
        before, told_before, scale_before = explained[:, :k], columns[:, :k], scales[:k]
        scales[k] = seen[best] + noise
        explained[:, k] = gram[:, best] - before @ (before[best] * scale_before)
        explained[:, k] /= scales[k]
        columns[:, k] = products[:, best] - before @ told_before[best] - told_before @ before[best]
        columns[:, k] += before @ (before[best] * told_before[chosen[:k], np.arange(k)])
        left -= 2 * explained[:, k] * columns[:, k] - columns[best, k] * explained[:, k] ** 2
        seen -= scales[k] * explained[:, k] ** 2
    return chosen


def greedy_order(masks: UInt8[np.ndarray, "n gt gh gw"], num: int) -> list[int]:
    """The `num` masks that tell most of a smooth map, one after the other: more begin with fewer."""
    n, *grid = masks.shape
    rows = masks.reshape(n, -1) / 255.0
    rows = rows - rows.mean(1, keepdims=True)
    told = Smooth((grid[0], grid[1], grid[2]), BELIEF.time, BELIEF.space).expand(rows)
    scale = max(float((told * rows).sum(1).mean()), 1e-300)
    return most_telling(told / scale, rows, np.ones(rows.shape[1]), BELIEF.noise, num)
