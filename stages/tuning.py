"""The batch size at which a model is fastest, on a machine whose speed changes while one looks."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TRIAL_S = 0.25
# What a batch costs beside the model in a run (measured on two processors: 6 to 20 ms).
HANDOVER_S = 0.01
# A larger batch must be this much faster, else the smaller one stays: it fills sooner and takes less memory.
WORTHWHILE_GAIN = 1.02
# So many times larger than the best, without a gain: the end of looking.
HOPELESS = 8
# A batch that would take longer is not tried: what waits behind it waits too long, and trying it does as well.
LONG_BATCH_S = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The batch size, and the most evaluations per second of the bare model at a size that was tried: the yardstick of
    efficiency."""

    batch_size: int
    evaluations_per_s: float


def find_batch_size(rate: Callable[[int], float], sizes: Iterable[int], *, handover_s: float = HANDOVER_S) -> Tuning:
    """The smallest of the sizes that is about as fast as the fastest, by the model's `rate` (evaluations a second) and
    by the `handover_s` that every batch costs beside it.

    Sizes grow until that no longer helps, a batch takes long or `rate` raises torch.OutOfMemoryError. Each has a second
    turn on the way back, and the better one counts: others may have slowed the machine in one of them. What looked too
    slow to go on is looked at again with these.
    """
    rates: dict[int, float] = {}
    untried = list(sizes)

    def is_worth_trying(size: int) -> bool:
        if not rates:
            return True
        is_long = size > LONG_BATCH_S * max(rates.values())
        return not is_long and max(rates) < HOPELESS * _smallest(rates, handover_s)

    def climb() -> list[int]:
        tried = []
        while untried and is_worth_trying(untried[0]):
            size = untried.pop(0)
            try:
                rates[size] = rate(size)
            except torch.OutOfMemoryError:
                untried.clear()
                break
            tried.append(size)
        return tried

    while tried := climb():
        for size in reversed(tried):
            with suppress(torch.OutOfMemoryError):  # another process may have taken what there was
                rates[size] = max(rates[size], rate(size))
    return Tuning(batch_size=_smallest(rates, handover_s), evaluations_per_s=max(rates.values(), default=0.0))


def try_batch_size(rate: Callable[[int], float], size: int) -> Tuning:
    """A size and its `rate`, the better of two; halved for as long as that raises torch.OutOfMemoryError."""
    while size > 1:
        with suppress(torch.OutOfMemoryError):
            return Tuning(batch_size=size, evaluations_per_s=max(rate(size), rate(size)))
        size //= 2
    return find_batch_size(rate, (1,))


def rate_of(seconds: Callable[[int], float], size: int) -> float:
    """Evaluations per second where so many batches take `seconds(count)`: a short trial when warm, or the better of two
    long batches."""
    first_s, once_s = (max(seconds(1), 1e-6) for _ in range(2))
    if once_s > TRIAL_S:
        return size / min(first_s, once_s)
    repeats = int(TRIAL_S / once_s)
    return size * repeats / seconds(repeats)


def _smallest(rates: Mapping[int, float], handover_s: float) -> int:
    in_runs = {size: size / (size / rate + handover_s) for size, rate in rates.items()}
    fastest = max(in_runs.values(), default=0.0)
    return min((size for size, rate in in_runs.items() if rate * WORTHWHILE_GAIN >= fastest), default=1)
