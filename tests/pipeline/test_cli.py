import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

ROOT = Path(__file__).resolve().parents[2]
LISTED = ("demo", "explain", "resume", "report", "verify", "evaluate", "compare", "inspect", "sanity", "substrates")


def heatreel(*args: object) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.stdout, result.stderr


def test_help_lists_the_commands_that_exist_and_no_others() -> None:
    code, out, _ = heatreel("--help")
    assert code == 0
    assert [name for name in LISTED if f" {name} " in out] == list(LISTED)
    assert sorted(command.callback.__name__ for command in app.registered_commands if command.callback) == sorted(
        LISTED
    )


@pytest.mark.parametrize("command", ["--help", "explain --help", "demo --help"])
def test_help_answers_without_loading_anything_heavy(command: str) -> None:
    # Typer itself looks at pydantic, which is light.
    script = (
        "import sys, pipeline.cli\n"
        f"sys.argv = ['heatreel', *{command.split()!r}]\n"
        "try:\n    pipeline.cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('HEAVY', sorted({'torch', 'ray', 'numpy', 'zarr', 'av', 'plotly'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage: heatreel" in done.stdout
    assert done.stdout.strip().endswith("HEAVY []")


def test_python_m_pipeline_is_heatreel() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "explain" in done.stdout


@pytest.mark.parametrize("args", [["explain"], ["explain", "a.mp4", "--nonsense"], ["nothing"], ["resume"]])
def test_wrong_usage_ends_with_2(args: list[str]) -> None:
    assert heatreel(*args)[0] == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["explain", "a.mp4", "--set", "bugdet=5"], "did you mean budget?"),
        (["explain", "a.mp4", "--set", "budget"], "key=value"),
        (["explain", "a.mp4", "--budget", "1"], "perturb.budget"),
        (["explain", "a.mp4", "--substrate", "black"], "score.substrate"),
        (["explain", "a.mp4", "--engine", "spark"], "engine.kind"),
        (["explain", "a.mp4", "--from", "3", "--to", "2"], "not after"),
        (["explain", "a.mp4", "--config", "missing.yaml"], "cannot be read"),
        (["inspect", "torchvision:r3d_19"], "r3d_18"),
        (["inspect", "a.mp4", "--model", "torchvison:r3d_18"], "torchvision"),
    ],
)
def test_a_wrong_setting_is_one_line_and_ends_with_2(args: list[str], words: str) -> None:
    code, out, err = heatreel(*args)
    assert code == 2
    assert out == ""
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


def test_debug_shows_where_an_error_comes_from() -> None:
    result = CliRunner().invoke(app, ["explain", "a.mp4", "--set", "bugdet=5", "--debug"])
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "ConfigError"


@pytest.mark.parametrize("command", ["resume", "report", "verify"])
def test_a_folder_that_is_no_run_is_named_and_ends_with_1(command: str, tmp_path: Path) -> None:
    code, _, err = heatreel(command, tmp_path)
    assert code == 1
    assert err.strip() == f"{tmp_path}: there is no heatreel run here; give the folder of a run"


def test_inspect_says_what_a_model_is_and_what_a_clip_costs() -> None:
    code, out, _ = heatreel("inspect", "demo", "--set", "score.batch_size=2", "--budget", "64", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["model"] == "demo"
    assert facts["answer"] == "logits, 16 named classes"
    assert facts["a clip"].startswith("64 evaluations, about ")


def test_inspect_counts_clips_and_evaluations_of_a_folder_and_names_what_is_broken(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("one.png", "two.png"):
        Image.new("RGB", (64, 48), "teal").save(tmp_path / name)
    (tmp_path / "broken.mp4").write_text("not a film")
    code, out, _ = heatreel("inspect", tmp_path, "--set", "score.batch_size=2", "--budget", "16", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["to be done"] == "2 clips x 16 = 32 evaluations of the model"
    assert facts["to be skipped"] == "1 of 3 sources"
    assert len(facts["sources"]) == 2
    assert "broken.mp4" in facts["broken"][0]


def test_inspect_of_something_that_is_not_there_fails_with_one_line() -> None:
    code, _, err = heatreel("inspect", "missing:x:.mp4")
    assert code == 1
    assert err.startswith("missing:x:.mp4: ")
    assert len(err.strip().splitlines()) == 1
