"""The options that commands share, and how they become a configuration. Nothing heavy is imported here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.config import Config

Method = Annotated[
    str | None, typer.Option(help="gp, borex, rise, centred-rise, occlusion, lime, kernel-shap or mask-optimisation.")
]
Prior = Annotated[
    str | None, typer.Option(help="Initial map that is refined: none, rise, previous, FILE.npz, captum:NAME[@LAYER].")
]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="demo, torchvision:NAME, pytorchvideo:NAME, python:FILE.py:FACTORY.")
]
Weights = Annotated[str | None, typer.Option(help="A local weights file, or the name of published weights.")]
Target = Annotated[
    str | None, typer.Option("--target", "-t", help="A class name, an index, top1, second or top3; commas separate.")
]
Budget = Annotated[int | None, typer.Option(help="Evaluations of the model for each clip.")]
Tolerance = Annotated[
    float | None, typer.Option(help="A clip is done when this much of its map is unknown; 0: when the budget is spent.")
]
Substrate = Annotated[str | None, typer.Option(help="What hides a voxel: blur, mean, noise, freeze or median.")]
Engine = Annotated[str | None, typer.Option(help="local, ray or auto (ray for more than a minute of video).")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT.")]
Device = Annotated[str | None, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:1.")]
Seed = Annotated[int | None, typer.Option(help="Every random choice derives from it.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="YAML settings; see configs/default.yaml.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; repeatable.")]
Out = Annotated[
    str | None, typer.Option("--out", "-o", help="The run folder, or its URI.  [default: runs/NAME-TIMESTAMP]")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")]
SideBySide = Annotated[bool, typer.Option("--side-by-side", help="Show the source next to the heat map.")]
FromSeconds = Annotated[float | None, typer.Option("--from", help="Start of the part to explain, in seconds.")]
ToSeconds = Annotated[float | None, typer.Option("--to", help="End of the part to explain, in seconds.")]
Screen = Annotated[bool, typer.Option("--screen", help="Score every clip once, then explain the most telling ones.")]
BudgetTotal = Annotated[int | None, typer.Option(help="Evaluations of the model in the whole run, screening included.")]
MaxMinutes = Annotated[float | None, typer.Option(help="Begin no further clip after this time.")]
Masks = Annotated[
    Path | None,
    typer.Option(help="True masks: one PNG per frame, in the folder or in its subfolder named as the source."),
]
Clips = Annotated[int, typer.Option(min=1, help="Clips of each source that are measured, spread over it.")]
Steps = Annotated[int, typer.Option(min=2, help="Steps of each insertion and deletion curve.")]
Seeds = Annotated[int, typer.Option(min=0, help="Explain each measured clip with so many seeds: are its ranks stable?")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only errors and the paths of the results.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

# Options of the command line, and the settings that they are short for.
SETTING_OF_OPTION = {
    "model": "model.name",
    "weights": "model.weights",
    "target": "target",
    "budget": "budget",
    "method": "method",
    "prior": "prior",
    "tolerance": "tolerance",
    "substrate": "substrate",
    "engine": "engine.kind",
    "address": "engine.address",
    "device": "device",
    "seed": "seed",
    "side_by_side": "render.side_by_side",
    "from_s": "decode.from_s",
    "to_s": "decode.to_s",
    "screen": "screen.enabled",
    "budget_total": "screen.budget_total",
    "max_minutes": "screen.max_minutes",
}


def read_config(path: Path | None, overrides: Sequence[str] | None, **options: object) -> "Config":
    """The configuration from the file, the options that were given, and --set. Raises ConfigError."""
    from pipeline.config import load_config

    return load_config(path, options=settings_of(options), overrides=overrides or ())


def settings_of(options: Mapping[str, object]) -> dict[str, object]:
    """The settings behind the options that were given."""
    return {
        SETTING_OF_OPTION[name]: value for name, value in options.items() if value is not None and value is not False
    }


def default_out(source: str) -> str:
    """runs/NAME-TIMESTAMP for the first source of a run."""
    from datetime import datetime

    from pipeline.files import safe_name
    from stages.stores import name_of

    name = safe_name(Path(name_of(source.rstrip("/*"))).stem or "run")
    return str(Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
