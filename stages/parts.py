"""How a clip's budget is cut into rounds, and when it need not be spent (docs/method.md, 3, "Stopping").

With a tolerance the bank is asked in parts, and the map so far is looked at after each of them. All clips ask prefixes
of one bank and are looked at after the same numbers of masks, so they share the factorised designs of these prefixes.
With an adaptive share the last masks are not rows of the bank, but chosen for the clip (`adaptive.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.records import SaliencyMap

FIRST_LOOK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """`tolerance` 0: the bank is asked as a whole. `adaptive_share`: of the masks after the anchors and any prior."""

    tolerance: float = 0.0
    adaptive_share: float = 0.0

    def num_adaptive(self, num_masks: int) -> int:
        """How many of the masks are chosen for the clip: whole pairs."""
        return 2 * int(self.adaptive_share * num_masks / 2)

    def stop(self, asked: int, num_rows: int) -> int:
        """The row of the bank before which the next round ends, when `asked` rows were asked and `num_rows` may be."""
        return min(next_look(asked), num_rows) if self.tolerance else num_rows

    def is_enough(self, maps: Sequence[SaliencyMap]) -> bool:
        """Whether every target's map is known to within the tolerance; one without a reliable signal never is."""
        return all(
            saliency.fidelity["log_odds"].is_reliable and relative_variance(saliency) < self.tolerance
            for saliency in maps
        )


WHOLE = Parts()


def next_look(asked: int) -> int:
    """The first of 64, 96, 128, 192, 256, 384 ... that is above `asked`: some few looks, each dearer than the last."""
    look = FIRST_LOOK
    while look <= asked:
        power = 1 << (look.bit_length() - 1)
        look = power * 3 // 2 if look == power else power * 2
    return look


def relative_variance(saliency: SaliencyMap) -> float:
    """Posterior variance of the log-odds map over its square, both summed over the grid; infinite for a flat map."""
    mean, var = (values.astype(np.float64) for values in saliency.output("log_odds"))
    size = float((mean**2).sum())
    return float(var.sum()) / size if size else np.inf
