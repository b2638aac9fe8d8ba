"""A torch box for runs in tests: class k is the brightness of quadrant k, through one convolution."""

import torch
from torch import Tensor, nn

from stages.box import BoxSpec

CLIP_LEN, SIZE = 4, 24
LABELS = ("upper left", "upper right", "lower left", "lower right")


class QuadrantNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 1, 1, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool3d((1, 2, 2))
        nn.init.constant_(self.conv.weight, 8 / 3)

    def forward(self, clips: Tensor) -> Tensor:
        return self.pool(self.act(self.conv(clips))).flatten(1)


def make() -> tuple[nn.Module, BoxSpec]:
    torch.manual_seed(0)
    spec = BoxSpec(
        name="quadrant net", clip_len=CLIP_LEN, height=SIZE, width=SIZE, resize="squash", batch_size=8, labels=LABELS
    )
    return QuadrantNet(), spec
