"""Boxes that the benchmarks draw: planted evidence (`planted.py`), and answers that are noise."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
import torch

from benchmarks.planted import Cuboid, PlantedBox, bent, scorer
from benchmarks.subjects import Half, Subject, cover_on_grid, plain_clip
from stages.masks import grid_for
from stages.records import Clip, ClipId

FIRST_SEED = 700_000
KINDS = ("constant", "normal", "student t, 2 df", "cauchy", "trend and noise", "trend and student t")
SHAPE = (8, 24, 24)
SUBSTRATE = "mean"
# How planted evidence for and against a class comes together.
FORMS = ("additive", "interaction", "saturation")
Evidence = dict[int, list[tuple[Cuboid, float]]]


def draw_box(seed: int) -> PlantedBox:
    """A box with support for class 0, perhaps more: gains, sizes, classes, saturation and noise are drawn."""
    rng = np.random.default_rng([FIRST_SEED, seed])
    num_classes = int(rng.integers(2, 11))
    evidence: Evidence = {0: [(_cuboid(rng), float(rng.uniform(2, 6)))]}
    for _ in range(int(rng.integers(0, 4))):
        gain = float(rng.uniform(1, 6) * rng.choice([-1, 1]))
        evidence.setdefault(int(rng.integers(0, num_classes)), []).append((_cuboid(rng), gain))
    clip, bend = noise_clip(rng, seed), float(rng.choice([0.0, 2.0, 5.0]))
    return _noisy(clip, evidence, seed, num_classes, bend, noise_std=float(rng.choice([0.0, 0.05, 0.15])))


def undesirable_box(form: str, seed: int, clip: Clip) -> PlantedBox:
    """Support, F-TC and F-NTC for class 0 in places apart, the last being support for class 1.

    With `interaction` the last two need two places each, with `saturation` scores are bent at about half of what the
    parts add up to.
    """
    rng = np.random.default_rng([FIRST_SEED, FORMS.index(form), seed])
    support, hinders, hinders_too, speaks, speaks_too = _apart(rng, clip.shape, 5)
    gains = [float(gain) for gain in rng.uniform(3, 6, 3)]
    evidence: Evidence = {0: [(support, gains[0])]}
    pairs = {}
    if form == "interaction":
        pairs = {0: [(hinders, hinders_too, -2 * gains[1])], 1: [(speaks, speaks_too, 2 * gains[2])]}
    else:
        evidence = {0: [(support, gains[0]), (hinders, -gains[1])], 1: [(speaks, gains[2])]}
    box = _noisy(clip, evidence, seed, num_classes=5, bend=2.0 if form == "saturation" else 0.0, noise_std=0.05)
    box.pairs = pairs
    return box


def _noisy(clip: Clip, evidence: Evidence, seed: int, num_classes: int, bend: float, noise_std: float) -> PlantedBox:
    """`bend` 0: no saturation."""
    return PlantedBox(
        clip,
        evidence,
        num_classes,
        squash=bent(bend) if bend else lambda z: z,
        noise_std=noise_std,
        noise=torch.Generator().manual_seed(seed),
        batch_size=32,
    )


def _apart(rng: np.random.Generator, shape: tuple[int, int, int], num: int) -> list[Cuboid]:
    """Cuboids without a common pixel."""
    while True:
        found = [_cuboid(rng, shape, most=0.45) for _ in range(num)]
        if not any(_overlap(a, b) for a, b in combinations(found, 2)):
            return found


def _overlap(a: Cuboid, b: Cuboid) -> bool:
    return all(one.start < other.stop and other.start < one.stop for one, other in zip(a, b, strict=True))


def _cuboid(rng: np.random.Generator, shape: Sequence[int] = SHAPE, most: float = 0.6) -> Cuboid:
    sides = [max(2, round(size * rng.uniform(0.25, most))) for size in shape]
    starts = [int(rng.integers(0, size - side + 1)) for size, side in zip(shape, sides, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def noise_clip(rng: np.random.Generator, seed: int) -> Clip:
    t, h, w = SHAPE
    frames = np.repeat(rng.integers(0, 2, (t, 1, h, w), dtype=np.uint8) * 255, 3, axis=1)
    return plain_clip(ClipId(f"planted-{seed}", 0), frames, SUBSTRATE)


def planted_subjects(half: Half, num: int) -> Iterator[Subject]:
    """`num` boxes of each form on clips of noise; the wished class is the one whose support is F-NTC for class 0."""
    first = {"development": 0, "evaluation": 10_000}[half]
    for form in FORMS:
        for seed in range(first, first + num):
            clip = noise_clip(np.random.default_rng([seed]), seed)
            box = undesirable_box(form, seed, clip)
            truth = cover_on_grid(box.places(0, 1), grid_for(clip.shape))
            yield Subject(name=f"{form}-{seed}", clip=clip, score=scorer(box), target=0, wished=1, truth=truth)


def noise_scores(kind: str, keep: np.ndarray, seed: int) -> np.ndarray:
    """The answers of a box that does not look at where: n x 3 logits."""
    rng = np.random.default_rng([FIRST_SEED, KINDS.index(kind), seed])
    shape = (len(keep), 3)
    bent = np.outer(keep ** rng.uniform(0.5, 3), 4 * rng.standard_normal(3))
    drawn: dict[str, Callable[[], np.ndarray]] = {
        "constant": lambda: np.tile(rng.standard_normal(3), (len(keep), 1)),
        "normal": lambda: rng.standard_normal(shape),
        "student t, 2 df": lambda: rng.standard_t(2, shape),
        "cauchy": lambda: rng.standard_cauchy(shape).clip(-1e4, 1e4),
        "trend and noise": lambda: bent + 0.3 * rng.standard_normal(shape),
        "trend and student t": lambda: bent + 0.3 * rng.standard_t(2, shape),
    }
    return np.asarray(drawn[kind](), np.float32)
