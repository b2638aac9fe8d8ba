"""A small run is measured against its model, its truth and another run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from quadrant_box import LABELS
from small_runs import SIZE, explain, write_scene
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.comparison import compare_runs
from pipeline.evaluation import Settings, evaluate_run, mask_files, read_mask, spread, summarise
from pipeline.manifest import RunFolder
from pipeline.results import read_explanations
from pipeline.verify import verify_run
from stages.errors import ConfigError, ManifestError

pytestmark = pytest.mark.slow

NUM_FRAMES = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs A and B on one scene, with different seeds, and the true masks of the target's quadrant."""
    folder = tmp_path_factory.mktemp("evaluation")
    scene = write_scene(folder / "scene.mp4", NUM_FRAMES)
    for name, seed in (("a", 0), ("b", 1)):
        explain(folder / name, scene, budget=48, seed=seed, substrate="mean")
    (found,) = read_explanations(folder / "a")
    y, x = divmod(LABELS.index(found.target), 2)
    mask = np.zeros(SIZE, np.uint8)
    mask[y * SIZE[0] // 2 : (y + 1) * SIZE[0] // 2, x * SIZE[1] // 2 : (x + 1) * SIZE[1] // 2] = 255
    (folder / "masks" / "scene").mkdir(parents=True)
    for idx in range(NUM_FRAMES):
        Image.fromarray(mask).save(folder / "masks" / "scene" / f"{idx:04d}.png")
    return folder


@pytest.fixture(scope="module")
def content(folder: Path) -> dict[str, Any]:
    return evaluate_run(folder / "a", Settings(num_clips=3, steps=12, masks=folder / "masks"))


def test_the_map_of_a_run_is_more_faithful_than_chance(content: dict[str, Any]) -> None:
    summary = content["summary"]
    assert content["num_clips"] == 3
    assert "stability_rank" not in summary  # nobody asked for seeds
    assert summary["insertion"]["map"]["mean"] > summary["insertion"]["random"]["mean"]
    assert summary["deletion"]["map"]["mean"] < summary["deletion"]["random"]["mean"]
    assert summary["block_deletion"]["map"]["mean"] < summary["block_deletion"]["random"]["mean"]
    assert set(summary["insertion"]) == {"map", "random", "centre", "motion"}
    assert summary["insertion"]["map"]["low"] <= summary["insertion"]["map"]["mean"]
    assert summary["insertion"]["map"]["p"] is None
    assert 0 < summary["insertion"]["random"]["p"] <= 1


def test_the_true_quadrant_holds_the_support(content: dict[str, Any]) -> None:
    summary = content["summary"]
    assert summary["energy"]["map"]["mean"] > 2
    assert summary["energy"]["random"]["mean"] == pytest.approx(1, abs=0.1)
    assert summary["pointing"]["map"]["mean"] == 1.0


def test_removing_what_speaks_against_gains_more_than_chance(content: dict[str, Any]) -> None:
    gains = content["summary"]["urg_log_odds"]
    assert gains["map"]["mean"] > gains["random"]["mean"]
    assert "lowest support" in gains
    # The target is the first answer of every clip: nothing can flip.
    assert "flip" not in content["summary"]


def test_the_numbers_lie_in_the_run_and_the_run_still_verifies(folder: Path, content: dict[str, Any]) -> None:
    assert json.loads((folder / "a" / "evaluation.json").read_text()) == content
    assert verify_run(folder / "a").is_ok


def test_two_runs_are_compared_clip_by_clip(folder: Path, content: dict[str, Any]) -> None:
    before = compare_runs(folder / "a", folder / "b")
    assert "evaluate first" in before["note"]
    assert "insertion" not in before["differences"]
    other = evaluate_run(folder / "b", Settings(num_clips=3, steps=12))
    found = compare_runs(folder / "a", folder / "b")
    difference = found["differences"]["insertion"]["difference"]
    means = [c["summary"]["insertion"]["map"]["mean"] for c in (content, other)]
    assert difference["mean"] == pytest.approx(means[1] - means[0])
    assert difference["num"] == 3
    assert 0.2 < found["agreement"][0]["ranks"]["net"] < 1
    same = compare_runs(folder / "a", folder / "a")
    assert same["differences"]["insertion"]["p"] == 1.0
    assert same["agreement"][0]["ranks"]["net"] == pytest.approx(1.0)


def test_the_command_line_prints_both(folder: Path, content: dict[str, Any]) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(folder / "a"), "--clips", "2", "--steps", "8"])
    assert result.exit_code == 0, result.output
    assert "insertion AUC" in result.stdout
    assert "random" in result.stdout
    result = CliRunner().invoke(app, ["compare", str(folder / "a"), str(folder / "a"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["differences"]["q2"]["difference"]["mean"] == 0
    result = CliRunner().invoke(app, ["compare", str(folder / "a"), str(folder / "a")])
    assert "rank agreement" in result.stdout
    assert CliRunner().invoke(app, ["evaluate", str(folder / "nothing")]).exit_code == 1


def test_a_changed_input_and_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    run = RunFolder.open(folder / "b")
    model = run.manifest.model
    run.update(model={**model, "weights_sha256": "0" * 64})
    with pytest.raises(ManifestError, match="the model changed"):
        evaluate_run(folder / "b", Settings(num_clips=1, steps=4))
    run.update(model=model)
    scene = folder / "scene.mp4"
    kept = scene.read_bytes()
    try:
        scene.write_bytes(kept + b"x")
        with pytest.raises(ManifestError, match="has changed since the run"):
            evaluate_run(folder / "b", Settings(num_clips=1, steps=4))
    finally:
        scene.write_bytes(kept)


def test_masks_that_do_not_fit_are_refused(folder: Path) -> None:
    (found,) = read_explanations(folder / "a")
    with pytest.raises(ConfigError, match="16 masks for the 17 frames"):
        mask_files(folder / "masks", found.source, NUM_FRAMES + 1)
    files = mask_files(folder / "masks", found.source, NUM_FRAMES)
    with pytest.raises(ConfigError, match="64 x 48"):
        read_mask(files[0], replace(found.source, height=10))


def test_clips_are_spread_over_a_source() -> None:
    assert spread(100, 3) == [0, 50, 99]
    assert spread(2, 8) == [0, 1]


def test_a_clip_that_cannot_say_is_left_out_of_a_mean() -> None:
    clips = [{"maps": {"map": {"flip": value}, "random": {"flip": 0.0}}} for value in (None, 1.0)]
    found = summarise(clips)["flip"]
    assert found["map"]["mean"] == 1.0
    assert found["map"]["num"] == 1
    assert found["random"]["mean"] == 0.0


def test_maps_of_other_seeds_agree_better_than_random_ones(folder: Path) -> None:
    measured = evaluate_run(folder / "b", Settings(num_clips=2, steps=4, seeds=3))
    assert measured["seeds"] == 3
    for metric, chance in (("stability_rank", 0.0), ("stability_top", 0.1 / 1.9)):
        columns = measured["summary"][metric]
        assert set(columns) == {"map", "random"}
        assert columns["map"]["low"] > columns["random"]["high"]
        assert columns["random"]["mean"] == pytest.approx(chance, abs=0.05)
