"""What the quality benchmark says of its numbers: comparisons with Holm's correction, the table, and the curves.

In: rows (method, budget) of values, an entry per clip. Out: records for JSON, Markdown, and SVG.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path

import numpy as np
import torch

from benchmarks.subjects import Half
from pipeline.files import finite
from stages.statistics import bootstrap_interval, holm, paired_p

METRICS = (
    "insertion",
    "block_deletion",
    "urg_log_odds",
    "urg_prob",
    "urg_lowest_support",
    "flip",
    "energy",
    "pointing",
)
COMPARED = ("insertion", "block_deletion", "urg_log_odds", "energy")
SHOWN = ("insertion", "block_deletion", "urg_log_odds", "flip", "urg_lowest_support", "energy", "pointing")
TITLES = {
    "insertion": "insertion ↑",
    "block_deletion": "block deletion ↓",
    "urg_log_odds": "URG, log-odds ↑",
    "flip": "flip rate ↑",
    "urg_lowest_support": "lowest support first ↑",
    "energy": "energy in mask / area ↑",
    "pointing": "pointing ↑",
}
OURS = "gp"
FACTOR = 16  # how many times fewer evaluations the default is to need

# Colour-blind safe (Okabe & Ito 2008); the default is the darkest and thickest.
COLOURS = {
    OURS: "#000000",
    "gp-first-look": "#666666",
    "gp-plain": "#999999",
    "rise": "#0072b2",
    "centred-rise": "#56b4e9",
    "occlusion": "#e69f00",
    "borex": "#cc79a7",
    "lime": "#009e73",
    "kernel-shap": "#d55e00",
    "mask-optimisation": "#f0e442",
}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 360, 240, 46, 28, 14, 34
LEGEND_COLUMNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The numbers of one method at one budget, an entry per clip; NaN where a clip cannot say."""

    method: str
    budget: int
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in METRICS})


def comparisons(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Our method at each budget against every other at the same budget, and against RISE at 16 times as many.

    `p` is that of the paired Wilcoxon test, `p_holm` is corrected for all comparisons of one metric.
    """
    found: list[dict[str, object]] = []
    by_key = {(row.method, row.budget): row for row in rows}
    for name in COMPARED:
        tests: list[dict[str, object]] = []
        for ours in (row for row in rows if row.method == OURS):
            others = [row for row in rows if row.method != OURS and row.budget in (0, ours.budget)]
            others += [by_key[key] for m in ("rise", "centred-rise") if (key := (m, FACTOR * ours.budget)) in by_key]
            for other in others:
                a, b = np.array(ours.values[name]), np.array(other.values[name])
                tests.append(
                    {
                        "metric": name,
                        "ours": f"{OURS}@{ours.budget}",
                        "other": f"{other.method}@{other.budget}",
                        "difference": asdict(bootstrap_interval(a - b)),
                        "p": paired_p(a, b),
                    }
                )
        for test, corrected in zip(tests, holm([float(str(test["p"])) for test in tests]), strict=True):
            test["p_holm"] = corrected
        found += tests
    return found


def write_results(out: Path, half: Half, settings: dict[str, int], models: dict[str, list[Row]]) -> None:
    """quality.json, with the models of an earlier call that this one left out, and curves beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    earlier = json.loads(out.read_text()) if out.exists() else {}
    is_same = earlier.get("half") == half and earlier.get("settings") == settings
    content = {
        "half": half,
        "settings": settings,
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "models": {
            **(earlier["models"] if is_same else {}),
            **{
                model: {
                    "rows": [asdict(row) for row in rows],
                    "means": {
                        f"{row.method}@{row.budget}": {
                            name: asdict(bootstrap_interval(np.array(values))) for name, values in row.values.items()
                        }
                        for row in rows
                    },
                    "comparisons": comparisons(rows),
                }
                for model, rows in models.items()
            },
        },
    }
    out.write_text(json.dumps(finite(content)) + "\n")
    for model, rows in models.items():
        if any(row.values["insertion"] for row in rows):
            out.with_name(f"{out.stem}_{model}.svg").write_text(curves_svg(rows, f"{model}: quality per evaluation"))


def table(rows: Sequence[Row]) -> str:
    """Markdown: means over clips with the half-width of the 95 % interval of insertion."""
    lines = [
        f"| method | evaluations | {' | '.join(TITLES[name] for name in SHOWN)} |",
        "| --- | ---: |" + " ---: |" * len(SHOWN),
    ]
    for row in sorted(rows, key=lambda row: (row.budget, row.method != OURS, row.method)):
        cells = []
        for name in SHOWN:
            found = bootstrap_interval(np.array(row.values[name]))
            spread = f" ± {(found.high - found.low) / 2:.3f}" if name == "insertion" else ""
            cells.append(f"{found.mean:.3f}{spread}" if found.num else "")
        lines.append(f"| {row.method} | {row.budget or 'none'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curves_svg(rows: Sequence[Row], title: str) -> str:
    """One panel a metric: the mean over clips against evaluations (logarithmic), with its 95 % interval."""
    names = [name for name in COMPARED if any(np.isfinite(row.values[name]).any() for row in rows)]
    width, height = WIDTH * 2, HEIGHT * -(-len(names) // 2) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11"><rect width="{width}" height="{height}" fill="#fff"/>'
    ]
    for number, name in enumerate(names):
        parts.append(f'<g transform="translate({number % 2 * WIDTH},{number // 2 * HEIGHT})">{_panel(rows, name)}</g>')
    methods = [method for method in COLOURS if any(row.method == method for row in rows)]
    for number, method in enumerate(methods):
        place, line = number % LEGEND_COLUMNS, number // LEGEND_COLUMNS
        x, y = LEFT + place * (width - LEFT) / LEGEND_COLUMNS, height - 34 + 20 * line
        parts.append(f'<line x1="{x:.0f}" x2="{x + 16:.0f}" y1="{y - 4}" y2="{y - 4}" {_stroke(method)}/>')
        parts.append(f'<text x="{x + 20:.0f}" y="{y}">{escape(method)}</text>')
    parts.append(f"<title>{escape(title)}</title></svg>\n")
    return "\n".join(parts)


def _panel(rows: Sequence[Row], name: str) -> str:
    asked = [row for row in rows if row.budget and row.method in COLOURS and np.isfinite(row.values[name]).any()]
    found = {(row.method, row.budget): bootstrap_interval(np.array(row.values[name])) for row in asked}
    budgets = sorted({row.budget for row in asked})
    low, high = min(f.low for f in found.values()), max(f.high for f in found.values())
    first, span = np.log2(budgets[0]), max(np.log2(budgets[-1]) - np.log2(budgets[0]), 1e-9)

    def x(budget: int) -> float:
        return float(LEFT + (np.log2(budget) - first) / span * (WIDTH - LEFT - RIGHT))

    def y(value: float) -> float:
        return float(HEIGHT - BOTTOM - (value - low) / max(high - low, 1e-9) * (HEIGHT - TOP - BOTTOM))

    parts = [f'<text x="{LEFT}" y="16" font-weight="bold">{escape(TITLES[name])}</text>']
    for budget in budgets:
        parts.append(f'<text x="{x(budget):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{budget}</text>')
    for value in np.linspace(low, high, 5):
        at = y(float(value))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for method in reversed(COLOURS):
        at_budgets = [budget for budget in budgets if (method, budget) in found]
        intervals = [found[method, budget] for budget in at_budgets]
        points = " ".join(f"{x(b):.1f},{y(f.mean):.1f}" for b, f in zip(at_budgets, intervals, strict=True))
        for budget, interval in zip(at_budgets, intervals, strict=True):
            left = f"{x(budget):.1f}"
            parts.append(
                f'<line x1="{left}" x2="{left}" y1="{y(interval.low):.1f}" y2="{y(interval.high):.1f}" '
                f'stroke="{COLOURS[method]}" stroke-opacity="0.35"/>'
            )
            middle = f'cx="{left}" cy="{y(interval.mean):.1f}"'
            parts.append(f'<circle {middle} r="{3 if method == OURS else 2}" fill="{COLOURS[method]}"/>')
        if points:
            parts.append(f'<polyline points="{points}" fill="none" {_stroke(method)}/>')
    return "".join(parts)


def _stroke(method: str) -> str:
    return f'stroke="{COLOURS[method]}" stroke-width="{2.5 if method == OURS else 1.4}"'
