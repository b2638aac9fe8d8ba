"""A shot-boundary detector as a box: a 3-D CNN that says whether a 10-frame window holds a hard cut.

    heatreel explain film.mp4 --model python:examples/boxes/shot_boundary.py:box --weights shot.npz --target cut

The network (Conv3D, 49 k parameters) was trained on windows whose memory was re-read in another shape; that belongs to
the model, so it happens inside the module. Outside, a clip is time, colour, y, x as everywhere.
"""

import torch
from torch import Tensor, nn

from stages.box import BoxSpec
from stages.models import TorchBox
from stages.models_weights import load_weights, read_weights

LABELS = ("same shot", "cut")


class ShotBoundary(nn.Module):
    """10 BGR frames of 64x64 in [0, 1] (N T C H W) to two logits. Cut: a new shot starts with frame 5 of the 10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv3d(3, 16, (5, 5, 3), stride=(2, 2, 1))
        self.conv1 = nn.Conv3d(16, 24, (3, 3, 3), stride=(2, 2, 1))
        self.conv2 = nn.Conv3d(24, 32, (3, 3, 3), stride=(2, 2, 1))
        self.conv3 = nn.Conv3d(32, 12, (6, 6, 1), stride=(2, 2, 1))
        self.dense = nn.Linear(12, 2)

    def forward(self, frames: Tensor) -> Tensor:
        # (T, H, W, C) in memory, read as (H, W, T, C) without moving anything, then channels first for Conv3d.
        memory = frames.permute(0, 1, 3, 4, 2).contiguous()
        x = memory.view(-1, 64, 64, 10, 3).permute(0, 4, 1, 2, 3)
        for conv in (self.conv0, self.conv1, self.conv2, self.conv3):
            x = torch.relu(conv(x))
        return self.dense(x.amax(dim=-1).flatten(1))


def box(weights: str) -> TorchBox:
    """The detector with the arrays of `weights` (an .npz with keys conv0.weight ... dense.bias)."""
    spec = BoxSpec(
        name="shot_boundary",
        clip_len=10,
        height=64,
        width=64,
        resize="squash",
        antialias=False,
        channel_order="bgr",
        labels=LABELS,
    )
    return TorchBox(load_weights(ShotBoundary(), read_weights(weights), weights), spec, layout="ntchw")
