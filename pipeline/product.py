"""What people look at: the film of a video, or the picture of a picture, behind one interface for the sink."""

from pathlib import Path
from typing import Protocol

from pipeline.files import remove, writing
from stages.records import FrameMap, Geometry, VideoSource, expect
from stages.render import RenderConfig
from stages.strip import Caption
from stages.video_io import Backend


class Product(Protocol):
    """Takes the final maps of one target, in frame order."""

    def write(self, frame: FrameMap, pts_s: float) -> None:
        """Draw the next frame."""
        ...

    def close(self) -> None:
        """There are no further frames."""
        ...

    def abort(self) -> None:
        """The video is not finished: leave what can be shown, and what spares the next attempt work."""
        ...

    def release(self) -> None:
        """The video is finished: what a next attempt would have been spared is of no use any more."""
        ...


class FilmProduct:
    """films/VIDEO.TARGET.mp4, written in segments as frames come and joined from them at the end."""

    def __init__(
        self,
        path: Path,
        source: VideoSource,
        geometry: Geometry,
        caption: Caption,
        config: RenderConfig,
        backend: Backend,
    ) -> None:
        from stages.film import FilmWriter

        self._path = path
        self._writer = FilmWriter(path, source, geometry, caption, config, backend=backend)

    def write(self, frame: FrameMap, pts_s: float) -> None:
        """Draw the next frame."""
        with writing(self._path):
            self._writer.write(frame, pts_s)

    def close(self) -> None:
        """Join the film."""
        with writing(self._path):
            self._writer.close(keep_segments=True)

    def abort(self) -> None:
        """Join what there is; finished segments stay."""
        with writing(self._path):
            self._writer.abort()

    def release(self) -> None:
        """Remove the segments."""
        self._writer.clear()


class PictureProduct:
    """pictures/VIDEO.TARGET.png of the one frame."""

    def __init__(
        self, path: Path, source: VideoSource, geometry: Geometry, caption: Caption, config: RenderConfig
    ) -> None:
        self._path, self._source, self._geometry = path, source, geometry
        self._caption, self._config = caption, config

    def write(self, frame: FrameMap, pts_s: float) -> None:
        """Draw the picture."""
        from stages.render import write_picture

        expect(frame.frame_idx == 0, "PictureProduct", "a picture has one frame")
        with writing(self._path):
            write_picture(self._path, self._source, frame, self._geometry, self._caption, self._config)

    def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """The picture appeared whole or not at all."""

    def release(self) -> None:
        """There is nothing beside the picture."""


def open_product(
    path: Path, source: VideoSource, geometry: Geometry, caption: Caption, config: RenderConfig, backend: Backend
) -> Product:
    """Start the film or picture of one target; what an earlier attempt left is replaced, but for a film's segments."""
    with writing(path):
        remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    if source.kind == "image":
        return PictureProduct(path, source, geometry, caption, config)
    return FilmProduct(path, source, geometry, caption, config, backend)
