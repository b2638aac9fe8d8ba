"""What the command line prints: errors, what a run found, the demo's table, facts about a source or a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stages.errors import ExplainError
from stages.stores import is_remote, name_of

if TYPE_CHECKING:
    from pipeline.demo import DemoNumbers
    from pipeline.manifest import RunFolder
    from pipeline.summaries import TargetSummary
    from pipeline.verify import Verification

# File names and labels are shown as they are: no emoji for ":x:", no colours for numbers.
console = Console(soft_wrap=True, highlight=False, emoji=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

MAX_FILMS, MAX_ROWS = 8, 40
UNBOUNDED = 10_000  # columns of a screen that is wide enough
SHORT_TITLES = {"support": "for", "f_tc": "F-TC", "f_ntc": "F-NTC"}
WORDS = ("source", "target", "top-1", "reliable")


def print_error(error: ExplainError) -> None:
    """`item: fact; remedy`, in red, on one line of the error stream."""
    errors.print(f"[red]{escape(' '.join(str(error).split()))}[/red]")


def print_outcome(folder: Path, place: str, *, is_demo: bool = False) -> None:
    """What a person wants to know at the end of a run, and where the rest lies. `place`: as the user names the run."""
    from pipeline.manifest import RunFolder
    from pipeline.words import coverage_words

    run = RunFolder.open(folder)
    if is_demo and any(run.summaries()):
        from pipeline.demo import compare_with_truth

        console.print(demo_table(compare_with_truth(folder), run.manifest.summary))
    else:
        table = run_table(run)
        if table.row_count:
            console.print(table)
        for name, text in speed_rows(run.manifest.summary):
            console.print(f"{name}: {text}")
    for text in coverage_words(run.manifest.summary):
        console.print(escape(text))
    _print_failures(run)
    if run.manifest.status == "stopped":
        console.print(f"stopped before the end; go on with: heatreel resume {escape(place)}")
    print_paths(folder, place)


def print_paths(folder: Path, place: str) -> None:
    """The films and pictures (some of them) and the report of a run, a path a line; and the URI that holds them too."""
    from pipeline.manifest import RunFolder

    products = [folder / target.product for summary in RunFolder.open(folder).summaries() for target in summary.targets]
    for product in products[:MAX_FILMS]:
        word = "film" if product.suffix == ".mp4" else "picture"
        console.print(f"{word:7} {escape(str(product))}")
    if len(products) > MAX_FILMS:
        console.print(f"        and {len(products) - MAX_FILMS} more in {escape(str(folder))}")
    report = folder / "report" / "index.html"
    console.print(f"report  {escape(str(report))}" if report.is_file() else f"run     {escape(str(folder))}")
    if is_remote(place):
        console.print(f"pushed  {escape(place)}")


def print_whole(table: Table) -> None:
    """Print a table as wide as it is: where the screen is narrower its lines wrap, and no column is squeezed away."""
    table.width = console.measure(table, options=console.options.update(width=UNBOUNDED)).maximum
    console.print(table)


def print_json(folder: Path, exit_code: int, place: str, *, is_demo: bool = False) -> None:
    """The same for programs: one JSON object."""
    from dataclasses import asdict

    from pipeline.manifest import RunFolder

    run = RunFolder.open(folder)
    manifest, summaries = run.manifest, list(run.summaries())
    content: dict[str, Any] = {
        "run": str(folder),
        "place": place,
        "status": manifest.status,
        "exit_code": exit_code,
        "counts": manifest.counts,
        "summary": manifest.summary,
        "explanations": [asdict(summary) for summary in summaries],
        "failures": [asdict(failure) for failure in run.failures()],
    }
    if is_demo and summaries:
        content["demo"] = demo_json(folder)
    _print_json(content)


def demo_json(folder: Path) -> dict[str, Any]:
    """The numbers of the demo's table."""
    from dataclasses import asdict

    from pipeline.demo import compare_with_truth

    numbers = compare_with_truth(folder)
    content = asdict(numbers)
    for kind, objects in numbers.energy.items():
        for name, energy in objects.items():
            content["energy"][kind][name]["ratio"] = energy.ratio
    return content


def demo_table(numbers: "DemoNumbers", summary: Mapping[str, Any]) -> Table:
    """Prediction, target, shares, fidelity, energy of each map inside each true mask, efficiency."""
    from pipeline.words import verdict_words

    table = Table(title="What the model saw in the shipped clip", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    found = numbers.summary
    clips = found.num_clips
    said = ", ".join(f"{escape(label)} in {count} of {clips} clips" for label, count in numbers.predictions.items())
    table.add_row("prediction", said)
    table.add_row("target", f"{escape(found.target)}, mean probability {found.prob:.2f}; the rival: {numbers.rival}")
    shares = f"for {found.share_for:.0%}   F-TC {found.share_f_tc:.0%}   F-NTC {found.share_f_ntc:.0%}"
    table.add_row("evidence", shares)
    table.add_row("fidelity", escape(verdict_words(found)))
    for kind, objects in numbers.energy.items():
        inside = [
            f"{energy.share:.0%} on the {name}, {energy.ratio:.1f} x its area" for name, energy in objects.items()
        ]
        table.add_row(f"{SHORT_TITLES[kind]} map", "\n".join(inside))
    for name, text in speed_rows(summary):
        table.add_row(name, text)
    return table


def run_table(run: "RunFolder") -> Table:
    """One row for each source and target, at most some dozens. p: mean probability; R²: of held-out masks."""
    table = Table(show_edge=False, pad_edge=False)
    for name in ("source", "target", "top-1", "p", "for", "F-TC", "F-NTC", "R²", "reliable"):
        table.add_column(name, justify="left" if name in WORDS else "right")
    for number, summary in enumerate(run.summaries()):
        if number == MAX_ROWS:
            table.add_row("and more: see the report")
            break
        for target in summary.targets:
            table.add_row(name_of(summary.uri), *_target_cells(target))
    return table


def speed_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Efficiency and its parts, as far as the run has measured them."""
    rows = []
    if (efficiency := summary.get("efficiency")) is not None:
        rate, bare = summary.get("evaluations_per_s"), summary.get("bare_evaluations_per_s")
        beside = f" ({rate:.0f} of {bare:.0f} evaluations/s of the bare model)" if rate and bare else ""
        rows.append(("efficiency", f"{efficiency:.2f}{beside}"))
    shares = {
        "scorers busy": summary.get("scorer_busy_share"),
        "batches filled": summary.get("batch_fill"),
        "refinement": summary.get("refine_share"),
    }
    if known := [f"{name} {share:.1%}" for name, share in shares.items() if share is not None]:
        rows.append(("time", ", ".join(known)))
    if memory := summary.get("peak_memory_bytes"):
        total = sum(memory.values())
        rows.append(("memory", f"{total / 1e9:.2f} GB at the peak"))
    return rows


def print_facts(facts: Mapping[str, object], *, as_json: bool) -> None:
    """A list of names and values."""
    if as_json:
        _print_json(facts)
        return
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in facts.items():
        table.add_row(escape(name), escape("\n".join(value) if isinstance(value, list) else str(value)))
    console.print(table)


def print_verification(result: "Verification", *, as_json: bool) -> None:
    """How many checks of each kind hold, and everything that does not."""
    if as_json:
        from dataclasses import asdict

        _print_json({"is_ok": result.is_ok, "checks": [asdict(check) for check in result.checks]})
        return
    for what in dict.fromkeys(check.what for check in result.checks):
        checks = [check for check in result.checks if check.what == what]
        sound = sum(check.is_ok for check in checks)
        last = f": {escape(checks[0].fact)}" if len(checks) == 1 else ""
        console.print(f"{what:8} {sound} of {len(checks)} sound{last}")
    for fault in result.faults:
        errors.print(f"[red]{escape(fault.item)}: {escape(fault.fact)}[/red]")


def _target_cells(target: "TargetSummary") -> list[str]:
    shares = (target.share_for, target.share_f_tc, target.share_f_ntc)
    verdict = f"{target.num_reliable_clips} of {target.num_clips} clips" if target.is_reliable else "no signal"
    return [
        escape(target.target),
        escape(target.top1),
        f"{target.prob:.2f}",
        *(f"{share:.0%}" for share in shares),
        f"{target.q2:.2f}",
        verdict,
    ]


def _print_failures(run: "RunFolder") -> None:
    for failure in run.failures():
        text = " ".join(f"{failure.uri}: {failure.reason}; {failure.remedy}".split())
        errors.print(f"[red]{escape(text)}[/red]")


def _print_json(content: Mapping[str, Any]) -> None:
    console.print(json.dumps(content, indent=2, default=str, ensure_ascii=False), markup=False)
