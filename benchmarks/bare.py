"""The bare model in a tight loop, and the scorer with refinement beside it: the two rates of an efficiency.

No Ray, no video: clips are noise, masks and maps are the real ones.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.subjects import plain_clip
from stages.models_torch import TorchBox
from stages.perturb import Perturb, PerturbConfig
from stages.perturbed import LoadedClip, Perturbed
from stages.records import Clip, ClipId, Evidence, MaskBatch, Scores
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.score import Score, ScoreConfig, ScoreRequest

SHARES = ("rendering", "model", "copies", "refinement")


class DissectedScore(Score):
    """A scorer that waits for the device after every step and notes how long the step took."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.spent_s: dict[str, float] = defaultdict(float)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        synchronise(self.box.device)
        self.spent_s[name] += time.perf_counter() - start

    def _load_clip(self, *args: Any) -> LoadedClip:
        with self.step("copies"):
            return super()._load_clip(*args)

    def _render(self, perturbed: Perturbed, start: int, stop: int) -> Tensor:
        with self.step("rendering"):
            return super()._render(perturbed, start, stop)

    def _ask(self, frames: Tensor) -> object:
        with self.step("model"):
            return super()._ask(frames)

    def _fetch(self, raw: object, num: int) -> Tensor:
        with self.step("copies"):
            return super()._fetch(raw, num)


class Work:
    """Clips without end and what is asked about them: requests for the scorer, evidence for refinement."""

    def __init__(self, box: TorchBox, budget: int) -> None:
        self.spec = box.spec
        self.perturb = Perturb(PerturbConfig(budget=budget))
        self.refine = Refine(RefineConfig())
        self._rng = np.random.default_rng(0)
        self._ids = count()

    def clip(self) -> Clip:
        spec = self.spec
        pixels = self._rng.integers(0, 256, (spec.clip_len, 3, spec.height, spec.width), dtype=np.uint8)
        return plain_clip(ClipId("random", next(self._ids)), pixels)

    def requests(self, num_pairs: int, size: int) -> Iterator[tuple[ScoreRequest, bool]]:
        """Batches of `size` rows, half from each clip of a pair; whether a pair is complete with this batch."""
        half = max(1, size // 2)
        for _ in range(num_pairs):
            pair = [self.clip(), self.clip()]
            masks = [self.perturb.process(clip.info) for clip in pair]
            pieces = [piece for start in range(0, len(masks[0]), half) for piece in _rows(masks, start, half)]
            clips = {clip.id: clip for clip in pair}
            per_request = 1 if size == 1 else 2
            for at in range(0, len(pieces), per_request):
                is_last = at + per_request >= len(pieces)
                yield ScoreRequest(batches=tuple(pieces[at : at + per_request]), clips=clips), is_last

    def to_maps(self, answers: list[tuple[MaskBatch, Scores]]) -> None:
        """What a run does with the scores of a pair of clips."""
        for clip_id in {masks.clip_id for masks, _ in answers}:
            own = [(masks, scores) for masks, scores in answers if masks.clip_id == clip_id]
            masks, scores = zip(*own, strict=True)
            evidence = Evidence(clip_id=clip_id, masks=masks, scores=scores)
            self.refine.process(RefineRequest(evidence=evidence, targets=(int(scores[0].values[0].argmax()),)))


def _rows(masks: list[MaskBatch], start: int, half: int) -> list[MaskBatch]:
    return [batch.rows(start, min(start + half, len(batch))) for batch in masks]


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Bare:
    """The module alone on a batch that is ready in its layout."""

    def __init__(self, box: TorchBox, precision: str) -> None:
        self.box, self.is_bf16 = box, precision == "bf16"

    def rate(self, size: int, seconds: float) -> float:
        """Evaluations per second at a batch size; the device is waited for once, at the end."""
        return self.rate_and_cost(size, seconds)[0]

    def rate_and_cost(self, size: int, seconds: float) -> tuple[float, float]:
        """The same, and the seconds of all processors that an evaluation takes, which other work changes less."""
        spec, device = self.box.spec, self.box.device
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.is_bf16):
            ready = self.box.prepare(torch.rand((size, spec.clip_len, 3, spec.height, spec.width), device=device))
            self.box.module(ready)
            repeats = max(1, round(seconds / self._seconds(ready, 1)))
            used = time.process_time()
            rate = size * repeats / self._seconds(ready, repeats)
            return rate, (time.process_time() - used) / (size * repeats)

    def best_size(self, sizes: Sequence[int], trial_s: float) -> int:
        """The size with the most evaluations per second, however little the gain."""
        rates: dict[int, float] = {}
        for size in sizes:
            try:
                rates[size] = max(self.rate(size, trial_s) for _ in range(2))
            except torch.OutOfMemoryError:
                break
        return max(rates, key=lambda size: rates[size])

    def _seconds(self, ready: Tensor, repeats: int) -> float:
        synchronise(self.box.device)
        start = time.perf_counter()
        for _ in range(repeats):
            self.box.module(ready)
        synchronise(self.box.device)
        return max(time.perf_counter() - start, 1e-9)


def our_rate(score: Score, work: Work, num_pairs: int, size: int) -> float:
    """Evaluations per second of scorer and refinement, the maps of the last clip included."""
    start, rows = time.perf_counter(), 0
    answers: list[tuple[MaskBatch, Scores]] = []
    with ThreadPoolExecutor(1) as refiner:
        waiting = []
        for request, is_last in work.requests(num_pairs, size):
            scores = score.process(request).scores
            rows += sum(len(batch) for batch in request.batches)
            answers += zip(request.batches, scores, strict=True)
            if is_last:
                waiting.append(refiner.submit(work.to_maps, answers))
                answers = []
        for future in waiting:
            future.result()
    return rows / (time.perf_counter() - start)


def shares(box: TorchBox, config: ScoreConfig, work: Work, num_pairs: int, size: int) -> dict[str, float]:
    """Where the time goes when nothing overlaps; what is missing to 1 is Python between the steps."""
    score = DissectedScore(config, lambda: box)
    score.setup()
    requests = list(work.requests(num_pairs, size))
    answers: list[tuple[MaskBatch, Scores]] = []
    start = time.perf_counter()
    for request, is_last in requests:
        answers += zip(request.batches, score.process(request).scores, strict=True)
        if is_last:
            with score.step("refinement"):
                work.to_maps(answers)
            answers = []
    total = time.perf_counter() - start
    return {name: score.spent_s[name] / total for name in SHARES}
