"""What `heatreel evaluate` and `heatreel compare` print."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipeline.cli_tables import console, print_whole
from pipeline.evaluation import IS_MORE_BETTER, OURS, REMOVAL_METRICS
from stages.faithfulness import REMOVED_SHARE

Summary = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by metric and map

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
    "urg_z_t": "URG, own score",
    "urg_others": "URG, others' fall",
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
# What is removed first, as rows name it.
ORDERS: Mapping[str, str] = {OURS: "all against", "F-TC": "F-TC alone", "F-NTC": "F-NTC alone"}
# Classes beyond this many are only counted.
MAX_WISHES = 3
ARROWS = {True: "↑", False: "↓", None: ""}


def print_evaluation(content: Mapping[str, Any]) -> None:
    """The run's map beside maps that know nothing, and what each order of removal gains; stars: what is no accident."""
    summary = content["summary"]
    print_whole(_faithfulness_table({m: columns for m, columns in summary.items() if m not in REMOVAL_METRICS}))
    console.print()
    console.print(f"URG while up to {100 * REMOVED_SHARE:.0f} % is removed, for {_wishes(content['clips'])}")
    print_whole(_removal_table({m: summary[m] for m in REMOVAL_METRICS if m in summary}))
    console.print()
    clips = f"{content['num_clips']} clip{'' if content['num_clips'] == 1 else 's'}"
    console.print(f"{clips}, {content['substrate']} substrate, {content['steps']} steps a curve")
    console.print("* p < .05, ** p < .01: differs from this run (Wilcoxon, pairs of clips)")


def print_comparison(content: Mapping[str, Any]) -> None:
    """Both means, the paired difference with its interval and p, and how the maps agree by rank."""
    table = Table(show_edge=False, pad_edge=False)
    for name in ("", "A", "B", "B - A", "95 % interval", "p", "clips"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for metric, found in content["differences"].items():
        difference = found["difference"]
        interval = _interval(difference, "{:+.3f} to {:+.3f}")
        middle = [f"{found['a']:.3f}", f"{found['b']:.3f}", f"{difference['mean']:+.3f}", interval]
        table.add_row(_title(metric), *middle, _p(found["p"]), str(difference["num"]))
    print_whole(table)
    for pair in content["agreement"]:
        known = {kind: value for kind, value in pair["ranks"].items() if value is not None}
        ranks = ", ".join(f"{WORDS.get(kind, kind).split(',')[0]} {value:.2f}" for kind, value in known.items())
        console.print(f"rank agreement of the maps, {escape(pair['uri'])}, {escape(pair['target'])}: {ranks}")
    if content["note"]:
        console.print(escape(content["note"]))


def _faithfulness_table(summary: Summary) -> Table:
    """A row for each metric, a column for each map."""
    names = [n for n in dict.fromkeys(name for columns in summary.values() for name in columns) if n != OURS]
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("this run", "95 %", *names):
        table.add_column(name, justify="right", no_wrap=True)
    for metric, columns in summary.items():
        ours = columns.get(OURS)
        own = [f"{ours['mean']:.3f}", _interval(ours)] if ours else ["", ""]
        table.add_row(_title(metric), *own, *(_cell(columns.get(name)) for name in names))
    return table


def _removal_table(summary: Summary) -> Table:
    """A row for each order of removal, a column for each number: seven orders side by side fit on no screen."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("removed first", no_wrap=True)
    for metric in summary:
        words = WORDS[metric].removeprefix("URG, ").replace(" ", "\n")
        table.add_column(f"{words} {ARROWS[IS_MORE_BETTER[metric]]}", justify="right", no_wrap=True)
    for name in dict.fromkeys(name for columns in summary.values() for name in columns):
        table.add_row(ORDERS.get(name, name), *(_cell(columns.get(name)) for columns in summary.values()))
        if name == OURS:
            table.add_row("  95 %", *(_interval(columns.get(name)) for columns in summary.values()))
    return table


def _wishes(clips: Sequence[Mapping[str, Any]]) -> str:
    """The classes that removal was measured for, the most frequent first, at most some."""
    counts = Counter(clip["wished"] for clip in clips).most_common()
    named = [f"{escape(label)} ({count} clip{'' if count == 1 else 's'})" for label, count in counts[:MAX_WISHES]]
    left = len(counts) - MAX_WISHES
    return ", ".join(named) + (f" and {left} more classes" if left > 0 else "")


def _title(metric: str) -> str:
    return f"{WORDS.get(metric, metric)} {ARROWS[IS_MORE_BETTER.get(metric)]}".strip()


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    p = 1.0 if found["p"] is None else found["p"]
    return f"{found['mean']:.3f} {'**' if p < 0.01 else '*' if p < 0.05 else '':2}"


def _interval(found: Mapping[str, Any] | None, form: str = "{:.2f}–{:.2f}") -> str:
    """The interval of a mean; a dash where one value alone has none."""
    if found is None:
        return ""
    return form.format(found["low"], found["high"]) if found["num"] > 1 else "–"


def _p(p: float | None) -> str:
    if p is None or p != p:
        return "-"
    return "<.001" if p < 0.001 else f"{p:.3f}"
