"""`heatreel sanity` on a small film and a box that takes no time."""

import json
from pathlib import Path

import pytest
from small_runs import BOX, write_scene
from typer.testing import CliRunner

from pipeline.cli import app

pytestmark = pytest.mark.slow

CHECKS = [
    "as it is", "other masks", "weights randomised", "constant box", "random box", "classes permuted",
    "frames shuffled", "time reversed", "film backwards", "frozen frame, motion", "frozen frame, times",
]  # fmt: skip


def sanity(*args: object) -> tuple[int, str, str]:
    given = ["sanity", *map(str, args), "--model", f"python:{BOX}:make", "--budget", "48", "--device", "cpu"]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, given)
    return result.exit_code, result.stdout, result.stderr


def test_all_checks_are_made_and_printed_and_written(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.mp4", 12)
    code, out, err = sanity(scene, "--clip", 1, "--substrate", "mean", "--out", tmp_path / "found.json", "--json")
    assert code == 0, err
    content = json.loads(out)
    assert content == json.loads((tmp_path / "found.json").read_text())
    assert [row["check"] for row in content["findings"]] == CHECKS
    results = {row["check"]: row["result"] for row in content["findings"]}
    assert results["weights randomised"] == "not applicable"  # a plain function has no weights to reach
    assert {results[name] for name in ("constant box", "random box", "classes permuted", "time reversed")} == {"pass"}
    shuffled = content["findings"][CHECKS.index("frames shuffled")]
    assert shuffled["expected"].startswith("order-blind")
    assert shuffled["result"] == "pass"
    code, out, err = sanity(scene, "--substrate", "mean")
    assert code == 0, err
    assert all(check in out for check in CHECKS)
    assert "not applicable" in out


def test_a_clip_that_is_not_there_is_named(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.mp4", 12)
    code, _, err = sanity(scene, "--clip", 99)
    assert code == 2
    assert "--clip 99" in err
    assert sanity(tmp_path / "missing.mp4")[0] == 1
