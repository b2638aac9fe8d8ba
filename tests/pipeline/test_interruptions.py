"""Runs that end before their time (a full disk, two Ctrl-C) leave a valid folder, and resuming makes them whole."""

import errno
import json
import os
import signal
import subprocess
import threading
import time

import av
import pytest
from small_runs import expect_equal, explain, write_scene

from pipeline import journal_writer
from pipeline.runner import resume
from stages.errors import ResourceError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.mp4")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scene):
    return explain(tmp_path_factory.mktemp("runs") / "undisturbed", scene)


def test_a_full_disk_ends_the_run_with_the_way_out_and_resuming_asks_only_what_is_missing(
    tmp_path, scene, undisturbed, monkeypatch
):
    pack, written = journal_writer.pack, []

    def packs_until_full(record):
        if len(written) >= 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(record)
        return pack(record)

    with monkeypatch.context() as full:
        full.setattr(journal_writer, "pack", packs_until_full)
        with pytest.raises(ResourceError, match=r"No space left.*heatreel resume"):
            explain(tmp_path / "run", scene, engine__window_clips=2)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "failed"
    assert not list((tmp_path / "run" / "journal").rglob("*.tmp"))
    summary = resume(tmp_path / "run", is_quiet=True)
    assert summary.exit_code == 0
    assert summary.figures["replayed_clips"] == 4
    # Of ten clips; regions are verified at the end of either run, and the target was known: eight fewer for it.
    assert summary.figures["evaluations"] == undisturbed.figures["evaluations"] - 4 * 24 - 8
    expect_equal(undisturbed.path, summary.path, tolerance=1e-6)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own that is soon full, and can be made larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full_ends_the_run_and_with_more_room_it_goes_on(scene, undisturbed, small_disk):
    run = small_disk / "run"
    with pytest.raises(ResourceError, match="No space left"):
        explain(run, scene, engine__window_clips=2)
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    kept = len(list((run / "journal").rglob("*.npz")))
    summary = resume(run, is_quiet=True)
    assert summary.exit_code == 0
    assert summary.figures["replayed_clips"] == kept
    expect_equal(undisturbed.path, summary.path, tolerance=1e-6)


def test_ctrl_c_twice_closes_the_film_at_once_and_the_run_goes_on_later(tmp_path, scene, undisturbed):
    run = tmp_path / "run"

    def interrupt() -> None:
        while len(list((run / "journal").glob("*/*.npz"))) < 4:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.15)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    first = explain(run, scene, box__sleep_s=0.1)  # every clip is in flight: one Ctrl-C would finish them all
    assert first.exit_code == 130
    assert json.loads((run / "manifest.json").read_text())["status"] == "stopped"
    for film in (run / "films").iterdir():
        with av.open(str(film)) as container:
            assert 0 < sum(1 for _ in container.decode(video=0)) < 40
    second = resume(run, is_quiet=True)
    assert second.exit_code == 0
    assert second.figures["replayed_clips"] >= 3
    expect_equal(undisturbed.path, second.path, tolerance=1e-6)
    (film,) = (run / "films").iterdir()
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 40


def test_a_video_of_one_clip_whose_target_was_not_written_down_is_resumed(tmp_path):
    scene = write_scene(tmp_path / "short.mp4", 4)
    whole = explain(tmp_path / "whole", scene)
    killed = explain(tmp_path / "killed", scene)
    log = killed.path / "videos.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if json.loads(line)["event"] not in ("targets", "done")))
    resumed = resume(killed.path, is_quiet=True)
    assert resumed.exit_code == 0
    assert resumed.figures["replayed_clips"] == 1
    expect_equal(whole.path, resumed.path, tolerance=1e-6)
