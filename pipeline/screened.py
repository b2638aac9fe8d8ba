"""What screening found: of every clip its place and the box's scores of all classes, in one small file per video.

RUN/screened/VIDEO.bin is append-only: a header with the number of classes, then records of one size, each with its own
checksum. A record that a crash cut off, or that was damaged, counts as not written; its clip is asked again. Records
reach the disk in groups and when a video ends, so that a run never waits for them.
"""

import hashlib
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pipeline.files import safe_name, writing
from stages.records import ClipInfo

FOLDER = "screened"
GROUP = 256  # records that wait for the disk together

_MAGIC = b"heatreel-screen1"
_HEADER = struct.Struct("<16sI")
_PLACE = struct.Struct("<iiiidd")  # clip, whether it is the last, frames [start, stop), seconds [start, end]
_DIGEST = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Screened:
    """The clips of one video that were scored untouched, in order. `is_whole`: none is missing, from 0 to the last."""

    clip_idx: Int64[np.ndarray, " n"]
    frames: Int64[np.ndarray, "n 2"]  # [start, stop) in the source
    span_s: Float64[np.ndarray, "n 2"]  # time stamps of the first and of the last frame
    log_scores: Float32[np.ndarray, "n k"]
    has_end: bool  # the last clip of the video is among them

    def __len__(self) -> int:
        return len(self.clip_idx)

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing left to ask."""
        return self.has_end and len(self) == int(self.clip_idx[-1]) + 1


@dataclass(slots=True, eq=False)
class ScreenedStore:
    """The screened clips of a run. One writing process for a video at a time."""

    run: Path
    _waiting: dict[str, list[bytes]] = field(default_factory=dict)

    def append(self, info: ClipInfo, log_scores: Float32[np.ndarray, " k"], *, is_last: bool) -> None:
        """Write one clip down, at the latest by `flush`. Raises ResourceError when the disk refuses."""
        place = (info.id.clip_idx, is_last, *info.covers, float(info.pts_s[0]), float(info.pts_s[-1]))
        content = _PLACE.pack(*place) + np.asarray(log_scores, "<f4").tobytes()
        waiting = self._waiting.setdefault(info.id.video_id, [])
        waiting.append(content + _digest(content))
        if len(waiting) >= GROUP:
            self.flush(info.id.video_id)

    def flush(self, video_id: str) -> None:
        """On return all of this video's clips are on the disk."""
        records = self._waiting.pop(video_id, None)
        if not records:
            return
        path = self._path(video_id)
        size = len(records[0])
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as file:
                begun = file.tell()
                if begun < _HEADER.size:
                    file.truncate(0)
                    file.write(_HEADER.pack(_MAGIC, (size - _PLACE.size - _DIGEST) // 4))
                else:
                    file.truncate(begun - (begun - _HEADER.size) % size)  # what a crash cut off
                file.write(b"".join(records))
                file.flush()
                os.fsync(file.fileno())

    def read(self, video_id: str) -> Screened | None:
        """What is on the disk of a video; None when there is nothing that holds."""
        path = self._path(video_id)
        if not path.exists():
            return None
        content = path.read_bytes()
        if len(content) < _HEADER.size or content[: len(_MAGIC)] != _MAGIC:
            return None
        num_classes = _HEADER.unpack_from(content)[1]
        found = dict(sorted(_records(content, num_classes)))
        if not found:
            return None
        places = list(found.values())
        return Screened(
            clip_idx=np.array(list(found), np.int64),
            frames=np.array([place[1:3] for place, _ in places], np.int64),
            span_s=np.array([place[3:5] for place, _ in places], np.float64),
            log_scores=np.stack([values for _, values in places]),
            has_end=any(place[0] for place, _ in places),
        )

    def num_damaged(self) -> int:
        """Records in all files whose checksum does not hold."""
        damaged = 0
        for path in sorted((self.run / FOLDER).glob("*.bin")):
            content = path.read_bytes()
            if len(content) < _HEADER.size or content[: len(_MAGIC)] != _MAGIC:
                damaged += 1
                continue
            size = _PLACE.size + 4 * _HEADER.unpack_from(content)[1] + _DIGEST
            whole = sum(1 for _ in _records(content, _HEADER.unpack_from(content)[1]))
            damaged += -(-(len(content) - _HEADER.size) // size) - whole
        return damaged

    def _path(self, video_id: str) -> Path:
        return self.run / FOLDER / f"{safe_name(video_id)}.bin"


def _records(
    content: bytes, num_classes: int
) -> "list[tuple[int, tuple[tuple[int, int, int, float, float], np.ndarray]]]":
    """(clip, ((is last, frames, seconds), scores)) of every record that holds."""
    size = _PLACE.size + 4 * num_classes
    found = []
    for start in range(_HEADER.size, len(content) - size - _DIGEST + 1, size + _DIGEST):
        record = content[start : start + size]
        if content[start + size : start + size + _DIGEST] != _digest(record):
            continue
        clip_idx, *place = _PLACE.unpack_from(record)
        values = np.frombuffer(record, "<f4", offset=_PLACE.size).astype(np.float32)
        found.append((clip_idx, (tuple(place), values)))
    return found


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()
