"""A run folder is refused where it must be, written whole, and tells how it went."""

import json
import os
from pathlib import Path

import pytest
from planted_run import source, summary

from pipeline.manifest import RunFolder
from stages.errors import ManifestError
from stages.records import Failure

CONFIG = {"budget": 64, "model": {"name": "demo"}}
FAILURE = Failure(video_id="x", uri="/x.mp4", stage="decode", error="DecodeError", reason="empty", remedy="get it anew")


def test_a_new_run_says_what_it_was_asked(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "deep" / "run", CONFIG, command=("heatreel", "explain"))
    manifest = RunFolder.open(run.path).manifest
    assert manifest.status == "running"
    assert manifest.config == CONFIG
    assert manifest.schema_version == 1
    assert {"python", "numpy"} <= set(manifest.versions)
    assert manifest.hardware["cpus"] >= 1


def test_an_existing_run_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CONFIG).release()
    with pytest.raises(ManifestError, match=r"heatreel resume .*run.*--overwrite"):
        RunFolder.create(tmp_path / "run", CONFIG)


def test_overwrite_replaces_the_run_and_leaves_foreign_files(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIG)
    run.fail(FAILURE)
    (run.path / "films").mkdir()
    (run.path / "films" / "old.mp4").write_bytes(b"old")
    (run.path / "notes.txt").write_text("mine")
    first = run.manifest.run_id
    run.release()
    again = RunFolder.create(tmp_path / "run", CONFIG, overwrite=True)
    assert again.manifest.run_id != first
    assert again.failures() == []
    assert not (run.path / "films").exists()
    assert (run.path / "notes.txt").read_text() == "mine"


def test_overwrite_touches_nothing_but_heatreel_runs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "maps").mkdir()
    with pytest.raises(ManifestError, match="not empty and holds no heatreel run"):
        RunFolder.create(tmp_path / "photos", CONFIG, overwrite=True)
    (tmp_path / "photos" / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(ManifestError, match="not one of heatreel's"):
        RunFolder.create(tmp_path / "photos", CONFIG, overwrite=True)
    assert (tmp_path / "photos" / "maps").is_dir()


def test_overwrite_follows_no_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x").write_text("keep me")
    run = RunFolder.create(tmp_path / "run", CONFIG)
    (run.path / "films").symlink_to(tmp_path / "precious")
    run.release()
    RunFolder.create(run.path, CONFIG, overwrite=True)
    assert (tmp_path / "precious" / "x").read_text() == "keep me"


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_that_cannot_be_a_folder_is_a_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ManifestError, match="--out"):
        RunFolder.create(tmp_path / place, CONFIG)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_output_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ManifestError, match="cannot be written"):
        RunFolder.create(tmp_path / "run", CONFIG)


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIG)
    with pytest.raises(ManifestError, match="another heatreel process"):
        RunFolder.open(run.path, write=True)
    RunFolder.open(run.path)  # reading is fine
    run.release()
    RunFolder.open(run.path, write=True)


def test_nothing_to_open_and_damage_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no heatreel run here"):
        RunFolder.open(tmp_path)
    run = RunFolder.create(tmp_path / "run", CONFIG)
    text = (run.path / "manifest.json").read_text()
    (run.path / "manifest.json").write_text(text[:100])
    with pytest.raises(ManifestError, match="damaged"):
        RunFolder.open(run.path)
    (run.path / "manifest.json").write_text(text.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(ManifestError, match="schema_version"):
        RunFolder.open(run.path)


def test_inputs_failures_and_finished_videos_come_back(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIG)
    run.register(source("a", warnings=("two streams",)))
    run.register(source("bad\udcffname"))  # a file name that is not UTF-8
    run.fail(FAILURE)
    run.complete(summary("a", num_clips=1))
    run.complete(summary("a"))
    found = run.inputs()
    assert found["a"] == source("a", warnings=("two streams",))
    assert len(found) == 2
    assert run.failures() == [FAILURE]
    (done,) = run.summaries()
    assert done == summary("a")


def test_the_end_folds_everything_into_the_manifest(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIG)
    run.register(source("a"))
    run.complete(summary("a"))
    run.fail(FAILURE)
    manifest = run.finish("finished", {"efficiency": float("nan"), "evaluations": 128})
    assert manifest.status == "finished"
    assert manifest.counts == {"inputs": 1, "videos": 1, "clips": 2, "frames": 8, "failures": 1}
    assert set(manifest.outputs) == {"films/a.mp4", "failures.jsonl"}
    on_disk = json.loads((run.path / "manifest.json").read_text())
    assert on_disk["summary"] == {"efficiency": None, "evaluations": 128}
    assert on_disk["inputs"][0]["sha256"] == "ab" * 32


def test_products_lie_in_the_folder_whatever_the_names(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for video_id in ("../../x", "a/b", "..", "v.w"):
        for label in ("../up", "", "w.x"):
            path = run.film_path(video_id, 4, label)
            assert path.resolve().parent == (tmp_path / "films").resolve()
    assert run.maps_path("v", 4, "tiger cat").name == "v.tiger_cat-4.zarr"


def test_a_changed_input_is_refused_with_the_reason(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.expect_same("the weights", "ab" * 32, "ab" * 32)
    with pytest.raises(ManifestError, match="the weights changed since the run began"):
        run.expect_same("the weights", "ab" * 32, "cd" * 32)
