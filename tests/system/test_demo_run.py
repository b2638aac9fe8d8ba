"""`heatreel demo`, from the command line to the film, against the truth of the shipped clip."""

import json
from pathlib import Path
from typing import Any

import av
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.demo import clip_path

pytestmark = pytest.mark.slow

# The maps must put at least this many times their area share on the object that they are about.
LEAST_RATIO = 3.0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "run"
    result = CliRunner().invoke(app, ["demo", "--out", str(out), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return out, json.loads(result.stdout)


def test_support_lies_on_the_protagonist_and_evidence_for_others_on_the_rival(
    demo: tuple[Path, dict[str, Any]],
) -> None:
    energy = demo[1]["demo"]["energy"]
    assert energy["support"]["protagonist"]["ratio"] >= LEAST_RATIO
    assert energy["f_ntc"]["rival"]["ratio"] >= LEAST_RATIO
    assert energy["support"]["protagonist"]["ratio"] > energy["support"]["rival"]["ratio"]
    assert energy["f_ntc"]["rival"]["ratio"] > energy["f_ntc"]["protagonist"]["ratio"]


def test_the_rival_fools_the_model_in_a_part_of_the_clip(demo: tuple[Path, dict[str, Any]]) -> None:
    numbers = demo[1]["demo"]
    predictions = numbers["predictions"]
    assert max(predictions, key=predictions.get) == numbers["summary"]["target"]
    assert 0 < predictions[numbers["rival"]] < sum(predictions.values()) / 2


def test_the_film_has_the_frames_and_times_of_the_clip(demo: tuple[Path, dict[str, Any]]) -> None:
    out, outcome = demo
    film = out / outcome["explanations"][0]["targets"][0]["product"]
    assert times_of(film) == pytest.approx(times_of(clip_path()), abs=1e-3)


def test_the_report_and_the_tables_are_there(demo: tuple[Path, dict[str, Any]]) -> None:
    out, _ = demo
    for name in ("report/index.html", "clips.parquet", "frames.parquet", "regions.parquet", "manifest.json"):
        assert (out / name).stat().st_size > 0, name


def test_verify_finds_the_run_sound(demo: tuple[Path, dict[str, Any]]) -> None:
    result = CliRunner().invoke(app, ["verify", str(demo[0])])
    assert result.exit_code == 0, result.stderr


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return [time - times[0] for time in times]
