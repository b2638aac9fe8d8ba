"""The segments of a film on disk: what is finished is kept, so that a film that is begun again need not be drawn again.

films/.VIDEO.TARGET.segments/000003.mp4 holds the frames of one stretch of the source, 000003.json says which, with what
and from which maps they were drawn, and the hash of the file. A segment counts when both are there and all of it holds.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import av

from stages.film_file import Encoding, SegmentFile
from stages.pictures import sha256_of
from stages.ticks import Sketch, is_same_sketch

FORMAT = 1
SEGMENT_S = 24
MAX_FRAMES = 1440

logger = logging.getLogger(__name__)


def fingerprint(**facts: object) -> str:
    """Hash of what decides how frames are drawn and encoded, the libraries included."""
    try:
        own = metadata.version("heatreel")
    except metadata.PackageNotFoundError:  # run from its source
        own = ""
    known = {"heatreel": own, "av": av.__version__, "libraries": av.library_versions, **facts}
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def segment_frames(fps: float) -> int:
    """Frames of the source in a segment: about 24 s, whole groups of pictures; borders depend on frame numbers only."""
    group = max(1, round(fps))
    return max(1, min(SEGMENT_S, MAX_FRAMES // group)) * group


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of film. `frames`: of the source, half-open; `pts`: of those that the source gave, in its time base.

    is_end_of_source: there is no further picture (known of the last segment only). `sketch`: of the maps shown.
    """

    path: Path
    frames: tuple[int, int]
    pts: tuple[int, ...]
    is_end_of_source: bool | None = None
    sketch: Sketch = field(default_factory=list)

    def holds(self, frames: tuple[int, int], sketch: Sketch, tolerance: float) -> bool:
        """Whether it shows these frames, drawn from the same maps."""
        return frames == self.frames and is_same_sketch(sketch, self.sketch, tolerance)


class SegmentStore:
    """The folder of one film. `mark`: the fingerprint of everything but the maps that decides what is drawn."""

    def __init__(self, film: Path, mark: str) -> None:
        self.folder = film.with_name(f".{film.stem}.segments")
        self._mark = mark
        self._attempt = uuid4().hex[:8]
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob("*.tmp"):  # by an attempt that was killed
            left.unlink(missing_ok=True)

    def find(self, number: int) -> Segment | None:
        """A finished segment that can be shown as it is; one that cannot is thrown away."""
        path, about = self._names(number)
        try:
            said = json.loads(about.read_bytes())
            if said["format"] == FORMAT and said["fingerprint"] == self._mark and said["sha256"] == sha256_of(path):
                return _segment(path, said)
            fact = "was drawn otherwise or is damaged"
        except FileNotFoundError:
            fact = ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            fact = f"cannot be read ({error})"
        if fact:
            logger.warning("segment=%s %s; it is drawn again", path, fact)
        self.drop(number)
        return None

    def drop(self, number: int) -> None:
        """Throw a segment away."""
        for path in reversed(self._names(number)):
            path.unlink(missing_ok=True)

    def begin(self, number: int, encoding: Encoding) -> SegmentFile:
        """A new segment, under a name that says that it is not finished."""
        return SegmentFile(self.temporary(f"{number:06d}"), encoding)

    def save(self, number: int, drawn: Segment) -> Segment:
        """Give a closed segment its name: from now on it counts, whatever happens."""
        path, about = self._names(number)
        _sync(drawn.path)
        said = {"format": FORMAT, "fingerprint": self._mark, "sha256": sha256_of(drawn.path), **asdict(drawn)}
        del said["path"]
        draft = self.temporary(about.name)
        draft.write_text(json.dumps(said))
        _sync(draft)
        os.replace(drawn.path, path)
        os.replace(draft, about)
        _sync(self.folder)
        return _segment(path, said)

    def temporary(self, name: str) -> Path:
        """A name for something unfinished of this attempt."""
        return self.folder / f".{name}.{self._attempt}.tmp"

    def tidy(self) -> None:
        """Remove what this attempt left unfinished, and the folder when nothing else is in it."""
        for left in self.folder.glob(f".*.{self._attempt}.tmp"):
            left.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def clear(self) -> None:
        """The film is whole: its segments are of no further use."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _names(self, number: int) -> tuple[Path, Path]:
        return self.folder / f"{number:06d}.mp4", self.folder / f"{number:06d}.json"


def _segment(path: Path, said: dict[str, Any]) -> Segment:
    first, stop = said["frames"]
    pts: Sequence[int] = said["pts"]
    return Segment(
        path=path,
        frames=(int(first), int(stop)),
        pts=tuple(int(stamp) for stamp in pts),
        is_end_of_source=said["is_end_of_source"],
        sketch=[tuple(float(value) for value in row) for row in said["sketch"]],
    )


def _sync(path: Path) -> None:
    """See a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
