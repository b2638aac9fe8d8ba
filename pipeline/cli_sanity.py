"""`heatreel sanity` and `heatreel substrates`: the commands that try a model on clips of a source and make no run.

What they look for is in `stages/sanity.py` and `stages/substrate_choice.py`, what they read and print in `sanity.py`
and `substrates.py`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import cli_options as opt
from pipeline.cli_errors import EXIT_FAILED, one_line_errors

Found = Annotated[Path | None, typer.Option("--out", "-o", help="Write the findings to this file, as JSON.")]


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
    out: Found = None,
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
        _give(content, print_sanity, out, as_json)
        if not content["is_ok"]:
            raise typer.Exit(EXIT_FAILED)


def substrates(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A video or a picture; some clips of it are used.")],
    model: opt.Model = None,
    weights: opt.Weights = None,
    target: opt.Target = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips of the source that are tried, spread over it.")] = 3,
    from_s: opt.FromSeconds = None,
    to_s: opt.ToSeconds = None,
    budget: opt.Budget = None,
    method: opt.Method = None,
    device: opt.Device = None,
    seed: opt.Seed = None,
    config: opt.ConfigFile = None,
    overrides: opt.Overrides = None,
    out: Found = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Try every substrate on some clips: how good the maps are, how they agree, and which one suits the model."""
    with one_line_errors(debug):
        settings = opt.read_config(
            config,
            overrides,
            model=model,
            weights=weights,
            target=target,
            from_s=from_s,
            to_s=to_s,
            budget=budget,
            method=method,
            device=device,
            seed=seed,
        )
        from pipeline.substrates import compare_substrates, print_substrates

        _give(compare_substrates(settings, source, clips), print_substrates, out, as_json)


def _give(
    content: Mapping[str, Any], print_words: Callable[[Mapping[str, Any]], None], out: Path | None, as_json: bool
) -> None:
    """Write the findings where they are wanted, and print them in words or as JSON."""
    if out is not None:
        from pipeline.files import write_json

        write_json(out, content)
    if as_json:
        from pipeline.cli_tables import print_facts

        print_facts(content, as_json=True)
    else:
        print_words(content)
