"""`pytorchvideo:NAME`: every constructor of pytorchvideo's hub, with local weights, DEFAULT ones, or random ones.

Input specs are in `configs/models/`. What is special here: SlowFast's two pathways are cut from one clip inside the
box; softmax heads are turned into log-probabilities (the same probabilities, without losing the small ones);
detection networks see the whole frame as their one region. pytorchvideo is imported when a box is built.
"""

import logging
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.box import BoxSpec
from stages.errors import ConfigError
from stages.models_spec import built_in_fields, make_spec, nearest
from stages.models_torch import TorchBox
from stages.models_weights import UNTRAINED, fetched, fixed_seed, load_weights, read_weights, unwrap

log = logging.getLogger(__name__)

SLOWFAST_ALPHA = 4
# The constructors do not agree on what the number of classes is called.
_CLASS_ARGUMENTS = ("mvit", "head_num_classes"), ("efficient_x3d", "num_classes")


class Pathways(nn.Module):
    """One clip as SlowFast's pair of pathways: every alpha-th frame (evenly from first to last), and all of them."""

    def __init__(self, module: nn.Module, alpha: int = SLOWFAST_ALPHA) -> None:
        super().__init__()
        self.module = module
        self.alpha = alpha

    def forward(self, clip: Float[Tensor, "n c t h w"], *more: Tensor) -> Tensor:
        """Scores of the wrapped network."""
        t = clip.shape[2]
        slow = torch.linspace(0, t - 1, t // self.alpha, device=clip.device).long()
        scores: Tensor = self.module([clip.index_select(2, slow), clip], *more)
        return scores


class WholeFrame(nn.Module):
    """A detection network whose one region of interest is the whole frame."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, clip: Float[Tensor, "n c t h w"]) -> Tensor:
        """Scores of the frame as a region."""
        n, _, _, h, w = clip.shape
        regions = clip.new_tensor([0, 0, 0, w, h]).repeat(n, 1)
        regions[:, 0] = torch.arange(n, device=clip.device)
        scores: Tensor = self.module(clip, regions)
        return scores.reshape(n, -1)


class LogMeanExp(nn.Module):
    """The log of the mean over (t, y, x) of probabilities that come as logs: N K T H W -> N K 1 1 1."""

    def forward(self, log_probs: Float[Tensor, "n k t h w"]) -> Float[Tensor, "n k 1 1 1"]:
        """Stable log of the averaged probabilities."""
        positions = math.prod(log_probs.shape[2:])
        return torch.logsumexp(log_probs, dim=(2, 3, 4), keepdim=True) - math.log(positions)


def known_models() -> list[str]:
    """The names of the constructors in pytorchvideo's hub."""
    from pytorchvideo.models import hub

    return sorted(name for name, value in vars(hub).items() if callable(value) and not isinstance(value, type))


def pytorchvideo_box(name: str, weights: str | None, options: Mapping[str, str]) -> TorchBox:
    """A model of pytorchvideo's hub; `weights` is a file, DEFAULT (downloads), or none (random).

    The option `num_classes` fits the last layer to weights of one's own.
    Raises ConfigError for an unknown name, ModelError for weights that do not fit or cannot be had.
    """
    from pytorchvideo.models import hub

    item = f"pytorchvideo:{name}"
    if name not in (known := known_models()):
        raise ConfigError(
            item, "pytorchvideo's hub has no such model", f"did you mean pytorchvideo:{nearest(name, known)}?"
        )
    constructor = getattr(hub, name)
    network = _build(name, constructor, options)
    warnings: tuple[str, ...] = ()
    if weights is None:
        warnings = (f"{item}: {UNTRAINED}",)
        log.warning("box=%s %s", item, UNTRAINED)
    elif weights == "DEFAULT":
        url = _checkpoint_url(name, constructor)
        load = torch.hub.load_state_dict_from_url
        state = fetched(lambda: load(url, progress=False, map_location="cpu", weights_only=True), item)
        load_weights(network, unwrap(state, url), url)
    else:
        load_weights(network, read_weights(weights), weights)
    return TorchBox(_adapt(name, network), _spec(name, with_labels="num_classes" not in options), warnings=warnings)


def _build(name: str, constructor: Any, options: Mapping[str, str]) -> nn.Module:
    # The constructor's own default is Kinetics' 400, but its weights are ImageNet's.
    arguments = {"head_num_classes": 1000} if name == "mvit_base_16" else {}
    if "num_classes" in options:
        called = next((argument for part, argument in _CLASS_ARGUMENTS if part in name), "model_num_class")
        arguments[called] = int(options["num_classes"])
    with fixed_seed():
        network: nn.Module = constructor(pretrained=False, **arguments)
    return network


def _adapt(name: str, network: nn.Module) -> nn.Module:
    """The network as a function of one clip that returns logits (or log-probabilities, which are logits too)."""
    for head in network.modules():
        activation = getattr(head, "activation", None)
        if isinstance(activation, nn.Softmax) and hasattr(head, "output_pool"):
            head.activation = nn.LogSoftmax(dim=1)
            head.output_pool = LogMeanExp()
        elif isinstance(activation, nn.Sigmoid) and hasattr(head, "roi_layer"):
            head.activation = nn.Identity()
    if name.startswith("slowfast"):
        network = Pathways(network)
    return WholeFrame(network) if name.endswith("_detection") else network


def _checkpoint_url(name: str, constructor: Any) -> str:
    """The address that the hub's own module keeps for this constructor's weights."""
    import sys

    module: ModuleType = sys.modules[constructor.__module__]
    paths: Mapping[str, str] = getattr(module, "checkpoint_paths", None) or module._checkpoint_paths
    return paths[name]


def _spec(name: str, *, with_labels: bool) -> BoxSpec:
    fields = {"name": f"pytorchvideo:{name}", **built_in_fields(f"pytorchvideo:{name}")}
    if with_labels and not name.endswith("_detection"):
        fields["labels"] = _labels("resnet18" if name == "mvit_base_16" else "r3d_18")
    return make_spec(fields, f"pytorchvideo:{name}")


def _labels(twin: str) -> tuple[str, ...]:
    """The class names that a torchvision model of the same data set (ImageNet-1k, Kinetics-400) carries."""
    from torchvision import models

    return tuple(models.get_model_weights(twin).DEFAULT.meta["categories"])
