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
    """The `num` candidates that lower sum(importance * variance) most, one after the other, each asked as a pair.

    `rows`: the candidates, centred; `told`: K a for each of them, K in units of the variance that masks see.
    """
    # Products of what candidates tell, and of what they see of each other: the steps need no voxels.
    products, gram = (told * importance) @ told.T, told @ rows.T
    chosen: list[int] = []
    for _ in range(num):
        gain = np.diag(products) / (np.diag(gram) + noise / 2)
        gain[chosen] = -np.inf
        best = int(np.round(gain / max(gain.max(), 1e-300), DIGITS).argmax())
        chosen.append(best)
        factor = gram[:, best] / (gram[best, best] + noise / 2)
        with_best = np.outer(factor, products[best])
        products = products - with_best - with_best.T + products[best, best] * np.outer(factor, factor)
        gram = gram - factor[:, None] * gram[best]
    return chosen


def greedy_order(masks: UInt8[np.ndarray, "n gt gh gw"]) -> list[int]:
    """The order in which masks, each with its complement, tell most of a smooth map."""
    n, *grid = masks.shape
    rows = masks.reshape(n, -1) / 255.0
    rows = rows - rows.mean(1, keepdims=True)
    told = Smooth((grid[0], grid[1], grid[2]), BELIEF.time, BELIEF.space).expand(rows)
    scale = max(float((told * rows).sum(1).mean()), 1e-300)
    return most_telling(told / scale, rows, np.ones(rows.shape[1]), BELIEF.noise, n)
