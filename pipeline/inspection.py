"""`heatreel inspect`: what a source or a model is, what a run would do with it, and what that would cost."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.topology import build_score
from stages.box import BlackBox
from stages.decode import estimate_clips
from stages.errors import ExplainError
from stages.models import MODELS
from stages.score import Score
from stages.score_kinds import box_warnings
from stages.sources import find_sources, probe
from stages.tuning import Tuning

if TYPE_CHECKING:
    from stages.records import VideoSource

Facts = Mapping[str, object]

MAX_LISTED = 20
# Reading, refinement and drawing beside the box, where the run measures no more than this on two cores.
PIPELINE_SHARE = 0.95


def is_model(thing: str) -> bool:
    """Whether the word names a model, such as demo or torchvision:r3d_18, and not a file."""
    scheme, colon, _ = thing.partition(":")
    return scheme in MODELS and (bool(colon) or scheme == "demo")


def inspect_model(config: Config) -> Facts:
    """The spec of the model, its speed on this machine and what a clip costs. Raises what building it raises."""
    score = _scorer(config)
    box, tuning = score.box, score.tune()
    spec = box.spec
    classes = (
        f"{len(spec.labels)} named classes" if spec.labels else "classes without names: give --set model.labels_file"
    )
    facts: dict[str, object] = {
        "model": spec.name,
        "clip": f"{spec.clip_len} frames, every {spec.frame_step}., spanning {spec.clip_span} frames of the source",
        "input": f"{spec.height} x {spec.width}, {spec.resize}, {spec.channel_order}, mean {spec.mean}, std {spec.std}",
        "answer": f"{spec.scores}, {classes}",
        "weights": f"sha256 {box.weights_sha256[:16]}",
        **_speed(box, tuning),
        "a clip": f"{config.budget} evaluations, {_time(config.budget / _rate(tuning))}",
    }
    if warnings := box_warnings(box):
        facts["warnings"] = list(warnings)
    return facts


def inspect_sources(config: Config, thing: str) -> Facts:
    """What each source is, and clips, evaluations and minutes of a run with the configured model.

    Sources that cannot be read are named with the reason; when none can, the first reason is raised.
    """
    score = _scorer(config)
    spec = score.box.spec
    lines: list[str] = []
    broken: list[ExplainError] = []
    num_sources = num_clips = 0
    is_lower_bound = False
    for uri in find_sources([thing]):
        try:
            source = probe(uri)
        except ExplainError as error:
            broken.append(error)
            continue
        clips = estimate_clips(source, spec, config.decode)
        is_lower_bound |= clips is None
        num_sources, num_clips = num_sources + 1, num_clips + (clips or 1)
        if len(lines) < MAX_LISTED:
            lines += [describe(source), *(f"  note: {warning}" for warning in source.warnings)]
    if not num_sources:
        raise broken[0]
    facts: dict[str, object] = {"sources": lines}
    if broken:
        facts["broken"] = [str(error) for error in broken[:MAX_LISTED]]
        facts["to be skipped"] = f"{len(broken)} of {num_sources + len(broken)} sources"
    tuning = score.tune()
    evaluations = num_clips * config.budget
    least = "at least " if is_lower_bound else ""
    return facts | {
        "model": f"{spec.name}, clips of {spec.clip_len} frames, every {spec.frame_step}.",
        "to be done": f"{least}{num_clips} clips x {config.budget} = {evaluations:,} evaluations of the model",
        **_speed(score.box, tuning),
        "time": f"{least}{_time(evaluations / _rate(tuning))} with one scorer",
    }


def describe(source: "VideoSource") -> str:
    """One line about a source."""
    parts = [source.kind, f"{source.width} x {source.height}"]
    if source.kind != "image":
        parts.append(f"{source.num_frames} frames" if source.num_frames else "number of frames not stated")
        parts.append(f"{source.fps:.4g} frames/s" if source.fps else "rate not stated")
        parts.append(f"{source.duration_s:.2f} s" if source.duration_s else "duration not stated")
    parts += [source.codec, "with audio" if source.has_audio else ""]
    parts.append(f"rotated by {source.rotation_deg}°" if source.rotation_deg else "")
    return f"{source.uri}: {', '.join(part for part in parts if part)}"


def _scorer(config: Config) -> Score:
    score = build_score(config)
    score.setup()
    return score


def _speed(box: BlackBox, tuning: Tuning) -> dict[str, object]:
    rate = f"up to {tuning.evaluations_per_s:.3g} evaluations/s on {box.device}"
    return {"speed": f"{rate}, in batches of {tuning.batch_size}"}


def _rate(tuning: Tuning) -> float:
    return max(tuning.evaluations_per_s * PIPELINE_SHARE, 1e-9)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(seconds, 0.1):.2g} s"
    return f"about {seconds / 60:.2g} minutes" if seconds < 5400 else f"about {seconds / 3600:.2g} hours"
