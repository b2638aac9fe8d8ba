"""Perturbed clips, rendered where the box is: recipes of masks and clips on the device -> a batch for the box.

Nothing here waits for the device, so that it is given the next work while it still does the last.
"""

import math
import mmap
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.masks import grids_of, render_masks
from stages.records import ClipId, MaskBatch
from stages.substrates import apply_mask

# Masks rendered at a time on a processor, straight into the batch: fewer are slower, more only take more memory.
RENDER_SLICE = 8


@dataclass(slots=True, eq=False)
class LoadedClip:
    """A clip on the device, all T C H W: frames and substrate in [0, 1], and both as the box is asked with them."""

    frames: Tensor
    substrate: Tensor
    shown: Tensor
    hidden: Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of `array` on the device. To CUDA it goes through page-locked memory, and nobody waits for it."""
    # Arrays from the object store are read-only, and torch wants to own what it wraps.
    tensor = torch.from_numpy(array.copy())
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Room:
    """Where one batch after the other lies: on a processor in pages of its own, elsewhere where torch puts it.

    Fresh pages cost a processor as much as the masks, so they are used again once nobody holds the batch before (a
    foreign box may keep what it is given). In the heap, small blocks that live on would settle where the batch was, and
    the next one would need other pages.
    """

    def __init__(self) -> None:
        self._pages: mmap.mmap | None = None
        self._holder: weakref.ref[memoryview] | None = None

    def batch(self, count: int, like: Tensor) -> Tensor:
        """`count` times the shape of `like`, its type, device and order of axes. Raises OSError: no memory left."""
        shape, strides = (count, *like.shape), (like.numel(), *like.stride())
        if like.device.type != "cpu":
            return torch.empty_strided(shape, strides, dtype=like.dtype, device=like.device)
        nbytes = math.prod(shape) * like.element_size()
        is_held = self._holder is not None and self._holder() is not None
        if self._pages is None or is_held or len(self._pages) < nbytes:
            self._pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        view = memoryview(self._pages)  # torch holds it for as long as anything lies in this memory
        self._holder = weakref.ref(view)
        return torch.frombuffer(view, dtype=like.dtype, count=math.prod(shape)).as_strided(shape, strides)


class Perturbed:
    """The perturbed clips of a request, as one long sequence that is rendered only where it is looked at."""

    def __init__(self, batches: tuple[MaskBatch, ...], loaded: Mapping[ClipId, LoadedClip], *, is_freeze: bool) -> None:
        self.batches = batches
        self.loaded = loaded
        self.is_freeze = is_freeze

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def render(self, start: int, stop: int, room: Room) -> Float[Tensor, "n t c h w"]:
        """The perturbed clips [start, stop) of the sequence, on the device, with the clips' order of axes in memory."""
        stop = min(stop, len(self))
        out = room.batch(stop - start, self.loaded[self.batches[0].clip_id].shown)
        done = 0
        step = RENDER_SLICE if out.device.type == "cpu" else len(out)
        for piece in self._pieces(start, stop):
            for offset in range(0, len(piece), step):
                masks = piece.rows(offset, min(offset + step, len(piece)))
                self._render_piece(masks, out[done : done + len(masks)])
                done += len(masks)
        return out

    def _pieces(self, start: int, stop: int) -> Iterator[MaskBatch]:
        for batch in self.batches:
            if start < len(batch) and stop > 0:
                yield batch.rows(max(start, 0), min(stop, len(batch)))
            start, stop = start - len(batch), stop - len(batch)

    def _render_piece(self, masks: MaskBatch, out: Tensor) -> None:
        clip = self.loaded[masks.clip_id]
        t, _, h, w = clip.shown.shape
        keep = render_masks(to_device(grids_of(masks), clip.shown.device), (t, h, w))
        apply_mask(clip.shown, keep, clip.hidden, is_freeze=self.is_freeze, out=out)
