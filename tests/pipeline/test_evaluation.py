"""A small run is measured against its model, its truth and another run."""

import json
import shutil
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
from pipeline.cli_tables import console
from pipeline.comparison import compare_runs
from pipeline.evaluation import REMOVAL_METRICS, Settings, evaluate_run, spread, summarise
from pipeline.evaluation_tables import print_comparison, print_evaluation
from pipeline.manifest import RunFolder
from pipeline.results import read_explanations
from pipeline.truth import mask_files, read_mask
from pipeline.verify import verify_run
from stages.errors import ConfigError, ManifestError

pytestmark = pytest.mark.slow

NUM_FRAMES = 16
HINDERED = Path(__file__).with_name("hindered_box.py")
REFERENCES = {"random", "centre", "motion"}


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
    assert set(gains) == {"map", "F-TC", "F-NTC", "lowest support", *REFERENCES}


@pytest.fixture(scope="module")
def hindered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on a box whose second answer has known evidence against it: for the first answer, and for the second."""
    folder = tmp_path_factory.mktemp("hindered")
    scene = write_scene(folder / "scene.mp4", NUM_FRAMES)
    for target in ("top1", "second"):
        settings: dict[str, object] = {"budget": 96, "substrate": "mean", "model__name": f"python:{HINDERED}:make"}
        explain(folder / target, scene, target=target, **settings)
    return folder


def test_removal_is_measured_for_the_runner_up_and_each_kind_does_its_own(hindered: Path) -> None:
    content = evaluate_run(hindered / "top1", Settings(num_clips=4, steps=4))
    clips = content["clips"]
    assert [(clip["target"], clip["wished_idx"], clip["wished"]) for clip in clips] == [("rival", 0, "hindered")] * 4
    mean = {m: {name: found["mean"] for name, found in content["summary"][m].items()} for m in REMOVAL_METRICS}
    # What denies the class goes: its own score rises; what speaks for the rival goes: the rival's falls. Nothing else.
    assert mean["urg_z_t"]["F-TC"] > 0.6 > 0.1 > abs(mean["urg_z_t"]["F-NTC"])
    assert mean["urg_others"]["F-NTC"] > 0.6 > 0.1 > abs(mean["urg_others"]["F-TC"])
    assert mean["urg_log_odds"]["map"] > max(0.8, mean["urg_log_odds"]["lowest support"])
    assert {name: mean["flip"][name] for name in ("map", "F-TC", "F-NTC", *REFERENCES)} == {
        "map": 1.0,
        "F-TC": 1.0,
        "F-NTC": 1.0,
        **dict.fromkeys(REFERENCES, 0.0),
    }


@pytest.mark.parametrize("substrate", [None, "blur"])
def test_a_clip_explained_for_its_runner_up_has_the_map_of_a_run_for_that_class(
    hindered: Path, substrate: str | None
) -> None:
    """The run for the second answer measures what it has stored; the other must find the same maps anew."""
    fresh, stored = (
        evaluate_run(hindered / target, Settings(num_clips=2, steps=4, substrate=substrate))
        for target in ("top1", "second")
    )
    assert {clip["target"] for clip in stored["clips"]} == {clip["wished"] for clip in fresh["clips"]} == {"hindered"}
    for ours, theirs in zip(fresh["clips"], stored["clips"], strict=True):
        for name, row in theirs["maps"].items():
            for metric in REMOVAL_METRICS:
                assert ours["maps"][name][metric] == pytest.approx(row[metric], abs=1e-4), (name, metric)


@pytest.mark.parametrize("width", [80, 40])
def test_no_column_is_lost_on_a_narrow_screen(
    hindered: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_width", width)  # `width` would stay set
    content = evaluate_run(hindered / "top1", Settings(num_clips=2, steps=4, seeds=2))
    print_evaluation(content)
    shown = capsys.readouterr().out
    for words in ("this run", "95 %", *REFERENCES, "F-TC alone", "F-NTC alone", "lowest support", "hindered (2 clips)"):
        assert words in shown, words
    for columns in content["summary"].values():
        for found in columns.values():
            assert f" {found['mean']:.3f}" in shown
    assert "…" not in shown
    if width == 80:
        assert max(map(len, shown.splitlines())) <= width


def test_one_clip_has_no_interval(hindered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(evaluate_run(hindered / "top1", Settings(num_clips=1, steps=4)))
    (insertion,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("insertion AUC"))
    assert [cell.strip() for cell in insertion.split("│")][2] == "–"
    print_comparison(compare_runs(hindered / "top1", hindered / "top1"))
    (insertion,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("insertion AUC"))
    assert [cell.strip() for cell in insertion.split("│")][3:5] == ["+0.000", "–"]


def test_gains_of_different_classes_are_not_compared(folder: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(folder / "a", one)
    content = evaluate_run(one, Settings(num_clips=3, steps=4))
    shutil.copytree(one, other)
    content["clips"][0]["wished_idx"] += 1
    (other / "evaluation.json").write_text(json.dumps(content))
    found = compare_runs(one, other)["differences"]
    assert found["urg_log_odds"]["difference"]["num"] == found["flip"]["difference"]["num"] == 2
    assert found["insertion"]["difference"]["num"] == 3


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
