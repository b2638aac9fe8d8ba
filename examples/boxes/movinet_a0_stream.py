"""MoViNet-A0-stream as a box: a causal (2+1)-D CNN over clips of any length, here calf behaviour in 7 classes.

    heatreel explain cows.mp4 --model python:examples/boxes/movinet_a0_stream.py:box --weights movinet.npz

The network is built from the arrays themselves: their names and shapes say how many blocks, channels and which kernels
there are. Batch normalisation is already folded in. TensorFlow's "SAME" padding is kept: the larger half lies right
and below. Class names come from `labels`; without it, from calf7.txt beside the weights or in ../labels.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.box import BoxSpec
from stages.errors import ModelError
from stages.models import TorchBox, read_labels
from stages.models_weights import read_weights

LABELS_FILE = "calf7.txt"
REQUIRED = ("stem.weight", "block0.layer0.expansion.weight", "head.project.weight", "head.classifier.weight")
STRIDE_2_BLOCKS = ("block0.layer0", "block1.layer0", "block2.layer0", "block4.layer0")


def same_padding(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around (..., H, W) such that ceil(n / stride) outputs come out, the smaller half left and above."""
    left_right_top_bottom = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        left_right_top_bottom += [total // 2, total - total // 2]
    return F.pad(x, left_right_top_bottom)


def running_mean(x: Tensor) -> Tensor:
    """Mean over frames 0..t, for every t. x: N T C."""
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype).view(1, -1, 1)


class Arrays(nn.Module):
    """Named arrays as buffers, with convolutions that pick theirs by name. Frames are (N T) C H W."""

    def __init__(self, arrays: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        for key, array in arrays.items():
            if key.startswith(prefix):
                self.register_buffer(key.removeprefix(prefix).replace(".", "_"), array.clone())

    def __contains__(self, name: str) -> bool:
        return f"{name}_weight" in self._buffers

    def conv(self, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        weight, bias = self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
        padded = same_padding(x, weight.shape[-1], stride) if weight.shape[-1] > 1 else x
        return F.conv2d(padded, weight, bias, stride=stride, groups=groups)


class Layer(Arrays):
    """Expansion, spatial and causal temporal convolution, squeeze-excite over the past, projection, skip."""

    def __init__(self, arrays: Mapping[str, Tensor], name: str) -> None:
        super().__init__(arrays, f"{name}.")
        self.stride = 2 if name in STRIDE_2_BLOCKS else 1

    def forward(self, x: Tensor, t: int) -> Tensor:
        y = F.hardswish(self.conv("expansion", x))
        y = F.hardswish(self.conv("spatial", y, self.stride, groups=y.shape[1]))
        if "temporal" in self:
            y = F.hardswish(self.over_time(y, t))
        y = self.conv("projection", y * self.gate(y, t)) * self.get_buffer("rezero")
        return y + self.shortcut(x)

    def over_time(self, y: Tensor, t: int) -> Tensor:
        """Depthwise over time; zero frames in front, so that no frame sees a later one."""
        weight = self.get_buffer("temporal_weight")[..., None, None]  # C 1 kT 1 1
        clips = y.unflatten(0, (-1, t)).transpose(1, 2)  # N C T H W
        clips = F.pad(clips, (0, 0, 0, 0, weight.shape[2] - 1, 0))
        clips = F.conv3d(clips, weight, self.get_buffer("temporal_bias"), groups=weight.shape[0])
        return clips.transpose(1, 2).flatten(0, 1)

    def gate(self, y: Tensor, t: int) -> Tensor:
        """Squeeze-excite from this frame's mean and the mean so far (the hard sigmoid's +3 is in the bias)."""
        now = y.mean((2, 3)).unflatten(0, (-1, t))  # N T C
        both = torch.cat([running_mean(now), now], dim=2).flatten(0, 1)[..., None, None]
        return F.relu6(self.conv("se_expand", F.hardswish(self.conv("se_reduce", both)))) * 0.16667

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 2:  # 3x3 average over the pixels that are there; the padding does not count
            total = F.avg_pool2d(same_padding(x, 3, 2), 3, 2)
            x = total / F.avg_pool2d(same_padding(torch.ones_like(x[:1, :1]), 3, 2), 3, 2)
        return self.conv("skip", x) if "skip" in self else x


class MoViNetStream(nn.Module):
    """Clips N T C H W in [0, 1] to the logits of the last frame."""

    def __init__(self, arrays: Mapping[str, Tensor]) -> None:
        super().__init__()
        names = sorted({".".join(key.split(".")[:2]) for key in arrays if key.startswith("block")})
        self.ends = Arrays({key: array for key, array in arrays.items() if not key.startswith("block")}, "")
        self.layers = nn.ModuleList(Layer(arrays, name) for name in names)

    def forward(self, clips: Tensor) -> Tensor:
        n, t = clips.shape[:2]
        x = F.hardswish(self.ends.conv("stem", clips.flatten(0, 1), stride=2))
        for layer in self.layers:
            x = layer(x, t)
        x = F.hardswish(self.ends.conv("head_project", x)).mean((2, 3)).view(n, t, -1)
        last = running_mean(x)[:, -1, :, None, None]
        return self.ends.conv("head_classifier", F.silu(self.ends.conv("head_dense", last))).flatten(1)


def box(weights: str, labels: str | None = None, frame_step: str = "5") -> TorchBox:
    """The network with the arrays of `weights`, on clips of 16 frames of 172x172, aspect ratio not kept."""
    spec = BoxSpec(
        name="movinet_a0_stream",
        clip_len=16,
        frame_step=int(frame_step),
        height=172,
        width=172,
        resize="squash",
        antialias=False,
        labels=find_labels(weights, labels),
    )
    arrays = read_weights(weights)
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise ModelError(weights, f"the weights lack {missing[0]!r}", "give the .npz of a MoViNet-A0-stream")
    return TorchBox(MoViNetStream(arrays), spec, layout="ntchw")


def find_labels(weights: str, labels: str | None) -> tuple[str, ...]:
    """The class names in `labels`, or in the list that lies near the weights, or none."""
    folder = Path(weights).parent
    places = [Path(labels)] if labels else [folder / LABELS_FILE, folder.parent / "labels" / LABELS_FILE]
    found = next((path for path in places if labels or path.is_file()), None)
    return read_labels(found) if found else ()
