"""Seeded fault trials on a real cluster: whatever is killed, the run ends complete, as if undisturbed.

Every trial kills one thing at a random moment of a run (a random number of journalled rounds). Trials of one kind share
a run where the run survives them. `pytest -s` prints the table: kind, trials, time lost.
"""

import json
import os
import time
from pathlib import Path
from random import Random

import pytest
from small_runs import expect_equal, expect_same_tables, explain, write_scene
from trials import (
    NUM_CLIPS,
    NUM_FRAMES,
    ON_RAY,
    Nodes,
    kill_driver,
    moments,
    rounds_of,
    run_with_accidents,
    some_worker,
)

from pipeline.results import read_explanations
from pipeline.runner import resume

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.slow]

BARE_S = NUM_CLIPS * 3 * 0.1 / 2  # what two scorers need for all batches on Ray
SETTINGS = {"box__sleep_s": 0.03, "engine__retries": 20}
BUDGET = 24


@pytest.fixture(scope="module")
def nodes():
    made = Nodes()
    yield made
    made.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.mp4", NUM_FRAMES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scene):
    return explain(tmp_path_factory.mktemp("runs") / "undisturbed", scene, **SETTINGS)


@pytest.fixture(scope="module")
def table():
    """kind -> (trials, seconds of these runs beyond what the sleeping box asks for), printed at the end.

    The file that HEATREEL_FAULTS names gets them too (benchmarks/results/faults.json).
    """
    rows: dict[str, tuple[int, float]] = {}
    yield rows
    if path := os.environ.get("HEATREEL_FAULTS"):
        found = [{"killed": kind, "trials": num, "lost_s": round(lost / num, 1)} for kind, (num, lost) in rows.items()]
        Path(path).write_text(json.dumps(found, indent=1) + "\n")
    print("\n\nkind        trials  time lost per trial")
    for kind, (trials, lost_s) in rows.items():
        print(f"{kind:11} {trials:6d}  {lost_s / trials:6.1f} s")
    print(f"{'all':11} {sum(trials for trials, _ in rows.values()):6d}")


def expect_undisturbed(undisturbed: Path, run: Path) -> None:
    expect_equal(undisturbed, run, tolerance=1e-6)
    expect_same_tables(undisturbed, run)
    expect_same_film(undisturbed, run)


def note(table, kind: str, trials: int, lost_s: float) -> None:
    before, before_s = table.get(kind, (0, 0.0))
    table[kind] = before + trials, before_s + max(lost_s, 0.0)


@pytest.mark.parametrize(
    ("stage", "seed", "count"), [("score", 1, 3), ("decode", 2, 3), ("refine", 3, 2), ("sink", 4, 3)]
)
def test_workers_killed_at_random_moments_cost_time_only(
    tmp_path, scene, undisturbed, nodes, fleets, table, stage, seed, count
):
    rng, killed = Random(seed), []

    def kill(trial: int) -> None:
        killed.append(some_worker(fleets[-1], stage, killed, rng))
        ray.kill(killed[-1])

    run = tmp_path / "run"
    summary = run_with_accidents(lambda: explain(run, scene, **ON_RAY), run, moments(seed, count), kill)
    assert summary.exit_code == 0
    assert len(killed) >= count - 1  # a run may end while the last one waits for an actor to come back
    assert summary.figures["lost_workers"] >= len(killed) - 1  # the last one may have had nothing left to do
    expect_undisturbed(undisturbed.path, summary.path)
    note(table, stage, len(killed), summary.figures["seconds"] - BARE_S)


@pytest.mark.parametrize("seed", [1, 2])
def test_coordinators_killed_at_random_moments_cost_time_only(tmp_path, scene, undisturbed, nodes, fleets, table, seed):
    killed = []

    def kill(trial: int) -> None:
        while fleets[-1].coordinator(0) in killed or not fleets[-1].hands(0):
            time.sleep(0.02)
        killed.append(fleets[-1].coordinator(0))
        ray.kill(killed[-1])

    run = tmp_path / "run"
    summary = run_with_accidents(lambda: explain(run, scene, **ON_RAY), run, moments(seed, 2), kill)
    assert summary.exit_code == 0
    assert summary.figures["lost_workers"] >= len(killed) >= 1
    expect_undisturbed(undisturbed.path, summary.path)
    note(table, "coordinator", len(killed), summary.figures["seconds"] - BARE_S)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nodes_killed_at_random_moments_cost_time_only(tmp_path, scene, undisturbed, nodes, fleets, table, seed):
    killed = []

    def kill(trial: int) -> None:
        nodes.kill(Random(seed).randrange(2))
        killed.append(trial)

    run = tmp_path / "run"
    summary = run_with_accidents(lambda: explain(run, scene, **ON_RAY), run, moments(seed, 1), kill)
    assert killed
    assert summary.exit_code == 0
    assert summary.figures["lost_workers"] >= 1
    expect_undisturbed(undisturbed.path, summary.path)
    note(table, "node", 1, summary.figures["seconds"] - BARE_S)


def resume_and_compare(run: Path, undisturbed, table, kind: str) -> None:
    kept = rounds_of(run)
    began = time.monotonic()
    summary = resume(run, is_quiet=True)
    lost_s = time.monotonic() - began - undisturbed.figures["seconds"] * (1 - kept / NUM_CLIPS)
    assert summary.exit_code == 0
    assert summary.figures["replayed_clips"] >= kept - 1
    assert summary.figures["evaluations"] <= undisturbed.figures["evaluations"] - (kept - 1) * BUDGET
    expect_undisturbed(undisturbed.path, run)
    note(table, kind, 1, lost_s)


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_driver_is_resumed_with_nothing_asked_twice(tmp_path, scene, undisturbed, table, seed):
    number = Random(seed).randrange(1, NUM_CLIPS - 2)
    kill_driver(tmp_path / "run", [scene], SETTINGS, lambda run: rounds_of(run) >= number)
    resume_and_compare(tmp_path / "run", undisturbed, table, "driver")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_driver_leaves_no_actor_of_its_run_behind(tmp_path, scene, undisturbed, nodes, table, seed):
    settings = {**ON_RAY, "engine__address": nodes.cluster.address}
    number = Random(seed).randrange(1, NUM_CLIPS // 2)
    kill_driver(tmp_path / "run", [scene], settings, lambda run: rounds_of(run) >= number)
    resume_and_compare(tmp_path / "run", undisturbed, table, "ray driver")


def expect_same_film(run_a: Path, run_b: Path) -> None:
    """The films hold the same pictures: resuming draws what is missing, and the film is whole."""
    import av
    import numpy as np

    pictures = []
    for run in (run_a, run_b):
        assert len(list(read_explanations(run))) == 1
        (film,) = (path for path in (run / "films").iterdir() if not path.name.startswith("."))
        with av.open(str(film)) as container:
            pictures.append(np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]))
    assert pictures[0].shape == pictures[1].shape
    assert len(pictures[0]) == NUM_FRAMES
    np.testing.assert_allclose(pictures[0].astype(int), pictures[1].astype(int), atol=2)
