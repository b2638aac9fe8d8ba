"""Substrates: what replaces a hidden voxel (docs/method.md, 6). Captum says baseline, XAITK says fill.

A map depends on this choice, so the substrate stands in the manifest. Frames are RGB in [0, 1] on the device.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from stages.errors import ConfigError

BLUR_STD_AT_224_PX = 20.0


def blur(frames: Float[Tensor, "t c h w"], _: torch.Generator) -> Float[Tensor, "t c h w"]:
    """Each frame under a Gaussian of 20 px at 224 px: colours and layout stay, objects go."""
    c, h, w = frames.shape[1:]
    out = frames
    for axis, side in ((2, int(h)), (3, int(w))):
        std = BLUR_STD_AT_224_PX * side / 224
        radius = min(round(3 * std), side - 1)
        at = torch.arange(-radius, radius + 1, device=frames.device, dtype=frames.dtype)
        taps = torch.exp(-0.5 * (at / std) ** 2)
        taps = (taps / taps.sum()).reshape([1, 1, -1, 1] if axis == 2 else [1, 1, 1, -1]).repeat(c, 1, 1, 1)
        pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        out = F.conv2d(F.pad(out, pad, mode="reflect" if radius else "replicate"), taps, groups=c)
    return out


def mean(frames: Float[Tensor, "t c h w"], _: torch.Generator) -> Float[Tensor, "t c h w"]:
    """The mean colour of the clip."""
    return frames.mean((0, 2, 3), keepdim=True).expand_as(frames)


def noise(frames: Float[Tensor, "t c h w"], generator: torch.Generator) -> Float[Tensor, "t c h w"]:
    """Uniform noise, the same for every mask of a clip."""
    return torch.rand(frames.shape, generator=generator).to(frames)


def median(frames: Float[Tensor, "t c h w"], _: torch.Generator) -> Float[Tensor, "t c h w"]:
    """The temporal median plate of the clip: removes what moves, keeps the scene."""
    return frames.median(dim=0, keepdim=True).values.expand_as(frames)


def freeze(frames: Float[Tensor, "t c h w"], _: torch.Generator) -> Float[Tensor, "t c h w"]:
    """The frozen first frame; with masks, each hidden voxel holds what the frame before showed (`apply_mask`)."""
    return frames[:1].expand_as(frames)


SUBSTRATES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "blur": blur,
    "mean": mean,
    "noise": noise,
    "freeze": freeze,
    "median": median,
}


def make_substrate(kind: str, frames: Float[Tensor, "t c h w"], seed: int) -> Float[Tensor, "t c h w"]:
    """The replacement for every voxel of a clip. Raises ConfigError for an unknown kind."""
    if kind not in SUBSTRATES:
        raise ConfigError(f"substrate {kind!r}", "is not known", f"use one of {', '.join(SUBSTRATES)}")
    return SUBSTRATES[kind](frames, torch.Generator().manual_seed(seed))


def apply_mask(
    frames: Float[Tensor, "t c h w"],
    keep: Float[Tensor, "n t h w"],  # 1 keeps, 0 replaces
    substrate: Float[Tensor, "t c h w"],
    *,
    is_freeze: bool = False,
    out: Float[Tensor, "n t c h w"] | None = None,
) -> Float[Tensor, "n t c h w"]:
    """Phi(x; a) = a x + (1 - a) R; freeze: x'_u = a_u x_u + (1 - a_u) x'_{u-1}, x'_{-1} = x_0 (docs/method.md, 6).

    `out` is filled and returned; without it the result is a function of `keep` that has gradients.
    """
    if not is_freeze:
        return torch.lerp(substrate[None], frames[None], keep[:, :, None], out=out)
    shown = frames[0].expand(len(keep), *frames.shape[1:])
    found = []
    for u in range(len(frames)):
        shown = torch.lerp(shown, frames[u].expand_as(shown), keep[:, u, None], out=None if out is None else out[:, u])
        found.append(shown)
    return torch.stack(found, dim=1) if out is None else out
