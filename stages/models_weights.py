"""Weights: read safely from a file, loaded with messages that name the key, hashed, or made at random reproducibly.

Nothing that a weight file says is executed: .pth/.pt go through `weights_only=True`, .npz through `allow_pickle=False`.
"""

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor, nn

from stages.errors import ModelError
from stages.models_spec import nearest

RANDOM_SEED = 20240229
UNTRAINED = "weights are RANDOM: scores and maps say nothing about real content; pass weights (a file, or DEFAULT)"

# Checkpoints wrap the state dict in one of these; DataParallel and compile put a prefix before every key.
_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")

ModuleT = TypeVar("ModuleT", bound=nn.Module)
ResultT = TypeVar("ResultT")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a .pth/.pt/.pyth/.bin, .safetensors or .npz file, on the CPU.

    Raises ModelError when the file is missing, damaged, of another kind, or holds more than tensors and plain data.
    """
    path = Path(path)
    readers: Mapping[str, Callable[[Path], object]] = {
        ".safetensors": _read_safetensors,
        ".npz": _read_npz,
        **dict.fromkeys((".pth", ".pt", ".pyth", ".bin", ".ckpt", ".tar"), _read_torch),
    }
    if not path.is_file():
        raise ModelError(str(path), "there is no such weight file", "check the path given as weights")
    if path.suffix.lower() not in readers:
        kinds = ", ".join(sorted(readers))
        raise ModelError(str(path), f"weights of kind {path.suffix or 'no suffix'} are not read", f"use one of {kinds}")
    try:
        content = readers[path.suffix.lower()](path)
    except pickle.UnpicklingError as error:
        fact = "the file holds more than tensors, and running what it holds would not be safe"
        raise ModelError(str(path), fact, "save module.state_dict() alone, or use safetensors") from error
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            str(path), f"the weight file is damaged ({reason:.120})", "copy or download it again"
        ) from error
    return unwrap(content, str(path))


def unwrap(content: object, item: str) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, with the prefixes of parallel or compiled training removed."""
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(item, "the file holds no named tensors", "save module.state_dict()")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise ModelError(item, "the file holds no named tensors", "save module.state_dict()")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_weights(module: ModuleT, state: Mapping[str, Tensor], item: str) -> ModuleT:
    """Fill the module, strictly. Raises ModelError naming the first missing, unexpected or misshapen key."""
    wanted = module.state_dict()
    # num_batches_tracked came with PyTorch 0.4.1 and has no influence on inference.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    wrong = [key for key, value in state.items() if key in wanted and value.shape != wanted[key].shape]
    remedy = "give the weights of this very architecture"
    if missing:
        near = f"; the file has {nearest(missing[0], unexpected)!r}" if unexpected else ""
        raise ModelError(item, f"the weights lack {missing[0]!r} ({len(missing)} keys missing{near})", remedy)
    if unexpected:
        raise ModelError(
            item, f"the weights have {unexpected[0]!r}, which the model has not ({len(unexpected)} such keys)", remedy
        )
    if wrong:
        found, need = tuple(state[wrong[0]].shape), tuple(wanted[wrong[0]].shape)
        raise ModelError(
            item,
            f"{wrong[0]!r} has shape {found} in the weights and {need} in the model ({len(wrong)} such keys)",
            f"{remedy}; for another number of classes set the option num_classes",
        )
    module.load_state_dict({**wanted, **state})
    return module


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers, in the order of their names."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor):
            continue
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def file_sha256(*paths: str | Path) -> str:
    """SHA-256 over the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def fixed_seed(seed: int = RANDOM_SEED) -> Iterator[None]:
    """Inside, PyTorch's CPU generator starts from `seed`; afterwards it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def fetched(fetch: Callable[[], ResultT], item: str) -> ResultT:
    """The result of a download; raises ModelError that names the way without a network when it fails."""
    try:
        return fetch()
    except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            item, f"the weights cannot be fetched ({reason:.120})", "give a local weight file as weights"
        ) from error


def _read_torch(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_npz(path: Path) -> object:
    with np.load(path, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
