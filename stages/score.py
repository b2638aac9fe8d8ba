"""3  MaskBatch + Clip -> Scores: the only place a model is called.

Masks of several clips share a batch. They are rendered here, beside the model, slice by slice; a clip and its substrate
stay on the device under the clip's id. The stage finds its batch size once and halves it when memory runs out.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from pydantic import Field
from torch import Tensor

from stages.attributions import Attributor, Subject
from stages.base import Settings
from stages.box import BlackBox, to_log_scores
from stages.errors import ExplainError, ModelError, ResourceError
from stages.memory_errors import memory_errors_alike
from stages.models_torch import TorchBox
from stages.perturbed import LoadedClip, Perturbed, Room, to_device
from stages.records import Clip, ClipId, MaskBatch, Scores
from stages.seeds import clip_rng
from stages.substrates import make_substrate
from stages.tuning import BATCH_SIZES, Tuning, find_batch_size, rate_of, try_batch_size

logger = logging.getLogger(__name__)


class ScoreConfig(Settings):
    """How the box is run: substrate, device, precision, batch size (None: found by trying, once).

    bf16 runs the box under torch's autocast: matrix products and convolutions in bfloat16, sums and normalisations in
    float32. Scores change by about a part in 100, so it is part of the fingerprint. fp32 leaves torch's switches as
    they are: by torch's default, convolutions (not matrix products) on CUDA round to TF32, about a part in 1,000.
    """

    substrate: Literal["blur", "mean", "noise", "freeze", "median"] = Field(
        default="blur", description="what replaces a hidden voxel: blur, mean, noise, freeze, median"
    )
    device: str = Field(default="auto", description="auto: cuda when there is one; else a torch device name")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="fp32, or bf16: autocast, scores change by about 1 in 100"
    )
    batch_size: int | None = Field(default=None, ge=1, description="None: found by trying, once per device")
    max_batch_bytes: int = Field(default=2 << 30, ge=1 << 20, description="bound of one batch of perturbed clips")
    cached_clips: int = Field(default=8, ge=1, description="clips that a scorer keeps on its device")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Pieces of mask batches, of any clips. A clip may be given as a function that fetches it when it is not cached."""

    batches: tuple[MaskBatch, ...]
    clips: Mapping[ClipId, Clip | Callable[[], Clip]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreResult:
    """Scores in the order of the request, and the seconds that fetching and scoring took."""

    scores: tuple[Scores, ...]
    seconds: float


class Score:
    """Asks the box about perturbed clips. `load` builds the box in the process that will use it.

    `asks_inside`: what refinement will ask of the model itself (`RefineConfig.asks_inside`), to be refused at once.
    """

    def __init__(
        self, config: ScoreConfig, load: Callable[[], BlackBox], *, seed: int = 0, asks_inside: str | None = None
    ) -> None:
        self.config = config
        self.load = load
        self.seed = seed
        self.asks_inside = asks_inside
        self._attributor: Attributor | None = None
        self._box: BlackBox | None = None
        self._loaded: OrderedDict[ClipId, LoadedClip] = OrderedDict()
        self._batch_size = config.batch_size
        self._room = Room()

    @property
    def box(self) -> BlackBox:
        """The model; `setup` must have run."""
        assert self._box is not None, "setup() has not run"
        return self._box

    def setup(self) -> None:
        """Build the box and bring it to its device. Raises ConfigError when it cannot answer `asks_inside`."""
        self._box = self.load().to(pick_device(self.config.device))
        self._attributor = Attributor(self._box)
        if self.asks_inside is not None:
            self._attributor.expect_possible(self.asks_inside)

    def close(self) -> None:
        """Forget the model and the cached clips."""
        self._box = self._attributor = None
        self._room = Room()
        self._loaded.clear()

    def process(self, request: ScoreRequest, /) -> ScoreResult:
        """Scores of all classes for every mask. Raises ModelError when the box fails or answers nonsense."""
        start = time.perf_counter()
        loaded = {batch.clip_id: self._load_clip(batch.clip_id, request.clips) for batch in request.batches}
        plain = tuple(batch for batch in request.batches if batch.attribution is None)
        values = self._values(plain, loaded)
        scores = []
        offset = 0
        for batch in request.batches:
            if batch.attribution is not None:
                scores.append(self._attribute(batch, loaded[batch.clip_id]))
                continue
            scores.append(
                Scores(
                    clip_id=batch.clip_id,
                    round_idx=batch.round_idx,
                    ids=batch.ids,
                    values=values[offset : offset + len(batch)],
                )
            )
            offset += len(batch)
        return ScoreResult(scores=tuple(scores), seconds=time.perf_counter() - start)

    def tune(self) -> Tuning:
        """Find the smallest batch size with about the most evaluations per second of the bare model, or try the given.

        The model is run on noise in a tight loop, without masks (`tuning.py`).
        """
        fixed = self.config.batch_size or self.box.spec.batch_size

        def fits(size: int) -> bool:
            return size * self._bytes_per_clip() <= self.config.max_batch_bytes

        if fixed:
            found = try_batch_size(self._bare_rate, fixed)
        else:
            found = find_batch_size(self._bare_rate, [1, *filter(fits, BATCH_SIZES[1:])])
        self._batch_size = found.batch_size
        if fixed and found.batch_size < fixed:
            self._log_halved(found.batch_size)
        return found

    def _values(
        self, batches: tuple[MaskBatch, ...], loaded: Mapping[ClipId, LoadedClip]
    ) -> Float32[np.ndarray, "n k"]:
        perturbed = Perturbed(batches, loaded, is_freeze=self.config.substrate == "freeze")
        rows: list[np.ndarray] = []
        while len(rows) < len(perturbed):
            rows += self._score_some(perturbed, len(rows))
        return np.asarray(rows, np.float32)

    def _attribute(self, batch: MaskBatch, loaded: LoadedClip) -> Scores:
        """The maps that a round asks for instead of scores; always in single precision."""
        assert self._attributor is not None, "setup() has not run"

        def ask(grids: UInt8[np.ndarray, "n gt gh gw"]) -> Float32[np.ndarray, "n k"]:
            masks = MaskBatch(clip_id=batch.clip_id, round_idx=0, ids=np.arange(len(grids)), grids=grids)
            return self._values((masks,), {batch.clip_id: loaded})

        is_freeze = self.config.substrate == "freeze"
        subject = Subject(frames=loaded.frames, substrate=loaded.substrate, is_freeze=is_freeze, ask=ask)
        try:
            with memory_errors_alike():
                return self._attributor.answer(batch, subject)
        except torch.OutOfMemoryError as error:
            fact = f"the gradients of one clip do not fit on {self.box.device} ({error})"
            raise ResourceError(self.box.spec.name, fact, "use a larger device, or --prior rise") from error

    def _score_some(self, perturbed: Perturbed, start: int) -> list[np.ndarray]:
        """Score the next device batch; on out-of-memory halve the batch, remember that, and try again."""
        while True:
            size = self._batch_size or self.box.spec.batch_size or min(BATCH_SIZES[-1], 32)
            frames = None
            try:
                with torch.inference_mode(), memory_errors_alike():
                    frames = self._render(perturbed, start, start + size)
                    return list(self._fetch(self._ask(frames), len(frames)).numpy())
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise ResourceError(
                        self.box.spec.name,
                        f"one clip does not fit on {self.box.device} ({error})",
                        "use a larger device or a smaller input",
                    ) from error
                self._batch_size, self._room, frames = size // 2, Room(), None
                self._log_halved(self._batch_size)
            torch.cuda.empty_cache()  # out here, where the error no longer holds the batch

    def _log_halved(self, size: int) -> None:
        logger.warning("batch_size=%d model=%s reason=out_of_memory", size, self.box.spec.name)

    def _render(self, perturbed: Perturbed, start: int, stop: int) -> Float[Tensor, "n t c h w"]:
        return perturbed.render(start, stop, self._room)

    def _as_asked(self, frames: Float[Tensor, "t c h w"]) -> Float[Tensor, "t c h w"]:
        """Normalised once, not in every batch, where it is known that the box does nothing else before its module."""
        return self.box.normalised(frames[None])[0] if isinstance(self.box, TorchBox) else frames

    def _ask(self, frames: Float[Tensor, "n t c h w"]) -> object:
        """What the box answers, still on its device: nothing here waits for the device."""
        spec = self.box.spec
        try:
            is_bf16 = self.config.precision == "bf16"
            with memory_errors_alike(), torch.autocast(frames.device.type, torch.bfloat16, enabled=is_bf16):
                return self.box.ask(frames) if isinstance(self.box, TorchBox) else self.box(frames)
        except (ExplainError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the box is foreign code: whatever it raises is its answer
            raise ModelError(
                spec.name,
                f"the box raised {type(error).__name__}: {error}",
                f"call it on a float batch of shape {tuple(frames.shape)} by hand",
            ) from error

    def _fetch(self, raw: object, num: int) -> Float[Tensor, "n k"]:
        """The answer for `num` clips, checked, in host memory: one transfer, and the only wait of a batch."""
        spec = self.box.spec
        scores = to_log_scores(torch.as_tensor(raw).cpu(), spec)
        if len(scores) != num:
            raise ModelError(
                spec.name,
                f"the box answered {len(scores)} rows for {num} clips",
                "return one row of class scores per clip",
            )
        return scores

    def _load_clip(self, clip_id: ClipId, clips: Mapping[ClipId, Clip | Callable[[], Clip]]) -> LoadedClip:
        if clip_id in self._loaded:
            self._loaded.move_to_end(clip_id)
            return self._loaded[clip_id]
        given = clips[clip_id]
        clip = given() if callable(given) else given
        noise_seed = int(clip_rng(self.seed, clip_id, round_idx=0).integers(2**31))
        try:
            with memory_errors_alike():
                frames = to_device(clip.frames, self.box.device).float().div_(255)
                substrate = make_substrate(self.config.substrate, frames, noise_seed)
                loaded = LoadedClip(frames, substrate, *(self._as_asked(values) for values in (frames, substrate)))
        except torch.OutOfMemoryError as error:
            fact = f"the frames of clip {clip_id} do not fit on {self.box.device} ({error})"
            remedy = f"lower score.cached_clips (now {self.config.cached_clips}) or score.batch_size"
            raise ResourceError(self.box.spec.name, fact, remedy) from error
        self._loaded[clip_id] = loaded
        while len(self._loaded) > self.config.cached_clips:
            self._loaded.popitem(last=False)
        return loaded

    def _bytes_per_clip(self) -> int:
        spec = self.box.spec
        return 4 * 3 * spec.clip_len * spec.height * spec.width

    def _bare_rate(self, size: int) -> float:
        """Evaluations per second on a batch of noise."""
        spec = self.box.spec
        shape = (size, spec.clip_len, 3, spec.height, spec.width)
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(self.box.device)
        frames = self.box.normalised(noise) if isinstance(self.box, TorchBox) else noise
        with torch.inference_mode(), memory_errors_alike():
            return rate_of(partial(self._timed, frames), size)

    def _timed(self, frames: Tensor, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            answer = self._ask(frames)
        self._fetch(answer, len(frames))  # waits for the device
        return time.perf_counter() - start


def pick_device(name: str) -> torch.device:
    """The device by name; "auto" is CUDA when there is one. Raises ModelError when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name}", "is not available here", "use --device cpu or auto") from error
    return device
