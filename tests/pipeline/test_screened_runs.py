"""Whole runs that explain a part: the budget holds, the best ranks are explained, their maps are the usual ones."""

import json

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from small_runs import config, expect_equal, explain, write_scene
from trials import kill_driver

from pipeline import passes
from pipeline.manifest import RunFolder
from pipeline.results import read_explanations
from pipeline.runner import resume
from pipeline.verify import verify_run
from stages.errors import ConfigError

pytestmark = pytest.mark.slow

CLIP = 24  # evaluations
REGIONS = 12  # evaluations that are set aside for a video
TOTAL = 16 + 5 * CLIP + 2 * REGIONS
LIMITED = {"screen__enabled": True, "screen__budget_total": TOTAL}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return write_scene(folder / "a.mp4", 40), write_scene(folder / "b.mp4", 24, seed=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, scenes):
    return explain(tmp_path_factory.mktemp("runs") / "whole", *scenes)


@pytest.fixture(scope="module")
def screened(tmp_path_factory, scenes):
    return explain(tmp_path_factory.mktemp("runs") / "screened", *scenes, **LIMITED)


def rows_of(run):
    return pq.read_table(run / "screening.parquet").to_pylist()


def test_the_budget_holds_and_the_best_ranks_are_explained(screened):
    assert screened.exit_code == 0
    rows = rows_of(screened.path)
    explained = sorted(row["rank"] for row in rows if row["is_explained"])
    assert explained == list(range(5))
    assert [row["is_explained"] for row in rows] == [row["is_selected"] for row in rows]
    assert 16 + 5 * CLIP <= screened.figures["evaluations"] <= TOTAL
    clips = pq.read_table(screened.path / "clips.parquet").to_pylist()
    assert {(row["video_id"], row["clip_idx"]) for row in clips} == {
        (row["video_id"], row["clip_idx"]) for row in rows if row["is_explained"]
    }


def test_maps_of_explained_clips_are_those_of_a_run_without_screening(screened, whole):
    expected = {one.source.id: one for one in read_explanations(whole.path)}
    spans = [(r["video_id"], r["frame_start"], r["frame_stop"]) for r in rows_of(screened.path) if r["is_explained"]]
    for one in read_explanations(screened.path):
        is_wanted = np.zeros(len(one.pts_s), bool)
        for video_id, start, stop in spans:
            if video_id == one.source.id:
                is_wanted[start:stop] = True
        other = expected[one.source.id]
        np.testing.assert_array_equal(one.is_seen, is_wanted)
        np.testing.assert_allclose(one.pts_s, other.pts_s, atol=1e-6)
        np.testing.assert_allclose(one.mean[:, is_wanted], other.mean[:, is_wanted], atol=1e-6)
        assert not one.mean[:, ~is_wanted].any()


def test_films_show_the_whole_video(screened):
    for film in (screened.path / "films").iterdir():
        with av.open(str(film)) as container:
            assert sum(1 for _ in container.decode(video=0)) == (40 if film.name.startswith("a.") else 24)


def test_manifest_and_report_say_what_was_not_explained(screened):
    manifest = json.loads((screened.path / "manifest.json").read_text())
    found = manifest["summary"]["screening"]
    assert (found["clips_screened"], found["clips_explained"], found["clips_not_explained"]) == (16, 5, 11)
    assert found["time_not_explained_share"] == pytest.approx(11 / 16)
    assert found["longest_gap_s"] > 0.3
    assert "screening.parquet" in manifest["outputs"]
    page = (screened.path / "report" / "index.html").read_text()
    assert "What was, and what was not explained" in page
    assert page.count('<svg class="screened"') == 2
    assert "Not explained: 11 clips, 69 % of the time" in page.replace("69%", "69 %")


def test_a_screened_run_can_be_verified(screened):
    assert verify_run(screened.path).is_ok


def test_screening_without_limits_explains_and_ranks_everything(tmp_path, scenes, whole):
    run = explain(tmp_path / "run", *scenes, screen__enabled=True, target="upper left,lower left")
    assert all(row["is_explained"] for row in rows_of(run.path))
    assert {row["target"] for row in rows_of(run.path)} <= {"upper left", "lower left"}
    assert run.figures["screened_clips"] == 16
    page = (run.path / "report" / "index.html").read_text()
    assert "explained 16" in page


@pytest.mark.slow
@pytest.mark.parametrize(("every", "was_planned"), [(1, False), (9, True)])
def test_a_run_that_is_stopped_in_either_pass_goes_on_as_if_it_had_not_been(
    tmp_path, scenes, screened, every, was_planned
):
    options = {"box__fault": "interrupt", "box__marker": tmp_path, "box__every": every, "engine__window_clips": 3}
    first = explain(tmp_path / "run", *scenes, **LIMITED, **options)
    assert first.exit_code == 130
    assert (first.path / "screening.parquet").exists() == was_planned
    second = resume(first.path, is_quiet=True)
    assert second.exit_code == 0
    asked = [run.figures["screened_clips"] for run in (first, second)]
    assert sum(asked) == 16
    assert asked[0] > 0
    total = first.figures["evaluations"] + second.figures["evaluations"]
    assert total == screened.figures["evaluations"]
    assert rows_of(second.path) == rows_of(screened.path)
    expect_equal(screened.path, second.path, tolerance=1e-6)


@pytest.mark.parametrize(("files", "was_planned"), [("screened/*.bin", False), ("journal/*/*.npz", True)])
def test_a_killed_run_goes_on_in_the_pass_that_it_was_in(tmp_path, scenes, screened, files, was_planned):
    run = tmp_path / "run"
    settings = {**LIMITED, "box__sleep_s": 0.2, "engine__window_clips": 3}
    kill_driver(run, scenes, settings, lambda run: any(run.glob(files)))
    assert (run / "screening.parquet").exists() == was_planned
    resumed = resume(run, is_quiet=True)
    assert resumed.exit_code == 0
    assert resumed.figures["evaluations"] < screened.figures["evaluations"]
    assert rows_of(run) == rows_of(screened.path)
    expect_equal(screened.path, run, tolerance=1e-6)


def test_a_clip_on_which_the_box_fails_is_not_in_the_plan_and_fails_once(tmp_path):
    scene = write_scene(tmp_path / "black.mp4", black=range(12, 16))
    run = explain(tmp_path / "run", scene, box__fault="black", screen__enabled=True, screen__budget_total=9 + 60 + 12)
    assert run.exit_code == 3
    (failure,) = run.failures
    assert (failure.clip_idx, failure.stage) == (3, "score")
    assert 3 not in {row["clip_idx"] for row in rows_of(run.path)}
    assert sum(row["is_explained"] for row in rows_of(run.path)) == 2
    again = resume(run.path, is_quiet=True)
    assert again.figures["evaluations"] == 0
    assert [failure.clip_idx for failure in again.failures] == [3]


def test_pictures_are_ranked_too(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for idx in range(3):
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(tmp_path / f"p{idx}.png")
    pictures = sorted(tmp_path.glob("*.png"))
    run = explain(tmp_path / "run", *pictures, screen__enabled=True, screen__budget_total=3 + 2 * (CLIP + REGIONS))
    assert run.exit_code == 0
    rows = rows_of(run.path)
    assert {row["rank"] for row in rows if row["is_explained"]} == {0, 1}
    assert len(list((run.path / "pictures").iterdir())) == 2
    assert run.figures["screening"]["videos_without_explanation"] == 1


def test_a_budget_without_screening_is_spent_in_order(tmp_path, scenes, whole):
    total = 8 + 10 * CLIP + REGIONS + 8 + 2 * CLIP + REGIONS  # looks for the target, clips, regions of both
    run = explain(tmp_path / "run", *scenes, screen__budget_total=total + 5)
    assert run.exit_code == 0
    clips = [(row["video_id"], row["clip_idx"]) for row in pq.read_table(run.path / "clips.parquet").to_pylist()]
    assert clips == [("a", idx) for idx in range(10)] + [("b", 0), ("b", 1)]
    assert run.figures["evaluations"] <= total
    assert run.figures["limits"]["clips_explained"] == 12
    assert run.figures["limits"]["clips_expected"] == 16
    assert "Explained 12 of about 16 clips, in order" in (run.path / "report" / "index.html").read_text()


@pytest.mark.parametrize("is_screened", [True, False])
def test_when_the_time_is_over_the_run_is_finished_and_the_rest_is_listed(tmp_path, scenes, monkeypatch, is_screened):
    monkeypatch.setattr(passes.Passes, "_clips_until", lambda self, deadline: 100)  # the estimate is far too good
    run = explain(
        tmp_path / "run",
        *scenes,
        screen__enabled=is_screened,
        screen__max_minutes=0.07,
        box__sleep_s=0.3,
        engine__window_clips=2,
    )
    assert run.exit_code == 0
    assert json.loads((run.path / "manifest.json").read_text())["status"] == "finished"
    assert not run.failures
    figures = run.figures["screening" if is_screened else "limits"]
    assert figures["is_time_over"]
    assert figures["clips_explained"] < 16
    if is_screened:
        missing = [row["reason"] for row in rows_of(run.path) if not row["is_explained"]]
        assert set(missing) == {"beyond the time"} or not rows_of(run.path)


def test_a_budget_below_one_clip_is_refused():
    with pytest.raises(ConfigError, match="less than one clip takes, 24 evaluations"):
        config(screen__budget_total=23)


def test_a_budget_that_screening_uses_up_explains_nothing_and_says_so(tmp_path, scenes):
    run = explain(tmp_path / "run", *scenes, screen__enabled=True, screen__budget_total=30)
    assert run.exit_code == 0
    found = RunFolder.open(run.path).manifest.summary["screening"]
    assert (found["clips_screened"], found["clips_explained"]) == (15, 0)
    assert found["videos_screened_in_part"] == 1
    assert run.figures["evaluations"] == 15


@pytest.mark.ray
@pytest.mark.slow
def test_ray_explains_the_same_clips(tmp_path, scenes, screened):
    run = explain(tmp_path / "run", *scenes, **LIMITED, engine="ray", engine__num_scorers=2)
    assert rows_of(run.path) == rows_of(screened.path)
    expect_equal(screened.path, run.path)
