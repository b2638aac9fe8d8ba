"""Masks of the true object beside a run's maps, for `heatreel evaluate --masks DIR`.

In: one PNG for every frame of a source. Out: how much of every voxel of a clip the object covers, and what a map has
inside it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from pipeline.demo import cells_of
from stages.errors import ConfigError
from stages.metrics import energy_in_mask, points_inside
from stages.records import Clip, Explanation, VideoSource
from stages.regrid import regrid
from stages.stores import name_of


def mask_files(folder: Path, source: VideoSource, num_frames: int) -> list[Path]:
    """The mask of every frame of a source: the PNG files of DIR/NAME (NAME: the source's, without suffix), or of DIR.

    Raises ConfigError when there is not one for every frame.
    """
    own = folder / Path(name_of(source.uri)).stem
    files = sorted((own if own.is_dir() else folder).glob("*.png"))
    if len(files) != num_frames:
        raise ConfigError(
            f"--masks {folder}",
            f"{len(files)} masks for the {num_frames} frames of {source.uri}",
            f"put one PNG per frame, in order, into {own}",
        )
    return files


def read_mask(path: Path, source: VideoSource) -> Bool[np.ndarray, "h w"]:
    """A mask: what is not black (palette pictures: not colour 0). Raises ConfigError for a size not the frame's."""
    with Image.open(path) as picture:
        values = np.asarray(picture if picture.mode == "P" else picture.convert("L"))
        mask = values > (0 if picture.mode == "P" else 127)
    if mask.shape != (source.height, source.width):
        fact = f"the mask is {mask.shape[1]} x {mask.shape[0]}, the frames are {source.width} x {source.height}"
        raise ConfigError(str(path), fact, "give masks of the size of the source")
    return mask


def cover_of(files: Sequence[Path], clip: Clip, explanation: Explanation) -> Float[np.ndarray, "f gh gw"]:
    """The share of every cell of the explanation's grid that the object covers in a clip's frames."""
    masks = np.stack([read_mask(files[int(idx)], explanation.source) for idx in clip.frame_idx])
    return cells_of(masks, explanation)


def against_truth(values: Float[np.ndarray, "t y x"], cover: Float[np.ndarray, "f gh gw"]) -> dict[str, float]:
    """Energy inside the object over the object's share of the clip, and the pointing game; none where it is not there.

    The map is brought onto the grid of the cover.
    """
    if not cover.any():
        return {}
    values = regrid(values, cover.shape)
    return {"energy": energy_in_mask(values, cover).ratio, "pointing": float(points_inside(values, cover))}
