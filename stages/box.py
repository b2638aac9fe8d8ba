"""The black box: what a model is to heatreel. Frames in, scores of all classes out, and a spec that says how.

Specs are YAML files in `configs/models/`; `models.py` builds boxes from names such as `torchvision:r3d_18`.
"""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from stages.base import Settings
from stages.errors import ConfigError, ModelError

ResizeRule = Literal["short_side_crop", "squash", "letterbox"]
ScoresKind = Literal["logits", "probabilities", "top_k"]

# A probability of zero was rounded, or not named by a top-k answer: it counts as this (docs/method.md, 0), or as the
# smallest that the box did give, which may be less. Networks of a thousand classes give many that are far below.
PROBABILITY_FLOOR = 1e-6
SMALLEST_PROBABILITY = 1e-12


class BoxSpec(Settings):
    """Everything the pipeline must know of a box besides how to call it.

    A clip is `clip_len` frames, `frame_step` source frames apart, each brought to `height` x `width` by `resize`:
    short_side_crop (shorter side to `short_side`, then centre crop), squash (aspect ratio not kept) or letterbox (kept,
    bars in the mean colour). Resizing is bilinear; `antialias: false` suits networks trained on the plain kind (OpenCV,
    TensorFlow, the video models of torchvision and pytorchvideo). The box receives RGB in [0, 1]; `channel_order`,
    `value_scale`, `mean` and `std` describe the normalisation that it applies itself: (value_scale * x - mean) / std.
    `frames`: "clip" hands the clip over whole; "mean" means a 2-D model whose logits are averaged over the frames.
    """

    name: str
    clip_len: int = Field(default=1, ge=1)
    frame_step: int = Field(default=1, ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    resize: ResizeRule = "short_side_crop"
    short_side: int | None = None
    antialias: bool = True
    channel_order: Literal["rgb", "bgr"] = "rgb"
    value_scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    frames: Literal["clip", "mean"] = "clip"
    scores: ScoresKind = "logits"
    labels: tuple[str, ...] = ()
    batch_size: int | None = Field(default=None, ge=1, description="None: found by trying, once per device")

    @model_validator(mode="after")
    def _short_side_covers_the_crop(self) -> "BoxSpec":
        if self.short_side is not None and self.short_side < min(self.height, self.width):
            raise ValueError(f"short_side {self.short_side} is smaller than the crop {self.height}x{self.width}")
        return self

    @property
    def clip_span(self) -> int:
        """Source frames from the first to one past the last frame of a clip."""
        return self.frame_step * (self.clip_len - 1) + 1

    def label(self, class_idx: int) -> str:
        """The class's name, or "class N" when the spec names none."""
        return self.labels[class_idx] if class_idx < len(self.labels) else f"class {class_idx}"


class BlackBox(Protocol):
    """A model behind its spec. Only the scores are used; nothing else is known of it."""

    @property
    def spec(self) -> BoxSpec:
        """Geometry, normalisation, kind of scores and labels."""
        ...

    @property
    def weights_sha256(self) -> str:
        """Fingerprint of the weights (or of the endpoint), for the manifest and for resume."""
        ...

    @property
    def device(self) -> torch.device:
        """Where frames must lie."""
        ...

    def to(self, device: torch.device) -> "BlackBox":
        """Move the model; returns the box itself."""
        ...

    def __call__(self, frames: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n k"]:
        """Scores, of the spec's kind, for RGB clips in [0, 1] on the box's device."""
        ...


@runtime_checkable
class OpenBox(Protocol):
    """A box that shows its PyTorch module: box(frames) is read(module(prepare(frames)), len(frames)), with gradients.

    Only comparators and priors that are made of gradients look inside.
    """

    module: nn.Module

    def prepare(self, frames: Float[Tensor, "n t c h w"]) -> Tensor:
        """Clips as the module wants them: normalised, its axes in order, one row for each clip or frame."""
        ...

    def read(self, answer: object, num_clips: int) -> Float[Tensor, "n k"]:
        """The scores of clips in what the module returned."""
        ...


def to_log_scores(raw: Float[Tensor, "n k"], spec: BoxSpec) -> Float[Tensor, "n k"]:
    """Scores of any kind as log-scores z whose softmax is p (docs/method.md, 0).

    Logits pass through. Probabilities become log p - mean log p, zeros counting as at most 1e-6; a top-k answer (zeros
    elsewhere) first spreads the rest of the mass evenly over the unnamed classes. What that hides: `score_kinds.py`.
    Raises ModelError for NaN, infinity, a wrong shape or probabilities outside [0, 1].
    """
    if raw.ndim != 2 or raw.shape[1] < 2:
        raise ModelError(
            spec.name,
            f"the box returned shape {tuple(raw.shape)} instead of (masks, classes)",
            "return one row of at least two class scores per clip",
        )
    if not bool(torch.isfinite(raw).all()):
        raise ModelError(spec.name, "the box returned NaN or infinite scores", "check its input range and its weights")
    raw = raw.float()
    if spec.scores == "logits":
        return raw
    if float(raw.detach().min()) < -1e-6 or float(raw.detach().max()) > 1 + 1e-4:
        raise ModelError(
            spec.name, f"scores outside [0, 1] although the spec says {spec.scores}", "set scores: logits in the spec"
        )
    if spec.scores == "top_k":
        unnamed = raw <= 0
        rest = (1 - raw.sum(1, keepdim=True)).clamp_min(0) / unnamed.sum(1, keepdim=True).clamp_min(1)
        raw = torch.where(unnamed, rest, raw)
    smallest = raw.masked_fill(raw <= 0, torch.inf).amin(1, keepdim=True)
    log_p = torch.maximum(raw, smallest.clamp(SMALLEST_PROBABILITY, PROBABILITY_FLOOR)).log()
    return log_p - log_p.mean(1, keepdim=True)


def class_index(name: str, spec: BoxSpec, num_classes: int) -> int:
    """The class that `name` means: an index, a label, or the one label that contains it (case is ignored).

    Raises ConfigError, naming the nearest labels, when nothing or more than one label fits.
    """
    from difflib import get_close_matches

    if name.isdigit():
        if int(name) < num_classes:
            return int(name)
        raise ConfigError(f"target {name}", f"{spec.name} has {num_classes} classes", "give an index from 0 below that")
    wanted = name.strip().lower()
    labels = [label.lower() for label in spec.labels]
    # ImageNet-style labels hold synonyms: "goldfish, Carassius auratus".
    for idx, label in enumerate(labels):
        if wanted == label or wanted in [part.strip() for part in label.split(",")]:
            return idx
    inside = [idx for idx, label in enumerate(labels) if wanted in label]
    if len(inside) == 1:
        return inside[0]
    near = [labels[idx] for idx in inside[:3]] or get_close_matches(wanted, labels, n=3, cutoff=0.4) or labels[:3]
    hint = "did you mean " + " or ".join(repr(label) for label in near) + "?" if near else "give a class index"
    raise ConfigError(f"target {name!r}", f"{spec.name} has no such class", hint)
