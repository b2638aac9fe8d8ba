"""The command line: one function for each command; `heatreel --help` lists them.

Exit codes: 0 all fine, 1 the run failed, 2 usage, 3 finished with failures, 130 stopped by Ctrl-C. Everything heavy is
imported inside the commands, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline import cli_options as opt
from pipeline.cli_errors import EXIT_FAILED
from pipeline.cli_errors import one_line_errors as _one_line_errors
from pipeline.cli_sanity import sanity, substrates
from pipeline.memory import keep_freed_memory

app = typer.Typer(
    name="heatreel",
    help="Explain what a video classifier saw: signed heat-map films from a black box's scores alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(sanity)
app.command()(substrates)

Run = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, or its URI.")]


def main() -> None:
    """Entry point of the console script."""
    keep_freed_memory()  # here, where no thread has begun
    app()


@app.command()
def demo(
    out: opt.Out = None,
    overwrite: opt.Overwrite = False,
    target: opt.Target = None,
    budget: opt.Budget = None,
    method: opt.Method = None,
    prior: opt.Prior = None,
    engine: opt.Engine = None,
    device: opt.Device = None,
    seed: opt.Seed = None,
    config: opt.ConfigFile = None,
    overrides: opt.Overrides = None,
    side_by_side: opt.SideBySide = False,
    quiet: opt.Quiet = False,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Explain the shipped clip with the shipped model, and compare the maps with the truth that is known of it."""
    with _one_line_errors(debug):
        from pipeline import demo as shipped

        settings = opt.read_config(
            config,
            overrides,
            model="demo",
            target=target or shipped.protagonist_label(),
            budget=budget or (None if config else shipped.BUDGET),
            method=method,
            prior=prior,
            engine=engine,
            device=device,
            seed=seed,
            side_by_side=side_by_side,
        )
        from pipeline.runner import run

        folder = out or opt.default_out("demo")
        sources = [str(shipped.clip_path())]
        outcome = run(settings, sources, folder, overwrite=overwrite, is_quiet=quiet or as_json, command=_command())
        _finish(outcome.path, outcome.exit_code, folder, is_quiet=quiet, as_json=as_json, is_demo=True)


@app.command()
def explain(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Videos, pictures, folders, globs, list files, or URIs of them."),
    ],
    model: opt.Model = None,
    weights: opt.Weights = None,
    target: opt.Target = None,
    budget: opt.Budget = None,
    method: opt.Method = None,
    prior: opt.Prior = None,
    tolerance: opt.Tolerance = None,
    substrate: opt.Substrate = None,
    engine: opt.Engine = None,
    address: opt.Address = None,
    device: opt.Device = None,
    from_s: opt.FromSeconds = None,
    to_s: opt.ToSeconds = None,
    screen: opt.Screen = False,
    budget_total: opt.BudgetTotal = None,
    max_minutes: opt.MaxMinutes = None,
    seed: opt.Seed = None,
    config: opt.ConfigFile = None,
    overrides: opt.Overrides = None,
    out: opt.Out = None,
    overwrite: opt.Overwrite = False,
    side_by_side: opt.SideBySide = False,
    quiet: opt.Quiet = False,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Turn videos or pictures into heat-map films, tables, arrays and a report."""
    with _one_line_errors(debug):
        settings = opt.read_config(
            config,
            overrides,
            model=model,
            weights=weights,
            target=target,
            budget=budget,
            method=method,
            prior=prior,
            tolerance=tolerance,
            substrate=substrate,
            engine=engine,
            address=address,
            device=device,
            from_s=from_s,
            to_s=to_s,
            screen=screen,
            budget_total=budget_total,
            max_minutes=max_minutes,
            seed=seed,
            side_by_side=side_by_side,
        )
        from pipeline.runner import run

        folder = out or opt.default_out(sources[0])
        outcome = run(settings, sources, folder, overwrite=overwrite, is_quiet=quiet or as_json, command=_command())
        _finish(outcome.path, outcome.exit_code, folder, is_quiet=quiet, as_json=as_json)


@app.command()
def resume(
    run: Run,
    engine: opt.Engine = None,
    address: opt.Address = None,
    device: opt.Device = None,
    overrides: opt.Overrides = None,
    quiet: opt.Quiet = False,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Go on with a run that was stopped, also elsewhere; nothing that the model answered is asked again."""
    with _one_line_errors(debug):
        from pipeline.runner import resume as resume_run

        changes = opt.settings_of({"engine": engine, "address": address, "device": device})
        outcome = resume_run(run, is_quiet=quiet or as_json, options=changes, overrides=overrides or ())
        _finish(outcome.path, outcome.exit_code, run, is_quiet=quiet, as_json=as_json)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Folders or URIs of runs.")], debug: opt.Debug = False
) -> None:
    """Write the report page of runs again: report/index.html in each, to be read offline."""
    with _one_line_errors(debug):
        from pipeline.mirror import mirrored
        from pipeline.report import write_report

        for run in runs:
            with mirrored(run, "add") as folder:
                typer.echo(write_report(folder))


@app.command()
def verify(run: Run, as_json: opt.Json = False, debug: opt.Debug = False) -> None:
    """Hash every file of a run again and recompute its maps from the journal, without the model."""
    with _one_line_errors(debug):
        from pipeline.cli_tables import print_verification
        from pipeline.mirror import mirrored
        from pipeline.verify import verify_run

        with mirrored(run, "read") as folder:
            result = verify_run(folder)
        print_verification(result, as_json=as_json)
        if not result.is_ok:
            raise typer.Exit(EXIT_FAILED)


@app.command()
def evaluate(
    run: Run,
    masks: opt.Masks = None,
    clips: opt.Clips = 8,
    steps: opt.Steps = 128,
    seeds: opt.Seeds = 0,
    substrate: opt.Substrate = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Measure how faithful the maps of a run are to its model: insertion, deletion, removal, next to chance."""
    with _one_line_errors(debug):
        from pipeline.cli_tables import print_facts
        from pipeline.evaluation import NAME, Settings, evaluate_run
        from pipeline.evaluation_tables import print_evaluation
        from pipeline.mirror import mirrored

        settings = Settings(num_clips=clips, steps=steps, substrate=substrate, masks=masks, seeds=seeds)
        with mirrored(run, "add") as folder:
            content = evaluate_run(folder, settings)
        if as_json:
            print_facts(content, as_json=True)
        else:
            print_evaluation(content)
            typer.echo(f"evaluation  {folder / NAME}")


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(metavar="A", help="The folder of a run.")],
    run_b: Annotated[str, typer.Argument(metavar="B", help="The folder of another run on the same inputs.")],
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Compare two runs on the same inputs: paired differences clip by clip, and how their maps agree."""
    with _one_line_errors(debug):
        from pipeline.cli_tables import print_facts
        from pipeline.comparison import compare_runs
        from pipeline.evaluation_tables import print_comparison
        from pipeline.mirror import mirrored

        with mirrored(run_a, "read") as a, mirrored(run_b, "read") as b:
            content = compare_runs(a, b)
        if as_json:
            print_facts(content, as_json=True)
        else:
            print_comparison(content)


@app.command()
def inspect(
    thing: Annotated[
        str, typer.Argument(metavar="VIDEO|MODEL", help="A source, or a model such as torchvision:r3d_18.")
    ],
    model: opt.Model = None,
    weights: opt.Weights = None,
    target: opt.Target = None,
    budget: opt.Budget = None,
    device: opt.Device = None,
    config: opt.ConfigFile = None,
    overrides: opt.Overrides = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Say what a video or a model is, what would be done with it, and what that would cost."""
    with _one_line_errors(debug):
        from pipeline.inspection import inspect_model, inspect_sources, is_model

        if is_model(thing):
            model = model or thing
        settings = opt.read_config(
            config, overrides, model=model, weights=weights, target=target, budget=budget, device=device
        )
        from pipeline.cli_tables import print_facts

        print_facts(inspect_model(settings) if is_model(thing) else inspect_sources(settings, thing), as_json=as_json)


def _finish(folder: Path, exit_code: int, place: str, *, is_quiet: bool, as_json: bool, is_demo: bool = False) -> None:
    """Print what the run found and where it lies; leave with its exit code. `place`: as the user names the run."""
    from pipeline import cli_tables

    if as_json:
        cli_tables.print_json(folder, exit_code, place, is_demo=is_demo)
    elif is_quiet:
        cli_tables.print_paths(folder, place)
    else:
        cli_tables.print_outcome(folder, place, is_demo=is_demo)
    raise typer.Exit(exit_code)


def _command() -> tuple[str, ...]:
    return ("heatreel", *sys.argv[1:])
