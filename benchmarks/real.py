"""A real model on one scorer: the whole run against the bare model in a tight loop, in turn, in one process.

The bare rate is taken before, between and after the runs, never once at the start: a machine's speed changes by more
than what is looked for. `efficiency` counts a run from the scorer's readiness to the last written frame; `steady` the
time between the first and the last eighth of its journal, without filling the pipeline and without the end of the film.
`model_share_of_processors`: processor seconds that the bare model takes for an evaluation over those of the whole run
(model loading, film and all): what would be reached on a machine that nobody else uses, if no processor ever waited.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bare import Bare, Work, shares
from benchmarks.footage import write_loop
from benchmarks.real_subjects import SQUEEZENET
from pipeline.config import load_config
from pipeline.runner import run
from stages.demo.clips import DEMO_VIDEO
from stages.models import load_box
from stages.models_torch import TorchBox
from stages.score import ScoreConfig
from stages.sources import probe
from stages.tuning import BATCH_SIZES

DATA_VARIABLE = "HEATREEL_TEST_DATA"
BARE_S = 15.0
TRIAL_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model and footage for it, which is looped for as long as it takes."""

    name: str
    settings: Mapping[str, object]
    footage: Path
    budget: int


def models(data: Path | None) -> Iterator[Model | str]:
    """The models to measure; where one cannot be, the reason."""
    yield Model(name="demo", settings={"model.name": "demo"}, footage=DEMO_VIDEO, budget=256)
    weights = None if data is None else data / "weights" / "squeezenet_v1.0.npz"
    if data is None or weights is None or not weights.is_file():
        yield f"squeezenet skipped: give --data FOLDER or set {DATA_VARIABLE} (needs weights/ and videos/)"
        return
    settings = {
        "model.name": f"python:{SQUEEZENET}:frames_mean",
        "model.weights": str(weights),
        "model.options": {"frames": "4"},
    }
    yield Model(name="squeezenet", settings=settings, footage=data / "videos" / "bikes.mp4", budget=256)


def data_folder(given: Path | None) -> Path | None:
    """The folder of real models: the one given, else the one in the environment."""
    named = os.environ.get(DATA_VARIABLE)
    return given or (Path(named) if named else None)


def measure_real(model: Model, engine: str, seconds: float, runs: int) -> dict[str, Any]:
    """Figures of `runs` runs that score for `seconds` each or somewhat longer, and of the bare model around them."""
    settings = {**model.settings, "budget": model.budget, "target": "0", "engine.kind": engine}
    # The one scorer has as many threads as the bare model; on Ray the others run beside it, as they do on threads.
    none = {stage: {"num_cpus": 0} for stage in ("decode", "refine", "sink", "coordinator")}
    settings["engine.resources"] = {"score": {"num_cpus": os.cpu_count()}, **none}
    config = load_config(options={**settings, "engine.num_scorers": 1})
    box = load_box(**config.model.model_dump())
    assert isinstance(box, TorchBox)
    bare = Bare(box, config.score.precision)
    size = bare.best_size([size for size in BATCH_SIZES if size <= 64], TRIAL_S)
    rates, costs = ([value] for value in bare.rate_and_cost(size, BARE_S))
    num_clips = max(2, round(seconds * rates[0] / model.budget))
    figures, steady, own_costs = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = probe(str(model.footage))
        stride, fps = config.decode.stride(box.spec), source.fps or 25.0
        length_s = (num_clips - 1) * stride / fps + box.spec.clip_span / fps
        times = int(length_s / (source.duration_s or 1.0)) + 1
        footage = write_loop(folder / f"footage{model.footage.suffix}", model.footage, times)
        config = load_config(
            options={**settings, "engine.num_scorers": 1, "decode.to_s": round(length_s - 0.5 / fps, 3)}
        )
        for number in range(runs):
            used = time.process_time()
            summary = run(config, [str(footage)], folder / f"run{number}", is_quiet=True)
            own_costs.append((time.process_time() - used) / summary.figures["evaluations"])
            assert not summary.failures, summary.failures
            figures.append(summary.figures)
            steady.append(steady_rate(folder / f"run{number}", model.budget))
            for known, value in zip((rates, costs), bare.rate_and_cost(size, BARE_S), strict=True):
                known.append(value)
    around = [(before + after) / 2 for before, after in pairwise(rates)]
    score = ScoreConfig(device=str(box.device), batch_size=size)
    return {
        "kind": "real",
        "model": model.name,
        "engine": engine,
        "scorers": 1,
        "clips": num_clips,
        "budget": model.budget,
        "bare_batch": size,
        "bare_rates": [round(rate, 2) for rate in rates],
        "rates": [round(found["evaluations_per_s"], 2) for found in figures],
        "efficiency": _ratio([found["evaluations_per_s"] for found in figures], around),
        "steady_efficiency": _ratio(steady, around),
        "model_share_of_processors": round(median(costs) / median(own_costs), 4) if engine == "local" else None,
        "told_efficiency": [round(found["efficiency"], 4) for found in figures],
        **{
            key: round(median(found[key] for found in figures), 4)
            for key in ("seconds", "scorer_busy_share", "batch_fill", "decode_share", "refine_share", "write_share")
        },
        "shares": {
            part: round(share, 4) for part, share in shares(box, score, Work(box, model.budget), 1, size).items()
        },
    }


def steady_rate(run_folder: Path, rows_per_clip: int) -> float:
    """Evaluations per second between the first and the last eighth of the clips, by the journal's file times."""
    written = sorted(path.stat().st_mtime for path in (run_folder / "journal").rglob("*.r0000.npz"))
    first, last = len(written) // 8, len(written) - 1 - len(written) // 8
    return (last - first) * rows_per_clip / max(written[last] - written[first], 1e-9)


def _ratio(ours: list[float], bare: list[float]) -> float:
    return round(median(one / other for one, other in zip(ours, bare, strict=True)), 4)
