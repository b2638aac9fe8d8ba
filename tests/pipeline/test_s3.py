"""Sources and run folders on S3, spoken over HTTP with a server that keeps its objects in memory."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import BOX, expect_equal, explain, write_scene

from pipeline.results import read_explanations
from stages.errors import DecodeError
from stages.sources import find_sources, probe

pytest.importorskip("s3fs")
server_module = pytest.importorskip("moto.server")
pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
RUN = "s3://results/runs/x"


@pytest.fixture(scope="module")
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    found = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def s3(server, store_cache, monkeypatch):
    """An empty S3 with the buckets `footage` and `results`: the client of a machine of its own."""
    import boto3
    import s3fs

    address = "http://{}:{}".format(*server.get_host_and_port())
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    client = boto3.client("s3")
    for bucket in ("footage", "results"):
        client.create_bucket(Bucket=bucket)
    yield client
    for bucket in ("footage", "results"):
        for entry in client.list_objects_v2(Bucket=bucket).get("Contents", ()):
            client.delete_object(Bucket=bucket, Key=entry["Key"])
        client.delete_bucket(Bucket=bucket)
    s3fs.S3FileSystem.clear_instance_cache()


def start_heatreel(cache: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command on a machine whose cache folder is this one."""
    environment = {**os.environ, "HEATREEL_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "pipeline", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=REPOSITORY, env=environment)


def heatreel(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same to its end, and what it said."""
    with start_heatreel(cache, *arguments) as started:
        said = started.communicate(timeout=300)
    return subprocess.CompletedProcess(started.args, started.returncode, *said)


def test_a_run_on_s3_whose_process_dies_is_finished_by_another_machine(s3, tmp_path):
    scenes = [write_scene(tmp_path / f"{name}.mp4", 40, seed=seed) for seed, name in enumerate("ab")]
    for scene in scenes:
        s3.upload_file(str(scene), "footage", f"clips/{scene.name}")
    local = explain(tmp_path / "local", *scenes)

    def kept() -> list[str]:
        return [entry["Key"] for entry in s3.list_objects_v2(Bucket="results").get("Contents", ())]

    started = start_heatreel(
        tmp_path / "first",
        *("explain", "s3://footage/clips/*.mp4", "--model", f"python:{BOX}:make", "--out", RUN, "--engine", "local"),
        *("--budget", "24", "--target", "top1", "--set", "decode.clip_stride=4", "--set", "engine.videos_in_flight=1"),
        *("--set", "engine.window_clips=2", "--set", "model.options.sleep_s=0.5", "--quiet"),
    )
    try:
        while started.poll() is None and not any(name.startswith("runs/x/journal/a/") for name in kept()):
            time.sleep(0.1)
        assert started.poll() is None, started.communicate()
    finally:
        started.kill()
        started.communicate()
    assert "runs/x/manifest.json" in kept()
    assert not any(name.startswith("runs/x/films/b") for name in kept())

    told = heatreel(tmp_path / "second", "resume", RUN, "--json")
    assert told.returncode == 0, told.stderr
    told = heatreel(tmp_path / "third", "verify", RUN, "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["is_ok"]
    (run,) = (tmp_path / "third" / "runs").glob("*/x")
    assert len(list(read_explanations(run))) == 2
    expect_equal(local.path, run, tolerance=1e-6)


def test_an_object_that_is_replaced_is_read_anew_by_a_process_that_has_listed_the_bucket(s3, tmp_path):
    for num_frames in (12, 30):
        s3.upload_file(str(write_scene(tmp_path / "a.mp4", num_frames)), "footage", "clips/a.mp4")
        assert probe("s3://footage/clips/a.mp4").num_frames == num_frames
        (uri,) = find_sources(["s3://footage/clips/*.mp4"])
        assert probe(uri).num_frames == num_frames


@pytest.mark.parametrize("uri", ["s3://footage/missing.mp4", "s3://nobucket/a.mp4", "s3://nobucket/folder/"])
def test_what_is_not_there_is_said(s3, uri):
    with pytest.raises(DecodeError, match="there is no such file or folder; check the URI"):
        probe(uri)


def test_refused_keys_are_said(s3, server, tmp_path, monkeypatch):
    import requests

    s3.upload_file(str(write_scene(tmp_path / "a.mp4", 12)), "footage", "a.mp4")
    address = os.environ["AWS_ENDPOINT_URL"]
    requests.post(f"{address}/moto-api/reset-auth", data="0", timeout=10)
    try:
        told = heatreel(tmp_path / "cache", "inspect", "s3://footage/a.mp4")
        assert told.returncode != 0
        assert "access is denied" in told.stderr + told.stdout
        assert "check the credentials" in " ".join((told.stderr + told.stdout).split())
    finally:
        requests.post(f"{address}/moto-api/reset-auth", data=str(10**9), timeout=10)
