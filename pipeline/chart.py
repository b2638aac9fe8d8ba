"""The time profile of a video as inline SVG: for above the line, the two kinds of against below it, net as a line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

MAX_BINS = 360
WIDTH, HEIGHT, SMALL_HEIGHT = 720, 150, 90
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 24

_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Means over bins of frames, in log-odds per 1 % of the clip. `unseen` and `unreliable` are shares of each bin."""

    edges_s: Float64[np.ndarray, " b1"]
    values: dict[str, Float64[np.ndarray, " b"]]  # for, f_tc, f_ntc, net
    is_seen: Float64[np.ndarray, " b"]
    is_reliable: Float64[np.ndarray, " b"]


def make_profile(columns: dict[str, np.ndarray]) -> Profile:
    """Bin the frame rows of one target (pts_s, for, f_tc, f_ntc, net, is_seen, is_reliable); at least one frame."""
    num_frames = len(columns["pts_s"])
    starts = np.unique(np.linspace(0, num_frames, min(num_frames, MAX_BINS) + 1).astype(int)[:-1])
    counts = np.diff(np.append(starts, num_frames))
    pts_s = columns["pts_s"].astype(np.float64)
    step = float(pts_s[-1] - pts_s[0]) / (num_frames - 1) if num_frames > 1 else 1.0
    means = {
        name: np.add.reduceat(columns[name].astype(np.float64), starts) / counts
        for name in ("for", "f_tc", "f_ntc", "net", "is_seen", "is_reliable")
    }
    return Profile(
        edges_s=np.append(pts_s[starts], pts_s[-1] + step) - pts_s[0],
        values={name: means[name] for name in ("for", "f_tc", "f_ntc", "net")},
        is_seen=means["is_seen"],
        is_reliable=means["is_reliable"],
    )


def profile_svg(profile: Profile) -> str:
    """The profile as one <svg>; numbers only, no text from outside."""
    edges, values = profile.edges_s, profile.values
    against = values["f_tc"] + values["f_ntc"]
    top = float(max(values["for"].max(), against.max(), np.abs(values["net"]).max(), 1e-9))
    x = LEFT + edges / max(float(edges[-1]), 1e-9) * (WIDTH - LEFT - RIGHT)
    half = (HEIGHT - TOP - BOTTOM) / 2
    zero = TOP + half

    def y(value: Float64[np.ndarray, " b"]) -> Float64[np.ndarray, " b"]:
        return zero - np.asarray(value) / top * half

    line = np.zeros_like(against)
    parts = [
        f'<svg class="profile" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" data-left="{LEFT}"',
        f' data-right="{WIDTH - RIGHT}" data-end="{edges[-1]:.3f}">',
        "<title>Evidence over time: for the target above the line, against it below</title>",
        *_rects("unseen", x, profile.is_seen < 0.5),
        *_rects("unreliable", x, (profile.is_seen >= 0.5) & (profile.is_reliable < 0.5)),
        *_time_axis(float(edges[-1])),
        _area("for", x, y(line), y(values["for"])),
        _area("f_tc", x, y(line), y(-values["f_tc"])),
        _area("f_ntc", x, y(-values["f_tc"]), y(-against)),
        f'<path class="net" d="{_steps(x, y(values["net"]))}"/>',
        f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}"/>',
        *(
            f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{label}</text>'
            for at, label in ((TOP + 4, f"+{top:.2g}"), (zero, "0"), (HEIGHT - BOTTOM - 4, f"−{top:.2g}"))
        ),
        f'<line class="playhead" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg>',
    ]
    return "".join(parts)


def screening_svg(
    starts_s: Float64[np.ndarray, " n"],
    scores: Float64[np.ndarray, " n"],
    explained_s: Sequence[tuple[float, float]],
    *,
    end_s: float,
    top: float,
) -> str:
    """The screening score over a video's time as one <svg>; explained stretches are marked. Times count from 0.

    `top`: the end of the scale, the same for all videos. Where clips are many, the largest of some is shown.
    """
    first = np.unique(np.linspace(0, len(scores), min(len(scores), MAX_BINS) + 1).astype(int)[:-1])
    values = np.maximum.reduceat(scores, first)
    scale = (WIDTH - LEFT - RIGHT) / max(end_s, 1e-9)
    x = LEFT + np.append(starts_s[first], end_s) * scale
    bottom = SMALL_HEIGHT - BOTTOM
    y = bottom - values / max(top, 1e-9) * (bottom - TOP)
    parts = [
        f'<svg class="screened" viewBox="0 0 {WIDTH} {SMALL_HEIGHT}" role="img">',
        "<title>Screening score over time; marked: explained</title>",
        *(
            f'<rect class="explained" x="{LEFT + a * scale:.1f}" y="{TOP}" width="{(b - a) * scale:.1f}"'
            f' height="{bottom - TOP}"/>'
            for a, b in explained_s
        ),
        *_time_axis(end_s, SMALL_HEIGHT),
        _area("score", x, np.full(len(y), float(bottom)), y),
        f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>',
        f'<text class="tick" x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{top:.2g}</text>',
        f'<text class="tick" x="{LEFT - 6}" y="{bottom + 4}" text-anchor="end">0</text></svg>',
    ]
    return "".join(parts)


def _steps(x: Float64[np.ndarray, " b1"], y: Float64[np.ndarray, " b"]) -> str:
    return "M" + "L".join(f"{a:.1f},{v:.1f}L{b:.1f},{v:.1f}" for a, b, v in zip(x[:-1], x[1:], y, strict=True))


def _area(name: str, x: np.ndarray, base: np.ndarray, edge: np.ndarray) -> str:
    back = "L".join(
        f"{b:.1f},{v:.1f}L{a:.1f},{v:.1f}" for a, b, v in zip(x[:-1][::-1], x[1:][::-1], base[::-1], strict=True)
    )
    return f'<path class="{name}" d="{_steps(x, edge)}L{back}Z"/>'


def _rects(name: str, x: np.ndarray, is_in: np.ndarray) -> list[str]:
    return [
        f'<rect class="{name}" x="{a:.1f}" y="{TOP}" width="{b - a:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
        for a, b, here in zip(x[:-1], x[1:], is_in, strict=True)
        if here
    ]


def _time_axis(end_s: float, height: int = HEIGHT) -> list[str]:
    step = next((step for step in _STEPS_S if end_s / step <= 10), 7200)
    ticks = np.arange(0, end_s * (1 + 1e-9), step)
    parts = []
    for tick in ticks:
        at = LEFT + tick / end_s * (WIDTH - LEFT - RIGHT)
        label = f"{tick:g} s" if end_s < 60 else f"{int(tick // 60)}:{int(tick % 60):02d}"
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        anchor = "end" if at > WIDTH - RIGHT - 12 else "middle"
        parts.append(f'<text class="tick" x="{at:.1f}" y="{height - 8}" text-anchor="{anchor}">{label}</text>')
    return parts
