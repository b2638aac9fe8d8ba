"""Which clips are worth their evaluations: scores of untouched clips -> a rank for every clip. Pure, no files.

A clip's priority says how much there is to explain in it, in units of probability, so that clips of different videos
can be compared. With p the target's probability in the clip, which is the score of the target against the
log-sum-exp of all others, p = sigmoid(z_t - LSE_N):

    priority = p + change + contest
    change   = the largest |p - p'| to a direct neighbour in time: something happens here
    contest  = 2 min(p, 1 - p): the rivals are about as strong as the target, so there is evidence against to be found

All three lie between 0 and 1 and weigh the same; that is a choice, not a fit. Of several targets the one with the
largest priority speaks for the clip.

Priority alone would spend the budget on one video with a high and constant score, and twice on frames that two clips
share. Hence two discounts. Within a video clips are taken one by one, the best first, and a frame that a clip taken
before covers counts half: gain = priority (1 - shared / 2). Between videos places are given like seats to parties
(D'Hondt): the k-th clip of a video stands with gain / k, so a video with twice the gain gets about twice the clips.
Ties go to the earlier video, then to the earlier clip; nothing depends on the order in which clips were scored.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.special import expit, logsumexp

# What a frame still counts when a clip that was taken before covers it.
COVERED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signals:
    """What speaks for every clip of a video; `target_idx` is the class that does."""

    target_idx: Int64[np.ndarray, " n"]
    prob: Float64[np.ndarray, " n"]
    change: Float64[np.ndarray, " n"]
    contest: Float64[np.ndarray, " n"]

    @property
    def priority(self) -> Float64[np.ndarray, " n"]:
        """How much there is to explain, between 0 and 3."""
        return np.asarray(self.prob + self.change + self.contest)


def signals(log_scores: Float[np.ndarray, "n k"], clip_idx: Int64[np.ndarray, " n"], targets: Sequence[int]) -> Signals:
    """The signals of the clips of one video, given in order; `clip_idx` tells which of them are neighbours."""
    each = [_signals_of(log_scores.astype(np.float64), clip_idx, target_idx) for target_idx in targets]
    best = np.argmax([found.priority for found in each], axis=0)
    rows = np.arange(len(clip_idx))

    def chosen(name: str) -> np.ndarray:
        return np.asarray(np.stack([getattr(found, name) for found in each])[best, rows])

    return Signals(
        target_idx=chosen("target_idx"), prob=chosen("prob"), change=chosen("change"), contest=chosen("contest")
    )


def gains(
    priority: Float64[np.ndarray, " n"], frames: Int64[np.ndarray, "n 2"]
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """The clips of one video in the order in which they are best taken, and what each then adds; never increasing.

    Frames are half-open ranges in the source. What a clip adds only falls while others are taken, so a gain that is
    still the largest after it has been computed again is the largest of all (lazy greedy selection).
    """
    first = int(frames[:, 0].min(initial=0))
    is_covered = np.zeros(int(frames[:, 1].max(initial=first)) - first, bool)
    heap = [(-float(value), position) for position, value in enumerate(priority)]
    heapq.heapify(heap)
    order, values = [], []
    while heap:
        _, position = heapq.heappop(heap)
        covered = is_covered[frames[position, 0] - first : frames[position, 1] - first]
        gain = float(priority[position]) * (1 - (1 - COVERED) * float(covered.mean()))
        if heap and (-gain, position) > heap[0]:
            heapq.heappush(heap, (-gain, position))
            continue
        covered[:] = True
        order.append(position)
        values.append(gain)
    return np.array(order, np.int64), np.array(values, np.float64)


def rank(gains_of_videos: Sequence[Float64[np.ndarray, " n"]]) -> list[Int64[np.ndarray, " n"]]:
    """The place of every clip among those of all videos, 0 first; the clips of each video in the order of `gains`."""
    values = [gain / (1 + np.arange(len(gain))) for gain in gains_of_videos]
    every = np.concatenate([*values, np.zeros(0)])
    order = np.argsort(-every, kind="stable")  # ties: the earlier video, and within it the order that gains gave
    places = np.empty(len(every), np.int64)
    places[order] = np.arange(len(every))
    ends = np.cumsum([len(gain) for gain in gains_of_videos])
    return [np.asarray(part) for part in np.split(places, ends[:-1])] if len(ends) else []


def _signals_of(scores: Float64[np.ndarray, "n k"], clip_idx: np.ndarray, target_idx: int) -> Signals:
    others = np.delete(scores, target_idx, axis=1)
    rivals = logsumexp(others, axis=1) if others.shape[1] else np.full(len(scores), -np.inf)
    prob = expit(scores[:, target_idx] - rivals)
    step = np.where(np.diff(clip_idx) == 1, np.abs(np.diff(prob)), 0.0)
    return Signals(
        target_idx=np.full(len(prob), target_idx, np.int64),
        prob=prob,
        change=np.maximum(np.append(0.0, step), np.append(step, 0.0)),
        contest=2 * np.minimum(prob, 1 - prob),
    )
