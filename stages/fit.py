"""Bringing a picture to the geometry of a box: short side and crop, squash or letterbox, and the map back.

Resizing is bilinear in 8 bits (torch), antialiased unless the box was trained without. Sizes and crops
are rounded as torchvision's Resize and CenterCrop round them, so that boxes see what they were trained on.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8

from stages.box import BoxSpec
from stages.errors import DecodeError
from stages.records import Geometry

MAX_RESIZED_PX = 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Resize source to (resized_h, resized_w), then look at it through a window of model size at (top, left).

    A negative top or left leaves bars of the colour `fill`.
    """

    source_h_px: int
    source_w_px: int
    resized_h_px: int
    resized_w_px: int
    top_px: int
    left_px: int
    model_h_px: int
    model_w_px: int
    fill: tuple[int, int, int] = (0, 0, 0)
    antialias: bool = True

    @property
    def geometry(self) -> Geometry:
        """The affine map from model pixels to source pixels."""
        scale_y, scale_x = self.source_h_px / self.resized_h_px, self.source_w_px / self.resized_w_px
        return Geometry(
            source_h_px=self.source_h_px,
            source_w_px=self.source_w_px,
            model_h_px=self.model_h_px,
            model_w_px=self.model_w_px,
            scale_y=scale_y,
            scale_x=scale_x,
            offset_y_px=self.top_px * scale_y,
            offset_x_px=self.left_px * scale_x,
        )

    def apply(self, rgb: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "c mh mw"]:
        """The picture as the box gets it."""
        picture = torch.from_numpy(rgb).permute(2, 0, 1)[None]  # channels last in memory: the fast path
        size = (self.resized_h_px, self.resized_w_px)
        if picture.shape[2:] != size:
            picture = F.interpolate(picture, size=size, mode="bilinear", antialias=self.antialias)
        top, left = max(self.top_px, 0), max(self.left_px, 0)
        inner = picture[0, :, top : top + self.model_h_px, left : left + self.model_w_px]
        if inner.shape[1:] == (self.model_h_px, self.model_w_px):
            return np.array(inner.numpy(), order="C")
        out = np.empty((3, self.model_h_px, self.model_w_px), np.uint8)
        out[:] = np.array(self.fill, np.uint8)[:, None, None]
        y0, x0 = max(-self.top_px, 0), max(-self.left_px, 0)
        out[:, y0 : y0 + inner.shape[1], x0 : x0 + inner.shape[2]] = inner.numpy()
        return out


def fit_to(spec: BoxSpec, height: int, width: int, item: str) -> Fit:
    """How a source of `height` x `width` pixels is brought to the box. Raises DecodeError (on `item`) for slivers."""
    if spec.resize == "squash":
        resized, corner = (spec.height, spec.width), (0, 0)
    elif spec.resize == "letterbox":
        scale = min(spec.height / height, spec.width / width)
        resized = (max(1, round(height * scale)), max(1, round(width * scale)))
        corner = (-((spec.height - resized[0]) // 2), -((spec.width - resized[1]) // 2))
    else:
        scale = max((spec.short_side or 0) / min(height, width), spec.height / height, spec.width / width)
        resized = (max(spec.height, int(height * scale + 1e-6)), max(spec.width, int(width * scale + 1e-6)))
        corner = (round((resized[0] - spec.height) / 2), round((resized[1] - spec.width) / 2))
    if resized[0] * resized[1] > MAX_RESIZED_PX:
        fact = f"{width}x{height} pixels are too narrow for {spec.name}, which crops the centre after scaling up"
        raise DecodeError(item, fact, "set resize: letterbox in the box's spec")
    return Fit(
        source_h_px=height,
        source_w_px=width,
        resized_h_px=resized[0],
        resized_w_px=resized[1],
        top_px=corner[0],
        left_px=corner[1],
        model_h_px=spec.height,
        model_w_px=spec.width,
        fill=_mean_colour(spec),
        antialias=spec.antialias,
    )


def _mean_colour(spec: BoxSpec) -> tuple[int, int, int]:
    levels = [int(np.clip(round(255 * mean / spec.value_scale), 0, 255)) for mean in spec.mean]
    red, green, blue = levels if spec.channel_order == "rgb" else levels[::-1]
    return red, green, blue
