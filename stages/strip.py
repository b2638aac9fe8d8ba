"""The strip below the picture: what is explained, the time profile with its playhead, the colour bar with its unit."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from stages.colours import F_NTC, F_TC, FOR, LayerKind, Rgb, checkerboard, over
from stages.lettering import AMBER, GREY, WHITE, fit, longest_fitting, put_text, width_of
from stages.records import FrameMap
from stages.timeline import BACKGROUND, Profile, clock, draw_areas, draw_playhead, draw_time_axis

UNIT = "log-odds per 1 % of the clip"
PICTURE_UNIT = "log-odds per 1 % of the picture"
NOT_SEEN = "not seen by the model"
NOT_RELIABLE = "no reliable signal"
MIN_FONT_PX = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What the strip says in words. `voxels_per_clip` = Gt * Gh * Gw turns score per voxel into the unit shown."""

    target: str
    model: str
    voxels_per_clip: int
    predicted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moment:
    """What changes from frame to frame: the time, the profile around it, and a warning in words (or "")."""

    now_s: float
    span_s: tuple[float, float]
    profile: Profile
    note: str


def note_of(frame: FrameMap) -> str:
    """The warning that a frame needs: a map that cannot be trusted is said in words, not drawn."""
    if not frame.is_seen:
        return NOT_SEEN
    return "" if frame.is_reliable else NOT_RELIABLE


def number(value: float) -> str:
    """Two digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


class Strip:
    """Lays the strip out for one width; `prepare` fixes the scale, `draw` paints a moment."""

    def __init__(self, width: int, caption: Caption, *, has_profile: bool, zoom: float = 1.0) -> None:
        self.width = width
        self.font_px = font = max(MIN_FONT_PX, round(6 + width / 80))
        self._caption, self._zoom = caption, zoom
        self._is_wide = width >= 56 * font
        self._pad = max(4, font // 2)
        line = round(1.35 * font)
        self._caption_y = self._pad // 2 + 1
        self._profile_y = self._caption_y + line * (1 if self._is_wide else 2) + self._pad // 2
        self._profile_h = round(3.6 * font) // 2 * 2 if has_profile else 0
        self._axis_y = self._profile_y + self._profile_h
        self._bar_y = self._axis_y + (round(1.6 * font) if has_profile else 0)
        self._unit_y = self._bar_y + round(1.25 * font)
        end = (self._bar_y if self._is_wide else self._unit_y) + line + self._pad // 2
        self.height = end + end % 2
        self._static = np.full((self.height, width, 3), BACKGROUND, np.uint8)
        self._plot: tuple[tuple[float, float], int, np.ndarray] | None = None
        self._full_height = 1.0

    def prepare(self, scale: float, full_height: float = 1.0) -> None:
        """Fix the end of the colour bar and the evidence per frame that fills the profile; paint what never changes."""
        self._full_height = full_height if full_height > 0 else 1.0
        self._static[:] = BACKGROUND
        self._paint_caption()
        self._paint_bar(scale)

    def draw(self, canvas: UInt8[np.ndarray, "h w 3"], moment: Moment | None = None, note: str = "") -> None:
        """Paint the strip into its part of a canvas; without a moment (pictures) there is no profile."""
        canvas[:] = self._static
        if moment is not None:
            self._paint_profile(canvas, moment)
            note = moment.note
            right = clock(moment.now_s, 0.1)
            put_text(canvas, right, self.width - self._pad, self._caption_y, self.font_px, WHITE, align=1.0)
        if note:
            self._paint_note(canvas, note, has_clock=moment is not None)

    def _paint_note(self, canvas: UInt8[np.ndarray, "h w 3"], note: str, *, has_clock: bool) -> None:
        """A warning in a dark box: in the middle of the profile, or at the right end of the caption."""
        size, text = self.font_px, fit(note, self.font_px, self.width - 2 * self._pad)
        half, gap = width_of(text, size) // 2, self._pad
        if self._profile_h:
            x, y = self.width // 2, self._profile_y + (self._profile_h - round(1.2 * size)) // 2
        else:
            x, y = self.width - gap - half - (4 * size if has_clock else 0), self._caption_y
        canvas[max(0, y - 1) : y + round(1.3 * size), max(0, x - half - gap) : x + half + gap] = BACKGROUND
        put_text(canvas, text, x, y, size, AMBER, align=0.5)

    def _paint_caption(self) -> None:
        size, caption, canvas = self.font_px, self._caption, self._static
        small = round(0.9 * size)
        x, y = self._pad, self._caption_y
        room = self.width - 2 * self._pad - 5 * size
        x += put_text(canvas, "target  ", x, y, size, GREY)
        target = fit(caption.target, size, room - x)
        x += put_text(canvas, target, x, y, size, WHITE)
        said = f"predicted  {caption.predicted}" if caption.predicted else ""
        zoomed = f"shown {self._zoom:.0f}×" if self._zoom > 1 else ""
        rest = "  ·  ".join(part for part in (said, caption.model, zoomed) if part)
        if self._is_wide:
            put_text(canvas, fit(rest, size, room - x), x + 2 * size, y, size, GREY)
        else:
            put_text(
                canvas, fit(rest, small, self.width - 2 * self._pad), self._pad, y + round(1.35 * size), small, GREY
            )

    def _paint_bar(self, scale: float) -> None:
        """against −s [colours over a checkerboard] +s for, and the unit."""
        size, y, canvas = self.font_px, self._bar_y, self._static
        small, gap = round(0.9 * size), max(3, size // 3)
        left, right = self._pad, self.width - self._pad
        keys = self._keys(small, (right - left) // 2 if self._is_wide else right - left)
        if self._is_wide:
            right -= width_of(keys, small) + 2 * size
            put_text(canvas, keys, self.width - self._pad, y + size - small, small, GREY, align=1.0)
        else:
            put_text(canvas, keys, self.width // 2, self._unit_y, small, GREY, align=0.5)
        left += put_text(canvas, "against", left, y, size, F_TC) + gap
        left += put_text(canvas, f"-{number(scale)}", left, y, size, WHITE) + gap
        right -= put_text(canvas, "for", right, y, size, FOR, align=1.0) + gap
        right -= put_text(canvas, f"+{number(scale)}", right, y, size, WHITE, align=1.0) + gap
        if right - left > 8:
            top, height = y + max(1, size // 8), round(0.95 * size)
            self._paint_colours(canvas[top : top + height, left:right], "net")

    def _paint_colours(self, bar: UInt8[np.ndarray, "h w 3"], kind: LayerKind) -> None:
        height, width = bar.shape[:2]
        values = np.broadcast_to(np.linspace(-1, 1, width), (height, width))
        bar[:] = over(checkerboard(height, width, max(2, height // 3)), kind, values)
        middle = width // 2
        bar[-max(2, height // 3) :, middle - 1 : middle + 1] = WHITE

    def _keys(self, size: int, room: int) -> str:
        unit = UNIT if self._profile_h else PICTURE_UNIT
        wordings = (
            f"{unit}  ·  outlined: above half  ·  faded: not significant  ·  hatched: {NOT_SEEN}",
            f"{unit}  ·  outlined: above half  ·  faded: not significant",
            f"{unit}  ·  faded: not significant",
            unit,
            "log-odds per %",
        )
        return longest_fitting(wordings, size, room)

    def _paint_profile(self, canvas: UInt8[np.ndarray, "h w 3"], moment: Moment) -> None:
        x0, x1 = self._pad, self.width - self._pad
        plot = canvas[self._profile_y : self._axis_y, x0:x1]
        known = len(moment.profile.pts_s)
        key = (moment.span_s, known)
        if self._plot is None or (self._plot[0], self._plot[1]) != key:
            self._paint_plot(canvas, moment, x0, x1)
            self._plot = (*key, canvas[self._profile_y : self._bar_y].copy())
        else:
            canvas[self._profile_y : self._bar_y] = self._plot[2]
        start, end = moment.span_s
        draw_playhead(plot, (moment.now_s - start) / (end - start) * (x1 - x0), self.font_px)

    def _paint_plot(self, canvas: UInt8[np.ndarray, "h w 3"], moment: Moment, x0: int, x1: int) -> None:
        small = round(0.85 * self.font_px)
        plot = canvas[self._profile_y : self._axis_y, x0:x1]
        draw_areas(plot, moment.profile, moment.span_s, self._full_height)
        draw_time_axis(canvas[self._axis_y : self._bar_y], moment.span_s, small, x0, x1)
        words: list[tuple[str, Rgb]] = [("F-TC", F_TC), ("F-NTC", F_NTC)]
        inset, bottom = max(2, small // 4), plot.shape[0] - round(1.2 * small)
        put_text(plot, "for", inset, 0, small, FOR, outline=True)
        x = inset
        for text, colour in words:
            x += put_text(plot, text, x, bottom, small, colour, outline=True) + small // 2
        size_text = f"±{number(self._full_height)} log-odds per frame"
        if width_of(size_text, small) < 0.5 * plot.shape[1]:
            put_text(plot, size_text, plot.shape[1] - inset, 0, small, GREY, align=1.0, outline=True)
