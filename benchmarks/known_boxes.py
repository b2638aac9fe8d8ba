"""Boxes of which it is known whether they look at anything: planted evidence, and answers that are noise."""

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.subjects import plain_clip
from stages.box import BoxSpec
from stages.records import Clip, ClipId
from stages.score import Score, ScoreConfig

FIRST_SEED = 700_000
KINDS = ("constant", "normal", "student t, 2 df", "cauchy", "trend and noise", "trend and student t")
SHAPE = (8, 24, 24)
SUBSTRATE = "mean"


@dataclass(eq=False)
class Planted:
    """A box whose evidence lies in some cuboids of a clip of noise: gains, size, bend and noise are drawn."""

    clip: Clip
    parts: list[tuple[int, tuple[slice, ...], float]]
    num_classes: int
    bend: float
    noise: torch.Generator
    noise_std: float
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
        # Noise before the bend: a box that is saturated is quiet as well, so that its evidence is not drowned.
        logits = logits + self.noise_std * torch.randn(logits.shape, generator=self.noise)
        return self.bend * torch.tanh(logits / self.bend) if self.bend else logits

    def score(self) -> Score:
        found = Score(ScoreConfig.model_validate({"device": "cpu", "substrate": SUBSTRATE}), lambda: self)
        found.setup()
        return found


def _cuboid(rng: np.random.Generator) -> tuple[slice, ...]:
    sides = [max(2, round(size * rng.uniform(0.25, 0.6))) for size in SHAPE]
    starts = [int(rng.integers(0, size - side + 1)) for size, side in zip(SHAPE, sides, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def noise_clip(rng: np.random.Generator, seed: int) -> Clip:
    t, h, w = SHAPE
    frames = np.repeat(rng.integers(0, 2, (t, 1, h, w), dtype=np.uint8) * 255, 3, axis=1)
    return plain_clip(ClipId(f"planted-{seed}", 0), frames, SUBSTRATE)


def noise_scores(kind: str, keep: np.ndarray, seed: int) -> np.ndarray:
    """The answers of a box that does not look at where: n x 3 logits."""
    rng = np.random.default_rng([FIRST_SEED, KINDS.index(kind), seed])
    shape = (len(keep), 3)
    bent = np.outer(keep ** rng.uniform(0.5, 3), 4 * rng.standard_normal(3))
    drawn = {
        "constant": lambda: np.tile(rng.standard_normal(3), (len(keep), 1)),
        "normal": lambda: rng.standard_normal(shape),
        "student t, 2 df": lambda: rng.standard_t(2, shape),
        "cauchy": lambda: rng.standard_cauchy(shape).clip(-1e4, 1e4),
        "trend and noise": lambda: bent + 0.3 * rng.standard_normal(shape),
        "trend and student t": lambda: bent + 0.3 * rng.standard_t(2, shape),
    }
    return drawn[kind]().astype(np.float32)
