"""Sources behind URIs, as local copies: every decoder opens a plain file, whatever the store can do.

A source is fetched whole, once per machine, into a bounded folder that all processes share; scoring, films and both
decoders then read it from there. A copy is kept under its content's hash: the hash that a run wrote down leads to the
same bytes, or to an error that says that they have changed. While a copy is read its lock keeps it; others go, the
longest unused first, when a new one needs the room.

The folder is HEATREEL_CACHE_DIR (default ~/.cache/heatreel), its bound HEATREEL_CACHE_GB (default 20): what a machine
can spare is a fact about the machine, not about the run, and differs between the nodes of a cluster.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stages.errors import ConfigError, DecodeError
from stages.pictures import PICTURE_SUFFIXES, sha256_of
from stages.stores import attempt, has_pattern, is_remote, is_web, name_of, open_store

CACHE_VARIABLE, BOUND_VARIABLE = "HEATREEL_CACHE_DIR", "HEATREEL_CACHE_GB"
DEFAULT_BOUND_GB = 20.0
# What stores call the thing that changes when a file changes. Without any, a file is fetched again to be compared.
_VERSIONS = ("ETag", "etag", "e_tag", "Content-MD5", "content_md5", "md5Hash", "md5", "sha256", "Digest", "generation")
_TIMES = ("Last-Modified", "LastModified", "last_modified", "mtime", "updated", "modified", "modifiedTime")


@dataclass(frozen=True, slots=True)
class _Item:
    """One file of a source, as its store states it."""

    path: str
    size: int | None
    version: str | None


def cache_folder() -> Path:
    """Where this machine keeps copies of remote files and the work on remote runs."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "heatreel"


@contextmanager
def newest(uri: str) -> Iterator[Path]:
    """A local copy of what the URI gives now. Raises DecodeError when it cannot be fetched."""
    with local_copy(uri, _bring(uri, None)) as path:
        yield path


@contextmanager
def local_copy(uri: str, sha256: str) -> Iterator[Path]:
    """The bytes with this hash that the URI gave, as a local file (or folder of frames); a local path is itself.

    Errors about the copy name the URI. Raises DecodeError when they are not here and the URI gives others now.
    """
    if not is_remote(uri):
        yield Path(uri)
        return
    entry = _entry(uri, sha256)
    for _ in range(3):  # between fetching and holding, another process may need the room
        with _locked(entry.with_suffix(".lock"), fcntl.LOCK_SH):
            copies = list(entry.iterdir()) if entry.is_dir() else []
            if copies:
                os.utime(entry)
                with _naming(uri, copies[0]):
                    yield copies[0]
                return
        found = _bring(uri, sha256)
        if found != sha256:
            fact = f"it has changed since it was first read ({sha256[:12]} then, {found[:12]} now)"
            raise DecodeError(uri, fact, "put the old one back, or explain it in a new run")
    raise DecodeError(uri, "its local copy is removed again and again", f"set {BOUND_VARIABLE} to more than it is")


def _bring(uri: str, sha256: str | None) -> str:
    """Have a copy of the URI in the cache, that with `sha256` if there is one; returns the hash of what is there."""
    note = _inputs() / f"{_digest(uri)}.json"
    with _locked(note.with_suffix(".lock"), fcntl.LOCK_EX):
        if sha256 is not None and _entry(uri, sha256).is_dir():
            return sha256
        items = _items(uri)
        version = None if any(item.version is None for item in items) else json.dumps([i.version for i in items])
        known = _read_note(note)
        if sha256 is None and version is not None and known.get("version") == version:
            recorded = str(known["sha256"])
            if _entry(uri, recorded).is_dir():
                return recorded
        found = _fetch(uri, items)
        temporary = note.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"uri": uri, "version": version, "sha256": found}))
        os.replace(temporary, note)
        return found


def _items(uri: str) -> list[_Item]:
    """The file behind a URI, or the pictures of the folder."""
    store, path = open_store(uri)

    def listed() -> list[_Item]:
        if is_web(uri) and uri.endswith("/"):
            entries = store.ls(path, detail=True)
        else:
            info = store.info(path)
            if info.get("type") != "directory":
                return [_item(info, path)]
            entries = store.ls(path, detail=True)
        return [_item(entry, entry["name"]) for entry in sorted(entries, key=lambda entry: str(entry["name"]))]

    try:
        found = attempt(uri, listed)
    except DecodeError as error:
        if has_pattern(uri) and isinstance(error.__cause__, FileNotFoundError):
            raise DecodeError(uri, "no file matches the pattern", "check the pattern and quote it") from None
        raise
    if len(found) == 1 and found[0].path == path:
        return found
    pictures = [item for item in found if Path(item.path).suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise DecodeError(uri, "the folder holds no video and no picture", "give a folder with media files")
    return pictures


def _item(info: Mapping[str, Any], path: str) -> _Item:
    facts = [f"{key}={info[key]}" for key in _VERSIONS if info.get(key)]
    facts = facts or [f"{key}={info[key]}" for key in _TIMES if info.get(key)]
    size = info.get("size")
    return _Item(path, size, f"{info.get('name')} {size} {facts}" if facts else None)


def _fetch(uri: str, items: list[_Item]) -> str:
    store, path = open_store(uri)
    _make_room(sum(item.size or 0 for item in items))
    for left in _inputs().glob(f"{_digest(uri)}.*.part"):  # by a process that was killed: this one holds the lock
        shutil.rmtree(left, ignore_errors=True)
    part = _inputs() / f"{_digest(uri)}.{os.getpid()}.part"
    is_file = len(items) == 1 and items[0].path == path
    name = name_of(uri.rstrip("/")) or "source"
    try:
        target = part / name if is_file else part / name / "x"
        target.parent.mkdir(parents=True, exist_ok=True)
        for item in items:
            where = target if is_file else target.with_name(name_of(item.path))
            attempt(uri, partial(_get, store, item, where))
        found = sha256_of(part / name)
        entry = _entry(uri, found)
        with _locked(entry.with_suffix(".lock"), fcntl.LOCK_SH):
            if not entry.is_dir():
                os.replace(part, entry)
    except OSError as error:
        raise DecodeError(uri, f"its local copy cannot be written ({error})", f"check {CACHE_VARIABLE}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found


def _get(store: Any, item: _Item, where: Path) -> None:
    store.get_file(item.path, str(where))
    if item.size is not None and where.stat().st_size < item.size:
        raise ConnectionError(f"cut off after {where.stat().st_size} of {item.size} bytes")


def _make_room(num_bytes: int) -> None:
    """Remove copies that nobody reads, the longest unused first, until so many bytes fit into the bound."""
    entries = []
    for folder in _inputs().iterdir():
        with suppress(OSError):  # another process removes it
            if folder.is_dir() and folder.suffix != ".part":
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                entries.append((folder.stat().st_mtime, size, folder))
    total, bound = sum(size for _, size, _ in entries) + num_bytes, _bound_bytes()
    for _, size, folder in sorted(entries):
        if total <= bound:
            return
        with suppress(BlockingIOError), _locked(folder.with_suffix(".lock"), fcntl.LOCK_EX | fcntl.LOCK_NB) as lock:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
            total -= size


def _bound_bytes() -> float:
    named = os.environ.get(BOUND_VARIABLE)
    try:
        return float(named or DEFAULT_BOUND_GB) * 1e9
    except ValueError:
        raise ConfigError(f"{BOUND_VARIABLE}={named}", "this is not a number", "give gigabytes, such as 50") from None


def _inputs() -> Path:
    folder = cache_folder() / "inputs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fact = f"the cache folder cannot be written ({error.strerror or error})"
        raise ConfigError(str(folder), fact, f"set {CACHE_VARIABLE} to a folder that can") from error
    return folder


def _entry(uri: str, sha256: str) -> Path:
    return _inputs() / f"{_digest(uri)}-{sha256[:32]}"


def _digest(uri: str) -> str:
    return hashlib.sha256(uri.encode(errors="surrogateescape")).hexdigest()[:24]


def _read_note(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def _locked(path: Path, how: int) -> Iterator[Path]:
    """Hold a lock file; one that was removed meanwhile (with what it guards) does not count."""
    while True:
        with path.open("a") as file:
            fcntl.flock(file, how)
            try:
                is_current = os.fstat(file.fileno()).st_ino == path.stat().st_ino
            except FileNotFoundError:
                is_current = False
            if is_current:
                yield path
                return


@contextmanager
def _naming(uri: str, copy: Path) -> Iterator[None]:
    """Let errors about the local copy name the URI."""
    try:
        yield
    except DecodeError as error:
        if error.item == str(copy):
            raise DecodeError(uri, error.fact, error.remedy) from None
        raise
