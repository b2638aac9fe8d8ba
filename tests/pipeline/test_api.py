from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import explain
from stages.errors import ConfigError, ExplainError

pytestmark = pytest.mark.slow

BOX = """
import torch
from stages.box import BoxSpec

SPEC = BoxSpec(name="corner", clip_len=1, height=16, width=16, resize="squash", labels=("bright corner", "rest"))


def corner():
    return lambda frames: torch.stack([9 * frames[..., :8, :8].mean((1, 2, 3, 4)), frames[:, 0, 0, 0, 0] * 0], 1), SPEC
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "box.py").write_text(BOX)
    return f"python:{tmp_path}/box.py:corner"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(path)
    return path


def test_explaining_from_python_gives_arrays_and_leaves_nothing_behind(
    model: str, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (found,) = explain(
        picture, model, target="bright corner", budget=64, score__substrate="noise", engine__kind="local"
    )
    assert found.target == "bright corner"
    assert found.mean.shape[:2] == (3, 1)
    assert found.geometry.source_w_px == 48
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and path.name.startswith("heatreel-")) == []


def test_a_run_folder_is_kept_where_it_is_wanted(model: str, picture: Path, tmp_path: Path) -> None:
    (found,) = explain(picture, model, target="0", budget=16, out=tmp_path / "run")
    assert (tmp_path / "run" / "manifest.json").is_file()
    assert found.provenance["model"]["name"] == "corner"  # type: ignore[index]  # provenance is JSON


def test_what_cannot_be_explained_raises_its_reason(model: str, tmp_path: Path) -> None:
    with pytest.raises(ExplainError, match="there is no such file"):
        explain(tmp_path / "missing.mp4", model, budget=16)


def test_an_unknown_setting_is_refused(model: str, picture: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean budget"):
        explain(picture, model, bugdet=3)
