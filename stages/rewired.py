"""Boxes made from boxes, for sanity checks: other inputs, other answers, other weights behind the same spec.

In: a box. Out: a box. Randomised copies follow Adebayo et al. 2018, "Sanity checks for saliency maps": weights are
drawn anew from the output backwards, layer after layer.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.box import BlackBox, BoxSpec
from stages.models_torch import TorchBox

Change = Callable[[Tensor], Tensor]


def unchanged(values: Tensor) -> Tensor:
    """What goes in comes out."""
    return values


@dataclass(eq=False)
class Rewired:
    """A box whose frames pass through `before` and whose raw scores pass through `after`."""

    box: BlackBox
    before: Change = unchanged
    after: Change = unchanged

    @property
    def spec(self) -> BoxSpec:
        """That of the box inside."""
        return self.box.spec

    @property
    def weights_sha256(self) -> str:
        """That of the box inside, marked."""
        return f"rewired {self.box.weights_sha256}"

    @property
    def device(self) -> torch.device:
        """That of the box inside."""
        return self.box.device

    def to(self, device: torch.device) -> "Rewired":
        """Move the box inside; returns the box itself."""
        self.box = self.box.to(device)
        return self

    def __call__(self, frames: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n k"]:
        """The changed scores of the changed frames."""
        return self.after(torch.as_tensor(self.box(self.before(frames))))


@dataclass(eq=False)
class Deaf:
    """A box that answers without looking, in the place of another: `answer(n)` gives n rows of logits."""

    box: BlackBox
    answer: Callable[[int], Tensor]
    weights_sha256: str = "deaf"

    @property
    def spec(self) -> BoxSpec:
        """That of the box whose place it takes; its scores are logits."""
        return self.box.spec.model_copy(update={"scores": "logits"})

    @property
    def device(self) -> torch.device:
        """That of the box whose place it takes."""
        return self.box.device

    def to(self, device: torch.device) -> "Deaf":
        """Nothing has to be moved."""
        return self

    def __call__(self, frames: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n k"]:
        """As many rows as there are clips."""
        return self.answer(len(frames)).to(frames.device)


def constant_answer(logits: Float[np.ndarray, " k"]) -> Callable[[int], Tensor]:
    """Always the same scores."""
    row = torch.from_numpy(logits.astype(np.float32))
    return lambda n: row.repeat(n, 1)


def random_answer(num_classes: int, seed: int) -> Callable[[int], Tensor]:
    """Scores that are noise."""
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.randn(n, num_classes, generator=generator)


def randomised(box: TorchBox, layers: Sequence[str], seed: int) -> TorchBox:
    """A copy of a box with the weights of some of its layers drawn anew; the box itself stays as it is."""
    copied = copy.deepcopy(box)
    for idx, name in enumerate(layers):
        randomise(copied.module.get_submodule(name), np.random.default_rng([seed, idx]))
    return copied


def layers_by_use(box: TorchBox, frames: Float[Tensor, "n t c h w"]) -> list[str]:
    """Names of the modules that hold weights of their own, in the order in which they work; unused ones come first."""
    layers = {name: layer for name, layer in box.module.named_modules() if any(True for _ in layer.parameters(False))}
    used: dict[str, None] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            used.pop(name, None)  # the last use counts
            used[name] = None

        return hook

    handles = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    try:
        box(frames)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in layers if name not in used] + list(used)


@torch.no_grad()
def randomise(layer: nn.Module, rng: np.random.Generator) -> None:
    """Draw a layer's own weights anew: normal, with the mean and the spread that they had.

    Weights that are all alike have no spread; they are drawn as wide as they are large.
    """
    for weights in layer.parameters(recurse=False):
        if not weights.is_floating_point():
            continue
        mean, std = float(weights.mean()), float(weights.std(correction=0))
        drawn = np.asarray(rng.normal(mean, std or abs(mean), tuple(weights.shape)))
        weights.copy_(torch.from_numpy(drawn).to(weights))
