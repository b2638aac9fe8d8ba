"""Black boxes by name: one function, one dict of constructors.

    demo                            the classifier that ships with the project
    torchvision:r3d_18              every image and video classifier of torchvision
    pytorchvideo:x3d_s              every constructor of pytorchvideo's hub
    python:path/to/file.py:factory  anything else: a few lines of Python that build it (python:pkg.mod:factory too)

In: the name, and optionally weights, a spec file, a class list, options. Out: an object that keeps `box.BlackBox`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from stages.box import BlackBox, BoxSpec
from stages.errors import ConfigError
from stages.models_hub import pytorchvideo_box
from stages.models_python import python_box
from stages.models_spec import check_keys, nearest, override, read_labels, read_spec
from stages.models_torch import CallableBox, TorchBox
from stages.models_torchvision import torchvision_box

__all__ = ["MODELS", "CallableBox", "Scheme", "TorchBox", "load_box", "read_labels", "read_spec"]

CPU = torch.device("cpu")

# (what follows the colon, weights or None for none, options for the constructor) -> box
Constructor = Callable[[str, str | None, Mapping[str, str]], BlackBox]


@dataclass(frozen=True, slots=True)
class Scheme:
    """How to build the boxes of one scheme.

    `own_options`: the options that the constructor takes; None: all of them. Other options set single spec values.
    """

    build: Constructor
    example: str
    own_options: frozenset[str] | None = frozenset()


def demo_box(rest: str, weights: str | None, options: Mapping[str, str]) -> BlackBox:
    """The shipped classifier; it has its own weights."""
    from stages.demo import network

    if rest or weights is not None:
        raise ConfigError("demo", "the demo box has one set of weights, its own", "leave the weights out")
    box: BlackBox = network.load_demo_box()
    return box


# New kinds of boxes (file:, onnx:, hf:, http:) are one module and one line here.
MODELS: Mapping[str, Scheme] = {
    "demo": Scheme(demo_box, "demo"),
    "torchvision": Scheme(torchvision_box, "torchvision:r3d_18", frozenset({"num_classes"})),
    "pytorchvideo": Scheme(pytorchvideo_box, "pytorchvideo:x3d_s", frozenset({"num_classes"})),
    "python": Scheme(python_box, "python:path/to/file.py:factory", None),
}


def load_box(
    name: str,
    *,
    weights: str | None = None,
    spec_file: str | None = None,
    labels_file: str | None = None,
    options: Mapping[str, str] | None = None,
    device: torch.device = CPU,
) -> BlackBox:
    """The box called `name`, on `device`.

    `weights`: a file (.pth, .safetensors, .npz), a name the library knows (DEFAULT), or none for random ones.
    `spec_file` replaces single values of the box's spec, then `options` such as clip_len=8, then `labels_file`;
    options of a `python:` box go to its factory instead. A box with `warnings` wants them shown to the user.
    Raises ConfigError for a wrong name, spec or option, ModelError when the box cannot be built.
    """
    scheme, rest = _split(name)
    options = options or {}
    own = {key: value for key, value in options.items() if scheme.own_options is None or key in scheme.own_options}
    settings = {key: value for key, value in options.items() if key not in own}
    check_keys(settings, name)
    _check_integers(own, name, is_checked=scheme.own_options is not None)
    box = scheme.build(rest, None if weights in (None, "", "none") else weights, own)
    spec = box.spec if spec_file is None else read_spec(spec_file, base=box.spec)
    spec = override(spec, settings, name)
    if labels_file is not None:
        spec = spec.model_copy(update={"labels": read_labels(labels_file)})
    return _with_spec(box, spec, name).to(device)


def _split(name: str) -> tuple[Scheme, str]:
    scheme, colon, rest = name.partition(":")
    if scheme in MODELS and (rest or scheme == "demo"):
        return MODELS[scheme], rest
    known = ", ".join(entry.example for entry in MODELS.values())
    if scheme in MODELS:
        raise ConfigError(f"model {name!r}", "the name is not complete", f"write it like {MODELS[scheme].example}")
    near = f"did you mean {nearest(scheme, MODELS)}:{rest}? known" if colon else "known"
    raise ConfigError(f"model {name!r}", "there is no such kind of box", f"{near}: {known}")


def _check_integers(own: Mapping[str, str], name: str, *, is_checked: bool) -> None:
    for key, value in own.items():
        if is_checked and not (value.isdigit() and int(value) >= 2):
            raise ConfigError(name, f"{key}={value} is not a number of at least 2", f"give {key}=2 or more")


def _with_spec(box: BlackBox, spec: BoxSpec, name: str) -> BlackBox:
    if spec == box.spec:
        return box
    if isinstance(box, TorchBox | CallableBox):
        return box.with_spec(spec)
    raise ConfigError(name, "this box brings its own spec, which cannot be replaced", "change it where it is built")
