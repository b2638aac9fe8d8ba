"""Grid maps over pictures: the one place where the grid of the model's input meets the pixels people look at.

In: a map (Gh Gw), already divided by the colour scale, and where it is significant. Out: the same pixels, tinted, in
RGB (pictures) or in the planes of YUV 4:2:0 (films). The grid covers the model's input and is drawn back through the
clip's Geometry, bilinear between cell centres and edge cells extended to the border of the model's input: that never
invents a sign, a halo or a maximum that the grid does not have.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from stages.colours import ColourTable, LayerKind, colour_index, colour_table
from stages.records import Geometry

# Above this many pixels the luma plane is tinted in 2 x 2 blocks: not to be seen, and twice as fast.
FINE_PIXELS = 500_000

# A line is drawn around significant evidence above this share of the colour scale.
OUTLINE_AT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One map to draw: values in units of the colour scale (-1 ... 1), and how much to fade what is not significant."""

    kind: LayerKind
    values: Float[np.ndarray, "gh gw"]
    is_significant: Bool[np.ndarray, "gh gw"]
    fade: float


def interpolation(positions: Float[np.ndarray, " n"], num_cells: int) -> Float32[np.ndarray, "n cells"]:
    """Row i: the bilinear weights of the cells at position i in [0, num_cells]; cell c is centred at c + 0.5."""
    centred = np.clip(positions - 0.5, 0, num_cells - 1)
    low = np.minimum(centred.astype(np.intp), max(num_cells - 2, 0))
    high = np.minimum(low + 1, num_cells - 1)
    share = centred - low
    weights = np.zeros((len(positions), num_cells), np.float32)
    rows = np.arange(len(positions))
    np.add.at(weights, (rows, low), 1 - share)
    np.add.at(weights, (rows, high), share)
    return weights


def blend(plane: UInt8[np.ndarray, "h w"], colour: UInt8[np.ndarray, "h w"], alpha: UInt8[np.ndarray, "h w"]) -> None:
    """plane += alpha (colour - plane), in place, with opacity 0 ... 255."""
    step = colour.astype(np.int16)
    step -= plane
    step *= alpha >> 1  # 7 bits: 255 * 127 still fits
    step >>= 7
    step += plane
    plane[:] = step  # between the two by construction: the cast cannot wrap


def outline(inside: Bool[np.ndarray, "h w"], thick: int) -> Bool[np.ndarray, "h w"]:
    """The pixels inside that lie within `thick` of the outside, along an axis; the array's border is no outside."""
    line = np.zeros_like(inside)
    across = inside[thick:] != inside[:-thick]
    line[thick:] |= across
    line[:-thick] |= across
    along = inside[:, thick:] != inside[:, :-thick]
    line[:, thick:] |= along
    line[:, :-thick] |= along
    line &= inside
    return line


class Overlay:
    """Draws maps of one geometry and grid over pictures of one size (source pixels times `zoom`)."""

    def __init__(self, geometry: Geometry, grid: tuple[int, int], size: tuple[int, int]) -> None:
        self.size = size
        self.line_px = max(1, round(min(size) / 240))
        g = geometry
        zoom_y, zoom_x = size[0] / g.source_h_px, size[1] / g.source_w_px
        start_y, end_y = g.offset_y_px * zoom_y, (g.offset_y_px + g.scale_y * g.model_h_px) * zoom_y
        start_x, end_x = g.offset_x_px * zoom_x, (g.offset_x_px + g.scale_x * g.model_w_px) * zoom_x
        # The part of the picture that the model's input covers, half-open: y0, y1, x0, x1.
        self.covered = (
            int(np.clip(round(start_y), 0, size[0])),
            int(np.clip(round(end_y), 0, size[0])),
            int(np.clip(round(start_x), 0, size[1])),
            int(np.clip(round(end_x), 0, size[1])),
        )
        self._spans = ((start_y, end_y), (start_x, end_x))
        self._grid = grid
        self._fine = self._matrices(1)
        self._coarse = self._matrices(2)

    def _matrices(self, step: int) -> tuple[Float32[np.ndarray, "h gh"], Float32[np.ndarray, "gw w"]]:
        """Interpolation to every step-th pixel of the covered part, which begins and ends at multiples of `step`."""
        y0, y1, x0, x1 = (edge // step for edge in self.covered)
        matrices = []
        for first, last, (start, end), cells in zip((y0, x0), (y1, x1), self._spans, self._grid, strict=True):
            centres = (np.arange(first, last) + 0.5) * step
            matrices.append(interpolation((centres - start) / (end - start) * cells, cells))
        return matrices[0], np.ascontiguousarray(matrices[1].T)

    def upsample(self, grid: Float[np.ndarray, "gh gw"], step: int = 1) -> Float32[np.ndarray, "h w"]:
        """The map at every step-th pixel of the covered part of the picture."""
        rows, columns = self._fine if step == 1 else self._coarse
        return np.asarray((rows @ grid.astype(np.float32)) @ columns)

    def _index(self, layer: Layer, step: int) -> np.ndarray:
        """Rows of the colour table: the map, and a line of the full colour around what exceeds OUTLINE_AT."""
        values = self.upsample(layer.values, step)
        if layer.is_significant.all():
            weight = np.ones_like(values)
        else:
            weight = self.upsample(np.where(layer.is_significant, np.float32(1), np.float32(layer.fade)), step)
        clear = np.where(layer.is_significant, layer.values, 0)
        if max(-clear.min(), clear.max()) > OUTLINE_AT:
            strength = values * weight
            thick = max(1, self.line_px // step)
            for sign, inside in ((1, strength > OUTLINE_AT), (-1, strength < -OUTLINE_AT)):
                is_line = outline(inside, thick)
                np.copyto(values, sign, where=is_line)
                np.copyto(weight, 1, where=is_line)
        return colour_index(values, weight)

    def draw_rgb(self, picture: UInt8[np.ndarray, "h w 3"], layer: Layer) -> None:
        """Tint an RGB picture in place."""
        table = colour_table(layer.kind, "rgb")
        index = self._index(layer, 1)
        alpha = table.alpha.take(index)
        y0, y1, x0, x1 = self.covered
        for channel in range(3):
            blend(picture[y0:y1, x0:x1, channel], table.colours[channel].take(index), alpha)

    def draw_yuv(
        self,
        y: UInt8[np.ndarray, "h w"],
        u: UInt8[np.ndarray, "h2 w2"],
        v: UInt8[np.ndarray, "h2 w2"],
        layer: Layer,
    ) -> None:
        """Tint the three planes of a YUV 4:2:0 picture in place; chroma has half the size in both axes."""
        table = colour_table(layer.kind, "yuv")
        index = self._index(layer, 2)
        alpha = table.alpha.take(index)
        y0, y1, x0, x1 = (edge // 2 for edge in self.covered)
        blend(u[y0:y1, x0:x1], table.colours[1].take(index), alpha)
        blend(v[y0:y1, x0:x1], table.colours[2].take(index), alpha)
        self._draw_luma(y, layer, table, index, alpha)

    def _draw_luma(
        self,
        y: UInt8[np.ndarray, "h w"],
        layer: Layer,
        table: ColourTable,
        index: np.ndarray,
        alpha: UInt8[np.ndarray, "h2 w2"],
    ) -> None:
        if y.size <= FINE_PIXELS:
            y0, y1, x0, x1 = self.covered
            fine = self._index(layer, 1)
            blend(y[y0:y1, x0:x1], table.colours[0].take(fine), table.alpha.take(fine))
            return
        y0, y1, x0, x1 = (edge // 2 * 2 for edge in self.covered)
        colour = table.colours[0].take(index).repeat(2, axis=1)
        alpha = alpha.repeat(2, axis=1)
        blend(y[y0:y1:2, x0:x1], colour, alpha)
        blend(y[y0 + 1 : y1 : 2, x0:x1], colour, alpha)
