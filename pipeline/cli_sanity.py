"""`heatreel sanity`: the command; the checks are in `stages/sanity.py`, what it reads and prints in `sanity.py`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline import cli_options as opt
from pipeline.cli_errors import EXIT_FAILED, one_line_errors


def sanity(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A video or a picture; one clip of it is used.")],
    model: opt.Model = None,
    weights: opt.Weights = None,
    target: opt.Target = None,
    clip: Annotated[int, typer.Option(min=0, help="Which clip of the source, counted from 0.")] = 0,
    budget: opt.Budget = None,
    method: opt.Method = None,
    substrate: opt.Substrate = None,
    device: opt.Device = None,
    seed: opt.Seed = None,
    config: opt.ConfigFile = None,
    overrides: opt.Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the findings to this file, as JSON.")] = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Check that the maps of one clip follow the model: random weights, noise, shuffled and reversed time, and more."""
    with one_line_errors(debug):
        settings = opt.read_config(
            config,
            overrides,
            model=model,
            weights=weights,
            target=target,
            budget=budget,
            method=method,
            substrate=substrate,
            device=device,
            seed=seed,
        )
        from pipeline.sanity import check_source, print_sanity

        content = check_source(settings, source, clip)
        if out is not None:
            from pipeline.files import write_json

            write_json(out, content)
        if as_json:
            from pipeline.cli_tables import print_facts

            print_facts(content, as_json=True)
        else:
            print_sanity(content)
        if not content["is_ok"]:
            raise typer.Exit(EXIT_FAILED)
