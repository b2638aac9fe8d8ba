"""The time profile under a film: how much speaks for the target, and how much against it, frame by frame.

For stands above the line, the two kinds of against below it, one on top of the other. Frames without a reliable map are
drawn in grey, frames that the model never saw not at all.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from stages.colours import F_NTC, F_TC, FOR
from stages.lettering import GREY, WHITE, put_text, width_of

BACKGROUND = 22
PLOT_BACKGROUND = 34

# Nothing, for, F-TC, F-NTC: in a reliable frame, in an unreliable one, in a frame that is not known or not seen.
_UNRELIABLE = (112, 112, 112)
_PLOT = (PLOT_BACKGROUND,) * 3
_AREA_COLOURS = np.array(
    [_PLOT, FOR, F_TC, F_NTC, _PLOT, *[_UNRELIABLE] * 3, *[(BACKGROUND + 4,) * 3] * 4],
    np.uint8,
)

_TICKS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Evidence per frame, in score units, for consecutive frames; `end_s` is when the last one ends."""

    pts_s: Float[np.ndarray, " n"]
    support: Float[np.ndarray, " n"]
    f_tc: Float[np.ndarray, " n"]
    f_ntc: Float[np.ndarray, " n"]
    is_seen: Bool[np.ndarray, " n"]
    is_reliable: Bool[np.ndarray, " n"]
    end_s: float


def clock(seconds: float, step_s: float = 1.0) -> str:
    """Seconds as people read them: 0.5 s, 12 s, 2:05, 1:00:00."""
    if seconds < 60:
        return f"{seconds:.1f} s" if step_s < 1 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def tick_step(span_s: float, width_px: int, label_px: int) -> float:
    """Seconds between ticks, such that labels do not touch."""
    least = span_s * 1.8 * label_px / max(1, width_px)
    return next((step for step in _TICKS_S if step >= least), _TICKS_S[-1])


def draw_areas(
    canvas: UInt8[np.ndarray, "h w 3"], profile: Profile, span_s: tuple[float, float], full_height: float
) -> None:
    """Fill the plot with the areas; `full_height` is the evidence per frame that reaches the border."""
    height, width = canvas.shape[:2]
    times = span_s[0] + (np.arange(width) + 0.5) / width * (span_s[1] - span_s[0])
    frame = np.searchsorted(profile.pts_s, times, side="right") - 1
    is_known = (frame >= 0) & (times < profile.end_s)
    frame = np.clip(frame, 0, max(0, len(profile.pts_s) - 1))
    half = height // 2
    px = np.where(is_known & profile.is_seen[frame], half / full_height, 0.0)
    up, tc = profile.support[frame] * px, profile.f_tc[frame] * px
    ntc = tc + profile.f_ntc[frame] * px
    rows = np.arange(half)[:, None] + 0.5
    code = np.zeros((2 * half, width), np.intp)
    code[:half] = rows[::-1] < up
    code[half:] = np.where(rows < tc, 2, 3 * (rows < ntc))
    code += 4 * np.where(is_known & profile.is_seen[frame], ~profile.is_reliable[frame], 2)
    canvas[: 2 * half] = _AREA_COLOURS.take(code, axis=0)
    canvas[2 * half :] = BACKGROUND
    canvas[half - 1 : half + 1] = np.maximum(canvas[half - 1 : half + 1], 96)


def draw_time_axis(
    canvas: UInt8[np.ndarray, "h w 3"], span_s: tuple[float, float], size_px: int, x0: int, x1: int
) -> None:
    """Ticks and clock times below the plot, which reaches from column x0 to x1 of the canvas."""
    start, end = span_s
    step = tick_step(end - start, x1 - x0, width_of("0:00", size_px))
    for k in range(int(np.ceil(max(0.0, start) / step - 1e-9)), int(end / step + 1e-9) + 1):
        x = x0 + round((k * step - start) / (end - start) * (x1 - x0))
        label = clock(k * step, step)
        room = width_of(label, size_px)
        canvas[: max(2, size_px // 5), max(0, x - 1) : x + 1] = GREY
        if x0 <= x <= x1:
            centre = int(np.clip(x, x0 + room // 2, x1 - (room + 1) // 2))
            put_text(canvas, label, centre, size_px // 6, size_px, GREY, align=0.5)


def draw_playhead(canvas: UInt8[np.ndarray, "h w 3"], x: float, size_px: int) -> None:
    """A bright line through the plot at column x, with a handle on top."""
    thick = max(1, size_px // 8)
    left = int(np.clip(round(x - thick / 2), 0, canvas.shape[1] - thick))
    canvas[:, left : left + thick] = WHITE
    grip = max(2, size_px // 4)
    for row in range(grip):
        half = grip - row
        canvas[row, max(0, left + thick // 2 - half) : left + thick // 2 + half + 1] = WHITE
