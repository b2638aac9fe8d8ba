"""Seeded fault trials on a real cluster of two nodes: whatever is killed, the run ends complete, as if undisturbed.

Every trial kills one thing at a random moment of a run (a random number of journalled rounds). Trials of one kind share
a run where the run survives them. `pytest -s` prints the table: kind, trials, time lost.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import pytest
from small_runs import expect_equal, explain, write_scene

from pipeline import runner
from pipeline.results import read_explanations
from pipeline.runner import resume

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.slow]

TESTS = Path(__file__).parent
STORE = 128 << 20
BARE_S = 16 * 3 * 0.1 / 2  # what two scorers need for all batches on Ray
NUM_FRAMES, NUM_CLIPS = 64, 16
SETTINGS = {"box__sleep_s": 0.03, "engine__retries": 20}
ON_RAY = {
    "engine": "ray",
    "box__sleep_s": 0.1,
    "engine__retries": 20,
    "engine__num_scorers": 2,
    "engine__num_decoders": 1,
    "engine__num_refiners": 1,
    "engine__num_sinks": 1,
}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 6, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=6, object_store_memory=STORE)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.mp4", NUM_FRAMES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scene):
    return explain(tmp_path_factory.mktemp("runs") / "undisturbed", scene, **SETTINGS)


@pytest.fixture(scope="module")
def table():
    """kind -> (trials, seconds of these runs beyond what the sleeping box asks for), printed at the end."""
    rows: dict[str, tuple[int, float]] = {}
    yield rows
    print("\n\nkind       trials  time lost per trial")
    for kind, (trials, lost_s) in rows.items():
        print(f"{kind:10} {trials:6d}  {lost_s / trials:6.1f} s")
    print(f"{'all':10} {sum(trials for trials, _ in rows.values()):6d}")


@pytest.fixture
def engines(monkeypatch):
    made = []
    original = runner.make_engine

    def make(*args):
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(runner, "make_engine", make)
    return made


def rounds_of(run: Path) -> int:
    return len(list((run / "journal").glob("*/*.r*.npz")))


def moments(seed: int, count: int) -> list[int]:
    """Numbers of journalled rounds after which something is killed; the first half of a run, so that it is felt."""
    return sorted(Random(seed).sample(range(1, NUM_CLIPS * 3 // 4), count))


def killer(run: Path, at: list[int], kill) -> threading.Thread:
    """Calls `kill(trial)` when the journal of `run` holds each of these numbers of rounds."""

    def watch() -> None:
        for trial, number in enumerate(at):
            while rounds_of(run) < number:
                time.sleep(0.02)
            kill(trial)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("stage", "seed"), [("score", 1), ("decode", 2), ("refine", 3)])
def test_actors_killed_at_random_moments_cost_time_only(
    tmp_path, scene, undisturbed, cluster, engines, table, stage, seed
):
    rng, killed = Random(seed), []

    def kill(trial: int) -> None:
        engine = engines[-1][0]
        up: list[object] = []
        while not up:  # what was killed before comes back first, once the engine has noticed
            slots = [slot for (name, _), slot in list(engine._slots.items()) if name == stage]
            up = [slot.actor for slot in slots if slot.is_up and slot.actor not in killed]
            time.sleep(0.01)
        killed.append(rng.choice(up))
        ray.kill(killed[-1])

    watching = killer(tmp_path / "run", moments(seed, 4), kill)
    summary = explain(tmp_path / "run", scene, **ON_RAY)
    watching.join(10)
    assert summary.exit_code == 0
    assert len(killed) >= 3  # a run may end while the last one waits for an actor to come back
    assert summary.figures["lost_workers"] >= len(killed) - 1  # the last one may have had nothing left to do
    expect_equal(undisturbed.path, summary.path, tolerance=1e-6)
    table[f"{stage} actor"] = len(killed), max(0.0, summary.figures["seconds"] - BARE_S)


def start_driver(run: Path, scene: Path, settings: dict[str, object]) -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from pathlib import Path; from small_runs import explain; "
    code += f"explain(Path({str(run)!r}), Path({str(scene)!r}), **{settings!r})"
    return subprocess.Popen([sys.executable, "-c", code], cwd=TESTS.parents[1], stderr=subprocess.DEVNULL)


def kill_driver(run: Path, scene: Path, number: int, settings: dict[str, object]) -> None:
    driver = start_driver(run, scene, settings)
    try:
        while rounds_of(run) < number and driver.poll() is None:
            time.sleep(0.02)
        assert driver.poll() is None, "the driver ended before it was killed"
    finally:
        driver.kill()
        driver.wait()


@pytest.mark.parametrize("seed", range(8))
def test_a_killed_driver_is_resumed_with_nothing_asked_twice(tmp_path, scene, undisturbed, table, seed):
    run = tmp_path / "run"
    kill_driver(run, scene, Random(seed).randrange(1, NUM_CLIPS - 2), SETTINGS)
    kept = rounds_of(run)
    began = time.monotonic()
    summary = resume(run, is_quiet=True)
    lost_s = time.monotonic() - began - undisturbed.figures["seconds"] * (1 - kept / NUM_CLIPS)
    assert summary.exit_code == 0
    assert summary.figures["replayed_clips"] >= kept - 1
    expect_equal(undisturbed.path, summary.path, tolerance=1e-6)
    expect_same_film(undisturbed.path, run)
    trials, before_s = table.get("driver", (0, 0.0))
    table["driver"] = trials + 1, before_s + max(lost_s, 0.0)


def expect_same_film(run_a: Path, run_b: Path) -> None:
    """The films hold the same pictures: resuming draws what is missing from the journal."""
    import av
    import numpy as np

    pictures = []
    for run in (run_a, run_b):
        assert len(list(read_explanations(run))) == 1
        (film,) = (run / "films").iterdir()
        with av.open(str(film)) as container:
            pictures.append(np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]))
    assert pictures[0].shape == pictures[1].shape
    assert len(pictures[0]) == NUM_FRAMES
    np.testing.assert_allclose(pictures[0].astype(int), pictures[1].astype(int), atol=2)
