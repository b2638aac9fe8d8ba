"""`heatreel substrates`: clips of a source are explained under every substrate (`stages/substrate_choice.py`)."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipeline.cli_tables import console
from pipeline.config import Config
from pipeline.evaluation import spread
from pipeline.files import finite
from pipeline.opened import opened
from stages.decode import estimate_clips
from stages.errors import ConfigError
from stages.substrate_choice import choose_substrate


def compare_substrates(config: Config, uri: str, num_clips: int) -> dict[str, Any]:
    """What every substrate is worth on some clips of the first source that `uri` names, ready for JSON.

    Raises what reading the source and building the model raise.
    """
    with opened(config, uri) as found:
        known = estimate_clips(found.source, found.score.box.spec, config.decode)
        clips = found.clips(spread(known or num_clips, num_clips))
        if not clips:
            raise ConfigError(uri, "has no clip there", "set --from and --to inside the duration of the video")
        subjects = found.subjects(clips)
        choice = choose_substrate(subjects)
        names = [row.substrate for row in choice.rows]
        content: dict[str, Any] = finite(
            {
                **found.facts(subjects[0].target),
                "clips": [clip.id.clip_idx for clip in clips],
                "frames": [[int(idx) for idx in clip.covers] for clip in clips],
                "substrates": [asdict(row) for row in choice.rows],
                "agreement": {
                    name: dict(zip(names, map(float, row), strict=True))
                    for name, row in zip(names, choice.agreement, strict=True)
                },
                "recommended": choice.recommended,
                "reason": choice.reason,
                "warnings": list(choice.warnings),
            }
        )
    return content


def print_substrates(content: Mapping[str, Any]) -> None:
    """A row for each substrate, how their maps agree, the recommendation, and what to be warned of."""
    count = len(content["clips"])
    console.print(
        f"{escape(str(content['uri']))}, {count} clip{'s' * (count > 1)}, {escape(content['model'])}: "
        f"{escape(content['target'])}; {content['method']}, {content['budget']} evaluations, the same masks"
    )
    names = [row["substrate"] for row in content["substrates"]]
    table = Table(show_edge=False, pad_edge=False)
    for name in ("substrate", "skill", "log Bayes", "reliable", "insertion", "under others", "p", "p hidden"):
        table.add_column(name, justify="left" if name == "substrate" else "right")
    for row in content["substrates"]:
        table.add_row(
            row["substrate"],
            f"{row['skill']:.2f}",
            f"{row['log_bayes']:.0f}",
            f"{row['num_reliable']} of {count}",
            *(f"{row[name]:.3f}" for name in ("own", "others", "p_shown", "p_left")),
        )
    console.print(table)
    table = Table(show_edge=False, pad_edge=False)
    for name in ("agreement", *names):
        table.add_column(name, justify="left" if name == "agreement" else "right")
    for name in names:
        table.add_row(name, *(f"{content['agreement'][name][other]:.2f}" for other in names))
    console.print(table)
    console.print(
        "skill: share of held-out squared error explained beyond the keep-fraction; insertion: AUC under the "
        "substrate itself, and under the others; p: of the target, untouched and with everything hidden; agreement: "
        "rank correlation of the log-odds maps"
    )
    for warning in content["warnings"]:
        console.print(f"[yellow]warning: {escape(warning)}[/yellow]")
    word = f"recommended: --substrate {content['recommended']}" if content["recommended"] else "no recommendation"
    console.print(f"[bold]{word}[/bold]: {content['reason']}")
