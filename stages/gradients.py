"""Inside a torch box: a copy of its module that gradients can pass, Captum's methods on it, and masks fitted by them.

In: a clip on its device. Out: a map on the voxel grid. A pass through the model is one evaluation (`questions.py`).
"""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from stages.box import BlackBox, BoxSpec, OpenBox, to_log_scores
from stages.errors import ConfigError, ExplainError, NumericsError
from stages.memory_errors import memory_errors_alike
from stages.models_spec import nearest
from stages.models_torch import as_scores
from stages.questions import CAPTUM_PREFIX, CaptumMethod
from stages.regrid import regrid

Found = tuple[Float32[np.ndarray, "gt gh gw"], Float32[np.ndarray, " k"]]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# What Captum's LRP has no rule for although its own rules fit.
WITH_EPSILON_RULE = (
    nn.Conv1d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm3d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool3d,
    nn.Flatten,
)
WITH_IDENTITY_RULE = (nn.Identity,)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A clip's view into a box: `box` reads and prepares, `module` is the copy that gradients pass."""

    box: OpenBox
    spec: BoxSpec
    module: nn.Module

    def log_scores(self, frames: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n k"]:
        """Log-scores of clips, with gradients."""
        return to_log_scores(self.box.read(self.module(self.box.prepare(frames)), len(frames)), self.spec)


class _Rows(nn.Module):
    """The module as Captum wants it: scores for every row of its input; the first answer is kept."""

    def __init__(self, module: nn.Module, spec: BoxSpec) -> None:
        super().__init__()
        self.module = module
        self.spec = spec
        self.first: Tensor | None = None

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of all classes, a row for each clip or frame."""
        scores = as_scores(self.module(rows), self.spec)
        if self.first is None:
            self.first = scores.detach().clone()
        return scores


def opened(box: BlackBox, what: str) -> Opened:
    """A copy of the box's module in which nothing works in place. Raises ConfigError for a box that shows none."""
    if not isinstance(box, OpenBox) or not isinstance(box.module, nn.Module):
        remedy = "use --prior rise or captum:Lime, or have the factory return (torch.nn.Module, BoxSpec)"
        raise ConfigError(what, f"{box.spec.name} is a black box: it shows no PyTorch module", remedy)
    with torch.inference_mode(mode=False):
        module = copy.deepcopy(box.module)
    for part in module.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]  # a flag of torch's activations
    return Opened(box, box.spec, module.requires_grad_(requires_grad=False))


def layer_of(inside: Opened, method: CaptumMethod) -> nn.Module | None:
    """The layer a method looks at: the named one, or the last convolution run whose output is more than a point.

    Raises ConfigError for an unknown layer, naming the nearest, and for a model without convolution modules.
    """
    if method.name not in ("LayerGradCam", "GuidedGradCam"):
        return None
    item = f"prior {CAPTUM_PREFIX}{method.name}"
    known = {name: part for name, part in inside.module.named_modules() if name}
    if method.layer is not None:
        if method.layer not in known:
            near = f"did you mean {nearest(method.layer, known)}?" if known else "leave the layer out"
            raise ConfigError(f"{item}@{method.layer}", f"{inside.spec.name} has no such layer", near)
        layer: nn.Module = known[method.layer]
        return layer
    found: list[nn.Module] = []

    def note(part: nn.Module, given: object, answer: object) -> None:
        if isinstance(answer, Tensor) and answer.ndim > 3 and max(answer.shape[-2:]) > 1:
            found.append(part)

    with _hooked([part for part in known.values() if isinstance(part, CONVOLUTIONS)], note), _foreign(item, inside):
        inside.module(_blank(inside))
    if not found:
        fact = f"{inside.spec.name} has no convolution that is a module of its own"
        raise ConfigError(item, fact, f"name a layer: {CAPTUM_PREFIX}{method.name}@LAYER")
    return found[-1]


def expect_no_reuse(inside: Opened) -> None:
    """Raise ConfigError, naming the module, where LRP would lie because a module runs more than once."""
    item, names = f"prior {CAPTUM_PREFIX}LRP", {part: name for name, part in inside.module.named_modules()}
    runs: Counter[nn.Module] = Counter()
    leaves = [part for part in inside.module.modules() if not list(part.children())]
    with _hooked(leaves, lambda part, given, answer: runs.update([part])), _foreign(item, inside):
        inside.module(_blank(inside))
    reused = [names[part] for part, times in runs.items() if times > 1]
    if reused:
        fact = f"{inside.spec.name} runs its module {reused[0]} more than once, which LRP cannot follow"
        raise ConfigError(item, fact, f"use {CAPTUM_PREFIX}LayerGradCam")


def captum_map(
    inside: Opened,
    method: CaptumMethod,
    layer: nn.Module | None,
    frames: Float[Tensor, "t c h w"],
    target: int,
    grid: tuple[int, int, int],
) -> Found:
    """Captum's signed map of the target's score, and the scores of the untouched clip; `layer` is that of `layer_of`.

    Raises ConfigError where Captum or the module does not support it, saying what was not supported.
    """
    attr = captum_methods()
    item = f"prior {CAPTUM_PREFIX}{method.name}"
    rows = inside.box.prepare(frames[None]).detach().requires_grad_()
    model = _Rows(inside.module, inside.spec)
    with _foreign(item, inside):
        if method.name == "LRP":
            _give_rules(inside.module)
            found = attr.LRP(model).attribute(rows, target=target)
        else:
            found = getattr(attr, method.name)(model, layer).attribute(rows, target=target)
    if not isinstance(found, Tensor):
        raise ConfigError(
            item, "the layer returns several tensors", f"name another: {CAPTUM_PREFIX}{method.name}@LAYER"
        )
    assert model.first is not None, "the module has not been run"
    scores = to_log_scores(inside.box.read(model.first, 1), inside.spec)[0]
    values = regrid(_as_map(found.detach(), len(frames), item), grid).astype(np.float32)
    if not np.isfinite(values).all():
        raise NumericsError(item, "the map is not finite", f"use {CAPTUM_PREFIX}LayerGradCam, or another prior")
    return values, scores.cpu().numpy()


def captum_methods() -> Any:
    """captum.attr. Raises ConfigError where it is not installed."""
    try:
        import captum.attr
    except ImportError as error:
        raise ConfigError(
            "Captum's methods", "Captum is not installed", "pip install 'heatreel[captum]', or leave them out"
        ) from error
    return captum.attr


def _as_map(found: Tensor, num_frames: int, item: str) -> np.ndarray:
    """Rows x C x (T) H W, whatever of it there is, as (t, y, x): colours are summed, rows of frames become time."""
    maps = found
    if found.ndim == 4 and len(found) in (1, num_frames):
        maps = found.sum(1)
    elif found.ndim == 5 and len(found) == 1:
        # N C T H W or N T C H W: an input's colour axis is the one of three
        maps = found[0].sum(1) if found.shape[1] == num_frames and found.shape[2] == 3 else found[0].sum(0)
    if maps is found:
        shape = " x ".join(str(side) for side in found.shape)
        raise ConfigError(item, f"the layer's map has the shape {shape}", "name a layer that keeps rows and columns")
    array: np.ndarray = maps.double().cpu().numpy()
    return array


def _give_rules(module: nn.Module) -> None:
    """LRP rules for layers that Captum knows in 2-D only, and for those that do nothing; it takes them off again."""
    from captum.attr._utils.lrp_rules import EpsilonRule, IdentityRule

    for part in module.modules():
        if isinstance(part, WITH_EPSILON_RULE):
            part.rule = EpsilonRule()
        elif isinstance(part, WITH_IDENTITY_RULE):
            part.rule = IdentityRule()


def _blank(inside: Opened) -> Tensor:
    """A grey clip, as the module wants it."""
    spec = inside.spec
    device = next((tensor.device for tensor in inside.module.state_dict().values()), torch.device("cpu"))
    return inside.box.prepare(torch.full((1, spec.clip_len, 3, spec.height, spec.width), 0.5, device=device))


@contextmanager
def _hooked(parts: list[nn.Module], hook: Any) -> Iterator[None]:
    handles = [part.register_forward_hook(hook) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _foreign(item: str, inside: Opened) -> Iterator[None]:
    """Captum and the user's module are foreign code: what they raise becomes one line."""
    try:
        with memory_errors_alike():
            yield
    except (ExplainError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # foreign code, as in score.py
        words = str(error).strip().splitlines() or ["no message"]
        fact = f"{inside.spec.name} does not support it ({type(error).__name__}: {words[0]})"
        raise ConfigError(item, fact, f"use {CAPTUM_PREFIX}LayerGradCam@LAYER, rise, or another prior") from error
