"""What `heatreel evaluate` and `heatreel compare` print."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipeline.cli_tables import console
from pipeline.evaluation import IS_MORE_BETTER, OURS

WORDS: Mapping[str, str] = {
    "insertion": "insertion AUC",
    "deletion": "deletion AUC",
    "insertion_space": "insertion, space",
    "deletion_space": "deletion, space",
    "insertion_time": "insertion, time",
    "deletion_time": "deletion, time",
    "block_deletion": "block deletion",
    "average_drop": "average drop",
    "urg_prob": "URG, p",
    "urg_log_odds": "URG, log-odds",
    "flip": "flip rate",
    "energy": "energy in mask",
    "pointing": "pointing game",
    "stability_rank": "seeds agree, ranks",
    "stability_top": "seeds agree, top 10 %",
    "q2": "held-out R²",
    "prob": "p",
    "for": "support, total",
    "f_tc": "F-TC, total",
    "f_ntc": "F-NTC, total",
    "net": "net, total",
}
ARROWS = {True: "↑", False: "↓", None: ""}


def print_evaluation(content: Mapping[str, Any]) -> None:
    """Every metric of the run's map with its interval, beside maps that know nothing; stars say what is no accident."""
    summary = content["summary"]
    names = [n for n in dict.fromkeys(name for columns in summary.values() for name in columns) if n != OURS]
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("this run", "95 %", *names):
        table.add_column(name, justify="right", no_wrap=name != "lowest support")
    for metric, columns in summary.items():
        ours = columns.get(OURS)
        own = [f"{ours['mean']:.3f}", f"{ours['low']:.2f}–{ours['high']:.2f}"] if ours else ["", ""]
        table.add_row(_title(metric), *own, *(_cell(columns.get(name)) for name in names))
    console.print(table)
    clips = f"{content['num_clips']} clip{'' if content['num_clips'] == 1 else 's'}"
    console.print(f"{clips}, {content['substrate']} substrate, {content['steps']} steps a curve")
    console.print("* p < .05, ** p < .01: differs from this run (Wilcoxon, pairs of clips)")


def print_comparison(content: Mapping[str, Any]) -> None:
    """Both means, the paired difference with its interval and p, and how the maps agree by rank."""
    table = Table(show_edge=False, pad_edge=False)
    for name in ("", "A", "B", "B - A", "95 % interval", "p", "clips"):
        table.add_column(name, justify="right" if name else "left")
    for metric, found in content["differences"].items():
        difference = found["difference"]
        interval = f"{difference['low']:+.3f} to {difference['high']:+.3f}"
        middle = [f"{found['a']:.3f}", f"{found['b']:.3f}", f"{difference['mean']:+.3f}", interval]
        table.add_row(_title(metric), *middle, _p(found["p"]), str(difference["num"]))
    console.print(table)
    for pair in content["agreement"]:
        known = {kind: value for kind, value in pair["ranks"].items() if value is not None}
        ranks = ", ".join(f"{WORDS.get(kind, kind).split(',')[0]} {value:.2f}" for kind, value in known.items())
        console.print(f"rank agreement of the maps, {escape(pair['uri'])}, {escape(pair['target'])}: {ranks}")
    if content["note"]:
        console.print(escape(content["note"]))


def _title(metric: str) -> str:
    return f"{WORDS.get(metric, metric)} {ARROWS[IS_MORE_BETTER.get(metric)]}".strip()


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    p = 1.0 if found["p"] is None else found["p"]
    return f"{found['mean']:.3f} {'**' if p < 0.01 else '*' if p < 0.05 else '':2}"


def _p(p: float | None) -> str:
    if p is None or p != p:
        return "-"
    return "<.001" if p < 0.001 else f"{p:.3f}"
