"""Every bad input is one line that says what to do; the other inputs of the run are finished."""

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app

BOXES = """
import torch
from stages.box import BoxSpec

SPEC = BoxSpec(name="tiny", clip_len=4, height=16, width=16, resize="squash", labels=("bright", "dark", "dull"))


def answer(frames):
    bright = frames[..., 4:12, 4:12].mean((1, 2, 3, 4))
    return torch.stack([4 * bright, 1 - bright, 0.5 * torch.ones_like(bright)], 1)


def tiny():
    return answer, SPEC


def nan():
    return lambda frames: answer(frames) * float("nan"), SPEC


def flat():
    return lambda frames: answer(frames).flatten(), SPEC


def few():
    return lambda frames: answer(frames)[:1], SPEC


def raising():
    def box(frames):
        raise RuntimeError("kaput")
    return box, SPEC
"""


def film(path: Path, *, num_frames: int = 12, size: int = 32, audio_only: bool = False) -> Path:
    with av.open(str(path), "w") as container:
        if audio_only:
            sound = container.add_stream("aac", rate=16000, layout="mono")
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16000
            container.mux([*sound.encode(silence), *sound.encode()])
            return path
        stream = container.add_stream("libx264", rate=10, options={"g": "4", "crf": "10"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv444p"
        noise = np.random.default_rng(0).integers(0, 256, (num_frames, size, size, 3), dtype=np.uint8)
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def missing(path: Path) -> None:
    assert not path.exists()


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("this is not a film\n" * 100)


def truncated(path: Path) -> None:
    film(path, num_frames=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # the index was at the end


def audio_only(path: Path) -> None:
    film(path, audio_only=True)


def empty_folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt.bak").write_text("nothing to see")


BROKEN: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "missing file": ("missing.mp4", missing, "there is no such file"),
    "folder without media": ("folder", empty_folder, "holds no video and no picture"),
    "zero bytes": ("empty.mp4", empty, "the file is empty"),
    "text renamed": ("text.mp4", text, "it contains text"),
    "truncated": ("truncated.mp4", truncated, "cut off"),
    "audio only": ("sound.mp4", audio_only, "audio but no video"),
}


def one_pixel(path: Path) -> None:
    film(path, size=1)


def one_frame(path: Path) -> None:
    film(path, num_frames=1)


def corrupt_in_the_middle(path: Path) -> None:
    film(path, num_frames=40)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = bytes(600)
    path.write_bytes(content)


ODD: dict[str, Callable[[Path], None]] = {
    "one pixel": one_pixel,
    "one frame": one_frame,
    "corrupt in the middle": corrupt_in_the_middle,
}


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boxes") / "boxes.py"
    path.write_text(BOXES)
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    return path


def explain(*args: object, boxes: Path, out: Path, box: str = "tiny") -> tuple[int, dict[str, object], str]:
    common = ["--model", f"python:{boxes}:{box}", "--budget", 16, "--engine", "local", "--set", "score.batch_size=8"]
    words = ["explain", *args, *common, "--out", out, "--json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout) if result.stdout.strip() else {}, result.stderr


def assert_one_line(err: str, words: str) -> None:
    assert len(err.strip().splitlines()) == 1, err
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_input_is_a_failure_and_the_other_inputs_are_finished(
    case: str, tmp_path: Path, good: Path, boxes: Path
) -> None:
    name, make, words = BROKEN[case]
    make(tmp_path / name)
    code, outcome, _ = explain(tmp_path / name, good, boxes=boxes, out=tmp_path / "run")
    assert code == 3
    (failure,) = outcome["failures"]  # type: ignore[misc]  # JSON
    line = f"{failure['uri']}: {failure['reason']}; {failure['remedy']}"
    assert words in line
    assert "\n" not in line
    assert failure["remedy"]
    assert [Path(summary["uri"]).name for summary in outcome["explanations"]] == ["good.png"]  # type: ignore[attr-defined]  # JSON
    recorded = [json.loads(row) for row in (tmp_path / "run" / "failures.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in recorded] == [failure["reason"]]


@pytest.mark.parametrize("case", ODD)
def test_an_odd_input_is_explained(case: str, tmp_path: Path, boxes: Path) -> None:
    path = tmp_path / "odd.mp4"
    ODD[case](path)
    code, outcome, _ = explain(path, boxes=boxes, out=tmp_path / "run")
    assert code == 0, outcome.get("failures")
    (summary,) = outcome["explanations"]  # type: ignore[misc]  # JSON
    assert summary["num_frames"] >= 1
    assert (tmp_path / "run" / summary["targets"][0]["product"]).stat().st_size > 0


def test_a_run_in_which_nothing_could_be_explained_ends_with_3_and_keeps_its_folder(
    tmp_path: Path, boxes: Path
) -> None:
    code, outcome, _ = explain(tmp_path / "missing.mp4", boxes=boxes, out=tmp_path / "run")
    assert code == 3
    assert len(outcome["failures"]) == 1  # type: ignore[arg-type]  # JSON
    assert (tmp_path / "run" / "manifest.json").is_file()


@pytest.mark.parametrize(("box", "words"), [("nan", "NaN"), ("flat", "shape"), ("few", "rows"), ("raising", "kaput")])
def test_a_box_that_answers_nonsense_is_named_in_one_line(
    box: str, words: str, tmp_path: Path, good: Path, boxes: Path
) -> None:
    code, outcome, err = explain(good, boxes=boxes, out=tmp_path / "run", box=box)
    failures = outcome.get("failures", [])
    said = [err] if code == 1 else [f"{failure['reason']}; {failure['remedy']}" for failure in failures]  # type: ignore[attr-defined, index]  # JSON
    assert code in (1, 3)
    (line,) = said
    assert words in line
    assert len(line.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--target", "birght"], 2, "did you mean 'bright'"),
        (["--target", "7"], 2, "3 classes"),
        (["--set", "model.labels_file=missing.txt"], 2, "cannot be read"),
    ],
)
def test_a_wrong_class_ends_with_usage(
    args: list[str], code: int, words: str, tmp_path: Path, good: Path, boxes: Path
) -> None:
    found, _, err = explain(good, *args, boxes=boxes, out=tmp_path / "run")
    assert found == code
    assert_one_line(err, words)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--model", "torchvison:r3d_18"], 2, "torchvision"),
        (["--model", "torchvision:r3d_19"], 2, "r3d_18"),
        (["--model", "torchvision:r3d_18", "--weights", "missing.pth"], 1, "missing.pth"),
        (["--model", "python:missing.py:box"], 2, "there is no file"),
    ],
)
def test_a_model_that_cannot_be_had_is_named(
    args: list[str], code: int, words: str, tmp_path: Path, good: Path
) -> None:
    result = CliRunner().invoke(app, ["explain", str(good), *args, "--out", str(tmp_path / "run")])
    assert result.exit_code in (code, 2)
    assert_one_line(result.stderr, words)


def test_weights_of_another_network_are_refused(tmp_path: Path, good: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"layer.weight": np.zeros((2, 2), np.float32)}, tmp_path / "other.safetensors")
    args = ["--model", "torchvision:r3d_18", "--weights", str(tmp_path / "other.safetensors")]
    result = CliRunner().invoke(app, ["explain", str(good), *args, "--out", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert_one_line(result.stderr, "weights")


def test_an_output_that_cannot_be_written_ends_with_1(tmp_path: Path, good: Path, boxes: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = explain(good, boxes=boxes, out=tmp_path / "file" / "run")
    assert code == 1
    assert_one_line(err, "--out")


def test_an_existing_run_is_refused_unless_it_is_to_be_overwritten(tmp_path: Path, good: Path, boxes: Path) -> None:
    out = tmp_path / "run"
    assert explain(good, boxes=boxes, out=out)[0] == 0
    before = (out / "manifest.json").read_bytes()
    code, _, err = explain(good, boxes=boxes, out=out)
    assert code == 1
    assert_one_line(err, "heatreel resume")
    assert "--overwrite" in err
    assert (out / "manifest.json").read_bytes() == before
    assert explain(good, "--overwrite", boxes=boxes, out=out)[0] == 0
    assert (out / "manifest.json").read_bytes() != before


def test_a_folder_that_is_no_run_is_never_overwritten(tmp_path: Path, good: Path, boxes: Path) -> None:
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "me.jpg").write_bytes(b"irreplaceable")
    code, _, err = explain(good, "--overwrite", boxes=boxes, out=precious)
    assert code == 1
    assert_one_line(err, "--out")
    assert (precious / "me.jpg").read_bytes() == b"irreplaceable"
