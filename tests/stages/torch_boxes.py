"""Tiny PyTorch modules whose evidence is known exactly, as boxes that may be looked into."""

import numpy as np
import torch
from planted import PlantedBox
from torch import Tensor, nn

from stages.box import BoxSpec
from stages.models_torch import TorchBox
from stages.records import Clip


def spec_of(clip: Clip, **changes: object) -> BoxSpec:
    t, h, w = clip.shape
    fields = {"name": "planted net", "clip_len": t, "height": h, "width": w, "resize": "squash", "batch_size": 16}
    return BoxSpec.model_validate(fields | changes)


class PlantedNet(nn.Module):
    """The formula of a PlantedBox as a module of N C T H W, so that gradients pass it."""

    def __init__(self, box: PlantedBox) -> None:
        super().__init__()
        self.box = box

    def forward(self, clips: Tensor) -> Tensor:
        return self.box(clips.transpose(1, 2))


class Linear3d(nn.Module):
    """z_k = sum of w_k x: gradient times input is the whole truth."""

    def __init__(self, shape: tuple[int, int, int], num_classes: int = 2) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.head = nn.Linear(3 * int(np.prod(shape)), num_classes, bias=False)

    def forward(self, clips: Tensor) -> Tensor:
        return self.head(self.flatten(clips))


class BrightSpot(nn.Module):
    """Class 0 is how bright it is anywhere, by two convolutions with in-place activations; class 1 darkness."""

    def __init__(self, dim: int = 3, *, is_reused: bool = False) -> None:
        super().__init__()
        conv = nn.Conv3d if dim == 3 else nn.Conv2d
        self.stem = conv(3, 4, 3, padding=1, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.last = conv(4, 4, 3, padding=1)
        self.act2 = self.act if is_reused else nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool3d(1) if dim == 3 else nn.AdaptiveAvgPool2d(1)
        self.point = conv(4, 2, 1)  # after pooling: a convolution whose map is a point
        for layer in (self.stem, self.last):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.point.weight.zero_()
            self.point.weight[0], self.point.weight[1] = 10.0, -10.0

    def forward(self, clips: Tensor) -> Tensor:
        features = self.act2(self.last(self.act(self.stem(clips))))
        return self.point(self.pool(features)).flatten(1)


class Counted(nn.Module):
    """Counts the passes through a module, forward and backward."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.passes = [0]  # shared with the copies that are made of it

    def __deepcopy__(self, memo: dict) -> "Counted":
        import copy

        other = Counted(copy.deepcopy(self.module, memo))
        other.passes = self.passes
        return other

    def forward(self, clips: Tensor) -> Tensor:
        self.passes[0] += len(clips)
        scores = self.module(clips)
        if scores.requires_grad:
            scores.register_hook(lambda gradient: self.passes.__setitem__(0, self.passes[0] + len(gradient)))
        return scores


def planted_torch(box: PlantedBox) -> TorchBox:
    return TorchBox(PlantedNet(box), spec_of(box.clip), layout="ncthw")
