"""Words on pictures: the font that comes with Pillow, at any size, blended straight into arrays."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from math import ceil

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from stages.colours import Rgb

WHITE: Rgb = (240, 240, 240)
GREY: Rgb = (165, 168, 174)
AMBER: Rgb = (255, 205, 84)

# Text is drawn this much larger and reduced: letters then stand where they should, between pixels too.
_FINER = 4


@lru_cache(maxsize=16)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size_px)
    assert isinstance(font, ImageFont.FreeTypeFont)  # a size is given, so Pillow answers with its scalable font
    return font


@lru_cache(maxsize=1024)
def text_mask(text: str, size_px: int) -> UInt8[np.ndarray, "h w"]:
    """Coverage (0 ... 255) of a line of text; all masks of one size have one height and one base line."""
    font = _font(size_px * _FINER)
    ascent, descent = font.getmetrics()
    width, height = width_of(text, size_px), ceil((ascent + descent) / _FINER)
    image = Image.new("L", (width * _FINER, height * _FINER))
    ImageDraw.Draw(image).text((0, ascent), text, fill=255, font=font, anchor="ls")
    cover = np.asarray(image.reduce(_FINER)).astype(np.float32) / 255
    return np.asarray((255 * cover**0.8).round().astype(np.uint8))


def width_of(text: str, size_px: int) -> int:
    """Pixels that a line of text is wide."""
    return ceil(_font(size_px * _FINER).getlength(text) / _FINER) + 1


def fit(text: str, size_px: int, width_px: int) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    if width_of(text, size_px) <= width_px:
        return text
    cut = [text[:kept].rstrip() + "…" for kept in range(1, len(text))]
    fitting = bisect_right(cut, width_px, key=lambda part: width_of(part, size_px))
    return cut[fitting - 1] if fitting else ""


def longest_fitting(texts: Sequence[str], size_px: int, width_px: int) -> str:
    """The first of several wordings, longest first, that fits; the last one is cut if it must be."""
    for text in texts:
        if width_of(text, size_px) <= width_px:
            return text
    return fit(texts[-1], size_px, width_px)


def put_text(
    canvas: UInt8[np.ndarray, "h w 3"],
    text: str,
    x: int,
    y: int,
    size_px: int,
    colour: Rgb,
    *,
    align: float = 0.0,
    outline: bool = False,
) -> int:
    """Write one line with its top at y and return its width; align 0, 0.5, 1 puts x at its left, centre, right.

    What falls outside the canvas is cut off. `outline` darkens what lies behind, for words over pictures.
    """
    mask = text_mask(text, size_px)
    left, top = round(x - align * mask.shape[1]), y
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(canvas.shape[0], top + mask.shape[0]), min(canvas.shape[1], left + mask.shape[1])
    if y1 <= y0 or x1 <= x0:
        return int(mask.shape[1])
    part = canvas[y0:y1, x0:x1]
    if outline:
        part >>= 3
    alpha = mask[y0 - top : y1 - top, x0 - left : x1 - left, None].astype(np.uint16)
    part[:] = (part * (255 - alpha) + np.array(colour, np.uint16) * alpha) // 255
    return int(mask.shape[1])
