"""Train the demo's classifier from generated clips: `python -m stages.demo.train --seed 0 --out weights.safetensors`.

Every step renders a few fresh clips into a replay buffer and learns from a random, augmented batch of it. A third of a
batch is partly replaced by blur or mean colour, as explanation will do it; there the label is softened by how much of
each object can still be seen. A second head, thrown away afterwards, must name shape and motion at every place, so that
the features learn from the true masks where their evidence lies. Two cores, about seven minutes.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stages.demo.clips import RandomClip, random_clip
from stages.demo.network import CHANNELS, DEMO_SPEC, LABELS, MOTIONS, SHAPES, WEIGHTS, DemoNet

FIRST_TRAINING_SEED = 1_000_000  # clips with smaller seeds are fresh: benchmarks and tests use them
CELL_PX = 8  # masks of objects are kept as coverage of cells this large
TIME_STRIDE = 4  # of the network's features
SMOOTHING = 0.04
PLACE_WEIGHT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of a training run; the defaults made the shipped weights."""

    seed: int = 0
    steps: int = 900
    batch_size: int = 28
    buffer_size: int = 1600
    first_clips: int = 256
    fresh_per_step: int = 5
    learning_rate: float = 3e-3
    masked_share: float = 0.3
    threads: int = 2


class ReplayBuffer:
    """The newest training clips: frames, coverage of protagonist and rival by cells, and their classes."""

    def __init__(self, size: int) -> None:
        t, h, w = DEMO_SPEC.clip_len, DEMO_SPEC.height, DEMO_SPEC.width
        self.frames: UInt8[np.ndarray, "b t h w 3"] = np.empty((size, t, h, w, 3), np.uint8)
        self.coverage: Float32[np.ndarray, "b 2 t gh gw"] = np.zeros(
            (size, 2, t, h // CELL_PX, w // CELL_PX), np.float32
        )
        self.classes: Int64[np.ndarray, "b 2"] = np.zeros((size, 2), np.int64)
        self.num_seen = 0

    def add(self, clip: RandomClip) -> None:
        """Put a clip in the place of the oldest one."""
        row = self.num_seen % len(self.frames)
        t, gh, gw = self.coverage.shape[2:]
        self.frames[row] = clip.frames
        masks = np.stack([clip.protagonist, clip.rival]).reshape(2, t, gh, CELL_PX, gw, CELL_PX)
        self.coverage[row] = masks.mean((3, 5))
        self.classes[row] = clip.target_idx, clip.target_idx if clip.rival_idx is None else clip.rival_idx
        self.num_seen += 1

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """A random batch, mirrored in x, y and t at random: clips (n c t h w in [0, 1]), coverage, classes."""
        rows = rng.integers(min(self.num_seen, len(self.frames)), size=count)
        clips, coverage = [], []
        for row in rows:
            t, y, x = (slice(None, None, int(step)) for step in rng.choice([-1, 1], 3))
            clips.append(self.frames[row][t, y, x][..., rng.permutation(3)])
            coverage.append(self.coverage[row][:, t, y, x])
        frames = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() / 255
        return frames, torch.from_numpy(np.stack(coverage)), torch.from_numpy(self.classes[rows])


def random_keep(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Float[Tensor, "n gt gh gw"]:
    """Smooth random blobs on the cells, soft-edged, with keep-fractions from .1 to .9."""
    t, h, w = shape
    rows = []
    for _ in range(count):
        cells = [int(torch.randint(low, high, (), generator=generator)) for low, high in ((1, 5), (2, 7), (3, 9))]
        field = F.interpolate(torch.randn((1, 1, *cells), generator=generator), size=(t, h, w), mode="trilinear")
        level = torch.quantile(field, 0.1 + 0.8 * torch.rand((), generator=generator))
        rows.append(torch.sigmoid((field - level) / (0.12 * field.std() + 1e-6))[0, 0])
    return torch.stack(rows)


def jitter(clips: Float[Tensor, "n c t h w"], generator: torch.Generator) -> Float[Tensor, "n c t h w"]:
    """Random gain, offset and noise for every clip, in place; a quarter of the batch is also out of focus."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((len(clips), 1, 1, 1, 1), generator=generator)

    quarter = clips[: len(clips) // 4]
    quarter.lerp_(
        F.avg_pool3d(quarter, (1, 3, 3), stride=1, padding=(0, 1, 1)), float(torch.rand((), generator=generator))
    )
    noise = torch.randn(clips.shape[1:], generator=generator)  # one pattern a step, scaled by clip
    gain = uniform(0.6, 1.2)
    clips = clips.mul_(gain).add_(0.5 - 0.5 * gain + uniform(-0.12, 0.12))
    return clips.add_(noise * uniform(-0.03, 0.03)).clamp_(0, 1)


def hide_parts(
    clips: Float[Tensor, "n c t h w"], coverage: Float[Tensor, "n 2 t gh gw"], generator: torch.Generator
) -> tuple[Float[Tensor, "n c t h w"], Float[Tensor, "n 2 t gh gw"]]:
    """Replace random parts of every clip by blur (mostly) or mean colour; also what is left of the two objects.

    The blur is that of the blur substrate (20 px at 224 px), but made from cells: ten times cheaper."""
    keep = random_keep(len(clips), tuple(coverage.shape[2:]), generator)  # type: ignore[arg-type]  # three axes
    fine = F.interpolate(keep[:, None], size=clips.shape[2:], mode="trilinear")
    cells = F.avg_pool3d(clips, (1, CELL_PX, CELL_PX))
    cells = F.avg_pool3d(F.pad(cells, (1, 1, 1, 1, 0, 0), mode="replicate"), (1, 3, 3), stride=1)
    hidden = F.interpolate(cells, size=clips.shape[2:], mode="trilinear")
    is_plain = (torch.rand(len(clips), generator=generator) < 0.25).view(-1, 1, 1, 1, 1)
    hidden = torch.where(is_plain, clips.mean((2, 3, 4), keepdim=True), hidden)
    return torch.lerp(hidden, clips, fine), coverage * keep[:, None]


def soft_labels(
    seen: Float[Tensor, "n 2 t gh gw"], coverage: Float[Tensor, "n 2 t gh gw"], classes: Int64[Tensor, "n 2"]
) -> Float[Tensor, "n k"]:
    """Class weights by what can be seen: s^4 / (s_1^4 + s_2^4 + c^4) for each object, the rest spread evenly.

    s is the area that can still be seen in units of the protagonist's whole area.
    """
    area = coverage[:, :1].sum((2, 3, 4)).clamp_min(1e-6)
    power = (seen.sum((2, 3, 4)) / area).clamp(0, 1) ** 4
    weight = power / (power.sum(1, keepdim=True) + 0.3**4)
    labels = ((1 - weight.sum(1, keepdim=True)) / len(LABELS)).expand(-1, len(LABELS)).clone()
    return labels.scatter_add(1, classes, weight)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Normalised, augmented clips (the first rows partly hidden) and what the two heads should say of them."""

    clips: Float[Tensor, "n c t h w"]
    labels: Float[Tensor, "n k"]
    shapes: Float[Tensor, "n s+1 gt gh gw"]  # weights at every place of the features; the last is "nothing"
    motions: Float[Tensor, "n m+1 gt gh gw"]


def make_batch(
    buffer: ReplayBuffer, config: TrainConfig, rng: np.random.Generator, generator: torch.Generator
) -> Batch:
    """Draw, augment and hide; the labels follow what can still be seen."""
    clips, coverage, classes = buffer.draw(rng, config.batch_size)
    clips = jitter(clips, generator)
    labels = F.one_hot(classes[:, 0], len(LABELS)).float()
    masked = round(config.masked_share * config.batch_size)
    if masked:
        hidden, seen = hide_parts(clips[:masked], coverage[:masked], generator)
        labels[:masked] = soft_labels(seen, coverage[:masked], classes[:masked])
        clips[:masked] = hidden
        coverage[:masked] = seen
    labels = (1 - SMOOTHING) * labels + SMOOTHING / len(LABELS)
    return Batch(
        clips=normalise(clips),
        labels=labels,
        shapes=place_labels(coverage, classes // len(MOTIONS), len(SHAPES)),
        motions=place_labels(coverage, classes % len(MOTIONS), len(MOTIONS)),
    )


def place_labels(
    seen: Float[Tensor, "n 2 t gh gw"], classes: Int64[Tensor, "n 2"], count: int
) -> Float[Tensor, "n k+1 gt gh gw"]:
    """How much of every place of the features belongs to each of `count` classes, or to nothing (last)."""
    seen = F.avg_pool3d(seen, (TIME_STRIDE, 1, 1))
    places = torch.zeros((len(seen), count + 1, *seen.shape[2:]))
    index = classes[:, :, None, None, None].expand_as(seen)
    places.scatter_add_(1, index, seen)
    places[:, -1] = (1 - seen.sum(1)).clamp_min(0)
    return places


def place_loss(logits: Float[Tensor, "n k+1 gt gh gw"], places: Float[Tensor, "n k+1 gt gh gw"]) -> Float[Tensor, ""]:
    """Cross entropy at every place; places with an object count ten times as much as empty ones."""
    entropy = -(places * logits.log_softmax(1)).sum(1)
    weight = 1.1 - places[:, -1].clamp(0, 1)
    return (entropy * weight).sum() / weight.sum()


def normalise(clips: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n c t h w"]:
    """(x - mean) / std as the spec says, which outside training is the box's work."""
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (DEMO_SPEC.mean, DEMO_SPEC.std))
    return clips.sub(mean).div_(std)


def train(config: TrainConfig, *, is_quiet: bool = False) -> DemoNet:
    """Train from scratch and return the network with its normalisation folded in."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng([config.seed, 5])
    generator = torch.Generator().manual_seed(config.seed)
    net = DemoNet(batch_norm=True).to(memory_format=torch.channels_last_3d).train()
    place_head = torch.nn.Conv3d(CHANNELS[-1], len(SHAPES) + len(MOTIONS) + 2, 1)
    parameters = [*net.parameters(), *place_head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.steps, pct_start=0.15
    )
    buffer = ReplayBuffer(config.buffer_size)
    clip_seed = FIRST_TRAINING_SEED * (1 + config.seed)
    started, mean_loss, hits = time.monotonic(), 0.0, torch.zeros(3)
    for step in range(config.steps):
        for _ in range(config.first_clips if step == 0 else config.fresh_per_step):
            buffer.add(random_clip(clip_seed + buffer.num_seen))
        batch = make_batch(buffer, config, rng, generator)
        features = net.features(batch.clips)
        logits = net.classify(features)
        of_shape, of_motion = place_head(features).split([len(SHAPES) + 1, len(MOTIONS) + 1], dim=1)
        loss = F.cross_entropy(logits, batch.labels) + PLACE_WEIGHT * (
            place_loss(of_shape, batch.shapes) + place_loss(of_motion, batch.motions)
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(parameters, 2.0)
        optimiser.step()
        schedule.step()
        mean_loss += 0.05 * (loss.item() - mean_loss) if step else loss.item()
        said, true = logits.argmax(1), batch.labels.argmax(1)
        agree = [said == true, said // len(MOTIONS) == true // len(MOTIONS), said % len(MOTIONS) == true % len(MOTIONS)]
        hits += 0.05 * (torch.stack(agree).float().mean(1) - hits)
        if not is_quiet and (step + 1) % 25 == 0:
            progress = f"step={step + 1} loss={mean_loss:.3f} hits={hits[0]:.2f} shape={hits[1]:.2f}"
            seconds = time.monotonic() - started
            print(f"{progress} motion={hits[2]:.2f} clips={buffer.num_seen} seconds={seconds:.0f}", flush=True)
    return folded(net)


def folded(net: DemoNet) -> DemoNet:
    """The same function without batch normalisation, in eval mode."""
    plain = DemoNet()
    for idx, (conv, norm) in enumerate(zip(net.convs, net.norms, strict=True)):
        plain.convs[idx] = fuse_conv_bn_eval(conv.eval(), norm.eval())  # type: ignore[type-var,arg-type]  # ModuleList forgets types
    plain.head.load_state_dict(net.head.state_dict())
    return plain.eval()


@torch.inference_mode()
def accuracy(net: DemoNet, seeds: Iterable[int], *, has_rival: bool) -> float:
    """Share of fresh clips whose protagonist the network names."""
    clips = [random_clip(seed, has_rival=has_rival) for seed in seeds]
    hits = []
    for start in range(0, len(clips), 20):
        some = clips[start : start + 20]
        frames = torch.from_numpy(np.stack([clip.frames for clip in some])).permute(0, 4, 1, 2, 3).float() / 255
        said = net(normalise(frames)).argmax(1).tolist()
        hits += [class_idx == clip.target_idx for class_idx, clip in zip(said, some, strict=True)]
    return float(np.mean(hits))


def main() -> None:
    """Train, save, and print what the network knows."""
    from safetensors.torch import save

    parser = argparse.ArgumentParser(description="Train the demo's classifier (about six minutes on two cores).")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=TrainConfig().steps)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    net = train(TrainConfig(seed=args.seed, steps=args.steps, threads=args.threads))
    state = {name: value.contiguous() for name, value in net.state_dict().items()}
    args.out.write_bytes(save(state))
    print(f"saved={args.out} bytes={args.out.stat().st_size}")
    for has_rival in (False, True):
        print(f"rival={has_rival} accuracy={accuracy(net, range(50_000, 50_200), has_rival=has_rival):.3f} clips=200")


if __name__ == "__main__":
    main()
