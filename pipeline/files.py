"""Names and writes that cannot go wrong half-way: safe file names, atomic files, append-only lines, hashes."""

import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from stages.errors import DiskFullError, ResourceError

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LOOKS_HASHED = re.compile(r"-[0-9a-f]{8}$")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MAX_NAME = 80


def safe_name(name: str) -> str:
    """A file name for any text: it cannot leave its folder, and no two texts share one.

    Plain names stay as they are; others keep what is legible and get eight digits of their hash.
    """
    plain = _UNSAFE.sub("_", name).strip("._")[:_MAX_NAME]
    if name and plain == name and not _LOOKS_HASHED.search(name) and not _RESERVED.fullmatch(name):
        return name
    return f"{plain or 'unnamed'}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def target_name(label: str, target_idx: int) -> str:
    """The part of a file name that says which class: legible, without dots, unique by its index."""
    words = _UNSAFE.sub("_", label.split(",")[0]).replace(".", "_").strip("_-")[:40]
    return f"{words}-{target_idx}" if words else f"class-{target_idx}"


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a write into an error that names the file and the way out."""
    try:
        yield
    except OSError as error:
        fact = f"cannot be written ({error.strerror or error})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(str(path), fact, "free some space and run `heatreel resume`") from error
        raise ResourceError(str(path), fact, "check the folder's permissions") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is either there whole or not at all: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def finite(content: Any) -> Any:
    """The same JSON content with None for every number that is not finite."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` atomically, indented, keys in their given order; NaN and infinity, unknown to JSON, as null."""
    with atomic_file(path) as file:
        file.write(
            (json.dumps(finite(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode(
                "utf-8", "backslashreplace"
            )
        )


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Append one JSON line and see it on the disk before returning; heals a line that a crash cut off."""
    line = (json.dumps(finite(content), allow_nan=False, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file, in order; a line that a crash cut off is passed over. No file, no lines."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict):
                yield content


def hash_file(path: Path) -> str:
    """SHA-256 of a file, or of a folder: of the relative names and the contents of all its files."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file_path.relative_to(path).as_posix()}\0{hash_file(file_path)}\n".encode())
    return total.hexdigest()


def hash_json(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


class SoleWriter:
    """The right to write what belongs to `name` in a run: one process at a time has it, until it gives it back or dies.

    A writer whose coordinator died may live on for a moment; whoever comes next waits for it. Raises ResourceError when
    it does not go away.
    """

    def __init__(self, run: Path, name: str, *, timeout_s: float = 60.0) -> None:
        path = run / "parts" / f".{safe_name(name)}.lock"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a")
        until = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() > until:
                    self._file.close()
                    remedy = "end the other process, then run `heatreel resume`"
                    raise ResourceError(name, "another process is writing its files", remedy) from error
                time.sleep(0.05)

    def give_back(self) -> None:
        """Let the next one write; a second call does nothing."""
        self._file.close()


def remove(path: Path) -> None:
    """Delete a file, a link (not what it points to) or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
