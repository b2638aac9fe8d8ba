"""Boxes by name: schemes, options, specs, errors that name the remedy, and random networks that run."""

import logging
from pathlib import Path

import pytest
import torch

from stages.box import BoxSpec, to_log_scores
from stages.errors import ConfigError, ModelError
from stages.models import load_box, read_labels, read_spec
from stages.models_spec import BUILT_IN_SPECS

FACTORIES = """
import numpy as np
import torch
from torch import nn
from stages.box import BoxSpec
from stages.models import CallableBox, TorchBox

SPEC = BoxSpec(name="mine", clip_len=2, height=4, width=4, labels=("a", "b"))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(2 * 3 * 4 * 4, 2)
    def forward(self, x):
        return self.dense(x.flatten(1))

def pair(): return Net(), SPEC
def finished(): return TorchBox(Net(), SPEC, layout="ntchw")
def function(): return (lambda frames: torch.stack([frames.mean((1, 2, 3, 4)), frames.amax((1, 2, 3, 4))], 1)), SPEC
def stack(x): return np.stack([x.mean((1, 2, 3, 4)), x.max((1, 2, 3, 4))], 1)
def arrays(): return CallableBox(stack, SPEC, arrays="numpy")
def with_options(weights, strength="1"): return Net(), SPEC.model_copy(update={"name": f"{weights}/{strength}"})
def nothing(): return 42
def broken(): raise KeyError("no such layer")
def not_a_number(): return (lambda frames: torch.full((len(frames), 2), float("nan"))), SPEC
"""


@pytest.fixture
def factories(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FACTORIES)
    return f"python:{tmp_path / 'mine.py'}"


@pytest.mark.parametrize("name", ["pair", "finished", "function", "arrays"])
def test_factories_may_return_a_box_a_module_or_a_function(factories: str, name: str) -> None:
    box = load_box(f"{factories}:{name}")
    assert box(torch.rand(3, 2, 3, 4, 4)).shape == (3, 2)
    assert box.spec.labels == ("a", "b")
    assert len(box.weights_sha256) == 64


def test_numpy_and_torch_functions_agree(factories: str) -> None:
    frames = torch.rand(3, 2, 3, 4, 4)
    torch.testing.assert_close(load_box(f"{factories}:arrays")(frames), load_box(f"{factories}:function")(frames))


def test_weights_and_options_reach_the_factory(factories: str) -> None:
    box = load_box(f"{factories}:with_options", weights="w.npz", options={"strength": "3"})
    assert box.spec.name == "w.npz/3"


def test_random_parts_of_a_factory_are_the_same_every_time_and_leave_the_generator_alone(factories: str) -> None:
    torch.manual_seed(1)
    first = load_box(f"{factories}:pair")
    after = torch.rand(1)
    torch.manual_seed(2)
    second = load_box(f"{factories}:pair")
    torch.manual_seed(1)
    assert first.weights_sha256 == second.weights_sha256
    assert after == torch.rand(1)


@pytest.mark.parametrize(
    ("suffix", "weights", "error", "words"),
    [
        (":pear", None, ConfigError, "did you mean pair?"),
        (":broken", None, ModelError, "KeyError: 'no such layer'"),
        (":nothing", None, ModelError, "returned int instead of a box"),
        (":with_options", None, ConfigError, "give --weights PATH"),
        (":pair", "w.npz", ConfigError, "cannot be called"),
        ("", None, ConfigError, "it names no factory"),
    ],
)
def test_wrong_factories_are_explained(
    factories: str, suffix: str, weights: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        load_box(factories + suffix, weights=weights)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_modules_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        load_box(f"python:{tmp_path}/absent.py:box")
    with pytest.raises(ConfigError, match="no Python module no_such_package"):
        load_box("python:no_such_package.boxes:box")
    (tmp_path / "mine.py").write_text(FACTORIES)
    with pytest.raises(ConfigError, match="no option 'strenght'; did you mean strength"):
        load_box(f"python:{tmp_path}/mine.py:with_options", weights="w", options={"strenght": "1"})


def test_a_box_that_answers_nan_is_caught_where_scores_are_read(factories: str) -> None:
    box = load_box(f"{factories}:not_a_number")
    with pytest.raises(ModelError, match="NaN"):
        to_log_scores(box(torch.rand(1, 2, 3, 4, 4)), box.spec)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torchvison:r3d_18", "did you mean torchvision:r3d_18?"),
        ("torchvision:r3d18", "did you mean torchvision:r3d_18?"),
        ("pytorchvideo:x3dm", "did you mean pytorchvideo:x3d_m?"),
        ("torchvision:", "write it like torchvision:r3d_18"),
        ("r3d_18", "demo, torchvision:r3d_18, pytorchvideo:x3d_s, python:"),
    ],
)
def test_unknown_models_are_answered_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_box(name)
    assert words in str(caught.value)


def test_random_torchvision_weights_are_reproducible_and_loudly_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        first = load_box("torchvision:squeezenet1_1", options={"num_classes": "5"})
    second = load_box("torchvision:squeezenet1_1", options={"num_classes": "5"}, weights="none")
    assert first.weights_sha256 == second.weights_sha256
    assert "RANDOM" in caplog.text
    assert "RANDOM" in first.warnings[0]


def test_torchvision_metadata_becomes_the_spec() -> None:
    image = load_box("torchvision:mobilenet_v3_small").spec
    assert (image.clip_len, image.height, image.short_side, image.antialias) == (1, 224, 256, True)
    assert image.labels[1] == "goldfish"
    assert image.mean == (0.485, 0.456, 0.406)


def test_an_image_model_with_a_clip_length_becomes_a_video_box() -> None:
    options = {
        "num_classes": "4",
        "clip_len": "3",
        "frame_step": "2",
        "height": "64",
        "width": "64",
        "short_side": "64",
    }
    box = load_box("torchvision:squeezenet1_1", options=options)
    assert (box.spec.frames, box.spec.clip_span) == ("mean", 5)
    clips = torch.rand(2, 3, 3, 40, 40)
    image = load_box("torchvision:squeezenet1_1", options={"num_classes": "4"})
    single = torch.stack([image(clips[:, t : t + 1]) for t in range(3)])
    torch.testing.assert_close(box(clips), single.mean(0), rtol=1e-4, atol=1e-5)


def test_spec_files_options_and_labels_replace_single_values(tmp_path: Path, factories: str) -> None:
    (tmp_path / "spec.yaml").write_text("mean: [0.5, 0.5, 0.5]\nclip_len: 2\n")
    (tmp_path / "labels.txt").write_text("1 left\n2 right\n")
    box = load_box(f"{factories}:pair", spec_file=f"{tmp_path}/spec.yaml", labels_file=f"{tmp_path}/labels.txt")
    assert box.spec.mean == (0.5, 0.5, 0.5)
    assert box.spec.labels == ("left", "right")
    assert box.spec.name == "mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clip_length: 8", "did you mean clip_len?"),
        ("clip_len: none", "clip_len"),
        ("height: 4", "width: is missing"),
        ("[1, 2", "not YAML"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),
        ("", "holds no"),
    ],
)
def test_wrong_spec_files_are_explained(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_spec(tmp_path / "spec.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_names_the_nearest_setting() -> None:
    with pytest.raises(ConfigError, match=r"'clip_lenght'; did you mean clip_len\?"):
        load_box("torchvision:r3d_18", options={"clip_lenght": "8"})


def test_class_lists_of_several_kinds(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    for text, labels in [
        ("n01440764 tench, Tinca tinca\nn01443537 goldfish\n", ("tench, Tinca tinca", "goldfish")),
        ("1 Archery\n2 Bowling\n", ("Archery", "Bowling")),
        ("3 pointer\n1 dunk\n", ("3 pointer", "1 dunk")),
        ('["a", "b"]', ("a", "b")),
    ]:
        path.write_text(text)
        assert read_labels(path) == labels


def test_every_shipped_spec_names_a_model_and_is_complete_enough() -> None:
    from stages import models_hub, models_torchvision

    known = {"torchvision": models_torchvision.known_models(), "pytorchvideo": models_hub.known_models()}
    files = sorted(BUILT_IN_SPECS.glob("*--*.yaml"))
    for path in files:
        scheme, _, name = path.stem.partition("--")
        assert name in known[scheme], path
        if scheme == "pytorchvideo":
            assert read_spec(path).name == path.stem
    assert [f"pytorchvideo--{name}" for name in known["pytorchvideo"]] == [
        path.stem for path in files if path.stem.startswith("pytorchvideo")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), [("torchvision:r3d_18", (16, 112)), ("pytorchvideo:x3d_s", (13, 182))])
def test_random_video_networks_run_at_their_own_size(name: str, shape: tuple[int, int]) -> None:
    box = load_box(name)
    assert (box.spec.clip_len, box.spec.height) == shape
    assert len(box.spec.labels) == 400
    scores = to_log_scores(box(torch.rand(1, shape[0], 3, shape[1], shape[1])), box.spec)
    assert scores.shape == (1, 400)
    assert float(scores.std()) > 0


def test_r3d_18_runs_on_a_small_clip() -> None:
    box = load_box("torchvision:r3d_18", options={"clip_len": "4", "height": "32", "width": "32", "short_side": "36"})
    assert isinstance(box.spec, BoxSpec)
    assert box(torch.rand(1, 4, 3, 32, 32)).shape == (1, 400)
