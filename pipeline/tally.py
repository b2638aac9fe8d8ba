"""What a sink adds up over the clips of a video, and the time of every frame."""

from collections import Counter

import numpy as np
from jaxtyping import Float64

from pipeline.rows import LabelOf
from pipeline.summaries import TargetSummary
from stages.evidence import decompose
from stages.records import ClipInfo, SaliencyMap
from stages.targets import mean_probabilities


class Tally:
    """Sums over the clips of one target; constant memory."""

    def __init__(self) -> None:
        self._probs: Float64[np.ndarray, " k"] | None = None
        self._totals: Counter[str] = Counter()
        self._q2 = self._coverage = 0.0
        self._num_clips = self._num_reliable = self._evaluations = 0
        self._stop_reasons: Counter[str] = Counter()
        self._method = ""

    def add(self, saliency: SaliencyMap) -> None:
        """Count one clip in."""
        probs = mean_probabilities(saliency.reference[None]).astype(np.float64)
        self._probs = probs if self._probs is None else self._probs + probs
        self._totals.update(decompose(saliency).totals())
        fidelity = saliency.fidelity["log_odds"]
        self._q2 += fidelity.q2
        self._coverage += fidelity.coverage
        self._num_clips += 1
        self._num_reliable += saliency.is_reliable
        self._evaluations += saliency.num_evaluations
        self._stop_reasons[saliency.stop_reason] += 1
        self._method = saliency.method

    def summary(
        self, *, target_idx: int, target: str, label_of: LabelOf, num_regions: int, product: str, maps: str
    ) -> TargetSummary:
        """Means and shares over all clips so far (at least one)."""
        assert self._probs is not None
        probs = self._probs / self._num_clips
        top1 = int(probs.argmax())
        found = {kind: self._totals[kind] for kind in ("support", "f_tc", "f_ntc")}
        total = sum(found.values()) or 1.0
        return TargetSummary(
            target_idx=target_idx,
            target=target,
            prob=float(probs[target_idx]),
            top1_idx=top1,
            top1=label_of(top1),
            share_for=found["support"] / total,
            share_f_tc=found["f_tc"] / total,
            share_f_ntc=found["f_ntc"] / total,
            q2=self._q2 / self._num_clips,
            coverage=self._coverage / self._num_clips,
            num_clips=self._num_clips,
            num_reliable_clips=self._num_reliable,
            num_regions=num_regions,
            evaluations=self._evaluations,
            method=self._method,
            stop_reasons=dict(self._stop_reasons),
            product=product,
            maps=maps,
        )


class FrameTimes:
    """The time of every frame: that of the decoder where a clip sampled the frame, in between linear.

    Only frames from the last final one on are remembered.
    """

    def __init__(self) -> None:
        self._known: dict[int, float] = {}
        self._step_s = 0.0
        self._first: tuple[int, float] | None = None

    def learn(self, info: ClipInfo) -> None:
        """Take in the times that a clip knows (padded frames repeat a time and say nothing)."""
        for frame_idx, pts_s in zip(info.frame_idx[~info.is_padded], info.pts_s[~info.is_padded], strict=True):
            self._known[int(frame_idx)] = float(pts_s)
        self._known = dict(sorted(self._known.items()))
        self._first = self._first or next(iter(self._known.items()), None)
        frames = list(self._known)
        if len(frames) > 1:
            self._step_s = (self._known[frames[-1]] - self._known[frames[-2]]) / (frames[-1] - frames[-2])

    def at(self, frame_idx: int) -> float:
        """Seconds of a frame, also a little beyond those that are known."""
        if frame_idx in self._known:
            return self._known[frame_idx]
        frames, times = np.array(list(self._known)), np.array(list(self._known.values()))
        if len(frames) == 0:
            return 0.0
        outside = max(frame_idx - int(frames[-1]), 0) + min(frame_idx - int(frames[0]), 0)
        return float(np.interp(frame_idx, frames, times)) + outside * self._step_s

    def span_s(self, num_frames: int) -> float:
        """Seconds from the first frame to the end of the last."""
        if self._first is None:
            return 0.0
        frame_idx, pts_s = self._first  # not the first of all where the beginning is not explained
        return self.at(num_frames) - (pts_s - frame_idx * self._step_s)

    def forget_before(self, frame_idx: int) -> None:
        """Frames before this one are final; one neighbour is kept to interpolate from."""
        past = [known for known in self._known if known < frame_idx]
        for known in past[:-1]:
            del self._known[known]
