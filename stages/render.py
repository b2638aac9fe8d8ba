"""Stage 6 of 6: FrameMap... -> film or picture. A map is never stretched to look good.

Films are written by film.py, frame by frame; pictures here. One configuration and one style for both.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import Field

from stages.base import Settings
from stages.panels import Layout, layers_of
from stages.records import FrameMap, Geometry, VideoSource
from stages.scale import Saturation, choose_scale
from stages.strip import Caption, note_of


class RenderConfig(Settings):
    """How films and pictures look."""

    side_by_side: bool = Field(default=False, description="panels: source, net, for, F-TC, F-NTC, uncertainty")
    scale: float | None = Field(
        default=None,
        gt=0,
        description="end of the colour bar in its own unit, log-odds per 1 % of the clip; None: found once per video",
    )
    look_ahead_s: float = Field(
        default=10.0, ge=0, description="seconds of maps that fix the colour scale; also half of the time profile"
    )
    fade: float = Field(default=0.2, ge=0, le=1, description="share of the colour left where it is not significant")
    crf: int = Field(default=20, ge=0, le=51, description="H.264 quality: lower is better and larger")
    preset: str = Field(default="superfast", description="x264 speed preset")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSummary:
    """What was drawn. `scale` is the end of the colour bar, in log-odds per 1 % of the picture."""

    path: Path
    height: int
    width: int
    zoom: float
    scale: float
    saturated_share: float


def compose_picture(
    rgb: UInt8[np.ndarray, "h w 3"], frame: FrameMap, geometry: Geometry, caption: Caption, config: RenderConfig
) -> tuple[UInt8[np.ndarray, "h2 w2 3"], PictureSummary]:
    """Source and overlay beside each other (or all panels), with the legend below."""
    _, gh, gw = frame.mean.shape
    layout = Layout(geometry, (gh, gw), caption, "panels" if config.side_by_side else "pair", has_profile=False)
    scale = config.scale or choose_scale([frame], caption.voxels_per_clip)
    per_scale = caption.voxels_per_clip / 100 / scale
    layout.strip.prepare(scale)
    canvas = np.empty((layout.height, layout.width, 3), np.uint8)
    layout.blank(canvas)
    layout.paint(canvas, rgb, is_seen=frame.is_seen)
    layout.strip.draw(layout.strip_part(canvas), note=note_of(frame))
    height, width = layout.picture_size
    for panel, layer in layers_of(frame, layout, per_scale, config.fade):
        layout.overlay.draw_rgb(canvas[panel.y : panel.y + height, panel.x : panel.x + width], layer)
    saturation = Saturation()
    saturation.count(frame, per_scale)
    summary = PictureSummary(
        path=Path(),
        height=layout.height,
        width=layout.width,
        zoom=layout.zoom,
        scale=scale,
        saturated_share=saturation.share,
    )
    return canvas, summary


def render_picture(
    path: Path,
    rgb: UInt8[np.ndarray, "h w 3"],
    frame: FrameMap,
    geometry: Geometry,
    caption: Caption,
    config: RenderConfig,
) -> PictureSummary:
    """Write the picture's explanation as PNG, in the style of the films. The file appears whole or not at all."""
    canvas, summary = compose_picture(rgb, frame, geometry, caption, config)
    partial = path.with_name(f".{path.name}.partial")
    Image.fromarray(canvas).save(partial, format="PNG")
    os.replace(partial, path)
    return replace(summary, path=path)


def write_picture(
    path: Path, source: VideoSource, frame: FrameMap, geometry: Geometry, caption: Caption, config: RenderConfig
) -> PictureSummary:
    """The same, reading the picture itself. Raises DecodeError when it can no longer be read."""
    from stages.video_io import read_frames

    return render_picture(path, next(iter(read_frames(source))).rgb, frame, geometry, caption, config)
