"""`python:WHERE:FACTORY`: a user's own function builds the box. Loading code is the user's explicit act.

WHERE is a module (`pkg.mod`) or a file (`path/to/file.py`). FACTORY is called with the options (`weights` among them)
and returns a finished box, or (module, BoxSpec), or (function, BoxSpec).
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from hashlib import blake2b, sha256
from pathlib import Path
from types import ModuleType

from torch import nn

from stages.box import BlackBox, BoxSpec
from stages.errors import ConfigError, ExplainError, ModelError
from stages.models_spec import nearest
from stages.models_torch import CallableBox, TorchBox
from stages.models_weights import file_sha256, fixed_seed

Factory = Callable[..., object]


def python_box(where: str, weights: str | None, options: Mapping[str, str]) -> BlackBox:
    """Call the factory that `where` names and wrap what it returns.

    Raises ConfigError when the factory cannot be found or does not know an option, ModelError when it fails or
    returns something else.
    """
    item = f"python:{where}"
    factory = _find(where, item)
    arguments = dict(options) if weights is None else {**options, "weights": weights}
    _check_arguments(factory, arguments, item)
    try:
        with fixed_seed():
            made = factory(**arguments)
    except ExplainError:
        raise
    except Exception as error:  # a user's code may raise anything; the user gets it as one line
        fact = f"the factory raised {type(error).__name__}: {str(error).strip() or 'no message'}"
        raise ModelError(item, fact, "correct the factory or its options") from error
    return _wrap(made, _fingerprint(factory, where, arguments), item)


def _find(where: str, item: str) -> Factory:
    place, colon, name = where.rpartition(":")
    if not colon or not place or not name:
        raise ConfigError(item, "it names no factory", "write python:pkg.mod:factory or python:path/to/file.py:factory")
    module = _load_file(Path(place), item) if place.endswith(".py") else _load_module(place, item)
    factory = getattr(module, name, None)
    if not callable(factory):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = f"did you mean {nearest(name, public)}?" if public else "define one"
        raise ConfigError(item, f"{place} has no function {name!r}", near)
    found: Factory = factory
    return found


def _load_file(path: Path, item: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError(item, f"there is no file {path}", "check the path")
    name = f"heatreel_box_{blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(item, f"{path} is not a Python file", "give a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader = spec.loader
    _run(lambda: loader.exec_module(module), item)
    return module


def _load_module(name: str, item: str) -> ModuleType:
    try:
        is_there = importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        is_there = False
    if not is_there:
        remedy = "set PYTHONPATH, or give the file: python:path/to/file.py:factory"
        raise ConfigError(item, f"there is no Python module {name}", remedy)
    _run(lambda: importlib.import_module(name), item)
    return sys.modules[name]


def _run(load: Callable[[], object], item: str) -> None:
    try:
        load()
    except Exception as error:  # a user's module may raise anything; the user gets it as one line
        fact = f"importing it raised {type(error).__name__}: {error}"
        raise ModelError(item, fact, "correct the file, or install what it imports") from error


def _check_arguments(factory: Factory, arguments: Mapping[str, str], item: str) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # built-in callables do not say
    try:
        signature.bind(**arguments)
    except TypeError as error:
        known = [
            name for name, parameter in signature.parameters.items() if parameter.kind is not parameter.VAR_KEYWORD
        ]
        unknown = [name for name in arguments if name not in known]
        if unknown and known:
            raise ConfigError(
                item, f"the factory takes no option {unknown[0]!r}", f"did you mean {nearest(unknown[0], known)}?"
            ) from error
        remedy = (
            "give --weights PATH"
            if "missing a required argument: 'weights'" in str(error)
            else "give the options that the factory needs"
        )
        raise ConfigError(item, f"the factory cannot be called with these options ({error})", remedy) from error


def _wrap(made: object, fingerprint: str, item: str) -> BlackBox:
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], BoxSpec):
        core, spec = made
        if isinstance(core, nn.Module):
            return TorchBox(core, spec)
        if callable(core):
            return CallableBox(core, spec, fingerprint=fingerprint)
    elif callable(made) and all(hasattr(made, part) for part in ("spec", "weights_sha256", "device", "to")):
        box: BlackBox = made  # type: ignore[assignment]  # checked by the line above
        return box
    fact = f"the factory returned {type(made).__name__} instead of a box"
    raise ModelError(item, fact, "return a TorchBox, (module, BoxSpec) or (function, BoxSpec)")


def _fingerprint(factory: Factory, where: str, arguments: Mapping[str, str]) -> str:
    """The factory's source file and the files that its options name, hashed; options themselves included."""
    digest = sha256()
    source = inspect.getsourcefile(inspect.unwrap(factory)) if inspect.isroutine(factory) else None
    digest.update(file_sha256(source).encode() if source else where.encode())
    for key, value in sorted(arguments.items()):
        digest.update(f"|{key}=".encode())
        digest.update(file_sha256(value).encode() if Path(value).is_file() else value.encode())
    return digest.hexdigest()
