"""What a map costs beside the scores it is made of: milliseconds of refinement and of scoring, in one process."""

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.subjects import EVALUATION_SEEDS, demo_subjects, plain_clip
from stages.masks import grid_for, grids_of
from stages.perturb import Perturb, PerturbConfig
from stages.records import ClipId, Evidence, Scores
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import score_clip

SHAPE = (32, 56, 56)  # its grid is the largest, 16 x 28 x 28
NUM_CLASSES = 16


def refinement_time(budget: int, repeats: int) -> dict[str, float]:
    """Medians in milliseconds: scoring a clip of the demo model; the first map of a bank, with all that is kept for
    later ones; later maps, without and with content. Every map has scores and content of its own."""
    (subject,) = demo_subjects(EVALUATION_SEEDS, 1)
    perturb, refine = Perturb(PerturbConfig(budget=budget)), Refine(RefineConfig())
    scoring = median_ms(lambda _: score_clip(subject.clip, perturb, subject.score), min(repeats, 5))
    first, *plain = (RefineRequest(evidence=found, targets=(0,)) for found in _evidence(perturb, repeats + 1, False))
    content = [RefineRequest(evidence=found, targets=(0,)) for found in _evidence(perturb, repeats, True)]
    return {
        "scoring": scoring,
        "first map of a bank": median_ms(lambda _: refine.process(first), 1),
        "map without content": median_ms(lambda idx: refine.process(plain[idx]), repeats),
        "map with content": median_ms(lambda idx: refine.process(content[idx]), repeats),
    }


def median_ms(work: Callable[[int], object], repeats: int) -> float:
    """The median time of `work`, called with 0, 1, 2 ..., in milliseconds."""
    seconds = []
    for idx in range(repeats):
        start = time.perf_counter()
        work(idx)
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds)


def _evidence(perturb: Perturb, num: int, has_content: bool) -> list[Evidence]:
    """Scores of maps with a few strong cells, as real ones have, and a little noise."""
    rng = np.random.default_rng(int(has_content))
    clip = plain_clip(ClipId("time", 0), rng.integers(0, 256, (SHAPE[0], 3, *SHAPE[1:]), dtype=np.uint8))
    masks = perturb.process(clip.info)
    rows = np.asarray(grids_of(masks).reshape(len(masks), -1) / 255.0)
    found = []
    for _ in range(num):
        strong = rng.standard_normal((rows.shape[1], NUM_CLASSES)) * (rng.random((rows.shape[1], 1)) < 0.01)
        values = rows @ strong + 0.2 * rng.standard_normal((len(rows), NUM_CLASSES))
        scores = Scores(clip_id=clip.id, round_idx=0, ids=masks.ids, values=values.astype(np.float32))
        content = rng.integers(0, 256, grid_for(SHAPE), dtype=np.uint8) if has_content else None
        found.append(Evidence(clip_id=clip.id, masks=(masks,), scores=(scores,), content=content))
    return found
