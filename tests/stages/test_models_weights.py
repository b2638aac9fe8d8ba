"""Weight files: several kinds, nothing executed, and messages that name the key."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.errors import ModelError
from stages.models_weights import fetched, fixed_seed, load_weights, read_weights


def network() -> nn.Module:
    with fixed_seed(3):
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def save_npz(state: dict[str, Tensor], path: Path) -> None:
    np.savez(path, **{key: value.numpy() for key, value in state.items()})


@pytest.mark.parametrize(
    ("suffix", "save"),
    [
        (".pth", torch.save),
        (".pt", lambda state, path: torch.save({"epoch": 3, "model_state": state}, path)),
        (".pyth", lambda state, path: torch.save({f"module.{key}": value for key, value in state.items()}, path)),
        (".safetensors", save_file),
        (".npz", save_npz),
    ],
)
def test_weights_survive_every_kind_of_file(
    tmp_path: Path, suffix: str, save: Callable[[dict[str, Tensor], Path], None]
) -> None:
    state = {key: torch.rand_like(value.float()).to(value.dtype) for key, value in network().state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    save(state, path)
    loaded = load_weights(network(), read_weights(path), str(path)).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("2.bias"), "lack '2.bias' (1 keys missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "have 'extra'"),
        (
            lambda state: state.update({"2.weight": torch.zeros(9, 4)}),
            "'2.weight' has shape (9, 4) in the weights and (2, 4)",
        ),
    ],
)
def test_wrong_weights_name_the_first_wrong_key(change: Callable[[dict[str, Tensor]], object], words: str) -> None:
    state = dict(network().state_dict())
    change(state)
    with pytest.raises(ModelError) as caught:
        load_weights(network(), state, "w.pth")
    assert words in str(caught.value)


def test_a_weight_file_is_never_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "sprung"),))

    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"weight": Trap()}))
    torch.save({"weight": Trap()}, tmp_path / "trap2.pth")
    np.savez(tmp_path / "trap.npz", weight=np.array([Trap()], dtype=object))
    for name in ("trap.pth", "trap2.pth", "trap.npz"):
        with pytest.raises(ModelError):
            read_weights(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["zero.pth", "text.safetensors", "text.npz", "text.pt", "model.onnx", "absent.pth"])
def test_files_that_are_no_weights_are_explained_in_one_line(tmp_path: Path, name: str) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_text("" if name.startswith("zero") else "no weights at all")
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_failed_download_says_how_to_go_on_without_a_network() -> None:
    def fail() -> None:
        raise OSError("name resolution failed")

    with pytest.raises(ModelError, match="give a local weight file"):
        fetched(fail, "torchvision:r3d_18")
