"""A run follows its cluster: scorers join when nodes do and leave with them; what cannot be placed is said."""

import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_runs import expect_equal, explain, write_scene
from trials import ON_RAY, Nodes, run_with_accidents, start_driver

from pipeline.actors import LOOK_EVERY_S
from pipeline.metrics import METRICS
from stages.errors import ResourceError

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
WITH_BOXES = {
    **{key: value for key, value in ON_RAY.items() if key != "engine__num_scorers"},
    "engine__resources": {**ON_RAY["engine__resources"], "score": {"num_cpus": 0.5, "custom": {"box": 1}}},
}


@pytest.fixture(scope="module")
def nodes():
    made = Nodes(1, resources={"box": 1})
    yield made
    made.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.mp4", 96)


def said(run, word: str, stage: str = "stage=score") -> list[str]:
    log = run / "log.jsonl"  # there once something was said
    lines = (json.loads(line) for line in (log.read_text() if log.exists() else "").splitlines())
    return [line["message"] for line in lines if word in line["message"] and stage in line["message"]]


def wait_for(run, word: str, stage: str = "stage=score") -> None:
    began = time.monotonic()
    while not said(run, word, stage):
        assert time.monotonic() < began + 120, f"nothing was said that holds {word!r}"
        time.sleep(0.1)


def test_scorers_join_and_leave_with_the_nodes(tmp_path, scene, nodes):
    local = explain(tmp_path / "local", scene)

    def change(trial: int) -> None:
        if trial == 0:
            nodes.nodes.append(nodes.add(resources={"box": 2}))
        else:
            wait_for(tmp_path / "run", "joins")
            nodes.cluster.remove_node(nodes.nodes.pop(), allow_graceful=False)

    run, settings = tmp_path / "run", {**WITH_BOXES, "box__sleep_s": 0.4}
    summary = run_with_accidents(lambda: explain(run, scene, **settings), run, [2, 4], change)
    assert summary.exit_code == 0
    assert len(said(tmp_path / "run", "joins")) == 2
    assert len(said(tmp_path / "run", "leaves")) == 2
    expect_equal(local.path, summary.path)


def test_a_run_outlives_the_loss_of_its_only_scorer(tmp_path, scene, nodes):
    """Lost later than `startup_s` after the start: the node that is to come has as long as the first one had."""
    local = explain(tmp_path / "local", scene)
    rest = nodes.add(resources={"rest": 10})
    resources = {stage: {"num_cpus": 0.5, "custom": {"rest": 1}} for stage in ON_RAY["engine__resources"]}
    resources["score"] = WITH_BOXES["engine__resources"]["score"]
    patience = {"box__sleep_s": 1.0, "engine__startup_s": 20}
    run, began = tmp_path / "run", time.monotonic()

    def lose(trial: int) -> None:
        time.sleep(max(0.0, began + 25 - time.monotonic()))
        nodes.cluster.remove_node(nodes.nodes.pop(), allow_graceful=False)
        wait_for(run, "died")
        time.sleep(3 * LOOK_EVERY_S)
        nodes.nodes.append(nodes.add())

    settings = {**WITH_BOXES, **patience, "engine__resources": resources}
    try:
        summary = run_with_accidents(lambda: explain(run, scene, **settings), run, [2], lose)
    finally:
        nodes.cluster.remove_node(rest, allow_graceful=False)
    assert summary.exit_code == 0
    expect_equal(local.path, summary.path)


def test_a_driver_outside_the_cluster_gives_the_same_maps(tmp_path, nodes):
    scene = write_scene(tmp_path / "scene.mp4", 24)
    local = explain(tmp_path / "local", scene)
    driver = start_driver(tmp_path / "run", [scene], {**ON_RAY, "engine__address": nodes.client_address})
    assert driver.wait(timeout=300) == 0, (tmp_path / "run.err").read_text() + nodes.client_log()
    expect_equal(local.path, tmp_path / "run")


def test_a_driver_outside_the_cluster_lets_prometheus_see_every_figure(tmp_path, scene, nodes):
    settings = {**ON_RAY, "engine__address": nodes.client_address, "box__sleep_s": 0.4}
    run = tmp_path / "run"
    driver = start_driver(run, [scene], settings)
    wanted, most, counts = {f"ray_heatreel_{name}" for name in METRICS}, {}, set()
    while driver.poll() is None:
        now = {name: value for name, value in nodes.exported().items() if name in wanted}
        most |= {name: max(value, most.get(name, 0.0)) for name, value in now.items()}
        counts.add(now.get("ray_heatreel_evaluations"))
        time.sleep(0.5)
    assert driver.wait() == 0, run.with_suffix(".err").read_text() + nodes.client_log()
    assert most.keys() == wanted
    assert len(counts - {None}) >= 3  # they follow the run
    figures = json.loads((run / "manifest.json").read_text())["summary"]
    assert 0 < most["ray_heatreel_evaluations"] <= figures["evaluations"]
    assert most["ray_heatreel_efficiency"] > 0
    assert 0 < most["ray_heatreel_bytes_in_flight"] <= figures["most_bytes_in_flight"]


def test_stages_go_where_their_labels_and_their_share_of_a_gpu_are(tmp_path, nodes, monkeypatch):
    """Ray believes a node that says it has a GPU; the box itself works on the processor. `auto` finds RAY_ADDRESS."""
    from ray._private.state import available_resources_per_node

    monkeypatch.setenv("RAY_ADDRESS", nodes.cluster.address)
    scene = write_scene(tmp_path / "scene.mp4", 24)
    local = explain(tmp_path / "local", scene)
    lab = nodes.add(labels={"room": "lab"}, num_gpus=1)
    try:
        score = {"num_cpus": 0.5, "num_gpus": 0.5, "labels": {"room": "lab"}}
        settings = {**ON_RAY, "engine__resources": {**ON_RAY["engine__resources"], "score": score}}
        driver = start_driver(tmp_path / "run", [scene], {**settings, "engine__address": "auto", "box__sleep_s": 0.4})
        taken = []
        while driver.poll() is None:
            if left := available_resources_per_node().get(lab.node_id):
                taken.append(1.0 - left.get("GPU", 0.0))
            time.sleep(0.2)
    finally:
        nodes.cluster.remove_node(lab, allow_graceful=False)
    assert driver.returncode == 0, (tmp_path / "run.err").read_text()
    assert max(taken) == 1.0  # two scorers
    expect_equal(local.path, tmp_path / "run")


def test_a_node_that_dies_under_the_coordinator_before_it_has_begun_costs_nothing(tmp_path, scene, nodes):
    """The cluster believes in a dead node for some seconds, and places actors there."""
    local = explain(tmp_path / "local", scene)
    lost = nodes.add(resources={"desk": 1})
    nodes.cluster.remove_node(lost, allow_graceful=False)
    resources = {**ON_RAY["engine__resources"], "coordinator": {"num_cpus": 0.5, "custom": {"desk": 1}}}
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(explain, tmp_path / "run", scene, **{**ON_RAY, "engine__resources": resources})
        try:
            wait_for(tmp_path / "run", "before it had begun", stage="")
        finally:
            nodes.nodes.append(nodes.add(resources={"desk": 1}))
        summary = run.result()
    assert summary.exit_code == 0
    expect_equal(local.path, summary.path)


def test_a_run_whose_cluster_is_not_there_goes_on_with_another(tmp_path, scene, nodes):
    local = explain(tmp_path / "local", scene)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{free.getsockname()[1]}"
    driver = start_driver(tmp_path / "run", [scene], {**ON_RAY, "engine__address": nowhere, "engine__startup_s": 1})
    assert driver.wait(timeout=120) == 1
    told = (tmp_path / "run.err").read_text().splitlines()[-1]
    assert f"the Ray cluster at {nowhere}: nothing answers there" in told
    manifest = tmp_path / "run" / "manifest.json"
    began = json.loads(manifest.read_text())
    cli = [sys.executable, "-m", "pipeline", "resume", str(tmp_path / "run"), "--address", nodes.cluster.address]
    cli += ["--set", "engine.startup_s=300"]
    told = subprocess.run(cli, capture_output=True, text=True, timeout=300, cwd=REPOSITORY)
    assert told.returncode == 0, told.stderr
    ended = json.loads(manifest.read_text())
    assert ended["config"]["engine"]["address"] == nodes.cluster.address
    assert ended["config_sha256"] == began["config_sha256"]
    expect_equal(local.path, tmp_path / "run")


@pytest.mark.parametrize(
    ("score", "others", "words"),
    [
        ({"num_cpus": 0.5, "custom": {"unicorn": 1}}, 0.5, "no node offers 0.5 CPU, 1 unicorn, so score has no worker"),
        ({"num_cpus": 1}, 1, r"all nodes offer \d CPU, and one worker for every stage .* takes"),
    ],
)
def test_what_the_cluster_cannot_place_is_named(tmp_path, scene, nodes, score, others, words):
    while len(nodes.nodes) > 1:
        nodes.cluster.remove_node(nodes.nodes.pop(), allow_graceful=False)
    resources = {stage: {"num_cpus": others} for stage in ON_RAY["engine__resources"]} | {"score": score}
    with pytest.raises(ResourceError, match=words):
        explain(tmp_path / "run", scene, **{**ON_RAY, "engine__resources": resources, "engine__startup_s": 5})
