"""Runs in which clips build on the clip before them: the same maps however the work goes, from the journal as well."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_runs import ShufflingEngine, config, expect_equal, expect_same_tables, explain, write_scene

from pipeline import fleet
from pipeline.journal import Journal
from pipeline.results import read_explanations
from pipeline.runner import resume
from pipeline.verify import verify_run
from stages.errors import ConfigError

pytestmark = pytest.mark.slow

CHAINED = {"prior": "previous", "refine__pool_kernels": True, "decode__clip_stride": 2, "target": "top1,second"}


def rows_of(run):
    return pq.read_table(run / "clips.parquet").to_pylist()


def reasons(run):
    return {row["clip_idx"]: row["no_prior"] for row in rows_of(run)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return [write_scene(folder / f"scene{idx}.mp4", 13 + 6 * idx, seed=idx) for idx in range(2)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scenes):
    return explain(tmp_path_factory.mktemp("runs") / "undisturbed", *scenes, **CHAINED)


def test_every_clip_but_the_first_starts_from_the_one_before(undisturbed, scenes, tmp_path):
    assert undisturbed.exit_code == 0
    rows = rows_of(undisturbed.path)
    assert {row["target_idx"] for row in rows if row["video_id"] == "scene0"} != set()
    for row in rows:
        assert (row["no_prior"] == "first clip") == (row["clip_idx"] == 0)
        assert (row["prior_weight"] is None) == (row["clip_idx"] == 0)
    plain = explain(tmp_path / "plain", *scenes, **{**CHAINED, "prior": "none", "refine__pool_kernels": False})
    assert {row["no_prior"] for row in rows_of(plain.path)} == {None}
    with pytest.raises(AssertionError):
        expect_equal(undisturbed.path, plain.path)


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_answers_in_any_order_give_the_same_maps(tmp_path, scenes, undisturbed, monkeypatch, num_workers):
    monkeypatch.setattr(fleet, "LocalEngine", ShufflingEngine)
    counts = {f"engine__num_{kind}": num_workers for kind in ("scorers", "decoders", "refiners", "sinks")}
    summary = explain(tmp_path / "run", *scenes, **CHAINED, **counts)
    assert summary.exit_code == 0
    expect_equal(undisturbed.path, summary.path)
    expect_same_tables(undisturbed.path, summary.path)


def test_one_clip_at_a_time_is_enough(tmp_path, scenes, undisturbed):
    summary = explain(tmp_path / "run", *scenes, **CHAINED, engine__window_clips=1)
    assert summary.exit_code == 0
    expect_same_tables(undisturbed.path, summary.path)


def test_rounds_that_depend_on_the_clip_before_are_the_same_whatever_the_order(tmp_path, scenes, monkeypatch):
    """With a tolerance the clip before decides how many masks are asked, and its map goes back to the scorers."""
    settings = {**CHAINED, "target": "top1", "budget": 96, "refine__tolerance": 0.02}
    first = explain(tmp_path / "first", scenes[0], **settings)
    assert {row["stop_reason"] for row in rows_of(first.path)} <= {"tolerance", "budget"}
    monkeypatch.setattr(fleet, "LocalEngine", ShufflingEngine)
    second = explain(tmp_path / "second", scenes[0], **settings, engine__num_refiners=2, engine__num_scorers=2)
    expect_same_tables(first.path, second.path)
    assert verify_run(second.path).is_ok


def test_an_interrupted_run_goes_on_to_the_same_maps(tmp_path, scenes, undisturbed):
    options = {"box__fault": "interrupt", "box__marker": tmp_path, "box__every": 12, "engine__window_clips": 2}
    first = explain(tmp_path / "run", *scenes, **CHAINED, **options)
    assert first.exit_code == 130
    second = resume(first.path, is_quiet=True)
    assert second.exit_code == 0
    assert second.figures["replayed_clips"] > 0
    expect_equal(undisturbed.path, second.path, tolerance=1e-6)
    expect_same_tables(undisturbed.path, second.path)


def test_the_maps_follow_from_the_journal_without_the_model(undisturbed):
    result = verify_run(undisturbed.path)
    assert result.is_ok, result.faults


def test_a_clip_missing_from_the_journal_is_read_again_and_those_behind_it_wait(tmp_path, scenes, undisturbed):
    """As after a crash between two writes: clips 2 and 3 are gone, others behind them are there."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed.path, run)
    journal = Journal(run / "journal")
    for path in list(journal.files()):
        if path.parent.name == "scene1" and path.name.startswith(("000002.r", "000003.r")):
            path.unlink()
    lines = (run / "videos.jsonl").read_text().splitlines()
    kept = [line for line in lines if (row := json.loads(line))["event"] != "done" or row["video_id"] != "scene1"]
    (run / "videos.jsonl").write_text("\n".join(kept) + "\n")
    again = resume(run, is_quiet=True)
    assert again.exit_code == 0
    assert again.figures["replayed_clips"] > 0
    assert len(journal.clips("scene1")) == len(Journal(undisturbed.path / "journal").clips("scene1"))
    expect_equal(undisturbed.path, run, tolerance=1e-6)


def test_the_clip_after_one_that_failed_starts_anew(tmp_path):
    scene = write_scene(tmp_path / "black.mp4", 24, black=range(12, 14))
    summary = explain(tmp_path / "run", scene, **CHAINED, box__fault="black")
    assert summary.exit_code == 3
    failed = {failure.clip_idx for failure in summary.failures}
    assert failed == {5, 6}
    found = reasons(summary.path)
    assert found == {
        clip: {0: "first clip", 7: "clip before not explained"}.get(clip) for clip in range(11) if clip not in failed
    }
    assert verify_run(summary.path).is_ok


def test_clips_chosen_by_screening_build_on_their_neighbours_alone(tmp_path, scenes):
    limits = {"screen__enabled": True, "screen__budget_total": 9 + 4 * 24 + 24}
    summary = explain(tmp_path / "run", scenes[1], **CHAINED, **limits)
    found = reasons(summary.path)
    assert 1 < len(found) < 9
    for clip, reason in found.items():
        why = "first clip" if clip == 0 else None if clip - 1 in found else "clip before not explained"
        assert reason == why
    assert verify_run(summary.path).is_ok


def test_clips_side_by_side_share_no_frame_and_have_no_prior(tmp_path):
    scene = write_scene(tmp_path / "scene.mp4", 18)
    settings = {**CHAINED, "decode__clip_stride": 4, "refine__pool_kernels": False}
    summary = explain(tmp_path / "run", scene, **settings)
    plain = explain(tmp_path / "plain", scene, **{**settings, "prior": "none"})
    *side_by_side, last = sorted(reasons(summary.path).items())
    assert [why for _, why in side_by_side] == ["first clip", *["no overlap"] * (len(side_by_side) - 1)]
    assert last[1] is None  # the last clip is moved back to end with the video, over the one before
    for ours, theirs in zip(read_explanations(summary.path), read_explanations(plain.path), strict=True):
        np.testing.assert_array_equal(ours.mean[:, :12], theirs.mean[:, :12])


def test_a_picture_has_no_clip_before_it(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(path)
    summary = explain(tmp_path / "run", path, **CHAINED)
    assert summary.exit_code == 0
    assert set(reasons(summary.path).values()) == {"first clip"}


def test_borex_builds_on_the_clip_before_and_goes_on_where_it_was_stopped(tmp_path, scenes, monkeypatch):
    settings = {**CHAINED, "method": "borex", "refine__borex_batch": 4, "refine__pool_kernels": False, "budget": 18}
    whole = explain(tmp_path / "whole", scenes[0], **settings)
    assert whole.exit_code == 0
    found = reasons(whole.path)
    assert len(found) > 3
    assert found == {clip: None if clip else "first clip" for clip in found}
    assert verify_run(whole.path).is_ok
    plain = explain(tmp_path / "plain", scenes[0], **{**settings, "prior": "none"})
    with pytest.raises(AssertionError):
        expect_equal(whole.path, plain.path)
    monkeypatch.setattr(fleet, "LocalEngine", ShufflingEngine)
    options = {"box__fault": "interrupt", "box__marker": tmp_path, "box__every": 12, "engine__window_clips": 2}
    first = explain(tmp_path / "run", scenes[0], **settings, **options)
    assert first.exit_code == 130
    second = resume(first.path, is_quiet=True)
    assert second.exit_code == 0
    assert second.figures["replayed_clips"] > 0
    expect_equal(whole.path, second.path, tolerance=1e-6)
    expect_same_tables(whole.path, second.path)
    assert verify_run(second.path).is_ok


def test_other_methods_and_the_fingerprint():
    with pytest.raises(ConfigError, match="use gp or borex"):
        config(method="rise", prior="previous")
    with pytest.raises(ConfigError, match="no kernels to pool"):
        config(method="borex", prior="previous", refine__pool_kernels=True)
    prints = {
        config(**changes).fingerprint() for changes in ({}, {"prior": "previous"}, {"refine__pool_kernels": True})
    }
    assert len(prints) == 3
