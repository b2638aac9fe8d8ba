"""Films of planted maps, and what is in a film file."""

from pathlib import Path

import av
import numpy as np

from stages.film import FilmSummary, FilmWriter
from stages.records import OUTPUTS, FrameMap, Geometry, VideoSource
from stages.render import RenderConfig
from stages.strip import Caption

GRID = (4, 6)
CAPTION = Caption(target="juggling", model="planted", voxels_per_clip=100, predicted="bowling")


def squash(source: VideoSource) -> Geometry:
    return Geometry(
        source_h_px=source.height,
        source_w_px=source.width,
        model_h_px=64,
        model_w_px=96,
        scale_y=source.height / 64,
        scale_x=source.width / 96,
    )


def planted(frame_idx: int, net: float = 1.0, cell: tuple[int, int] = (1, 4)) -> FrameMap:
    """One cell speaks for the target (net > 0) or hinders it; with 100 voxels a clip the shown unit is the score."""
    mean = np.zeros((3, *GRID), np.float32)
    mean[0, *cell] = mean[2, *cell] = net
    return FrameMap(
        video_id="v",
        target_idx=0,
        frame_idx=frame_idx,
        outputs=OUTPUTS,
        mean=mean,
        var=np.full_like(mean, 1e-6),
        is_seen=True,
        is_reliable=True,
    )


def film(source: VideoSource, path: Path, maps: list[FrameMap], **config: object) -> FilmSummary:
    """A whole film, in the writer's own segments."""
    with FilmWriter(path, source, squash(source), CAPTION, RenderConfig.model_validate(config)) as writer:
        for frame in maps:
            writer.write(frame)
    return writer.close()


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(container.streams.video[0])]


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(container.streams.video[0])]


def best_audio(path: Path) -> list[tuple[float, bytes]]:
    """Time and content of every packet of the sound."""
    with av.open(str(path)) as container:
        stream = container.streams.best("audio")
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size]
