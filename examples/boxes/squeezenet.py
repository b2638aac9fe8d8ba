"""SqueezeNet v1.0 as two boxes: for pictures, and for clips by averaging the logits of several frames.

    heatreel explain cat.jpg --model python:examples/boxes/squeezenet.py:image --weights squeezenet_v1.0.npz
    heatreel explain film.mp4 --model python:examples/boxes/squeezenet.py:frames_mean --weights squeezenet_v1.0.npz

The arrays carry torchvision's key names. The original (Caffe) differs in the padding of the last convolution and in
its input: BGR, 0 to 255, minus the mean colour. ImageNet's class names come from a list of the user's (`labels`), or
from torchvision's.
"""

import torch
from torch import nn
from torchvision.models import SqueezeNet1_0_Weights, squeezenet1_0

from stages.box import BoxSpec
from stages.models import TorchBox, read_labels
from stages.models_weights import load_weights, read_weights


def image(weights: str, labels: str | None = None) -> TorchBox:
    """The classifier for one picture."""
    return _box(weights, labels, clip_len=1, frame_step=1)


def frames_mean(weights: str, labels: str | None = None, frames: str = "8", frame_step: str = "4") -> TorchBox:
    """The same network over a clip of `frames` frames, `frame_step` source frames apart; their logits are averaged."""
    return _box(weights, labels, clip_len=int(frames), frame_step=int(frame_step))


def _box(weights: str, labels: str | None, *, clip_len: int, frame_step: int) -> TorchBox:
    network = squeezenet1_0(weights=None)
    network.classifier[1] = nn.Conv2d(512, 1000, kernel_size=1, padding=1)
    spec = BoxSpec(
        name="squeezenet_v1.0",
        clip_len=clip_len,
        frame_step=frame_step,
        height=227,
        width=227,
        resize="short_side_crop",
        short_side=256,
        channel_order="bgr",
        value_scale=255.0,
        mean=(104.0, 117.0, 123.0),
        frames="mean" if clip_len > 1 else "clip",
        labels=read_labels(labels) if labels else tuple(SqueezeNet1_0_Weights.DEFAULT.meta["categories"]),
    )
    loaded = load_weights(network, read_weights(weights), weights)
    return TorchBox(loaded.to(memory_format=torch.channels_last), spec)  # nearly twice as fast on CPUs
