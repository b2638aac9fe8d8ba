"""The demo's classifier: a small 3-D CNN that names the motion and the shape of the dominant object."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.box import BlackBox, BoxSpec
from stages.errors import ModelError

SHAPES = ("disc", "square", "triangle", "star")
MOTIONS = ("sliding", "bobbing", "spinning", "pulsing")
LABELS = tuple(f"{motion} {shape}" for shape in SHAPES for motion in MOTIONS)

WEIGHTS = Path(__file__).with_name("weights.safetensors")

# Out-channels and (t, y, x) strides of the five 3 x 3 x 3 convolutions: 220 k parameters, 0.15 G multiplications.
CHANNELS = (16, 24, 40, 64, 64)
STRIDES = ((2, 2, 2), (1, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 1))

DEMO_SPEC = BoxSpec(
    name="demo",
    clip_len=16,
    frame_step=2,
    height=72,
    width=96,
    resize="squash",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    scores="logits",
    labels=LABELS,
)


class DemoNet(nn.Module):
    """Five 3-D convolutions, then mean and maximum over (t, y, x) into one linear layer.

    With `batch_norm` (training only) a normalisation follows every convolution; `train.py` folds it into the weights.
    """

    def __init__(self, *, batch_norm: bool = False) -> None:
        super().__init__()
        pairs = zip((3, *CHANNELS[:-1]), CHANNELS, strict=True)
        self.convs = nn.ModuleList(
            nn.Conv3d(inside, outside, 3, stride=stride, padding=1)
            for (inside, outside), stride in zip(pairs, STRIDES, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm3d(width) if batch_norm else nn.Identity() for width in CHANNELS)
        self.head = nn.Linear(2 * CHANNELS[-1], len(LABELS))

    def features(self, clips: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n d gt gh gw"]:
        """The last feature maps: a fourth of the frames, an eighth of the rows and columns."""
        x = clips.contiguous(memory_format=torch.channels_last_3d)  # twice as fast on CPUs
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu_(norm(conv(x)))
        return x

    def classify(self, features: Float[Tensor, "n d gt gh gw"]) -> Float[Tensor, "n k"]:
        """Logits of the classes in `LABELS` from the feature maps."""
        logits: Tensor = self.head(torch.cat([features.mean((2, 3, 4)), features.amax((2, 3, 4))], dim=1))
        return logits

    def forward(self, clips: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n k"]:
        """Logits of the classes in `LABELS` for normalised clips."""
        return self.classify(self.features(clips))


def load_demo_net(path: Path = WEIGHTS) -> DemoNet:
    """The network with the weights in `path`, in eval mode. Raises ModelError when they are missing or do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    net = DemoNet()
    try:
        net.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            str(path), f"the demo's weights do not load ({reason})", "run `python -m stages.demo.train`"
        ) from error
    return net.to(memory_format=torch.channels_last_3d).eval()


def load_demo_box() -> BlackBox:
    """The demo's classifier as a black box, with the shipped weights, on the CPU."""
    from stages.models import TorchBox

    return TorchBox(load_demo_net(), DEMO_SPEC)
