"""Stage 6 of 6: FrameMap... -> film or picture. A map is never stretched to look good (DESIGN.md, 3.2).

Films are written by film.py, frame by frame; pictures here. One configuration and one style for both.
"""

from pydantic import Field

from stages.base import Settings


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
    preset: str = Field(default="veryfast", description="x264 speed preset")
