"""Boxes around PyTorch modules and around plain functions: the only place where frames are permuted and normalised.

In: RGB clips N T C H W in [0, 1]. Out: the scores of all classes, N K.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.box import BoxSpec
from stages.errors import ModelError
from stages.models_weights import weights_sha256

Layout = Literal["ncthw", "ntchw", "nchw"]


def normalise(frames: Float[Tensor, "n t c h w"], spec: BoxSpec) -> Float[Tensor, "n t c h w"]:
    """(value_scale * x - mean) / std in the spec's channel order; the input is left as it is."""
    if spec.channel_order == "bgr":
        frames = frames.flip(2)
    if spec.value_scale == 1.0 and not any(spec.mean) and all(value == 1.0 for value in spec.std):
        return frames
    gain, shift = _gain_and_shift(spec.value_scale, spec.mean, spec.std, frames.dtype, frames.device)
    return torch.addcmul(shift, frames, gain)


@lru_cache(maxsize=16)
def _gain_and_shift(
    value_scale: float, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Made once: a transfer to the device for every batch would wait for all that the device has to do."""
    with torch.inference_mode(mode=False):
        spread = torch.tensor(std, dtype=dtype, device=device).view(-1, 1, 1)
        return value_scale / spread, -torch.tensor(mean, dtype=dtype, device=device).view(-1, 1, 1) / spread


@final
class TorchBox:
    """A PyTorch module behind a spec.

    `layout` is what the module wants: "ncthw" (3-D networks), "ntchw" (recurrent networks and transformers) or "nchw"
    (image networks: one frame, or T frames whose scores are averaged when the spec says `frames: mean`). None: "nchw"
    for image boxes and frame means, else "ncthw". `warnings` belong in front of whoever reads the results.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: BoxSpec,
        *,
        layout: Layout | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        is_flat = spec.frames == "mean" or spec.clip_len == 1
        if spec.frames == "mean" and layout not in (None, "nchw"):
            raise ModelError(spec.name, f"frames: mean needs an image model, not {layout}", "set frames: clip")
        self.module = module.eval().requires_grad_(requires_grad=False)
        self.layout: Layout = layout or ("nchw" if is_flat else "ncthw")
        self.warnings = tuple(warnings)
        self._spec = spec
        self._weights_sha256 = weights_sha256(module)
        self._device = next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))

    @property
    def spec(self) -> BoxSpec:
        """How the box wants its frames and what its scores are."""
        return self._spec

    @property
    def weights_sha256(self) -> str:
        """Fingerprint of all parameters and buffers as they were when the box was built."""
        return self._weights_sha256

    @property
    def device(self) -> torch.device:
        """Where the module lives and frames are expected."""
        return self._device

    def to(self, device: torch.device) -> "TorchBox":
        """Move the module; returns the box itself."""
        self.module.to(device)
        self._device = torch.device(device)
        return self

    def with_spec(self, spec: BoxSpec) -> "TorchBox":
        """The same module behind another spec."""
        layout = None if self.layout == "nchw" else self.layout
        return TorchBox(self.module, spec, layout=layout, warnings=self.warnings).to(self._device)

    def __call__(self, frames: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n k"]:
        """Scores of the spec's kind for RGB clips in [0, 1]."""
        return self.ask(normalise(frames, self._spec))

    @torch.inference_mode()
    def ask(self, clips: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n k"]:
        """The same for clips that are normalised already; nothing is copied where they came from `normalised`."""
        return self.read(self.module(self._arranged(clips)), len(clips))

    def normalised(self, frames: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n t c h w"]:
        """Clips as the module wants them, in memory in its own order of axes.

        Every voxel is treated alone and alike: a blend of such clips is the clip of the blend, normalised.
        """
        clips = normalise(frames, self._spec)
        return clips.transpose(1, 2).contiguous().transpose(1, 2) if self.layout == "ncthw" else clips

    def prepare(self, frames: Float[Tensor, "n t c h w"]) -> Tensor:
        """Normalised clips in the module's layout; for image networks a row for each frame."""
        return self._arranged(normalise(frames, self._spec))

    def _arranged(self, clips: Float[Tensor, "n t c h w"]) -> Tensor:
        t = clips.shape[1]
        if self.layout == "nchw" and t > 1 and self._spec.frames != "mean":
            raise ModelError(
                self._spec.name, f"an image model was given clips of {t} frames", "set frames: mean in the spec"
            )
        if self.layout == "ncthw":
            return clips.transpose(1, 2).contiguous()
        return clips if self.layout == "ntchw" else clips.flatten(0, 1)

    def read(self, answer: object, num_clips: int) -> Float[Tensor, "n k"]:
        """The scores of clips; those of an image network's frames are averaged."""
        scores = as_scores(answer, self._spec)
        if self.layout != "nchw" or len(scores) == num_clips:
            return scores
        return scores.view(num_clips, len(scores) // num_clips, -1).mean(1)


class CallableBox:
    """A plain function behind a spec: it gets normalised clips N T C H W and returns N x K scores.

    `arrays`: "torch" hands over tensors on the box's device, "numpy" float32 arrays; either may come back.
    `fingerprint` goes into the manifest in the place of a hash of weights.
    """

    def __init__(
        self,
        function: Callable[..., object],
        spec: BoxSpec,
        *,
        arrays: Literal["torch", "numpy"] = "torch",
        fingerprint: str = "",
        warnings: Sequence[str] = (),
    ) -> None:
        self.function = function
        self.arrays = arrays
        self.warnings = tuple(warnings)
        where = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
        self.fingerprint = fingerprint or hashlib.sha256(f"{spec.name}|{where}".encode()).hexdigest()
        self._spec = spec
        self._device = torch.device("cpu")

    @property
    def spec(self) -> BoxSpec:
        """How the function wants its frames and what its scores are."""
        return self._spec

    @property
    def weights_sha256(self) -> str:
        """The fingerprint given by whoever built the box."""
        return self.fingerprint

    @property
    def device(self) -> torch.device:
        """Where frames are expected."""
        return self._device

    def to(self, device: torch.device) -> "CallableBox":
        """Hand frames over on this device from now on (the function itself decides where it computes)."""
        self._device = torch.device(device)
        return self

    def with_spec(self, spec: BoxSpec) -> "CallableBox":
        """The same function behind another spec."""
        return CallableBox(
            self.function, spec, arrays=self.arrays, fingerprint=self.fingerprint, warnings=self.warnings
        ).to(self._device)

    @torch.inference_mode()
    def __call__(self, frames: Float[Tensor, "n t c h w"]) -> Float[Tensor, "n k"]:
        """Scores of the spec's kind for RGB clips in [0, 1]."""
        clips = normalise(frames, self._spec)
        answer = self.function(clips.float().cpu().numpy() if self.arrays == "numpy" else clips)
        return as_scores(answer, self._spec).to(frames.device)


def as_scores(answer: object, spec: BoxSpec) -> Float[Tensor, "n k"]:
    """The tensor of scores in what a model returned: a tensor, an array, an object with `.logits`, or a sequence.

    Raises ModelError when there is none. Shapes and values are checked by `box.to_log_scores`.
    """
    if isinstance(answer, Mapping):
        answer = answer.get("logits", answer)
    answer = getattr(answer, "logits", answer)
    if isinstance(answer, tuple | list) and answer and isinstance(answer[0], Tensor | np.ndarray):
        answer = answer[0]
    if isinstance(answer, np.ndarray):
        answer = torch.from_numpy(np.ascontiguousarray(answer))
    if not isinstance(answer, Tensor):
        kind = type(answer).__name__
        raise ModelError(spec.name, f"the box returned {kind} instead of scores", "return a tensor or array, N x K")
    return answer
