"""Do scorers ever wait? Simulated scorers behind the real scheduler, coordinator, journal and engines.

    python -m benchmarks.engine                 the table, and benchmarks/results/engine.json
    python -m benchmarks.engine --quick         a few seconds

Efficiency is evaluations per second over the whole run, first clip and last clip included, divided by what the same
scorers would do with full batches all the time. Fill is the share of the batches' places that held a mask. Beside the
product's scheduler stand two that are common elsewhere: one clip at a time, and rounds in lock-step (a group of as many
clips as the window holds is read, scored, refined, scored again; each step waits for all of it). The last rows are real
models behind the whole pipeline (`benchmarks/real.py`); those that need weights are left out without `--data`.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.real import data_folder, measure_real, models
from benchmarks.simulated import Load, drive
from pipeline.admission import Admission
from pipeline.engine import Engine
from pipeline.local import LocalEngine
from pipeline.scheduler import Scheduler
from pipeline.window import Limits
from pipeline.work import DecodeTask, RefineTask, ScoreTask

RESULTS = Path(__file__).with_name("results") / "engine.json"
SCORERS = (1, 4, 8, 16, 32)
BANK = Load()
ADAPTIVE = replace(BANK, bank_rows=128, rounds=5)
# Rounds that fill no batch by themselves: what is sent half-empty if rounds of several clips are not merged.
SMALL = replace(BANK, bank_rows=124, rounds=12, round_rows=12)
LOADS = {"bank": BANK, "adaptive": ADAPTIVE, "small": SMALL}
FREE = replace(BANK, scorers=4, videos=4, batch_s=0.0, mask_s=0.0, decode_s=0.0, refine_s=0.0, sink_s=0.0)


class _Barriers(Admission):
    """Reads a group, then scores all of it, then refines all of it."""

    is_reading = True

    def _next_decode(self) -> DecodeTask | None:
        num_open = self.ledger.window.num_open
        self.is_reading = num_open == 0 or (self.is_reading and num_open < self.num_clips_allowed())
        return super()._next_decode() if self.is_reading else None

    def _admit_scores(self, now: float) -> list[ScoreTask]:
        is_held = self.ledger.workers.is_busy("refine") or self.ledger.workers.is_busy("decode")
        return [] if is_held else super()._admit_scores(now)

    def _admit_refines(self, now: float) -> list[RefineTask]:
        workers = self.ledger.workers
        if self.ledger.rows.is_waiting() or workers.is_busy("score") or workers.is_busy("decode"):
            return []
        return super()._admit_refines(now)


class LockStep(Scheduler):
    """Rounds in lock-step."""

    def __init__(self, limits: Limits, *, clip_bytes: int, rows_per_clip: int) -> None:
        super().__init__(limits, clip_bytes=clip_bytes, rows_per_clip=rows_per_clip)
        self.admission = _Barriers(self.ledger)


# The scheduler, and how many clips may be open.
WAYS: dict[str, tuple[type[Scheduler], int | None]] = {
    "continuous": (Scheduler, None),
    "lock-step": (LockStep, None),
    "clip by clip": (Scheduler, 1),
}


def measure(load: Load, way: str = "continuous", make: Callable[[], Engine] = LocalEngine) -> dict[str, float]:
    """One run; returns its figures."""
    scheduler_class, max_clips = WAYS[way]
    engine, limits = make(), Limits(max_clips=max_clips, deadline_s=2.0)
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures, record = drive(load, engine, Path(folder), limits, scheduler_class)
        finally:
            engine.close()
    assert len(record.completed_ids) == load.videos, record.failures
    assert figures["evaluations"] == load.evaluations
    return figures


def ceiling(num_clips: int, make: Callable[[], Engine] = LocalEngine) -> dict[str, float]:
    """Scorers that cost nothing: how many batches and masks one coordinator moves in a second."""
    load = replace(FREE, clips_per_video=num_clips // FREE.videos)
    top = measure(load, make=make)
    found = {key: round(top[key], 4) for key in ("seconds", "evaluations_per_s", "batches", "coordinator_cpu_share")}
    found["batches_per_s"] = round(top["batches"] / top["seconds"], 1)
    # What the coordinator's own process used: what it would carry with a processor of its own.
    found["batches_per_cpu_s"] = round(found["batches_per_s"] / max(top["coordinator_cpu_share"], 1e-9), 1)
    return found


def ray_engine() -> Engine:
    import ray

    from pipeline.actors import RayEngine

    if not ray.is_initialized():
        ray.init(
            address="local", include_dashboard=False, num_cpus=2, object_store_memory=128 << 20, log_to_driver=False
        )
    return RayEngine()


def row(kind: str, engine: str, way: str, load: Load, figures: dict[str, float]) -> dict[str, object]:
    keys = (
        "seconds",
        "efficiency",
        "steady_efficiency",
        "batch_fill",
        "batches",
        "evaluations_per_s",
        "coordinator_cpu_share",
    )
    kept = {key: round(float(figures[key]), 4) for key in (*keys, "most_clips_in_flight")}
    print(
        f"{kind:9} {engine:6} {way:13} {load.scorers:4d}  efficiency {kept['efficiency']:.3f}"
        f"  steady {kept['steady_efficiency']:.3f}"
        f"  fill {kept['batch_fill']:.3f}  {kept['seconds']:6.1f} s  in flight {kept['most_clips_in_flight']:.0f}"
        f"  cpu {kept['coordinator_cpu_share']:.2f}",
        flush=True,
    )
    return {"kind": kind, "engine": engine, "way": way, "scorers": load.scorers, **kept}


def real_rows(
    data: Path | None, seconds: float, runs: int, engines: Sequence[str], only: Sequence[str] | None = None
) -> list[dict[str, object]]:
    """Real models on one scorer, each on every engine."""
    rows: list[dict[str, object]] = []
    for model in models(data_folder(data)):
        if isinstance(model, str):
            print(model, flush=True)
            continue
        for engine in engines if not only or model.name in only else ():
            found = measure_real(model, engine, seconds, runs)
            print(
                f"real      {engine:6} {model.name}  efficiency {found['efficiency']:.3f}"
                f"  steady {found['steady_efficiency']:.3f}  {found['runs_that_count']} runs count  busy"
                f" {found['scorer_busy_share']:.2f}  model's share of processors {found['model_share_of_processors']}"
                f"  decode, refine, write {found['decode_share']:.2f} {found['refine_share']:.2f}"
                f" {found['write_share']:.2f}",
                flush=True,
            )
            rows.append(found)
    return rows


def _who(row: Mapping[str, object]) -> tuple[object, object]:
    return row["model"], row["engine"]


def earlier_content() -> dict[str, Any]:
    """What the file holds."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def keep(content: dict[str, object]) -> None:
    """Write what was measured; other parts of the file stay."""
    earlier = earlier_content()
    RESULTS.write_text(json.dumps(earlier | content, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, nothing written")
    parser.add_argument("--seconds", type=float, default=20.0, help="what perfect scorers would take, each run")
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--data", type=Path, help="folder of real models and footage")
    parser.add_argument("--only-real", action="store_true", help="real models alone; other rows of the file stay")
    parser.add_argument("--models", nargs="+", choices=("demo", "squeezenet"), help="with --only-real; other rows stay")
    parser.add_argument(
        "--run-seconds", type=float, default=180.0, help="what a perfect run of a real model would take"
    )
    parser.add_argument("--runs", type=int, default=3, help="of every real model, the bare one between them")
    args = parser.parse_args()
    if args.models and not args.only_real:
        parser.error("--models goes with --only-real")
    engines = ["local"] if args.quick or args.no_ray else ["local", "ray"]
    if args.only_real:
        found = real_rows(args.data, 2.0 if args.quick else args.run_seconds, args.runs, engines, args.models)
        if not args.quick:
            earlier = [old for old in earlier_content().get("real", []) if _who(old) not in map(_who, found)]
            keep({"real": earlier + found})
        return
    scorers = (1, 4) if args.quick else SCORERS
    seconds = 1.0 if args.quick else args.seconds
    rows = []
    for kind, base in LOADS.items():
        for way in WAYS:
            for count in scorers:
                share = {"continuous": 1.0, "lock-step": 0.3, "clip by clip": 0.1}[way]
                load = replace(base, scorers=count).lasting(seconds * share)
                rows.append(row(kind, "local", way, load, measure(load, way)))
        if not (args.quick or args.no_ray):
            load = replace(base, scorers=4).lasting(seconds / 2)
            rows.append(row(kind, "ray", "continuous", load, measure(load, make=ray_engine)))
    ceilings = {"local": ceiling(40 if args.quick else 400)}
    if not (args.quick or args.no_ray):
        ceilings["ray"] = ceiling(200, ray_engine)
    for engine, top in ceilings.items():
        print(f"ceiling of one coordinator, {engine}: {top}")
    if not args.quick:
        content = {
            "machine": {"processors": os.cpu_count(), "python": platform.python_version(), "day": time.strftime("%F")},
            "load": {kind: asdict(load) for kind, load in LOADS.items()},
            "rows": rows,
            "ceiling": ceilings,
        }
        keep(content)
        keep({"real": real_rows(args.data, args.run_seconds, args.runs, engines)})


if __name__ == "__main__":
    main()
