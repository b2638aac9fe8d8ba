"""Small real runs: a short textured video, a box that takes no time, and their results to compare."""

from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.config import Config, load_config
from pipeline.engine import Happening
from pipeline.local import LocalEngine
from pipeline.results import read_explanations
from pipeline.runner import RunSummary, run

SIZE = (48, 64)
BOX = Path(__file__).with_name("quadrant_box.py")


class Shuffled:
    """Before an engine: holds its answers back and gives them in any order."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._rng = Random(0)
        self._held: list[Happening] = []

    def wait(self, timeout_s: float) -> list[Happening]:
        self._held += super().wait(timeout_s)  # type: ignore[misc]
        self._rng.shuffle(self._held)
        given = self._rng.randint(0, len(self._held))
        found, self._held = self._held[:given], self._held[given:]
        return found


class ShufflingEngine(Shuffled, LocalEngine):
    """Threads that answer in any order."""


def write_scene(path: Path, num_frames: int = 40, *, black: range = range(0), seed: int = 0) -> Path:
    """Moving texture; frames in `black` are black."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        stream.time_base = Fraction(1, 10)
        for idx in range(num_frames):
            rgb = np.zeros_like(picture) if idx in black else np.ascontiguousarray(np.roll(picture, 2 * idx, 1))
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = idx, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def config(*, engine: str = "local", **settings: object) -> Config:
    """24 evaluations a clip, clips side by side; `box__fault` and the like are options of the box."""
    options = {name.removeprefix("box__"): str(value) for name, value in settings.items() if name.startswith("box__")}
    rest = {name.replace("__", "."): value for name, value in settings.items() if not name.startswith("box__")}
    defaults: dict[str, object] = {
        "model.name": f"python:{BOX}:make",
        "model.options": options,
        "target": "top1",
        "budget": 24,
        "decode.clip_stride": 4,
        "engine.kind": engine,
        "engine.backoff_s": 0.01,
        "engine.batch_deadline_s": 0.2,
    }
    return load_config(options={**defaults, **rest})


def explain(out: Path, *sources: Path, **settings: object) -> RunSummary:
    return run(config(**settings), [str(source) for source in sources], out, is_quiet=True)  # type: ignore[arg-type]


def expect_equal(run_a: Path, run_b: Path, tolerance: float = 1e-5) -> None:
    """The same videos, targets, maps and regions."""
    ours, theirs = list(read_explanations(run_a)), list(read_explanations(run_b))
    by_id = {(one.source.id, one.target_idx): one for one in theirs}
    assert {(one.source.id, one.target_idx) for one in ours} == set(by_id)
    for one in ours:
        other = by_id[one.source.id, one.target_idx]
        np.testing.assert_allclose(one.mean, other.mean, atol=tolerance)
        np.testing.assert_allclose(one.var, other.var, atol=tolerance)
        np.testing.assert_array_equal(one.pts_s, other.pts_s)
        assert [region.frames for region in one.regions] == [region.frames for region in other.regions]
        effects = [[region.effect for region in explanation.regions] for explanation in (one, other)]
        for mine, yours in zip(*effects, strict=True):
            assert (mine is None) == (yours is None)
            assert mine is None or yours is None or abs(mine.log_odds_after - yours.log_odds_after) < 1e-4


def expect_same_tables(run_a: Path, run_b: Path) -> None:
    """The same rows in every table, but for the seconds that the box took."""
    for table in ("clips", "frames", "regions"):
        ours, theirs = (pq.read_table(run / f"{table}.parquet").to_pylist() for run in (run_a, run_b))
        assert len(ours) == len(theirs)
        for mine, yours in zip(ours, theirs, strict=True):
            assert mine.keys() == yours.keys()
            for name in mine.keys() - {"seconds"}:
                expect_same_value(mine[name], yours[name], f"{table}.{name}")


def expect_same_value(mine: object, yours: object, what: str) -> None:
    if isinstance(mine, float):
        assert mine == pytest.approx(yours, abs=1e-4, nan_ok=True), what
    elif isinstance(mine, list) and isinstance(yours, list):
        assert len(mine) == len(yours), what
        for one, other in zip(mine, yours, strict=True):
            expect_same_value(one, other, what)
    elif isinstance(mine, tuple) and isinstance(yours, tuple):
        for one, other in zip(mine, yours, strict=True):
            expect_same_value(one, other, what)
    else:
        assert mine == yours, what
