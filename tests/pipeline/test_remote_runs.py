"""Whole runs with inputs from the web and the run folder in a store, stopped, resumed elsewhere, looked at again."""

import json

import fsspec
import pytest
from small_runs import config, expect_equal, explain, write_scene
from stores import FlakyStore, serving
from typer.testing import CliRunner

from pipeline import mirror as mirror_module
from pipeline.cli import app
from pipeline.runner import resume, run

pytestmark = pytest.mark.slow

URI = "flaky://bucket/runs/films"


@pytest.fixture
def site(tmp_path, store_cache, monkeypatch):
    FlakyStore.reset()
    monkeypatch.setattr(mirror_module, "POLL_S", 0.05)
    (tmp_path / "site").mkdir()
    write_scene(tmp_path / "site" / "a.mp4", 16)
    write_scene(tmp_path / "site" / "b.mp4", 40, seed=1)
    with serving(tmp_path / "site") as site:
        yield site
    FlakyStore.reset()


def test_a_run_from_the_web_into_a_store_is_stopped_and_resumed_on_another_machine(site, tmp_path, monkeypatch):
    local = explain(tmp_path / "local", site.folder / "a.mp4", site.folder / "b.mp4")
    sources = [f"{site.url}/a.mp4", f"{site.url}/b.mp4", f"{site.url}/missing.mp4"]
    settings = {"engine__window_clips": 2, "engine__videos_in_flight": 1}
    faulty = config(box__fault="interrupt", box__marker=tmp_path, box__every=30, **settings)
    first = run(faulty, sources, URI, is_quiet=True)
    assert first.exit_code == 130
    assert b'"done"' in FlakyStore.store["/bucket/runs/films/videos.jsonl"].getvalue(), "a is finished, b is not"
    assert {name.split("/")[5] for name in FlakyStore.store if "/journal/" in name} == {"a", "b"}
    monkeypatch.setenv("HEATREEL_CACHE_DIR", str(tmp_path / "another machine"))
    second = resume(URI, is_quiet=True)
    assert second.path != first.path
    assert second.exit_code == 3
    assert second.figures["replayed_clips"] >= 1
    assert [(failure.uri, failure.reason) for failure in second.failures] == [
        (sources[2], "there is no such file or folder")
    ]
    expect_equal(local.path, second.path, tolerance=1e-6)

    monkeypatch.setenv("HEATREEL_CACHE_DIR", str(tmp_path / "a third machine"))
    runner = CliRunner()
    verified = runner.invoke(app, ["verify", URI, "--json"])
    assert verified.exit_code == 0, verified.output
    assert json.loads(verified.output)["is_ok"]
    evaluated = runner.invoke(app, ["evaluate", URI, "--clips", "1", "--steps", "4", "--json"])
    assert evaluated.exit_code == 0, evaluated.output
    assert "/bucket/runs/films/evaluation.json" in FlakyStore.store
    assert runner.invoke(app, ["report", URI]).exit_code == 0
    compared = runner.invoke(app, ["compare", str(local.path), URI, "--json"])
    assert compared.exit_code == 0, compared.output
    assert json.loads(compared.output)["agreement"]
    site.folder.joinpath("a.mp4").write_bytes(b"something else")
    changed = runner.invoke(app, ["verify", URI])
    assert changed.exit_code == 1
    assert "a.mp4: has changed since the run" in changed.output


def test_the_command_line_explains_into_a_store_and_names_it(site):
    fsspec.filesystem("flaky").put_file(str(site.folder / "a.mp4"), "/in/a.mp4")
    FlakyStore.num_faults = 2
    options = ["--budget", "24", "--target", "1", "--engine", "local", "--out", URI, "--quiet"]
    model = config().model.name
    result = CliRunner().invoke(app, ["explain", "flaky://in/*.mp4", "--model", model, *options])
    assert result.exit_code == 0, result.output
    assert f"pushed  {URI}" in result.output
    manifest = json.loads(FlakyStore.store["/bucket/runs/films/manifest.json"].getvalue())
    assert manifest["status"] == "finished"
    assert manifest["inputs"][0]["uri"] == "flaky://in/a.mp4"
    again = CliRunner().invoke(app, ["explain", "flaky://in/*.mp4", "--model", model, *options])
    assert again.exit_code == 1
    assert "heatreel resume" in again.output


@pytest.mark.ray
def test_actors_share_one_local_copy_of_a_web_video(site, tmp_path):
    pytest.importorskip("ray")
    local = explain(tmp_path / "local", site.folder / "a.mp4")
    sources = [f"{site.url}/a.mp4"]
    remote = run(config(engine="ray", engine__num_decoders=2, engine__num_sinks=1), sources, URI, is_quiet=True)
    assert remote.exit_code == 0
    expect_equal(local.path, remote.path)
    assert site.gets.count("a.mp4") == 1
