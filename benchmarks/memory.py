"""Does memory grow with the length of a video, or with the number of videos?

    python -m benchmarks.memory                 the tables, and benchmarks/results/memory.json
    python -m benchmarks.memory --engines ray   one engine; rows of others stay in the file
    python -m benchmarks.memory --quick         1 and 2 minutes, 100 files, local engine only; nothing is written

The same minute of footage, once, ten times and sixty times over, goes through whole runs (box, maps, film, tables,
journal) on both engines; so do thousands of files of some frames each. Every run is a process of its own. Peaks are
those of the run's own summary: resident bytes, shared pages included. The box costs nothing and the pictures are tiny,
so that what is seen is the machinery; a model adds its own constant.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.footage import FPS, write_loop, write_scene
from benchmarks.residents import Held, every, sample, store_metrics

RESULTS = Path(__file__).with_name("results") / "memory.json"
BOX = Path(__file__).with_name("free_box.py")
SCENE_FRAMES = 60 * FPS
FILE_FRAMES = 12
SETTLED = 200  # videos after which nothing may grow
SAMPLE_EVERY = 100
TIMELINE_S = 15.0
# Decoders and encoders of the videos in flight have threads and files of their own, half of all. Those are no leak: so
# only what is there at every look between two samples counts, and of a third of the run the least of it.
COME_AND_GO = ("files", "threads")
# The mean colour hides the bright quadrant, which a blur would not: so there are regions, which are kept to the end.
SETTINGS = {
    "model.name": f"python:{BOX}:make",
    "budget": 32,
    "target": "0",
    "decode.clip_stride": 8,
    "score.substrate": "mean",
}


def run_one(
    sources: Sequence[str],
    engine: str,
    sample_every: int = SAMPLE_EVERY,
    settings: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, Any]:
    """One run in this process: its figures, samples after so many videos, and what lay in the object store."""
    import pyarrow.parquet as pq

    from pipeline.config import load_config
    from pipeline.runner import run

    os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112 - Ray's own spelling
    samples: list[dict[str, Any]] = []
    store = {"in_memory": 0.0, "spilled": 0.0}
    timeline: list[dict[str, Any]] = []
    lasting: dict[str, Held] = {}  # since the last sample
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"

        def look() -> None:
            told, now = store_metrics(), sample(os.getpid())
            for kind, value in told.items():
                store[kind] = max(store[kind], value)
            if time.monotonic() - began > TIMELINE_S * (len(timeline) + 1):
                workers = {name: held.counts() for name, held in now.items()}
                timeline.append({"store_bytes": int(told.get("in_memory", 0)), "workers": workers})
            for name, held in now.items():
                lasting[name] = lasting.get(name, held).lasting(held)
            done = _num_done(out)
            if done >= sample_every * (len(samples) + 1):
                samples.append({"videos": done, "workers": {name: lasting[name].counts() for name in now}})
                lasting.clear()

        config = load_config(options={**SETTINGS, "engine.kind": engine, **settings})
        with every(0.5, look):
            summary = run(config, sources, out, is_quiet=True)
        assert not summary.failures, summary.failures[:3]
        num_regions = pq.ParquetFile(out / "regions.parquet").metadata.num_rows
    from pipeline.bounds import store_bytes

    figures = summary.figures
    return {
        "engine": engine,
        "seconds": round(figures["seconds"], 1),
        "clips": figures["clips"],
        "regions": num_regions,
        "peak_memory_bytes": figures["peak_memory_bytes"],
        "most_clips_in_flight": figures["most_clips_in_flight"],
        "store_bytes": store_bytes(config) if engine == "ray" else 0,
        "store_peak_bytes": int(store["in_memory"]),
        "spilled_bytes": int(store["spilled"]),
        "samples": samples,
        "timeline": timeline,
    }


def _num_done(run: Path) -> int:
    path = run / "videos.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(b'"event": "done"' in line or b'"event":"done"' in line for line in file)


def apart(sources: Sequence[str], engine: str, sample_every: int = SAMPLE_EVERY, **settings: object) -> dict[str, Any]:
    """The same in a process of its own, whose peak is that of this run alone."""
    with tempfile.TemporaryDirectory() as folder:
        order, answer = Path(folder) / "order.json", Path(folder) / "answer.json"
        what = {"sources": list(sources), "engine": engine, "sample_every": sample_every, "settings": settings}
        order.write_text(json.dumps(what))
        command = [sys.executable, "-m", "benchmarks.memory", "--one", str(order), str(answer)]
        subprocess.run(command, check=True, cwd=Path(__file__).resolve().parents[1])
        found: dict[str, Any] = json.loads(answer.read_text())
    return found


def by_length(folder: Path, minutes: Sequence[int], engines: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each engine and length, with each worker's peak against that of the shortest."""
    scene = write_scene(folder / "scene.mp4", SCENE_FRAMES)
    rows = []
    for engine in engines:
        first: Mapping[str, int] = {}
        for length in minutes:
            found = apart([str(write_loop(folder / f"{length}.mp4", scene, length))], engine)
            peaks = found["peak_memory_bytes"]
            first = first or peaks
            ratios = {name: round(peaks[name] / first[name], 3) for name in peaks if name in first}
            rows.append({"minutes": length, "ratios": ratios, **found})
            print(f"{engine} {length} min: {found['seconds']} s, ratios {ratios}", flush=True)
    return rows


def by_number(folder: Path, files: int, engines: Sequence[str], sample_every: int) -> list[dict[str, Any]]:
    """A row for each engine: many short files in one run, and what grew after the first ones."""
    scene = write_scene(folder / "short.mp4", FILE_FRAMES)
    many = folder / "many"
    many.mkdir()
    for idx in range(files):
        os.link(scene, many / f"{idx:05d}.mp4")
    rows = []
    for engine in engines:
        found = apart([str(many)], engine, sample_every)
        # Towards the end fewer are in flight, and what they had is gone: that would hide a leak.
        in_full_swing = [entry for entry in found["samples"] if entry["videos"] <= files - sample_every]
        rows.append({"files": files, "growth": growth(in_full_swing, min(SETTLED, files // 3)), **found})
        print(f"{engine} {files} files: {found['seconds']} s, {rows[-1]['growth']}", flush=True)
    return rows


def growth(samples: Sequence[Mapping[str, Any]], settled: int) -> dict[str, dict[str, float]]:
    """By worker: the last third of the samples against the first third after `settled` videos.

    Medians of the bytes; of what comes and goes the least, which a leak raises and a busy moment does not.
    """
    later = [entry["workers"] for entry in samples if entry["videos"] >= settled]
    third = max(1, len(later) // 3)
    found = {}
    for name in later[0] if later else ():
        before, after = (
            {
                key: (min if key in COME_AND_GO else median)(entry[name][key] for entry in part if name in entry)
                for key in ("bytes", *COME_AND_GO)
            }
            for part in (later[:third], later[-third:])
        )
        found[name] = {
            "bytes_ratio": round(after["bytes"] / before["bytes"], 4),
            "more_files": after["files"] - before["files"],
            "more_threads": after["threads"] - before["threads"],
        }
    return found


def show(lengths: Sequence[Mapping[str, Any]], numbers: Sequence[Mapping[str, Any]], console: Console) -> None:
    by_worker = Table("engine", "minutes", "clips", "seconds", "worker", title="peak resident memory by length")
    for head in ("peak MiB", "of 1st", "store peak MiB", "store MiB", "spilled"):
        by_worker.add_column(head, justify="right")
    for row in lengths:
        store = [f"{row[key] / 2**20:.0f}" for key in ("store_peak_bytes", "store_bytes", "spilled_bytes")]
        for name, peak in row["peak_memory_bytes"].items():
            ratio = row["ratios"].get(name)
            by_worker.add_row(
                row["engine"],
                str(row["minutes"]),
                str(row["clips"]),
                f"{row['seconds']:.0f}",
                name,
                f"{peak / 2**20:.0f}",
                "" if ratio is None else f"{ratio:.3f}",
                *(store if name == "driver" else ("", "", "")),
            )
    console.print(by_worker)
    by_files = Table("engine", "files", "seconds", "worker", "memory", "open files", "threads", title="many files")
    for row in numbers:
        for name, found in row["growth"].items():
            by_files.add_row(
                row["engine"],
                str(row["files"]),
                f"{row['seconds']:.0f}",
                name,
                f"x {found['bytes_ratio']:.3f}",
                f"{found['more_files']:+.0f}",
                f"{found['more_threads']:+.0f}",
            )
    console.print(by_files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short, local engine only; nothing is written")
    parser.add_argument("--minutes", type=int, nargs="*", default=[1, 10, 60])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--engines", nargs="*", default=["local", "ray"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", nargs=2, type=Path, metavar=("ORDER", "ANSWER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        order, answer = args.one
        answer.write_text(json.dumps(run_one(**json.loads(order.read_text()))))
        return
    if args.quick:
        args.minutes, args.files, args.engines = [1, 2], 100, ["local"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = by_length(folder, args.minutes, args.engines)
        every_so_many = min(SAMPLE_EVERY, max(1, args.files // 20))
        numbers = by_number(folder, args.files, args.engines, every_so_many) if args.files else []
    show(lengths, numbers, Console(width=140))
    if not args.quick:
        about = {"processors": os.cpu_count(), "python": platform.python_version(), "day": time.strftime("%F")}
        found = {"lengths": lengths, "numbers": numbers}
        before = json.loads(args.out.read_text()) if args.out.exists() else {}
        for name, rows in found.items():
            others = [row for row in before.get(name, []) if row["engine"] not in {new["engine"] for new in rows}]
            found[name] = others + rows
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"machine": about, **found}) + "\n")


if __name__ == "__main__":
    main()
