"""`torchvision:NAME`: every image and video classifier of torchvision.

Input size, normalisation and class names come from the metadata that torchvision keeps with its weights; clip length
and frame step of the video models from `configs/models/`. torchvision is imported when a box is built, not before.
"""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from stages.box import BoxSpec
from stages.errors import ConfigError
from stages.models_spec import built_in_fields, make_spec, nearest
from stages.models_torch import TorchBox
from stages.models_weights import UNTRAINED, fetched, fixed_seed, load_weights, read_weights, unwrap

log = logging.getLogger(__name__)

# Constructors that otherwise spend minutes in SciPy, or warn, while they draw random weights.
_EXTRA_ARGUMENTS: Mapping[str, Mapping[str, object]] = {
    "inception_v3": {"init_weights": False},
    "googlenet": {"init_weights": False},
}


def known_models() -> list[str]:
    """The names of torchvision's image and video classifiers."""
    from torchvision import models

    return sorted({*models.list_models(module=models), *models.list_models(module=models.video)})


def torchvision_box(name: str, weights: str | None, options: Mapping[str, str]) -> TorchBox:
    """A torchvision classifier; `weights` is a file, DEFAULT, a name such as KINETICS400_V1, or none (random).

    The option `num_classes` (default: that of the pretrained weights) fits the last layer to weights of one's own.
    Raises ConfigError for an unknown model or weight name, ModelError for weights that do not fit or cannot be had.
    """
    item = f"torchvision:{name}"
    if name not in (known := known_models()):
        raise ConfigError(
            item, "torchvision has no such classifier", f"did you mean torchvision:{nearest(name, known)}?"
        )
    entry = _weights_entry(name, weights, item)
    module = _build(name, int(options.get("num_classes", len(entry.meta["categories"]))))
    warnings: tuple[str, ...] = ()
    if weights is None:
        warnings = (f"{item}: {UNTRAINED}",)
        log.warning("box=%s %s", item, UNTRAINED)
    elif _is_entry(name, weights):
        state = fetched(lambda: entry.get_state_dict(progress=False, check_hash=True, weights_only=True), item)
        load_weights(module, unwrap(state, item), f"{item} {entry}")
    else:
        load_weights(module, read_weights(weights), weights)
    spec = _spec(name, entry)
    if "num_classes" in options:
        spec = spec.model_copy(update={"labels": ()})
    return TorchBox(module, spec, warnings=warnings)


def _build(name: str, num_classes: int) -> nn.Module:
    from torchvision import models

    with fixed_seed():
        module: nn.Module = models.get_model(
            name, weights=None, num_classes=num_classes, **_EXTRA_ARGUMENTS.get(name, {})
        )
    return module


def _is_entry(name: str, weights: str) -> bool:
    from torchvision import models

    return weights in models.get_model_weights(name).__members__


def _weights_entry(name: str, weights: str | None, item: str) -> Any:
    """The member of torchvision's weights enumeration that `weights` names, else the default one (for its metadata).

    A word without a dot or a slash is meant as such a name, not as a file.
    """
    from torchvision import models

    members = models.get_model_weights(name).__members__
    if weights in members:
        return members[weights]
    if weights is not None and not any(sign in weights for sign in "./\\"):
        fact = f"torchvision has no weights {weights!r} for {name}"
        raise ConfigError(item, fact, f"use one of {', '.join(members)}, or a weight file")
    return members["DEFAULT"]


def _spec(name: str, entry: Any) -> BoxSpec:
    """The spec that torchvision's own preprocessing describes.

    Two-sided resize rules (128 x 171 before a crop of 112) become "shorter side to 128": the same for 4:3 footage,
    and without the squeeze for wider pictures.
    """
    transforms = entry.transforms()
    crop, resize = transforms.crop_size, transforms.resize_size
    fields: dict[str, object] = {
        "name": f"torchvision:{name}",
        "height": crop[0],
        "width": crop[-1],
        "resize": "short_side_crop",
        "short_side": min(resize),
        "antialias": bool(getattr(transforms, "antialias", False)),  # video presets resize without
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        "labels": tuple(entry.meta["categories"]),
    }
    return make_spec(fields | built_in_fields(f"torchvision:{name}"), f"torchvision:{name}")
