"""What a box, a device, a disk or a user can do to a run on a Ray cluster: as on threads, and the maps are the same."""

import json
import signal
import subprocess
import time

import pytest
from small_runs import expect_equal, explain, write_scene
from trials import ON_RAY, Nodes, rounds_of, start_driver

from pipeline.results import read_explanations
from pipeline.runner import resume
from stages.errors import ConfigError, ResourceError

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.slow]

ONE_SCORER = {**ON_RAY, "engine__num_scorers": 1, "box__sleep_s": 0}
NUM_CLIPS = 10


@pytest.fixture(scope="module")
def nodes():
    made = Nodes(1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.mp4", 4 * NUM_CLIPS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scene):
    return explain(tmp_path_factory.mktemp("runs") / "undisturbed", scene)


def log_of(run) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_box_that_fails_now_and_then_costs_retries(tmp_path, scene, undisturbed, nodes):
    run = explain(tmp_path / "run", scene, **ONE_SCORER, box__fault="now and then", box__every=4)
    assert run.exit_code == 0
    assert run.figures["retries"] > 0
    expect_equal(undisturbed.path, run.path)


def test_a_clip_on_which_the_box_always_fails_is_left_out_and_the_log_says_where_and_why(tmp_path, nodes):
    scene = write_scene(tmp_path / "black.mp4", black=range(12, 16))
    run = explain(tmp_path / "run", scene, **{**ONE_SCORER, "engine__retries": 2}, box__fault="black")
    (failure,) = run.failures
    assert (failure.clip_idx, failure.stage, failure.error) == (3, "score", "ModelError")
    (explanation,) = read_explanations(run.path)
    assert not explanation.is_seen[12:16].any()
    assert explanation.is_seen[16:].all()
    about = [line for line in log_of(run.path) if line.get("id_stage") == "score" and line.get("id_clip") == "black#3"]
    assert any("will not look at black frames" in line["message"] for line in about)
    assert any("Traceback" in line["message"] for line in about)


def test_a_device_without_memory_for_a_batch_is_given_smaller_ones(tmp_path, scene, undisturbed, nodes):
    run = explain(tmp_path / "run", scene, **ONE_SCORER, box__fault="out of memory", box__every=3)
    assert run.exit_code == 0
    assert any(line.get("id_reason") == "out_of_memory" for line in log_of(run.path))
    expect_equal(undisturbed.path, run.path)


def test_a_box_that_hangs_is_ended_and_its_batches_are_asked_again(tmp_path, scene, undisturbed, nodes):
    faults = {"box__fault": "hang", "box__marker": tmp_path, "engine__score_timeout_s": 8.0}
    run = explain(tmp_path / "run", scene, **ONE_SCORER, **faults)
    assert run.exit_code == 0
    assert (tmp_path / "happened").exists()
    assert run.figures["lost_workers"] == 1
    expect_equal(undisturbed.path, run.path)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_finishes_what_is_in_flight_and_twice_does_not(tmp_path, scene, undisturbed, nodes, presses):
    """A clip takes two seconds, and several are in flight."""
    run = tmp_path / "run"
    settings = {**ONE_SCORER, "box__sleep_s": 0.7, "engine__address": nodes.cluster.address}
    driver = start_driver(run, [scene], settings)
    while rounds_of(run) < 3:
        assert driver.poll() is None, run.with_suffix(".err").read_text()
        time.sleep(0.02)
    before = rounds_of(run)
    for _ in range(presses):
        driver.send_signal(signal.SIGINT)
        time.sleep(0.3)
    try:
        assert driver.wait(timeout=120) == 130
    finally:
        driver.kill()
    assert json.loads((run / "manifest.json").read_text())["status"] == "stopped"
    after = rounds_of(run) - before
    assert after >= 2 if presses == 1 else after <= 1
    again = resume(run, is_quiet=True)
    assert again.exit_code == 0
    expect_equal(undisturbed.path, run, tolerance=1e-6)


def test_a_disk_that_is_really_full_ends_the_run(tmp_path, scene, undisturbed, nodes):
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(ResourceError, match="No space left"):
            explain(place / "run", scene, **ONE_SCORER)
        subprocess.run(["mount", "-o", "remount,size=50m", str(place)], check=True)
        again = resume(place / "run", is_quiet=True)
        assert again.exit_code == 0
        expect_equal(undisturbed.path, again.path, tolerance=1e-6)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_coordinator_that_does_not_see_the_run_folder_says_so(tmp_path, scene, nodes, monkeypatch):
    """As on a node without the driver's disk: nothing is written where nobody would look for it."""
    from pipeline import runner

    make_fleet = runner.make_fleet

    def on_another_machine(config, feed):
        fleet = make_fleet(config, feed)
        start = fleet.start
        fleet.start = lambda config, run: start(config, "/elsewhere/run")
        return fleet

    monkeypatch.setattr(runner, "make_fleet", on_another_machine)
    with pytest.raises(ConfigError, match=r"does not see /elsewhere/run.*storage that every node sees"):
        explain(tmp_path / "run", scene, **ONE_SCORER)
