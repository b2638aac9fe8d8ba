"""`heatreel evaluate`: how faithful the maps of a run are to its model, next to maps that know nothing of it.

In: a run folder and, if wanted, masks of the true object. Out: RUN/evaluation.json and its numbers. Some clips of every
source, spread over it, are decoded again; the maps are those of the run, as stitched. Everything is asked through the
score stage (docs/method.md, 5).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from pipeline.config import Config, make_config
from pipeline.demo import cells_of
from pipeline.files import finite, write_json
from pipeline.manifest import RunFolder
from pipeline.results import read_explanations
from pipeline.topology import build_score
from stages.baselines import BASELINES
from stages.decode import Decode, DecodeRequest
from stages.errors import ConfigError, ManifestError
from stages.evidence import EvidenceMaps, decompose_arrays
from stages.faithfulness import STEPS, curves_for
from stages.measure import measure_curves, measure_drop, measure_removal
from stages.metrics import energy_in_mask, points_inside
from stages.perturb import Perturb
from stages.records import Clip, Explanation, VideoSource
from stages.refine import Refine
from stages.regrid import regrid
from stages.score import Score
from stages.single import explain_clip
from stages.sources import current_sha256
from stages.statistics import bootstrap_interval, paired_p, stability
from stages.stores import name_of

NAME = "evaluation.json"
OURS = "map"
REFERENCES = ("random", "centre")
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
    "urg_prob": True,
    "urg_log_odds": True,
    "flip": True,
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
    if settings.substrate is not None:
        changed = {**config.score.model_dump(), "substrate": settings.substrate}
        config = make_config({**config.model_dump(), "score": changed})
    score = build_score(config)
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
        "substrate": config.score.substrate,
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
            cover = None if files is None else _cover(files, clip, explanation)
            rows = _rows(clip, score, explanation.target_idx, found, cover, settings.steps)
            for name, agreement in _stability(clip, score, explanation.target_idx, config, settings.seeds).items():
                rows[name] |= agreement
            yield {
                "video_id": source.id,
                "uri": source.uri,
                "sha256": source.sha256,
                "target_idx": explanation.target_idx,
                "target": explanation.target,
                "clip_idx": clip_idx,
                "frames": [int(clip.covers[0]), int(clip.covers[1])],
                "is_reliable": explanation.fidelity[clip_idx].is_reliable,
                "maps": rows,
            }
    finally:
        decode.close()


def _rows(
    clip: Clip, score: Score, target: int, found: EvidenceMaps, cover: np.ndarray | None, steps: int
) -> dict[str, dict[str, float | None]]:
    names = [*REFERENCES, *(["motion"] if len(clip.frames) > 1 else [])]
    others = {name: BASELINES[name](clip, score, target, 0, 0) for name in names}
    against = -found["net"]
    ranked = {OURS: found["net"], **others}
    shown = {OURS: found["support"], **others}
    # Removed first: the run's evidence against the target; a reference's own order; and where support is lowest.
    removed = {OURS: against, **others, "lowest support": -found["support"]}
    curves = curves_for(len(clip.frames), steps)
    rows: dict[str, dict[str, float | None]] = {name: {} for name in removed}
    for name, values in ranked.items():
        rows[name] |= measure_curves(clip, score, target, values, curves)
        rows[name]["average_drop"] = measure_drop(clip, score, target, shown[name])
        if cover is not None:
            rows[name] |= _against_truth(regrid(shown[name], cover.shape), cover)
    for name, values in removed.items():
        gain = measure_removal(clip, score, target, values)
        flip = None if gain.flips is None else float(gain.flips)
        rows[name] |= {"urg_prob": gain.prob, "urg_log_odds": gain.log_odds, "flip": flip}
    return rows


def _stability(clip: Clip, score: Score, target: int, config: Config, seeds: int) -> dict[str, dict[str, float]]:
    """How the net maps of fresh seeds agree with each other, and how random maps do."""
    if seeds < 2:
        return {}
    refine = Refine(config.refine)
    found: dict[str, list[np.ndarray]] = {OURS: [], "random": []}
    for seed in range(config.seed + 1, config.seed + 1 + seeds):
        settings = config.perturb.model_copy(update={"seed": seed})
        perturb = Perturb(settings, config.refine.method, config.refine.prior, config.refine.parts)
        (saliency,) = explain_clip(clip, perturb, score, refine, (target,))
        found[OURS].append(saliency.output("log_odds")[0])
        found["random"].append(BASELINES["random"](clip, score, target, 0, seed))
    return {name: stability(maps) for name, maps in found.items()}


def _against_truth(values: np.ndarray, cover: np.ndarray) -> dict[str, float | None]:
    if not cover.any():
        return {}  # the object is not in this clip
    return {"energy": energy_in_mask(values, cover).ratio, "pointing": float(points_inside(values, cover))}


def spread(num_clips: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices 0 .. num_clips - 1, evenly spread, both ends among them."""
    return [int(idx) for idx in np.unique(np.round(np.linspace(0, num_clips - 1, min(wanted, num_clips))))]


def mask_files(folder: Path, source: VideoSource, num_frames: int) -> list[Path]:
    """The mask of every frame of a source: the PNG files of DIR/NAME (NAME: the source's, without suffix), or of DIR.

    Raises ConfigError when there is not one for every frame.
    """
    own = folder / Path(name_of(source.uri)).stem
    files = sorted((own if own.is_dir() else folder).glob("*.png"))
    if len(files) != num_frames:
        raise ConfigError(
            f"--masks {folder}",
            f"{len(files)} masks for the {num_frames} frames of {source.uri}",
            f"put one PNG per frame, in order, into {own}",
        )
    return files


def read_mask(path: Path, source: VideoSource) -> Bool[np.ndarray, "h w"]:
    """A mask: what is not black (palette pictures: not colour 0). Raises ConfigError for a size not the frame's."""
    with Image.open(path) as picture:
        values = np.asarray(picture if picture.mode == "P" else picture.convert("L"))
        mask = values > (0 if picture.mode == "P" else 127)
    if mask.shape != (source.height, source.width):
        fact = f"the mask is {mask.shape[1]} x {mask.shape[0]}, the frames are {source.width} x {source.height}"
        raise ConfigError(str(path), fact, "give masks of the size of the source")
    return mask


def _cover(files: Sequence[Path], clip: Clip, explanation: Explanation) -> np.ndarray:
    masks = np.stack([read_mask(files[int(idx)], explanation.source) for idx in clip.frame_idx])
    return cells_of(masks, explanation)


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
