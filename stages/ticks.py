"""What a film keeps of each frame's map: the profile's values, and a sketch by which the same map is known again."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64

from stages.evidence import EvidenceKind, decompose
from stages.records import FrameMap
from stages.timeline import Profile

# One row a frame: its time, seen, reliable, and two numbers that no visible change of its map leaves as they are.
Sketch = list[tuple[float, ...]]
_NUM_EXACT = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Tick:
    pts_s: float
    totals: dict[EvidenceKind, float]
    is_seen: bool
    is_reliable: bool
    projections: tuple[float, float]


class Ticks:
    """One tick for each consecutive frame, counted from 0; those before `forget_before` are gone."""

    def __init__(self) -> None:
        self._ticks: list[_Tick] = []
        self._times: list[float] = []
        self._base = 0

    def __len__(self) -> int:
        """How many frames there have been."""
        return self._base + len(self._ticks)

    def add(self, frame: FrameMap, pts_s: float) -> None:
        """Take in the next frame."""
        weights = _weights(frame.mean.size)
        # A rounding error moves the sums a little; signs and sizes of the weights are such that changes do not cancel.
        projections = float(frame.mean.ravel() @ weights), float(np.sqrt(frame.var.ravel()) @ weights)
        totals = decompose(frame).totals()
        self._ticks.append(_Tick(pts_s, totals, frame.is_seen, frame.is_reliable, projections))
        self._times.append(pts_s)

    def at(self, pts_s: float) -> int:
        """The number of the first frame that is known at or after a time."""
        return self._base + bisect_left(self._times, pts_s)

    def forget_before(self, number: int) -> None:
        """Let go of ticks that will not be asked for again."""
        gone = max(0, number - self._base)
        del self._ticks[:gone], self._times[:gone]
        self._base += gone

    def largest_sum(self) -> float:
        """The most evidence for, or against, in a frame that was seen."""
        seen = [tick.totals for tick in self._ticks if tick.is_seen]
        return max((max(totals["support"], totals["f_tc"] + totals["f_ntc"]) for totals in seen), default=0.0)

    def profile(self, first: int, stop: int, frame_s: float) -> Profile:
        """The evidence of the frames `first` to `stop` (exclusive) for the strip below the picture."""
        ticks = self._ticks[max(0, first - self._base) : stop - self._base]
        return Profile(
            pts_s=np.array([t.pts_s for t in ticks]),
            support=np.array([t.totals["support"] for t in ticks]),
            f_tc=np.array([t.totals["f_tc"] for t in ticks]),
            f_ntc=np.array([t.totals["f_ntc"] for t in ticks]),
            is_seen=np.array([t.is_seen for t in ticks]),
            is_reliable=np.array([t.is_reliable for t in ticks]),
            end_s=ticks[-1].pts_s + frame_s,
        )

    def sketch(self, first: int, stop: int) -> Sketch:
        """A row for each of the frames `first` to `stop` (exclusive)."""
        ticks = self._ticks[max(0, first - self._base) : stop - self._base]
        return [(t.pts_s, float(t.is_seen), float(t.is_reliable), *t.projections) for t in ticks]


def is_same_sketch(one: Sketch, other: Sketch, tolerance: float) -> bool:
    """Whether two sketches are of the same maps: times and flags the same, scores up to `tolerance` per voxel."""
    if len(one) != len(other):
        return False
    a, b = np.array(one, np.float64), np.array(other, np.float64)
    if a.shape != b.shape:
        return False
    exact = np.allclose(a[:, :_NUM_EXACT], b[:, :_NUM_EXACT], rtol=0, atol=1e-9)
    return bool(exact and np.allclose(a[:, _NUM_EXACT:], b[:, _NUM_EXACT:], rtol=1e-6, atol=tolerance))


@lru_cache(maxsize=8)
def _weights(size: int) -> Float64[np.ndarray, " n"]:
    rng = np.random.default_rng(0)
    return np.asarray(rng.choice([-1.0, 1.0], size) * rng.uniform(0.5, 1.5, size))
