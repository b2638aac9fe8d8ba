"""The journal: every answer the box gave, one checksummed file per clip and round; the box is never asked twice.

journal/VIDEO/000012.r0000.npz holds the clip (its content, not its pixels), the recipe of the masks (bank and rows, or
grids) and the raw scores of all classes in float32: with it every map can be computed again without the model. A round
that asked the model for maps holds the questions and the maps. Files are written atomically and never changed. A
damaged file counts as not written. Effects of regions (removed for real) are kept beside the rounds as
000012.e0003.npz, numbered by region.
"""

import hashlib
import io
import json
import logging
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.files import atomic_file, safe_name
from stages.questions import AttributionSpec, Question
from stages.records import BankSpec, ClipId, ClipInfo, Geometry, MaskBatch, Scores, expect

FORMAT = 1
Kind = Literal["round", "effect"]

# What zipfile, zlib and NumPy raise on damaged bytes.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError)
_LETTERS: Mapping[Kind, str] = {"round": "r", "effect": "e"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JournalRecord:
    """One round of one clip: what was asked and what was answered."""

    info: ClipInfo
    masks: MaskBatch
    scores: Scores


class Journal:
    """The journal of a run, in `folder`. Safe to use from several threads and processes for different clips."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, info: ClipInfo, masks: MaskBatch, scores: Scores, *, kind: Kind = "round") -> Path:
        """Write one round down; on return it is on the disk. An effect is numbered by the `round_idx` of its masks."""
        self.expect_one_round(info, masks, scores)
        path = self._path(info.id, masks.round_idx, kind)
        with atomic_file(path) as file:
            file.write(pack(JournalRecord(info=info, masks=masks, scores=scores)))
        return path

    @staticmethod
    def expect_one_round(info: ClipInfo, masks: MaskBatch, scores: Scores) -> None:
        """Raise when masks and scores are not of one round of this clip."""
        expect(masks.clip_id == scores.clip_id == info.id, "Journal", "clip, masks and scores must be of one clip")
        expect(masks.round_idx == scores.round_idx, "Journal", "masks and scores must be of one round")
        expect(np.array_equal(masks.ids, scores.ids), "Journal", "masks and scores must name the same ids")

    def flush(self) -> None:
        """On return everything appended is on the disk; here it always is."""

    def rounds(self, clip_id: ClipId) -> list[tuple[MaskBatch, Scores]]:
        """The rounds of a clip from 0 on, up to the first that is missing or damaged (later ones built on it)."""
        found: list[tuple[MaskBatch, Scores]] = []
        while (record := self._load(self._path(clip_id, len(found), "round"))) is not None:
            found.append((record.masks, record.scores))
        return found

    def effects(self, clip_id: ClipId) -> dict[int, tuple[MaskBatch, Scores]]:
        """The verified regions of a clip, by region."""
        paths = sorted(self._video(clip_id.video_id).glob(f"{clip_id.clip_idx:06d}.e*.npz"))
        records = [record for path in paths if (record := self._load(path)) is not None]
        return {record.masks.round_idx: (record.masks, record.scores) for record in records}

    def clips(self, video_id: str) -> list[ClipId]:
        """The clips of a video that have a first round on disk (whole or not), in order."""
        paths = self._video(video_id).glob("*.r0000.npz")
        return [ClipId(video_id, clip_idx) for clip_idx in sorted(int(path.name.split(".")[0]) for path in paths)]

    def first(self, clip_id: ClipId) -> JournalRecord | None:
        """The first round of a clip, or None when it is missing or damaged."""
        return self._load(self._path(clip_id, 0, "round"))

    def info(self, clip_id: ClipId) -> ClipInfo | None:
        """The clip without its pixels, or None when its first round is missing or damaged."""
        record = self.first(clip_id)
        return None if record is None else record.info

    def files(self) -> Iterator[Path]:
        """Every file of the journal, by video, clip and round."""
        for folder in sorted(path for path in self.folder.glob("*") if path.is_dir()):
            yield from sorted(folder.glob("*.npz"))

    def damaged(self) -> list[Path]:
        """The files whose checksum does not hold."""
        return [path for path in self.files() if self._load(path) is None]

    def _video(self, video_id: str) -> Path:
        return self.folder / safe_name(video_id)

    def _path(self, clip_id: ClipId, number: int, kind: Kind) -> Path:
        return self._video(clip_id.video_id) / f"{clip_id.clip_idx:06d}.{_LETTERS[kind]}{number:04d}.npz"

    def _load(self, path: Path) -> JournalRecord | None:
        try:
            return unpack(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            _log.warning("file=%s damaged, counted as not written: %s", path, error)
            return None


def pack(record: JournalRecord) -> bytes:
    """A record as the bytes of an .npz: a JSON header, arrays, and a checksum over both."""
    info, masks = record.info, record.masks
    header = {
        "format": FORMAT,
        "video_id": info.id.video_id,
        "clip_idx": info.id.clip_idx,
        "round_idx": masks.round_idx,
        "shape": info.shape,
        "covers": info.covers,
        "nbytes": info.nbytes,
        "geometry": asdict(info.geometry),
        "bank": None if masks.bank is None else asdict(masks.bank),
    }
    if masks.attribution is not None:
        header["attribution"] = asdict(masks.attribution)
    arrays = {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "frame_idx": info.frame_idx,
        "pts_s": info.pts_s,
        "is_padded": info.is_padded,
        "ids": masks.ids,
        "values": record.scores.values.astype(np.float32, copy=False),
    }
    if masks.grids is not None:
        arrays["grids"] = masks.grids
    if record.scores.maps is not None:
        arrays["maps"] = record.scores.maps.astype(np.float32, copy=False)
    if info.content is not None:
        arrays["content"] = info.content
    arrays["checksum"] = np.frombuffer(_checksum(arrays), np.uint8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, array in arrays.items():
            # Grids shrink by much, scores by nothing; the usual level takes three times as long for a tenth less.
            kind = zipfile.ZIP_DEFLATED if name in ("grids", "content") else zipfile.ZIP_STORED
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), kind, compresslevel=1)
    return buffer.getvalue()


def unpack(content: bytes) -> JournalRecord:
    """The record in the bytes of an .npz. Raises ValueError (and what NumPy raises) where it is damaged."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        raise ValueError(f"not a readable .npz ({type(error).__name__})") from error
    checksum = arrays.pop("checksum").tobytes()
    if checksum != _checksum(arrays):
        raise ValueError("the checksum does not hold")
    header: dict[str, Any] = json.loads(arrays["header"].tobytes())
    if header["format"] != FORMAT:
        raise ValueError(f"journal format {header['format']}, this heatreel reads {FORMAT}")
    clip_id = ClipId(header["video_id"], header["clip_idx"])
    bank = header["bank"]
    names = {"clip_id": clip_id, "round_idx": header["round_idx"], "ids": arrays["ids"]}
    return JournalRecord(
        info=ClipInfo(
            id=clip_id,
            shape=tuple(header["shape"]),
            frame_idx=arrays["frame_idx"],
            pts_s=arrays["pts_s"],
            is_padded=arrays["is_padded"],
            covers=tuple(header["covers"]),
            geometry=Geometry(**header["geometry"]),
            nbytes=header["nbytes"],
            content=arrays.get("content"),  # older journals have none
        ),
        masks=MaskBatch(
            **names,
            bank=None if bank is None else BankSpec(**{**bank, "grid": tuple(bank["grid"])}),
            grids=arrays.get("grids"),
            attribution=_attribution(header.get("attribution")),
        ),
        scores=Scores(**names, values=arrays["values"], maps=arrays.get("maps")),
    )


def _attribution(fields: Mapping[str, Any] | None) -> AttributionSpec | None:
    if fields is None:
        return None
    questions = tuple(Question(**question) for question in fields["questions"])
    return AttributionSpec(**{**fields, "questions": questions, "grid": tuple(fields["grid"])})


def _checksum(arrays: Mapping[str, np.ndarray]) -> bytes:
    total = hashlib.blake2b(digest_size=32)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.data if array.size else b"")
    return total.digest()
