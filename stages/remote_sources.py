"""Listing stores: globs and folders behind URIs become URIs of files and of folders of frames, lazily.

In: a URI. Out: URIs, in the order of their names. What cannot be listed is handed on as it is: `probe` says why.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from stages.errors import DecodeError
from stages.pictures import PICTURE_SUFFIXES, is_numbered
from stages.remote import newest
from stages.stores import attempt, has_pattern, is_web, name_of, open_store


def list_store(uri: str, suffixes: frozenset[str]) -> Iterator[str]:
    """The sources that a URI stands for; `suffixes` are those of media in folders."""
    try:
        listing = _Listing(uri, suffixes)
        if has_pattern(uri):
            found = attempt(uri, lambda: listing.store.glob(listing.path, detail=True))
        elif listing.is_folder():
            yield from _or(listing.walk(listing.path), uri)
            return
        else:
            found = {}
    except DecodeError:
        found = {}
    if not found:
        yield uri
    for path, info in sorted(found.items()):
        if info.get("type") == "directory":
            yield from listing.walk(path)
        else:
            yield listing.uri_of(path)


def read_list(uri: str) -> list[str]:
    """The lines of a list file, relative ones beside it. Raises DecodeError when it cannot be fetched."""
    first, chain, tail = uri.partition("::")
    folder = (first.partition("?")[0] if is_web(uri) else first).rpartition("/")[0]
    with newest(uri) as path:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    entries = [line.strip().removeprefix("\ufeff") for line in lines]
    named = [entry for entry in entries if entry and not entry.startswith("#")]
    is_whole = ("://" in entry or entry.startswith(("/", "~")) for entry in named)
    return [entry if whole else f"{folder}/{entry}{chain}{tail}" for entry, whole in zip(named, is_whole, strict=True)]


def _or(found: Iterator[str], uri: str) -> Iterator[str]:
    is_empty = True
    for one in found:
        is_empty = False
        yield one
    if is_empty:
        yield uri


class _Listing:
    """A store, and how its paths become URIs again."""

    def __init__(self, uri: str, suffixes: frozenset[str]) -> None:
        self.store, self.path = open_store(uri)
        self._uri = uri
        self._suffixes = suffixes
        first, chain, tail = uri.partition("::")
        plain, path = first.rstrip("/"), str(self.path).rstrip("/")
        # What stands before the path: the scheme, and the host where the store does not count it as path.
        self._before = plain.removesuffix(path) if plain.endswith(path) else None
        self._after = chain + tail

    def uri_of(self, path: str) -> str:
        before = self.store.unstrip_protocol(path) if self._before is None else f"{self._before}{path}"
        return f"{before}{self._after}"

    def is_folder(self) -> bool:
        """A name with a media suffix is a file; asking the store for each would cost a request."""
        if is_web(self._uri):
            return self._uri.endswith("/")
        is_wrapped = "://" not in self._uri.partition("::")[0]
        if is_wrapped or PurePosixPath(name_of(self._uri)).suffix.lower() in self._suffixes:
            return False
        return bool(attempt(self._uri, lambda: self.store.isdir(self.path)))

    def walk(self, folder: str) -> Iterator[str]:
        """As folders on disk are walked: numbered pictures only are one source, other media are their own."""
        try:
            entries = self._entries(folder)
        except DecodeError:
            yield self.uri_of(folder)
            return
        media = [
            path
            for path, info in entries
            if info.get("type") != "directory" and PurePosixPath(name_of(path)).suffix.lower() in self._suffixes
        ]
        names = [PurePosixPath(name_of(path)) for path in media]
        if media and all(name.suffix.lower() in PICTURE_SUFFIXES for name in names) and is_numbered(names):
            yield self.uri_of(folder)
        else:
            yield from map(self.uri_of, media)
        for path, info in entries:
            if info.get("type") == "directory":
                yield from self.walk(path)

    def _entries(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        found = attempt(self._uri, lambda: self.store.ls(folder, detail=True))
        entries = sorted((str(info["name"]), info) for info in found if info["name"].rstrip("/") != folder.rstrip("/"))
        hidden = (".", "__MACOSX")
        return [(path, info) for path, info in entries if not PurePosixPath(path.rstrip("/")).name.startswith(hidden)]
