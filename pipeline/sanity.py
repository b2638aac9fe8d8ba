"""`heatreel sanity`: one clip of a source is explained in this process and put through `stages/sanity.py`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import JustifyMethod
from rich.markup import escape
from rich.table import Table

from pipeline.cli_tables import console
from pipeline.config import Config
from pipeline.files import finite
from pipeline.opened import opened
from stages.errors import ConfigError
from stages.sanity import Finding, check_sanity

COLOURS = {"pass": "green", "fail": "red", "not applicable": "dim", "told": ""}


def check_source(config: Config, uri: str, clip_idx: int = 0) -> dict[str, Any]:
    """The findings about one clip of the first source that `uri` names, ready for JSON.

    Raises what reading the source and building the model raise, and ConfigError for a clip that is not there.
    """
    with opened(config, uri) as found:
        clips = found.clips([clip_idx])
        if not clips:
            raise ConfigError(f"--clip {clip_idx}", f"{uri} has fewer clips", "clips are counted from 0")
        (subject,) = found.subjects(clips)
        findings = [asdict(finding) for finding in check_sanity(subject)]
        content: dict[str, Any] = finite(
            {
                **found.facts(subject.target),
                "clip_idx": clip_idx,
                "frames": [int(idx) for idx in subject.clip.covers],
                "substrate": config.score.substrate,
                "is_ok": all(finding["result"] != "fail" for finding in findings),
                "findings": findings,
            }
        )
    return content


def print_sanity(content: Mapping[str, Any]) -> None:
    """A row for each finding, and what the columns mean."""
    start, stop = content["frames"]
    console.print(
        f"{escape(str(content['uri']))}, frames {start} to {stop - 1}, {escape(content['model'])}: "
        f"{escape(content['target'])}; {content['method']}, {content['substrate']}, {content['budget']} evaluations"
    )
    table = Table(show_edge=False, pad_edge=False)
    for name in ("check", "expected", "measured", "similarity", "in time", "signal", "result"):
        justify: JustifyMethod = "right" if name in ("similarity", "in time") else "left"
        # On a narrow screen sentences wrap, and nothing else.
        table.add_column(name, justify=justify, no_wrap=name not in ("expected", "measured"))
    for row in content["findings"]:
        finding = Finding(**row)
        colour = COLOURS[finding.result]
        result = "" if finding.result == "told" else finding.result
        table.add_row(
            finding.check,
            escape(finding.expected),
            escape(finding.measured),
            "" if finding.similarity is None else f"{finding.similarity:.2f}",
            "" if finding.time_share is None else f"{finding.time_share:.0%}",
            {True: "reliable", False: "none", None: ""}[finding.is_reliable],
            f"[{colour}]{result}[/{colour}]" if colour and result else result,
        )
    console.print(table)
    console.print("similarity: rank correlation with the map as it is; in time: share of the map's variance along time")
