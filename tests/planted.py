"""Tiny clips and black boxes whose evidence is known exactly, so that maps can be checked by number."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stages.box import BlackBox, BoxSpec
from stages.decode import Decode, DecodeConfig, DecodeRequest
from stages.masks import grid_for
from stages.records import Clip, ClipId, Geometry
from stages.score import Score, ScoreConfig
from stages.sources import probe

Cuboid = tuple[slice, slice, slice]


def textured_clip(
    shape: tuple[int, int, int] = (8, 32, 32), *, seed: int = 0, clip_idx: int = 0, start: int = 0, video_id: str = "v"
) -> Clip:
    """High-contrast texture that no substrate reproduces, so that hiding a voxel always shows."""
    t, h, w = shape
    frames = np.random.default_rng(seed).integers(0, 2, (t, 1, h, w), dtype=np.uint8) * 255
    return Clip(
        id=ClipId(video_id, clip_idx),
        frames=np.repeat(frames, 3, axis=1),
        frame_idx=np.arange(start, start + t),
        pts_s=np.arange(start, start + t) / 25.0,
        is_padded=np.zeros(t, bool),
        covers=(start, start + t),
        geometry=Geometry(source_h_px=h, source_w_px=w, model_h_px=h, model_w_px=w, scale_y=1.0, scale_x=1.0),
    )


def read_clip(path: Path, box: BlackBox, clip_idx: int, **settings: object) -> Clip:
    """One clip of real footage, as `box` wants it."""
    decode = Decode(DecodeConfig.model_validate(settings), box.spec)
    clip = decode.process(DecodeRequest(source=probe(str(path)), clip_idx=clip_idx)).clip
    decode.close()
    assert clip is not None
    return clip


@dataclass(eq=False)
class PlantedBox:
    """Logits that rise by `gain` times the share of a cuboid that still shows the original clip.

    `evidence[k]` lists (cuboid, gain) for class k. The box holds the untouched clip: a white box for the truth, a black
    one for heatreel. `calls` counts the clips it was asked about.
    """

    clip: Clip
    evidence: dict[int, list[tuple[Cuboid, float]]]
    num_classes: int = 3
    squash: Callable[[Tensor], Tensor] = lambda z: z
    calls: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    weights_sha256: str = "planted"

    @property
    def spec(self) -> BoxSpec:
        t, h, w = self.clip.shape
        return BoxSpec(name="planted", clip_len=t, height=h, width=w, resize="squash", batch_size=16)

    def to(self, device: torch.device) -> "PlantedBox":
        return self

    def __call__(self, frames: Tensor) -> Tensor:
        self.calls += len(frames)
        original = torch.from_numpy(self.clip.frames.copy()).float() / 255
        kept = 1 - (frames - original).abs().mean(2)  # n t h w, 1 where untouched
        logits = torch.zeros(len(frames), self.num_classes)
        for k, parts in self.evidence.items():
            for cuboid, gain in parts:
                logits[:, k] += gain * kept[(slice(None), *cuboid)].mean((1, 2, 3))
        return self.squash(logits)

    def truth(self, k: int) -> np.ndarray:
        """Signed evidence for class k on the posterior's grid: gain spread over the cuboid's cells."""
        shape = self.clip.shape
        full = np.zeros(shape)
        for cuboid, gain in self.evidence.get(k, []):
            full[cuboid] += gain
        gt, gh, gw = grid_for(shape)
        cells = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(full)[None], (gt, gh, gw))
        return cells[0].numpy()


def scorer(box: PlantedBox, **settings: object) -> Score:
    """A set-up scorer around a box."""
    score = Score(ScoreConfig.model_validate({"substrate": "mean", "device": "cpu", **settings}), lambda: box)
    score.setup()
    return score


def auc(values: np.ndarray, is_true: np.ndarray) -> float:
    """Area under the ROC curve of a map for a true region (Mann-Whitney)."""
    order = np.argsort(np.argsort(values.ravel(), kind="stable"), kind="stable") + 1.0
    positive = is_true.ravel()
    n, m = positive.sum(), (~positive).sum()
    return float((order[positive].sum() - n * (n + 1) / 2) / (n * m))
