"""A box for runs in tests with known evidence of both kinds against its second answer, a quadrant each.

The share of contrast that is left in a quadrant raises or lowers a class: "hindered" is seen upper left and denied
upper right (its F-TC), "rival", the first answer, is seen lower left (F-NTC for "hindered").
"""

import torch

from stages.box import BoxSpec

CLIP_LEN, SIZE = 4, 24
LABELS = ("hindered", "rival", "neither")


class Hindered:
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        half = SIZE // 2
        contrast = (frames - 0.5).abs().mean(2)
        seen, denied, other = (
            contrast[..., y : y + half, x : x + half].mean((1, 2, 3)) for y, x in ((0, 0), (0, half), (half, 0))
        )
        return torch.stack([20 * seen - 10 * denied, 13 * other, torch.zeros(len(frames))], 1)


def make() -> tuple[Hindered, BoxSpec]:
    spec = BoxSpec(
        name="hindered", clip_len=CLIP_LEN, height=SIZE, width=SIZE, resize="squash", batch_size=8, labels=LABELS
    )
    return Hindered(), spec
