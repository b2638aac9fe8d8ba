"""Boxes of which it is known whether they look at anything: planted evidence, and answers that are noise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch

from benchmarks.subjects import Half, Subject, cover_on_grid, plain_clip
from stages.box import BoxSpec
from stages.masks import grid_for
from stages.records import Clip, ClipId
from stages.score import Score, ScoreConfig

FIRST_SEED = 700_000
KINDS = ("constant", "normal", "student t, 2 df", "cauchy", "trend and noise", "trend and student t")
SHAPE = (8, 24, 24)
SUBSTRATE = "mean"
# How planted evidence for and against a class comes together.
FORMS = ("additive", "interaction", "saturation")
Cuboid = tuple[slice, ...]


@dataclass(eq=False)
class Planted:
    """A box whose evidence lies in some cuboids of a clip of noise: gains, size, bend and noise are drawn."""

    clip: Clip
    parts: list[tuple[int, Cuboid, float]]
    num_classes: int
    bend: float
    noise: torch.Generator
    noise_std: float
    pairs: list[tuple[int, Cuboid, Cuboid, float]] = field(default_factory=list)  # both must be shown
    substrate: str = SUBSTRATE
    device = torch.device("cpu")
    weights_sha256 = "planted"

    @classmethod
    def draw(cls, seed: int) -> "Planted":
        rng = np.random.default_rng([FIRST_SEED, seed])
        num_classes = int(rng.integers(2, 11))
        parts = [(0, _cuboid(rng), float(rng.uniform(2, 6)))]  # the target has support, perhaps more
        for _ in range(int(rng.integers(0, 4))):
            gain = float(rng.uniform(1, 6) * rng.choice([-1, 1]))
            parts.append((int(rng.integers(0, num_classes)), _cuboid(rng), gain))
        return cls(
            clip=noise_clip(rng, seed),
            parts=parts,
            num_classes=num_classes,
            bend=float(rng.choice([0.0, 2.0, 5.0])),
            noise=torch.Generator().manual_seed(seed),
            noise_std=float(rng.choice([0.0, 0.05, 0.15])),
        )

    @classmethod
    def undesirable(cls, form: str, seed: int, clip: Clip, substrate: str) -> "Planted":
        """Support, F-TC and F-NTC for class 0 in places apart; with `interaction` the last two need two places each,
        with `saturation` scores are bent at about half of what the parts add up to."""
        rng = np.random.default_rng([FIRST_SEED, FORMS.index(form), seed])
        support, hinders, hinders_too, speaks, speaks_too = _apart(rng, clip.shape, 5)
        gains = [float(gain) for gain in rng.uniform(3, 6, 3)]
        parts, pairs = [(0, support, gains[0])], []
        if form == "interaction":
            pairs = [(0, hinders, hinders_too, -2 * gains[1]), (1, speaks, speaks_too, 2 * gains[2])]
        else:
            parts += [(0, hinders, -gains[1]), (1, speaks, gains[2])]
        return cls(
            clip=clip,
            parts=parts,
            num_classes=5,
            bend=2.0 if form == "saturation" else 0.0,
            noise=torch.Generator().manual_seed(seed),
            noise_std=0.05,
            pairs=pairs,
            substrate=substrate,
        )

    def places(self, class_idx: int, sign: int) -> np.ndarray:
        """The pixels that speak for (1) or against (-1) a class, t y x."""
        found = np.zeros(self.clip.shape, bool)
        known = [*self.parts, *((k, place, gain) for k, *both, gain in self.pairs for place in both)]
        for k, place, gain in known:
            if k == class_idx and gain * sign > 0:
                found[place] = True
        return found

    @property
    def spec(self) -> BoxSpec:
        t, h, w = self.clip.shape
        return BoxSpec(name="planted", clip_len=t, height=h, width=w, resize="squash", batch_size=32)

    def to(self, device: torch.device) -> "Planted":
        return self

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        original = torch.from_numpy(self.clip.frames.copy()).float() / 255
        kept = 1 - (frames - original).abs().mean(2)
        logits = torch.zeros(len(frames), self.num_classes)
        for k, place, gain in self.parts:
            logits[:, k] += gain * kept[(slice(None), *place)].mean((1, 2, 3))
        for k, one, other, gain in self.pairs:
            both = [kept[(slice(None), *place)].mean((1, 2, 3)) for place in (one, other)]
            logits[:, k] += gain * both[0] * both[1]
        # Noise before the bend: a box that is saturated is quiet as well, so that its evidence is not drowned.
        logits = logits + self.noise_std * torch.randn(logits.shape, generator=self.noise)
        return self.bend * torch.tanh(logits / self.bend) if self.bend else logits

    def score(self) -> Score:
        found = Score(ScoreConfig.model_validate({"device": "cpu", "substrate": self.substrate}), lambda: self)
        found.setup()
        return found


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
            box = Planted.undesirable(form, seed, clip, SUBSTRATE)
            truth = cover_on_grid(box.places(0, 1), grid_for(clip.shape))
            yield Subject(name=f"{form}-{seed}", clip=clip, score=box.score(), target=0, wished=1, truth=truth)


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
