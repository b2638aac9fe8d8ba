"""Runs that ask the model itself: the budget holds, the journal alone gives the same maps, refusals come early."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_runs import config, expect_equal, expect_same_tables, explain, write_scene

from pipeline.journal import Journal
from pipeline.manifest import RunFolder
from pipeline.runner import resume
from pipeline.verify import verify_run
from stages.errors import ConfigError

pytestmark = pytest.mark.slow

BOX = f"python:{Path(__file__).with_name('bright_box.py')}:make"


@pytest.mark.parametrize(
    ("method", "prior", "target"),
    [
        ("gp", "captum:LayerGradCam@act", "top1"),
        ("mask-optimisation", "none", "top3"),
        ("gp", "captum:KernelShap", "second"),
        ("lime", "none", "top3"),
        ("kernel-shap", "none", "second"),
    ],
)
def test_a_run_is_recomputed_from_its_journal_without_the_model(tmp_path, method, prior, target):
    pytest.importorskip("captum")
    video = write_scene(tmp_path / "v.mp4", 12)
    settings = {"model__name": BOX, "method": method, "prior": prior, "target": target, "budget": 64}
    summary = explain(tmp_path / "run", video, **settings)
    assert not summary.failures
    result = verify_run(tmp_path / "run")
    assert result.is_ok, result.faults
    journal = Journal(tmp_path / "run" / "journal")
    num_clips = 0
    for clip_id in journal.clips("v"):
        rounds = [masks for masks, _ in journal.rounds(clip_id)]
        assert sum(masks.attribution is not None for masks in rounds) == 1
        assert 60 <= sum(masks.num_evaluations for masks in rounds) <= 64
        num_clips += 1
    rows = pq.read_table(tmp_path / "run" / "clips.parquet").to_pylist()
    assert {row["method"] for row in rows} == {method}
    assert all(60 <= row["evaluations"] <= 64 for row in rows)
    assert all((row["prior_weight"] is not None) == (prior != "none") for row in rows)
    # Every clip's evaluations are counted with their passes; looks for the target come on top.
    assert summary.figures["evaluations"] >= 60 * num_clips
    assert 0 < summary.figures["batch_fill"] <= 1
    explain(tmp_path / "again", video, **{**settings, "engine__num_scorers": 2, "engine__window_clips": 1})
    expect_equal(tmp_path / "run", tmp_path / "again")


@pytest.mark.parametrize("method", ["lime", "kernel-shap"])
def test_an_interrupted_run_asks_no_map_twice_and_ends_with_the_same_maps(tmp_path, method):
    """On a box of which nothing is known but its answers."""
    pytest.importorskip("captum")
    video = write_scene(tmp_path / "v.mp4", 24)
    settings = {"method": method, "target": "top1,second", "budget": 64}
    whole = explain(tmp_path / "whole", video, **settings)
    assert whole.exit_code == 0
    fault = {"box__fault": "interrupt", "box__marker": tmp_path, "box__every": 36, "engine__window_clips": 2}
    first = explain(tmp_path / "run", video, **settings, **fault)
    assert first.exit_code == 130
    journal = Journal(tmp_path / "run" / "journal")
    before = {path: path.stat().st_mtime_ns for path in journal.files()}
    assert any(masks.attribution for clip in journal.clips("v") for masks, _ in journal.rounds(clip))
    second = resume(first.path, is_quiet=True)
    assert second.exit_code == 0
    assert second.figures["replayed_clips"] > 0
    assert {path: path.stat().st_mtime_ns for path in journal.files() if path in before} == before
    expect_equal(whole.path, second.path, tolerance=1e-6)
    expect_same_tables(whole.path, second.path)
    assert verify_run(second.path).is_ok


def test_a_map_that_was_changed_in_the_journal_does_not_verify(tmp_path):
    pytest.importorskip("captum")
    video = write_scene(tmp_path / "v.mp4", 8)
    assert explain(tmp_path / "run", video, method="kernel-shap", budget=64).exit_code == 0
    journal = Journal(tmp_path / "run" / "journal")
    clip_id = journal.clips("v")[0]
    info, (_, (masks, scores)) = journal.info(clip_id), journal.rounds(clip_id)
    journal.append(info, masks, replace(scores, maps=scores.maps[..., ::-1].copy()))
    assert [check.what for check in verify_run(tmp_path / "run").faults] == ["maps"]


def test_a_black_box_is_refused_before_the_first_clip(tmp_path):
    video = write_scene(tmp_path / "v.mp4", 12)
    with pytest.raises(ConfigError, match="no PyTorch module"):
        explain(tmp_path / "run", video, method="mask-optimisation")
    assert not list(Journal(tmp_path / "run" / "journal").files())
    assert RunFolder.open(tmp_path / "run").manifest.status == "failed"


def test_the_content_of_a_prior_belongs_to_the_fingerprint(tmp_path):
    path = tmp_path / "prior.npy"
    found = []
    for value in (0.0, 1.0, 0.0):
        np.save(path, np.array([[value, 1.0]]))
        found.append(config(prior=str(path)).fingerprint())
    assert found[0] == found[2] != found[1]
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        config(prior=str(path)).fingerprint()
