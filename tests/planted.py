"""Tiny clips and black boxes whose evidence is known exactly, so that maps can be checked by number."""

from pathlib import Path

import numpy as np

from benchmarks.planted import Cuboid, PlantedBox, auc, scorer
from stages.box import BlackBox
from stages.decode import Decode, DecodeConfig, DecodeRequest
from stages.records import Clip, ClipId, Geometry
from stages.sources import probe

__all__ = ["Cuboid", "PlantedBox", "auc", "read_clip", "scorer", "textured_clip"]


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
