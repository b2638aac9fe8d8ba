"""A real model on one scorer: the whole run against the bare model in a tight loop, in turn, in one process.

The bare rate is taken before, between and after the runs, never once at the start: a machine's speed changes by more
than what is looked for. `efficiency` counts a run from the scorer's readiness to the last written frame; `steady` the
time between the first and the last eighth of its journal, without filling the pipeline and without the end of the film.
`model_share_of_processors`: processor seconds that the bare model takes for an evaluation over those of the whole run
(model loading, film and all): what would be reached on a machine that nobody else uses, if no processor ever waited.

A machine may lose its processors in the middle of a run: to other processes, or to the host of a virtual machine
("steal" in /proc/stat). A run that lost, or stands beside a bare window that lost, more than DISTURBED of them is
written down with the rest, does not count, and is repeated, so often at most. That choice looks at what was taken,
never at the rates. Where no run was left alone, `runs_that_count` is 0 and the figures are those of all.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bare import Bare, Work, shares
from benchmarks.footage import write_loop
from benchmarks.real_subjects import SQUEEZENET
from pipeline.config import Config, load_config
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
DISTURBED = 0.03
MOST_REPEATS = 2


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
    num_clips = max(2, round(seconds * bare.rate(size, BARE_S) / model.budget))
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
        turns = list(_turns(config, footage, folder, partial(bare.rate_and_cost, size, BARE_S), runs))
    counted = [turn for turn in turns if turn.is_quiet] or turns
    score = ScoreConfig(device=str(box.device), batch_size=size)
    own_cost = median(turn.cost_s for turn in counted)
    return {
        "kind": "real",
        "model": model.name,
        "engine": engine,
        "scorers": 1,
        "clips": num_clips,
        "budget": model.budget,
        "bare_batch": size,
        "turns": [turn.row() for turn in turns],
        "runs_that_count": sum(turn.is_quiet for turn in turns),
        "efficiency": round(median(turn.figures["evaluations_per_s"] / turn.bare_rate for turn in counted), 4),
        "steady_efficiency": round(median(turn.steady / turn.bare_rate for turn in counted), 4),
        "model_share_of_processors": round(median(turn.bare_cost_s for turn in counted) / own_cost, 4)
        if engine == "local"
        else None,
        **{
            key: round(median(turn.figures[key] for turn in counted), 4)
            for key in ("seconds", "scorer_busy_share", "batch_fill", "decode_share", "refine_share", "write_share")
        },
        "shares": {
            part: round(share, 4) for part, share in shares(box, score, Work(box, model.budget), 1, size).items()
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The bare model for a while: evaluations/s, processor seconds an evaluation, share of the processors taken."""

    rate: float
    cost_s: float
    taken: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A run between two windows of the bare model."""

    before: Window
    after: Window
    figures: Mapping[str, Any]
    steady: float
    cost_s: float
    taken: float

    @property
    def bare_rate(self) -> float:
        """Of the bare model, around this run."""
        return (self.before.rate + self.after.rate) / 2

    @property
    def bare_cost_s(self) -> float:
        """Processor seconds of the bare model for an evaluation, around this run."""
        return (self.before.cost_s + self.after.cost_s) / 2

    @property
    def is_quiet(self) -> bool:
        """Whether the machine kept its processors all the while."""
        return max(self.before.taken, self.taken, self.after.taken) <= DISTURBED

    def row(self) -> dict[str, object]:
        """For the table and the file."""
        return {
            "rate": round(self.figures["evaluations_per_s"], 2),
            "bare": [round(self.before.rate, 2), round(self.after.rate, 2)],
            "taken": [round(share, 3) for share in (self.before.taken, self.taken, self.after.taken)],
            "counts": self.is_quiet,
        }


def _turns(
    config: Config, footage: Path, folder: Path, rate_and_cost: Callable[[], tuple[float, float]], runs: int
) -> Iterator[Turn]:
    """Runs with bare windows before, between and after, until so many count or each was repeated often enough."""

    def window() -> Window:
        with Theft() as theft:
            rate, cost_s = rate_and_cost()
        return Window(rate=rate, cost_s=cost_s, taken=theft.share)

    before, counted = window(), 0
    for number in range((1 + MOST_REPEATS) * runs):
        used, run_folder = time.process_time(), folder / f"run{number}"
        with Theft(is_spread=config.engine.kind == "ray") as theft:
            summary = run(config, [str(footage)], run_folder, is_quiet=True)
        cost_s = (time.process_time() - used) / summary.figures["evaluations"]
        assert not summary.failures, summary.failures
        after = window()
        turn = Turn(
            before=before,
            after=after,
            figures=summary.figures,
            steady=steady_rate(run_folder, config.budget),
            cost_s=cost_s,
            taken=theft.share,
        )
        print(f"          {turn.row()}", flush=True)
        yield turn
        before, counted = after, counted + turn.is_quiet
        if counted == runs:
            return


class Theft:
    """`share` of the processors' time that went to others than this process between entering and leaving.

    `is_spread`: what is measured has processes of its own, so that only what a host takes is known not to be ours.
    """

    share = 0.0

    def __init__(self, *, is_spread: bool = False) -> None:
        self._is_spread = is_spread

    def __enter__(self) -> "Theft":
        self._started, self._before = time.perf_counter(), _taken_s(is_spread=self._is_spread)
        return self

    def __exit__(self, *_: object) -> None:
        available = (time.perf_counter() - self._started) * (os.cpu_count() or 1)
        self.share = max(_taken_s(is_spread=self._is_spread) - self._before, 0.0) / max(available, 1e-9)


def _taken_s(*, is_spread: bool) -> float:
    """Seconds of all processors that went to a host or to other processes (proc(5)); 0 where nothing says it."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, irq, softirq, steal = (int(field) for field in fields[1:9])
    if is_spread:
        return steal / os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - time.process_time()


def steady_rate(run_folder: Path, rows_per_clip: int) -> float:
    """Evaluations per second between the first and the last eighth of the clips, by the journal's file times."""
    written = sorted(path.stat().st_mtime for path in (run_folder / "journal").rglob("*.r0000.npz"))
    first, last = len(written) // 8, len(written) - 1 - len(written) // 8
    return (last - first) * rows_per_clip / max(written[last] - written[first], 1e-9)
