"""THE LIST: the stages in the order of the flow, how each is built, what it occupies, how many workers it has.

    decode -> score <-> refine -> sink (stitch, regions, film, tables)

Perturb is a recipe of a few numbers and is made by the coordinator itself. The scorers come up first: what the box says
of itself (its spec) is what the other stages are built from, so a model is loaded only where it works.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pipeline.config import Config
from pipeline.engine import Capacity, StagePlan
from pipeline.sections import ModelConfig
from pipeline.work import StageName
from pipeline.writing import WriteVideos
from stages.base import Stage
from stages.box import BlackBox, BoxSpec
from stages.decode import Decode
from stages.errors import ModelError
from stages.models import load_box
from stages.refine import Refine
from stages.score import Score
from stages.score_kinds import box_warnings
from stages.tuning import Tuning

# Of a scorer that was ended for its memory before it could say what it had chosen.
UNKNOWN_BATCH = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerReport:
    """What a scorer knows when it is ready: the box, and how fast it is by itself."""

    spec: BoxSpec
    weights_sha256: str
    device: str
    tuning: Tuning
    warnings: tuple[str, ...] = ()

    def refusal(self, worker: int, weights_sha256: str | None) -> ModelError | None:
        """Why a run with these weights must not go on with this scorer; None where it may (or nothing is known)."""
        if weights_sha256 is None or self.weights_sha256 == weights_sha256:
            return None
        fact = f"scorer {worker} loaded other weights ({self.weights_sha256[:12]}) than the run has "
        fact += f"({weights_sha256[:12]})"
        return ModelError(self.spec.name, fact, "give every node, and every start, the same weights; then resume")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Part `index` of `count`: what one of several coordinators gets of the workers."""

    index: int = 0
    count: int = 1

    def of(self, total: int) -> int:
        """How many of `total` fall to this part."""
        return total // self.count + (self.index < total % self.count)


def scorer_plan(config: Config, capacity: Capacity, share: Share = Share()) -> StagePlan:
    """The scorers. Where their number follows from the cluster, it goes on following it."""
    resources = config.engine.resources.score.resolve(1.0 if _uses_gpus(config, capacity) else 0.0)
    workers = max(1, share.of(num_scorers(capacity, config=config)))
    is_open = config.engine.num_scorers is None and not capacity.is_local
    plan = StagePlan(
        name="score",
        build=partial(build_score, config),
        workers=workers,
        resources=resources,
        report=report_scorer,
        threads=None if resources.num_gpus else max(int(resources.num_cpus), num_cpus() // workers),
        wanted=partial(_scorers_of, config=config, share=share) if is_open else None,
    )
    return replace(plan, frugal=partial(_with_half_the_batch, plan, config))


def _with_half_the_batch(plan: StagePlan, config: Config, report: object) -> StagePlan | None:
    """The same scorer with half the batch that it had, a small one where it did not live to say which; None after 1."""
    had = report.tuning.batch_size if isinstance(report, ScorerReport) else config.score.batch_size
    if had == 1:
        return None
    size = UNKNOWN_BATCH if had is None else had // 2
    _log.warning("stage=score batch_size=%d reason=out_of_memory (before: %s)", size, had or "not known")
    smaller = config.model_copy(update={"score": config.score.model_copy(update={"batch_size": size})})
    again = replace(plan, build=partial(build_score, smaller))
    return replace(again, frugal=partial(_with_half_the_batch, again, smaller))


def num_scorers(capacity: Capacity, *, config: Config) -> int:
    """All scorers of a run: as configured; else as many as GPUs (or the custom resources of a scorer) allow, or one."""
    if config.engine.num_scorers is not None:
        return config.engine.num_scorers
    needs = config.engine.resources.score.resolve(1.0 if _uses_gpus(config, capacity) else 0.0)
    if capacity.is_local or not (needs.num_gpus or needs.custom):
        return 1
    fits = [capacity.num_gpus / needs.num_gpus] if needs.num_gpus else []
    fits += [capacity.custom.get(name, 0.0) / amount for name, amount in needs.custom.items() if amount]
    return max(1, int(min(fits, default=1.0)))


def _num_spare(config: Config, capacity: Capacity) -> int:
    wanted = max(4, num_scorers(capacity, config=config) // 4)
    return 1 if capacity.is_local else max(1, min(wanted, int(capacity.num_cpus) // 4))


def are_readers_spread(config: Config) -> bool:
    """Whether readers lie on as many machines as can be: all see the sources, and no resource or label binds them."""
    needs = config.engine.resources.decode
    return config.engine.has_shared_folder and not (needs.custom or needs.labels)


def num_readers(config: Config, capacity: Capacity, share: Share) -> int:
    """The readers of all shares together."""
    return max(config.engine.num_decoders or _num_spare(config, capacity), share.count)


def other_plans(config: Config, spec: BoxSpec, capacity: Capacity, share: Share = Share()) -> tuple[StagePlan, ...]:
    """Decode, refine and sink, for a box of this spec; a reader or writer for every few scorers by default."""
    engine, resources = config.engine, config.engine.resources
    spare = _num_spare(config, capacity)

    def count(configured: int | None, default: int) -> int:
        return max(1, share.of(configured or default))

    stages: tuple[tuple[StageName, Callable[[], Stage[Any, Any]], int], ...] = (
        ("decode", partial(Decode, config.decode, spec, config.score.substrate), count(engine.num_decoders, spare)),
        ("refine", partial(Refine, config.refine), count(engine.num_refiners, max(1, spare // 2))),
        ("sink", WriteVideos, count(engine.num_sinks, max(1, spare // 2))),
    )
    return tuple(
        StagePlan(
            name=name,
            build=build,
            workers=workers,
            resources=getattr(resources, name).resolve(),
            threads=1,
            stays_home=name == "sink" and not engine.has_shared_folder,
            is_spread=name == "decode" and are_readers_spread(config),
        )
        for name, build, workers in stages
    )


def build_score(config: Config) -> Score:
    """The score stage; the box is built by its setup."""
    load = partial(build_box, config.model)
    return Score(config.score, load, seed=config.seed, asks_inside=config.refine.asks_inside)


def build_box(model: ModelConfig) -> BlackBox:
    """The black box of a configuration."""
    return load_box(**model.model_dump())


def report_scorer(score: Score) -> ScorerReport:
    """Find the batch size, and how fast the bare model is."""
    box = score.box
    return ScorerReport(
        spec=box.spec,
        weights_sha256=box.weights_sha256,
        device=str(box.device),
        tuning=score.tune(),
        warnings=box_warnings(box),
    )


def _uses_gpus(config: Config, capacity: Capacity) -> bool:
    return capacity.num_gpus > 0 and not config.score.device.startswith("cpu")


def _scorers_of(capacity: Capacity, *, config: Config, share: Share) -> int:
    return share.of(num_scorers(capacity, config=config))


def num_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_gpus() -> int:
    """CUDA devices of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
