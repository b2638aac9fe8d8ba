"""Memory does not grow with the length of a video, nor with the number of videos: smaller runs of the benchmark."""

import threading
from pathlib import Path

import pytest

from benchmarks.footage import FPS, write_loop, write_scene
from benchmarks.memory import apart, by_length, by_number, growth
from benchmarks.residents import held_by
from stages.sources import probe
from stages.video_io import read_frames


def test_looped_footage_has_every_frame_as_often_as_it_was_copied(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.mp4", 12)
    looped = probe(str(write_loop(tmp_path / "loop.mp4", scene, 3)))
    frames = list(read_frames(looped))
    assert looped.num_frames == len(frames) == 36
    assert [round(frame.pts_s * FPS) for frame in frames] == list(range(36))
    assert all((frames[idx].rgb == frames[idx + 12].rgb).all() for idx in range(24))


def test_growth_compares_late_samples_with_those_after_settling() -> None:
    samples = [
        {"videos": 10 * n, "workers": {"driver": {"bytes": 900 + 100 * n, "files": 5, "threads": 3 + (n == 9)}}}
        for n in range(1, 10)
    ]
    found = growth(samples, settled=30)["driver"]
    assert found == {"bytes_ratio": round(1750 / 1250, 4), "more_files": 0, "more_threads": 0}


@pytest.mark.parametrize(("leak_every", "more"), [(None, 0), (10, 1), (5, 2), (1, 13)])
def test_threads_that_come_and_go_hide_no_leak(leak_every: int | None, more: int) -> None:
    busy = [7, 2, 9, 4, 0, 8, 3, 6, 1, 5]
    samples = [
        {
            "videos": n,
            "workers": {
                "driver": {"bytes": 1, "files": 5, "threads": 9 + busy[n % 10] + (n // leak_every if leak_every else 0)}
            },
        }
        for n in range(20, 50)
    ]
    assert growth(samples, settled=20)["driver"]["more_threads"] >= more
    assert (growth(samples, settled=20)["driver"]["more_threads"] == 0) is (leak_every is None)


def test_what_stays_counts_and_what_was_replaced_does_not(tmp_path: Path) -> None:
    def wait() -> threading.Thread:
        thread = threading.Thread(target=is_over.wait, args=(30,))
        thread.start()
        return thread

    is_over = threading.Event()
    before = held_by()
    leaked = wait()
    with (tmp_path / "leaked").open("w"):
        first = held_by()
        second = wait()
        with (tmp_path / "passing").open("w"):
            lasting = first.lasting(held_by())
    is_over.set()
    leaked.join()
    second.join()
    assert len(lasting.threads - before.threads) == 1
    assert [name.rpartition("/")[2] for name in lasting.files - before.files] == ["leaked"]


@pytest.mark.slow
def test_five_minutes_of_video_need_no_more_memory_than_one(tmp_path: Path) -> None:
    one, five = by_length(tmp_path, (1, 5), ["local"])
    assert five["clips"] > 4 * one["clips"]
    assert one["regions"] > 0
    assert five["ratios"]["driver"] < 1.10


@pytest.mark.ray
@pytest.mark.slow
def test_ten_minutes_on_ray_need_no_more_memory_than_one_in_any_process(tmp_path: Path) -> None:
    one, ten = by_length(tmp_path, (1, 10), ["ray"])
    assert ten["clips"] > 9 * one["clips"]
    assert ten["ratios"].keys() == one["ratios"].keys() > {"driver", "coordinator", "score-0"}
    assert max(ten["ratios"].values()) < 1.10
    assert ten["spilled_bytes"] == 0


@pytest.mark.ray
@pytest.mark.slow
def test_large_clips_fill_the_window_and_no_more_of_the_object_store(tmp_path: Path) -> None:
    window = 96 << 20  # of clips of 2.4 MB
    scene = write_scene(tmp_path / "scene.mp4", 60 * FPS)
    large = {
        "model.options": {"clip_len": "16", "side": "224"},
        "score.batch_size": 8,
        "engine.window_bytes": window,
        "engine.window_clips": 64,
    }
    found = apart([str(write_loop(tmp_path / "loop.mp4", scene, 5))], "ray", **large)
    assert found["spilled_bytes"] == 0
    assert 0.8 * window < found["store_peak_bytes"] <= found["store_bytes"] == 1.5 * window


@pytest.mark.slow
def test_three_hundred_files_leave_nothing_behind(tmp_path: Path) -> None:
    (row,) = by_number(tmp_path, 300, ["local"], sample_every=15)
    found = row["growth"]["driver"]
    assert found["bytes_ratio"] < 1.05
    assert found["more_files"] <= 2
    assert found["more_threads"] <= 1
