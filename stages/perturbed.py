"""Perturbed clips, rendered where a batch of them is wanted. In: clips on a device, masks as recipes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stages.masks import grids_of, render_masks
from stages.records import ClipId, MaskBatch
from stages.substrates import apply_mask

# Masks rendered at a time, straight into the batch: few enough to stay in the processor's cache.
RENDER_SLICE = 32


@dataclass(slots=True, eq=False)
class LoadedClip:
    """A clip on the device: frames and substrate, both T C H W in [0, 1]."""

    frames: Tensor
    substrate: Tensor


class Perturbed:
    """The perturbed clips of a request, as one long sequence that is rendered only where it is looked at."""

    def __init__(self, batches: tuple[MaskBatch, ...], loaded: Mapping[ClipId, LoadedClip], *, is_freeze: bool) -> None:
        self.batches = batches
        self.loaded = loaded
        self.is_freeze = is_freeze

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def render(self, start: int, stop: int) -> Float[Tensor, "n t c h w"]:
        """The perturbed clips [start, stop) of the sequence, on the device."""
        stop = min(stop, len(self))
        first = self.loaded[self.batches[0].clip_id].frames
        out = first.new_empty((stop - start, *first.shape))
        done = 0
        for piece in self._pieces(start, stop):
            for offset in range(0, len(piece), RENDER_SLICE):
                masks = piece.rows(offset, min(offset + RENDER_SLICE, len(piece)))
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
        t, _, h, w = clip.frames.shape
        grids = torch.from_numpy(grids_of(masks).copy()).to(clip.frames.device)
        keep = render_masks(grids, (t, h, w))
        apply_mask(clip.frames, keep, clip.substrate, is_freeze=self.is_freeze, out=out)
