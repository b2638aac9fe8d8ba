"""`heatreel substrates` on the demo clip, and where it cannot say anything."""

import json
from pathlib import Path

import pytest
from small_runs import BOX, write_scene
from typer.testing import CliRunner

from pipeline.cli import app
from stages.demo.clips import DEMO_VIDEO

pytestmark = pytest.mark.slow

NAMES = ["blur", "mean", "noise", "freeze", "median"]


def substrates(*args: object) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["substrates", *map(str, args), "--device", "cpu"])
    return result.exit_code, result.stdout, result.stderr


def test_the_demo_clip_is_explained_under_every_substrate(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    code, out, err = substrates(DEMO_VIDEO, "--model", "demo", "--clips", 2, "--budget", 48, "--out", found, "--json")
    assert code == 0, err
    content = json.loads(out)
    assert content == json.loads(found.read_text())
    assert len(content["clips"]) == len(set(content["clips"])) == 2
    assert [row["substrate"] for row in content["substrates"]] == NAMES
    assert content["recommended"] in (*NAMES, None)
    for row in content["substrates"]:
        assert 0 <= row["num_reliable"] <= 2
        assert all(0 <= row[name] <= 1 for name in ("own", "others", "p_shown", "p_left"))
    # The untouched clip is the same under every substrate, but for rounding.
    shown = [row["p_shown"] for row in content["substrates"]]
    assert shown == pytest.approx([shown[0]] * len(shown), abs=1e-5)
    for name in NAMES:
        assert content["agreement"][name][name] == pytest.approx(1)
        for other in NAMES:
            assert content["agreement"][name][other] == pytest.approx(content["agreement"][other][name])


def test_the_table_names_every_substrate_and_says_what_to_use(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.mp4", 12)
    code, out, err = substrates(scene, "--model", f"python:{BOX}:make", "--clips", 1, "--budget", 32)
    assert code == 0, err
    assert all(name in out for name in (*NAMES, "agreement", "recommend"))


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, _, err = substrates(tmp_path / "missing.mp4", "--model", f"python:{BOX}:make")
    assert code == 1
    assert "missing.mp4" in err
