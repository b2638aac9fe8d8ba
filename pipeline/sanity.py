"""`heatreel sanity`: one clip of a source is explained in this process and put through `stages/sanity.py`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from pipeline.cli_tables import console
from pipeline.config import Config
from pipeline.files import finite
from pipeline.topology import build_score
from stages.box import BlackBox
from stages.decode import Decode, DecodeRequest
from stages.errors import ConfigError
from stages.exchange import Subject
from stages.records import Clip, MaskBatch, VideoSource
from stages.sanity import Finding, check_sanity
from stages.score import Score, ScoreRequest
from stages.sources import find_sources, probe
from stages.targets import mean_probabilities, resolve_targets

COLOURS = {"pass": "green", "fail": "red", "not applicable": "dim", "told": ""}


def check_source(config: Config, uri: str, clip_idx: int = 0) -> dict[str, Any]:
    """The findings about one clip of the first source that `uri` names, ready for JSON.

    Raises what reading the source and building the model raise, and ConfigError for a clip that is not there.
    """
    source = probe(next(iter(find_sources([uri]))))
    score = build_score(config)
    score.setup()
    try:
        clip = _read_clip(config, source, score.box, clip_idx)
        target = _target(config, score, clip)
        subject = Subject(
            clip=clip,
            box=score.box,
            target=target,
            perturb=config.perturb,
            score=config.score.model_copy(update={"batch_size": config.score.batch_size or score.tune().batch_size}),
            refine=config.refine,
        )
        findings = [asdict(finding) for finding in check_sanity(subject)]
        content = {
            "uri": source.uri,
            "clip_idx": clip_idx,
            "frames": [int(clip.covers[0]), int(clip.covers[1])],
            "model": score.box.spec.name,
            "target_idx": target,
            "target": score.box.spec.label(target),
            "method": config.refine.method,
            "substrate": config.score.substrate,
            "budget": config.budget,
            "is_ok": all(finding["result"] != "fail" for finding in findings),
            "findings": findings,
        }
    finally:
        score.close()
    found: dict[str, Any] = finite(content)
    return found


def print_sanity(content: Mapping[str, Any]) -> None:
    """A row for each finding, and what the columns mean."""
    start, stop = content["frames"]
    console.print(
        f"{escape(str(content['uri']))}, frames {start} to {stop - 1}, {escape(content['model'])}: "
        f"{escape(content['target'])}; {content['method']}, {content['substrate']}, {content['budget']} evaluations"
    )
    table = Table(show_edge=False, pad_edge=False)
    for name in ("check", "expected", "measured", "similarity", "in time", "signal", "result"):
        table.add_column(name, justify="right" if name in ("similarity", "in time") else "left")
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


def _read_clip(config: Config, source: VideoSource, box: BlackBox, clip_idx: int) -> Clip:
    decode = Decode(config.decode, box.spec)
    decode.setup()
    try:
        clip = decode.process(DecodeRequest(source=source, clip_idx=clip_idx)).clip
    finally:
        decode.close()
    if clip is None:
        raise ConfigError(f"--clip {clip_idx}", f"{source.uri} has fewer clips", "clips are counted from 0")
    return clip


def _target(config: Config, score: Score, clip: Clip) -> int:
    """The class to explain; words such as top1 are about this clip."""
    whole = MaskBatch(clip_id=clip.id, round_idx=0, ids=np.arange(1), grids=np.full((1, 1, 1, 1), 255, np.uint8))
    answer = score.process(ScoreRequest(batches=(whole,), clips={clip.id: clip})).scores[0]
    return resolve_targets(config.target, mean_probabilities(answer.values), score.box.spec)[0]
