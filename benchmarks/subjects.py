"""What the benchmarks explain: a model's scorer, clips of it, the class to explain, and the truth where known.

The demo model's clips are generated: seeds of the development half may be used to choose settings, those of the
evaluation half only to report. Seeds from 1,000,000 on trained the model. Real models: `real_subjects.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.content import content_of
from stages.demo.clips import random_clip
from stages.masks import Grid, grid_for
from stages.measure import two_first
from stages.metrics import cover_of_cells
from stages.models import load_box
from stages.records import Clip, ClipId, Geometry
from stages.regrid import regrid
from stages.score import Score, ScoreConfig

DEVELOPMENT_SEEDS = range(50_000, 50_060)
EVALUATION_SEEDS = range(60_000, 60_060)
Half = Literal["development", "evaluation"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """One clip to explain. `target` is the first answer; `wished` the class of the removal gain: the true class where
    the model is known to be wrong, else the runner-up. `truth`: cover of the target's object on the voxel grid."""

    name: str
    clip: Clip
    score: Score
    target: int
    wished: int
    truth: np.ndarray | None


def demo_subjects(seeds: range, num: int) -> Iterator[Subject]:
    """The first `num` generated clips of a half, with the demo model."""
    score = Score(ScoreConfig(device="cpu"), lambda: load_box("demo"))
    score.setup()
    for seed in seeds[:num]:
        scene = random_clip(seed)
        clip = plain_clip(ClipId(f"demo-{seed}", 0), np.ascontiguousarray(scene.frames.transpose(0, 3, 1, 2)))
        target, second = two_first(score, clip)
        is_right = target == scene.target_idx
        mask = scene.protagonist if is_right else scene.rival if target == scene.rival_idx else None
        yield Subject(
            name=clip.id.video_id,
            clip=clip,
            score=score,
            target=target,
            wished=second if is_right else scene.target_idx,
            truth=None if mask is None else cover_on_grid(mask, grid_for(clip.shape)),
        )


def cover_on_grid(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """The share of every voxel that a mask of pixels (t, y, x) covers."""
    return regrid(cover_of_cells(mask, grid[1:]), grid)


def plain_clip(clip_id: ClipId, frames: np.ndarray, substrate: str = "blur") -> Clip:
    t, _, h, w = frames.shape
    return Clip(
        id=clip_id,
        frames=frames,
        frame_idx=np.arange(t),
        pts_s=np.arange(t) / 25.0,
        is_padded=np.zeros(t, bool),
        covers=(0, t),
        geometry=Geometry(source_h_px=h, source_w_px=w, model_h_px=h, model_w_px=w, scale_y=1.0, scale_x=1.0),
        content=content_of(frames, substrate),
    )
