"""How a frame is laid out: one tinted picture, or panels beside each other, with the strip below.

Films and pictures share this layout. The RGB part (picture, words, hatching, strip) is painted on a canvas; the maps
are drawn afterwards, in RGB or YUV, on the panels that have one.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stages.colours import TITLE_COLOURS, LayerKind, hatch_lines
from stages.evidence import SIGNIFICANT_SD, decompose
from stages.lettering import GREY, WHITE, put_text, width_of
from stages.overlay import Layer, Overlay
from stages.records import FrameMap, Geometry
from stages.strip import MIN_FONT_PX, NOT_SEEN, Caption, Strip
from stages.timeline import BACKGROUND

LayoutKind = Literal["single", "pair", "panels"]

# Narrower pictures are shown in whole multiples of their pixels, so that the strip can be read.
MIN_WIDTH_PX = 200
# Panels of larger pictures are shrunk until they fit beside each other.
MAX_PANELS_WIDTH_PX = 2880

_ROWS: dict[LayoutKind, tuple[tuple[LayerKind | None, ...], ...]] = {
    "single": (("net",),),
    "pair": ((None, "net"),),
    "panels": ((None, "net", "support"), ("f_tc", "f_ntc", "uncertainty")),
}
_TITLES: dict[LayerKind | None, tuple[str, ...]] = {
    None: ("source",),
    "net": ("net: for and against", "net"),
    "support": ("for (support)", "for"),
    "f_tc": ("against: hinders the target (F-TC)", "against: F-TC"),
    "f_ntc": ("against: speaks for others (F-NTC)", "against: F-NTC"),
    "uncertainty": ("uncertainty: 2 sd of net", "2 sd of net"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Where one picture stands on the canvas, and the map drawn on it (None: the source alone)."""

    kind: LayerKind | None
    y: int
    x: int


class Layout:
    """Sizes and places of everything on the canvas, for one geometry; all sizes are even."""

    def __init__(
        self, geometry: Geometry, grid: tuple[int, int], caption: Caption, kind: LayoutKind, *, has_profile: bool
    ) -> None:
        rows = _ROWS[kind]
        columns = len(rows[0])
        self.picture_size, self.zoom = _picture_size(geometry, columns)
        cell_h, cell_w = (n + n % 2 for n in self.picture_size)
        gap = 0 if kind == "single" else max(2, cell_w // 160 * 2)
        self.width = columns * cell_w + (columns - 1) * gap
        self.strip = Strip(self.width, caption, has_profile=has_profile, zoom=self.zoom)
        self._title_px = 0 if kind == "single" else max(MIN_FONT_PX, min(self.strip.font_px, round(6 + cell_w / 50)))
        title_h = round(1.6 * self._title_px) // 2 * 2
        self.panels = tuple(
            Panel(kind=layer, y=title_h + row * (cell_h + title_h), x=column * (cell_w + gap))
            for row, layers in enumerate(rows)
            for column, layer in enumerate(layers)
        )
        self._strip_y = len(rows) * (cell_h + title_h)
        self.height = self._strip_y + self.strip.height
        self.overlay = Overlay(geometry, grid, self.picture_size)
        self._title_h = title_h
        self._lines = hatch_lines(*self.picture_size, period_px=max(6, round(0.9 * self.strip.font_px)))

    def blank(self, canvas: UInt8[np.ndarray, "h w 3"]) -> None:
        """Paint what never changes outside the strip: background and titles."""
        canvas[:] = BACKGROUND
        for panel in self.panels if self._title_px else ():
            room = self.picture_size[1] - self._title_px // 2
            wordings = _TITLES[panel.kind]
            fitting = [text for text in wordings if width_of(text, self._title_px) <= room]
            colour = WHITE if panel.kind is None else TITLE_COLOURS[panel.kind]
            y, x = panel.y - self._title_h, panel.x + self._title_px // 3
            put_text(canvas, (fitting or wordings[-1:])[0], x, y + self._title_px // 6, self._title_px, colour)

    def paint(self, canvas: UInt8[np.ndarray, "h w 3"], rgb: UInt8[np.ndarray, "h0 w0 3"], *, is_seen: bool) -> None:
        """Put the source's pixels into every panel and mark those the model never saw."""
        shown = self._resized(rgb)
        h, w = self.picture_size
        for panel in self.panels:
            picture = canvas[panel.y : panel.y + h, panel.x : panel.x + w]
            picture[:] = shown
            # A picture of odd size is padded with its own border: the encoder needs even sizes.
            canvas[panel.y + h : panel.y + h + h % 2, panel.x : panel.x + w] = picture[-1:]
            canvas[panel.y : panel.y + h + h % 2, panel.x + w : panel.x + w + w % 2] = canvas[
                panel.y : panel.y + h + h % 2, panel.x + w - 1 : panel.x + w
            ]
            if panel.kind is not None:
                self._mark_unseen(picture, is_seen=is_seen)

    def strip_part(self, canvas: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h0 w 3"]:
        """The part of the canvas that the strip is painted on."""
        return canvas[self._strip_y :]

    def _resized(self, rgb: UInt8[np.ndarray, "h0 w0 3"]) -> UInt8[np.ndarray, "h w 3"]:
        if self.zoom > 1:
            zoom = round(self.zoom)
            return rgb.repeat(zoom, axis=0).repeat(zoom, axis=1)
        if rgb.shape[:2] != self.picture_size:
            height, width = self.picture_size
            return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))
        return rgb

    def _mark_unseen(self, picture: UInt8[np.ndarray, "h w 3"], *, is_seen: bool) -> None:
        h, w = self.picture_size
        y0, y1, x0, x1 = self.overlay.covered if is_seen else (h, h, 0, 0)
        for top, bottom, left, right in ((0, y0, 0, w), (y1, h, 0, w), (y0, y1, 0, x0), (y0, y1, x1, w)):
            if bottom <= top or right <= left:
                continue
            part = picture[top:bottom, left:right]
            part >>= 1
            np.maximum(part, self._lines[top:bottom, left:right], out=part)
            self._name_bar(part)

    def _name_bar(self, bar: UInt8[np.ndarray, "h w 3"]) -> None:
        size = self.strip.font_px
        for words in (NOT_SEEN, "not seen"):
            if width_of(words, size) + size <= bar.shape[1] and bar.shape[0] >= 2 * size:
                put_text(bar, words, bar.shape[1] // 2, bar.shape[0] - 2 * size, size, GREY, align=0.5, outline=True)
                return


def _picture_size(geometry: Geometry, columns: int) -> tuple[tuple[int, int], float]:
    """Height and width of a panel and the zoom: whole for tiny pictures, below 1 for panels of large ones."""
    height, width = geometry.source_h_px, geometry.source_w_px
    if width * columns < MIN_WIDTH_PX:
        times = ceil(MIN_WIDTH_PX / (width * columns))
        return (height * times, width * times), float(times)
    if columns > 1 and width * columns > MAX_PANELS_WIDTH_PX:
        zoom = MAX_PANELS_WIDTH_PX / (width * columns)
        return (max(2, round(height * zoom / 2) * 2), round(width * zoom / 2) * 2), zoom
    return (height, width), 1.0


def layers_of(frame: FrameMap, layout: Layout, per_scale: float, fade: float) -> list[tuple[Panel, Layer]]:
    """The maps of a frame for the panels that show one; none where there is no reliable signal.

    `per_scale` turns score per voxel into units of the colour scale.
    """
    if not (frame.is_seen and frame.is_reliable):
        return []
    maps = decompose(frame)
    drawn = []
    for panel in layout.panels:
        if panel.kind is None:
            continue
        if panel.kind == "uncertainty":
            values = SIGNIFICANT_SD * np.sqrt(frame.var[frame.outputs.index("log_odds")])
            is_clear = np.ones(values.shape, bool)
        else:
            values, is_clear = maps[panel.kind], maps.is_significant[panel.kind]
        drawn.append((panel, Layer(kind=panel.kind, values=values * per_scale, is_significant=is_clear, fade=fade)))
    return drawn
