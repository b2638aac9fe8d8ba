"""THE LIST: the stages in the order of the flow, how each is built, what it occupies, how many workers it has.

    decode -> score <-> refine -> sink (stitch, regions, film, tables)

Perturb is a recipe of a few numbers and is made by the coordinator itself. The scorers come up first: what the box says
of itself (its spec) is what the other stages are built from, so a model is loaded only where it works.
"""

import os
from dataclasses import dataclass
from functools import partial

from pipeline.config import Config
from pipeline.engine import StagePlan
from pipeline.sections import ModelConfig
from pipeline.writing import WriteVideos
from stages.box import BlackBox, BoxSpec
from stages.decode import Decode
from stages.models import load_box
from stages.refine import Refine
from stages.score import Score, Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerReport:
    """What a scorer knows when it is ready: the box, and how fast it is by itself."""

    spec: BoxSpec
    weights_sha256: str
    device: str
    tuning: Tuning
    warnings: tuple[str, ...] = ()


def scorer_plan(config: Config, *, is_local: bool) -> StagePlan:
    """The scorers: one for each GPU, or one on a machine without."""
    gpus = 0 if config.score.device.startswith("cpu") else num_gpus()
    workers = config.engine.num_scorers or (1 if is_local else max(gpus, 1))
    return StagePlan(
        name="score",
        build=partial(build_score, config),
        workers=workers,
        resources=config.engine.resources.score.resolve(1.0 if gpus else 0.0),
        report=report_scorer,
        threads=max(1, num_cpus() // workers) if not gpus else None,
    )


def other_plans(config: Config, spec: BoxSpec, *, is_local: bool) -> tuple[StagePlan, ...]:
    """Decode, refine and sink, for a box of this spec."""
    engine, resources = config.engine, config.engine.resources
    spare = 1 if is_local else max(1, min(4, num_cpus() // 4))
    return (
        StagePlan(
            name="decode",
            build=partial(Decode, config.decode, spec, config.score.substrate),
            workers=engine.num_decoders or spare,
            resources=resources.decode.resolve(),
            threads=1,
        ),
        StagePlan(
            name="refine",
            build=partial(Refine, config.refine),
            workers=engine.num_refiners or max(1, spare // 2),
            resources=resources.refine.resolve(),
            threads=1,
        ),
        StagePlan(
            name="sink",
            build=WriteVideos,
            workers=engine.num_sinks or max(1, spare // 2),
            resources=resources.sink.resolve(),
            threads=1,
        ),
    )


def build_score(config: Config) -> Score:
    """The score stage; the box is built by its setup."""
    return Score(config.score, partial(build_box, config.model), seed=config.seed)


def build_box(model: ModelConfig) -> BlackBox:
    """The black box of a configuration."""
    return load_box(**model.model_dump())


def report_scorer(score: Score) -> ScorerReport:
    """Find the best batch size and measure the bare model at it."""
    box = score.box
    return ScorerReport(
        spec=box.spec,
        weights_sha256=box.weights_sha256,
        device=str(box.device),
        tuning=score.tune(),
        warnings=tuple(getattr(box, "warnings", ())),
    )


def num_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_gpus() -> int:
    """CUDA devices of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
