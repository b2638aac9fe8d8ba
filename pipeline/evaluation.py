"""`heatreel evaluate`: how faithful the maps of a run are to its model, next to maps that know nothing of it.

In: a run folder and, if wanted, masks of the true object. Out: RUN/evaluation.json and its numbers. Some clips of every
source, spread over it, are decoded again; the maps are those of the run, as stitched. Where the target is the first
answer to a clip, removal is measured for the runner-up, for which the clip is explained anew with the run's settings.
Everything is asked through the score stage (docs/method.md, 1 and 5).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config, make_config
from pipeline.files import finite, write_json
from pipeline.manifest import RunFolder
from pipeline.results import read_explanations
from pipeline.topology import build_score
from pipeline.truth import against_truth, cover_of, mask_files
from stages.baselines import BASELINES
from stages.decode import Decode, DecodeRequest
from stages.errors import ManifestError
from stages.evidence import EvidenceMaps, decompose, decompose_arrays
from stages.exchange import Subject
from stages.faithfulness import STEPS, curves_for
from stages.measure import measure_curves, measure_drop, measure_removal, wished_class
from stages.records import Clip, Explanation, VideoSource
from stages.score import Score
from stages.sources import current_sha256
from stages.statistics import bootstrap_interval, paired_p, stability

NAME = "evaluation.json"
OURS = "map"
REFERENCES = ("random", "centre")
# What removal gains: of p, of the log-odds and its two parts, and whether the wished class becomes the first answer.
REMOVAL_METRICS = ("urg_prob", "urg_log_odds", "urg_z_t", "urg_others", "flip")
# By map: its numbers by metric; None where a clip cannot say.
MapRows = dict[str, dict[str, float | None]]
# Whether a larger number is better.
IS_MORE_BETTER: Mapping[str, bool] = {
    "insertion": True,
    "deletion": False,
    "insertion_space": True,
    "deletion_space": False,
    "insertion_time": True,
    "deletion_time": False,
    "block_deletion": False,
    "average_drop": False,
    **dict.fromkeys(REMOVAL_METRICS, True),
    "energy": True,
    "pointing": True,
    "stability_rank": True,
    "stability_top": True,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured: clips of each source, steps of each curve, the substrate, masks of the true object.

    With `seeds` of two or more, every clip is explained anew with that many seeds, to see how stable its ranks are.
    """

    num_clips: int = 8
    steps: int = STEPS
    substrate: str | None = None  # None: that of the run
    masks: Path | None = None
    seeds: int = 0


def evaluate_run(run: Path, settings: Settings | None = None) -> dict[str, Any]:
    """Measure the maps of a run, write evaluation.json, return its content.

    Raises ManifestError where there is no run, or where its model or an input has changed; ConfigError for masks that
    do not fit.
    """
    settings = settings or Settings()
    folder = RunFolder.open(run)
    config = make_config(folder.manifest.config)
    score = build_score(_measured_under(config, settings.substrate))
    score.setup()
    try:
        folder.expect_same("the model", folder.manifest.model.get("weights_sha256"), score.box.weights_sha256)
        clips = [
            row for explanation in read_explanations(run) for row in _measured(explanation, config, score, settings)
        ]
    finally:
        score.close()
    if not clips:
        raise ManifestError(str(run), "the run holds no explanation", "finish it with `heatreel resume`")
    content: dict[str, Any] = {
        "substrate": score.config.substrate,
        "steps": settings.steps,
        "seeds": settings.seeds,
        "num_clips": len(clips),
        "summary": summarise(clips),
        "clips": clips,
    }
    content = finite(content)
    write_json(run / NAME, content)
    return content


def summarise(clips: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By metric and map: mean and 95 % interval over the clips, and p of the paired test of the run's map with it."""
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for metric in IS_MORE_BETTER:
        columns = {
            name: np.array([_number(clip["maps"].get(name, {}).get(metric)) for clip in clips])
            for name in dict.fromkeys(name for clip in clips for name in clip["maps"])
        }
        known = {name: values for name, values in columns.items() if np.isfinite(values).any()}
        if not known:
            continue
        summary[metric] = {
            name: {
                **{key: getattr(interval, key) for key in ("mean", "low", "high", "num")},
                "p": None if name == OURS or OURS not in known else paired_p(known[OURS], values),
            }
            for name, values in known.items()
            for interval in [bootstrap_interval(values)]
        }
    return summary


def _measured(explanation: Explanation, config: Config, score: Score, settings: Settings) -> Iterator[dict[str, Any]]:
    source = explanation.source
    _expect_unchanged(source)
    files = None if settings.masks is None else mask_files(settings.masks, source, len(explanation.pts_s))
    decode = Decode(config.decode, score.box.spec)
    decode.setup()
    try:
        for clip_idx in spread(len(explanation.fidelity), settings.num_clips):
            clip = decode.process(DecodeRequest(source=source, clip_idx=clip_idx)).clip
            if clip is None:
                continue
            found = _maps_of(explanation, clip)
            cover = None if files is None else cover_of(files, clip, explanation)
            subject = _subject(clip, explanation.target_idx, config, score)
            wished = wished_class(score, clip, subject.target)
            theirs = found if wished == subject.target else decompose(subject.explain(target=wished).saliency)
            rows = _merged(
                _removal(clip, score, wished, theirs),
                _curves(clip, score, subject.target, found, cover, settings.steps),
                _stability(subject, score, settings.seeds),
            )
            yield {
                "video_id": source.id,
                "uri": source.uri,
                "sha256": source.sha256,
                "target_idx": explanation.target_idx,
                "target": explanation.target,
                "wished_idx": wished,
                "wished": score.box.spec.label(wished),
                "clip_idx": clip_idx,
                "frames": [int(clip.covers[0]), int(clip.covers[1])],
                "is_reliable": explanation.fidelity[clip_idx].is_reliable,
                "maps": rows,
            }
    finally:
        decode.close()


def _measured_under(config: Config, substrate: str | None) -> Config:
    """The run's settings, but for what replaces voxels while maps are measured."""
    if substrate is None:
        return config
    return make_config({**config.model_dump(), "score": {**config.score.model_dump(), "substrate": substrate}})


def _subject(clip: Clip, target: int, config: Config, score: Score) -> Subject:
    """A clip with its box, to be explained anew as the run did it: under its own substrate, whatever measures."""
    return Subject(
        clip=clip, box=score.box, target=target, perturb=config.perturb, score=config.score, refine=config.refine
    )


def _references(clip: Clip, score: Score, target: int) -> dict[str, np.ndarray]:
    """Maps (t, y, x) that know nothing of the box."""
    names = [*REFERENCES, *(["motion"] if len(clip.frames) > 1 else [])]
    return {name: BASELINES[name](clip, score, target, 0, 0) for name in names}


def _curves(
    clip: Clip, score: Score, target: int, found: EvidenceMaps, cover: np.ndarray | None, steps: int
) -> MapRows:
    others = _references(clip, score, target)
    ranked, shown = {OURS: found["net"], **others}, {OURS: found["support"], **others}
    curves = curves_for(len(clip.frames), steps)
    rows: MapRows = {}
    for name, values in ranked.items():
        rows[name] = {**measure_curves(clip, score, target, values, curves)}
        rows[name]["average_drop"] = measure_drop(clip, score, target, shown[name])
        rows[name] |= {} if cover is None else against_truth(shown[name], cover)
    return rows


def _removal(clip: Clip, score: Score, wished: int, maps: EvidenceMaps) -> MapRows:
    """What the wished class gains by each order of removal; `maps` are those of the wished class."""
    removed = {
        OURS: -maps["net"],
        "F-TC": maps["f_tc"],
        "F-NTC": maps["f_ntc"],
        "lowest support": -maps["support"],
        **_references(clip, score, wished),
    }
    rows: MapRows = {}
    for name, values in removed.items():
        gain = measure_removal(clip, score, wished, values)
        flip = None if gain.flips is None else float(gain.flips)
        numbers = (gain.prob, gain.log_odds, gain.z_t, gain.others, flip)
        rows[name] = dict(zip(REMOVAL_METRICS, numbers, strict=True))
    return rows


def _stability(subject: Subject, score: Score, seeds: int) -> MapRows:
    """How the net maps of fresh seeds agree with each other, and how random maps do."""
    if seeds < 2:
        return {}
    found: dict[str, list[np.ndarray]] = {OURS: [], "random": []}
    for seed in range(subject.perturb.seed + 1, subject.perturb.seed + 1 + seeds):
        found[OURS].append(subject.explain(seed=seed).net)
        found["random"].append(BASELINES["random"](subject.clip, score, subject.target, 0, seed))
    return {name: {**stability(maps)} for name, maps in found.items()}


def _merged(*parts: MapRows) -> MapRows:
    """All numbers of each map, from parts that measured different things of it."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: {metric: v for part in parts for metric, v in part.get(name, {}).items()} for name in names}


def spread(num_clips: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices 0 .. num_clips - 1, evenly spread, both ends among them."""
    return [int(idx) for idx in np.unique(np.round(np.linspace(0, num_clips - 1, min(wanted, num_clips))))]


def _maps_of(explanation: Explanation, clip: Clip) -> EvidenceMaps:
    """The maps that the run gave for the frames of a clip."""
    mean, var = explanation.mean[:, clip.frame_idx], explanation.var[:, clip.frame_idx]
    return decompose_arrays(explanation.outputs, mean, var)


def _expect_unchanged(source: VideoSource) -> None:
    found = current_sha256(source.uri)
    if found != source.sha256:
        fact = "is not there any more" if found is None else "has changed since the run"
        raise ManifestError(source.uri, fact, "put the old one back, or explain it again")


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
