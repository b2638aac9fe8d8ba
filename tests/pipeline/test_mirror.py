"""A run folder behind a URI is worked on locally; what is finished is pushed, and nothing computed gets lost."""

import json
import os
import time
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest
from stores import FlakyStore, serving

from pipeline import mirror as mirror_module
from pipeline.files import append_line
from pipeline.manifest import RunFolder
from pipeline.mirror import mirrored, work_folder
from stages.errors import ExplainError, ManifestError, ResourceError

URI = "flaky://bucket/runs/one"


@pytest.fixture(autouse=True)
def store(store_cache, monkeypatch):
    FlakyStore.reset()
    monkeypatch.setattr(mirror_module, "POLL_S", 0.02)
    yield fsspec.filesystem("flaky")
    FlakyStore.reset()


def there(store, uri: str = URI) -> dict[str, bytes]:
    root = FlakyStore._strip_protocol(uri)
    return {path.removeprefix(root + "/"): store.cat_file(path) for path in FlakyStore.store if path.startswith(root)}


def begin(path: Path, overwrite: bool = False) -> RunFolder:
    return RunFolder.create(path, {}, overwrite=overwrite)


def complete(path: Path, name: str) -> None:
    """What a finished video leaves."""
    (path / "films").mkdir(exist_ok=True)
    (path / "films" / f"{name}.mp4").write_text(f"film of {name}")
    (path / "maps" / f"{name}.zarr" / "c").mkdir(parents=True)
    (path / "maps" / f"{name}.zarr" / "c" / "0").write_text("chunk")
    (path / "journal" / name).mkdir(parents=True)
    (path / "journal" / name / "000000.r0000.npz").write_text("round")
    outputs = {f"films/{name}.mp4": "1", f"maps/{name}.zarr": "2"}
    append_line(path / "videos.jsonl", {"event": "done", "video_id": name, "outputs": outputs})


def refuse_after_one_video() -> None:
    """A session in which the store stops to take anything."""
    with mirrored(URI, "new") as path:
        begin(path)
        FlakyStore.refused = {"put"}
        complete(path, "a")


def until(condition) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass")


def move_to_another_machine(monkeypatch, tmp_path: Path, name: str = "other") -> None:
    monkeypatch.setenv("HEATREEL_CACHE_DIR", str(tmp_path / name))


def test_a_local_path_is_itself(tmp_path):
    with mirrored(tmp_path / "run", "new") as path:
        assert path == tmp_path / "run"
    with mirrored(f"file://{tmp_path}/run", "new") as path:
        assert path == tmp_path / "run"


def test_a_finished_video_is_pushed_while_the_run_goes_on_and_the_rest_at_the_end(store):
    with mirrored(URI, "new") as path:
        run = begin(path)
        (path / "films").mkdir()
        (path / "films" / "growing.mp4").write_text("half a film")
        complete(path, "a")
        until(lambda: b'"a"' in there(store).get("videos.jsonl", b""))
        found = there(store)
        assert {"films/a.mp4", "maps/a.zarr/c/0", "journal/a/000000.r0000.npz", "manifest.json"} <= set(found)
        assert "films/growing.mp4" not in found
        (path / "films" / "growing.mp4").unlink()
        (path / "report").mkdir()
        (path / "report" / "index.html").write_text("report")
        run.update(status="finished")
        run.release()
    local = {path.relative_to(work_folder(URI)).as_posix() for path in work_folder(URI).rglob("*") if path.is_file()}
    assert set(there(store)) == local - {".lock"} | {"heatreel-mirror.json"}
    assert json.loads(there(store)["manifest.json"])["status"] == "finished"
    order = [name.rpartition("/")[2] for name in FlakyStore.written]
    assert order.index("a.mp4") < order.index("videos.jsonl") < len(order) - 1 - order[::-1].index("manifest.json")


def test_only_what_has_changed_is_transferred(store):
    with mirrored(URI, "new") as path:
        begin(path)
        complete(path, "a")
    FlakyStore.written.clear()
    with mirrored(URI, "resume") as path:
        (path / "films" / "a.mp4").write_text("another film of a")
        (path / "journal" / "a" / "000000.r0000.npz").unlink()
    assert {name.rpartition("/")[2] for name in FlakyStore.written} == {"a.mp4", "heatreel-mirror.json"}
    assert "journal/a/000000.r0000.npz" not in there(store)
    FlakyStore.written.clear()
    with mirrored(URI, "read") as path:
        assert (path / "films" / "a.mp4").read_text() == "another film of a"
    assert not FlakyStore.written


def test_passing_faults_of_the_store_are_tried_again(store):
    with mirrored(URI, "new") as path:
        begin(path)
        complete(path, "a")
        FlakyStore.num_faults = 3
    assert "films/a.mp4" in there(store)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [(PermissionError, r"access is denied.*credentials"), (NotImplementedError, r"cannot do that.*another store")],
)
def test_a_store_that_refuses_is_found_out_before_anything_is_computed(refusal, words):
    FlakyStore.refused, FlakyStore.refusal = {"put"}, refusal
    with pytest.raises(ResourceError, match=words), mirrored(URI, "new"):
        raise AssertionError("the block must not run")


def test_a_web_server_that_takes_no_files_is_asked_once_and_named(tmp_path):
    with serving(tmp_path) as site:
        words = r"http:// cannot do that.*PUT.*another store"
        with pytest.raises(ResourceError, match=words), mirrored(f"{site.url}/runs/one", "new"):
            raise AssertionError("the block must not run")
        assert site.others == ["PUT"]


def test_what_cannot_be_pushed_stays_and_resume_pushes_it(store):
    with pytest.raises(ResourceError, match=rf"all of it lies in .*heatreel resume {URI}"):
        refuse_after_one_video()
    assert "films/a.mp4" not in there(store)
    assert (work_folder(URI) / "films" / "a.mp4").is_file()
    FlakyStore.refused = set()
    with mirrored(URI, "resume"):
        pass
    assert there(store)["films/a.mp4"] == b"film of a"


def test_results_that_were_never_pushed_are_not_replaced_by_accident(store):
    with pytest.raises(ResourceError):
        refuse_after_one_video()
    FlakyStore.refused = set()
    store.rm("/bucket", recursive=True)
    with pytest.raises(ManifestError, match="never pushed"), mirrored(URI, "new"):
        pass
    with mirrored(URI, "new", overwrite=True) as path:
        assert not (path / "films").exists()


def test_an_error_of_the_run_comes_first_and_still_everything_is_pushed(store):
    def run() -> None:
        with mirrored(URI, "new") as path:
            begin(path)
            complete(path, "a")
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert "films/a.mp4" in there(store)


def test_a_run_that_is_there_is_replaced_only_on_demand(store):
    with mirrored(URI, "new") as path:
        begin(path).release()
        complete(path, "old")
    with pytest.raises(ManifestError, match=f"heatreel resume {URI}"), mirrored(URI, "new"):
        pass
    with mirrored(URI, "new", overwrite=True) as path:
        begin(path)
        complete(path, "new")
    assert {name for name in there(store) if name.startswith("films/")} == {"films/new.mp4"}


def test_foreign_files_are_never_touched(store):
    store.pipe_file("/bucket/runs/one/thesis.tex", b"mine")
    for overwrite in (False, True):
        with pytest.raises(ManifestError, match="holds no heatreel run"), mirrored(URI, "new", overwrite=overwrite):
            pass
    assert set(there(store)) == {"thesis.tex"}


def test_another_machine_goes_on_and_the_first_one_learns_of_it(store, monkeypatch, tmp_path):
    with mirrored(URI, "new") as path:
        begin(path).release()
        complete(path, "a")
    first = work_folder(URI)
    move_to_another_machine(monkeypatch, tmp_path)
    with mirrored(URI, "resume") as path:
        assert path != first
        assert (path / "films" / "a.mp4").read_text() == "film of a"
        complete(path, "b")
    move_to_another_machine(monkeypatch, tmp_path, "cache")
    with mirrored(URI, "read") as path:
        assert path == first
        assert (path / "films" / "b.mp4").is_file()


def test_a_work_folder_that_was_left_behind_with_results_is_set_aside(store, monkeypatch, tmp_path):
    with mirrored(URI, "new") as path:
        begin(path).release()
    (work_folder(URI) / "journal" / "x").mkdir()
    (work_folder(URI) / "journal" / "x" / "000000.r0000.npz").write_text("computed, then killed")
    move_to_another_machine(monkeypatch, tmp_path)
    with mirrored(URI, "resume") as path:
        complete(path, "b")
    move_to_another_machine(monkeypatch, tmp_path, "cache")
    with mirrored(URI, "resume") as path:
        assert (path / "films" / "b.mp4").is_file()
        (aside,) = (one for one in path.parent.iterdir() if one.name.startswith("one."))
    assert (aside / "journal" / "x" / "000000.r0000.npz").read_text() == "computed, then killed"


def test_a_killed_process_leaves_what_was_pushed_and_its_folder_goes_on(store, monkeypatch):
    def killed(mirror: mirror_module._Mirror) -> None:
        mirror._stop.set()
        mirror._thread.join()

    with monkeypatch.context() as kill:
        kill.setattr(mirror_module._Mirror, "end", killed)
        with mirrored(URI, "new") as path:
            begin(path).release()
            complete(path, "a")
            until(lambda: b'"a"' in there(store).get("videos.jsonl", b""))
            kill.setattr(mirror_module._Mirror, "_push_finished", lambda mirror: None)
            complete(path, "b")
    assert "films/a.mp4" in there(store)
    assert "films/b.mp4" not in there(store)
    with mirrored(URI, "resume") as again:
        assert again == path
        assert (again / "films" / "b.mp4").is_file()
    assert {"films/a.mp4", "films/b.mp4", "journal/b/000000.r0000.npz"} <= set(there(store))


def test_a_session_that_is_taken_over_stops_to_push(store, monkeypatch, tmp_path):
    def run() -> None:
        with mirrored(URI, "new") as path:
            begin(path).release()
            until(lambda: "manifest.json" in there(store))
            move_to_another_machine(monkeypatch, tmp_path)
            with mirrored(URI, "resume") as other:
                complete(other, "b")
            complete(path, "a")

    with pytest.raises(ManifestError, match="taken over"):
        run()
    assert b'"b"' in there(store)["videos.jsonl"]
    assert "films/a.mp4" not in there(store)


def test_a_report_is_added_without_taking_a_run_over(store, monkeypatch, tmp_path):
    with mirrored(URI, "new") as path:
        begin(path).release()
        until(lambda: "manifest.json" in there(store))
        machine = os.environ["HEATREEL_CACHE_DIR"]
        move_to_another_machine(monkeypatch, tmp_path)
        with mirrored(URI, "add") as other:
            (other / "evaluation.json").write_text("{}")
        monkeypatch.setenv("HEATREEL_CACHE_DIR", machine)
        complete(path, "a")
    assert {"evaluation.json", "films/a.mp4"} <= set(there(store))


def test_one_process_of_a_machine_at_a_time():
    with mirrored(URI, "new") as path:
        begin(path)
        with pytest.raises(ManifestError, match="another heatreel process on this machine"), mirrored(URI, "read"):
            pass


BAD = {
    "gs://bucket/run": ("needs a package that is not installed", "pip install gcsfs"),
    "nosuch://bucket/run": ("not a protocol that is known", "spelling"),
    "memory://": ("names no folder", "s3://bucket"),
    "http://127.0.0.1:9/run": ("does not answer as it should|cannot", ""),
    "memory://nowhere/run": ("there is no heatreel run here", "the folder of a run"),
}


@pytest.mark.parametrize("uri", BAD)
def test_a_bad_uri_is_refused_with_reason_and_remedy(uri):
    if uri.startswith("gs:") and find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    fact, remedy = BAD[uri]
    with pytest.raises(ExplainError, match=fact) as error, mirrored(uri, "resume"):
        pass
    assert error.value.item.startswith(uri)
    assert remedy in error.value.remedy
