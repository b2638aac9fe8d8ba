"""A folder behind a URI: its files listed, read, written and removed, every request tried again where that may help."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from stages.errors import ResourceError
from stages.stores import attempt, open_store

TRANSFERS = 8


class RemoteFolder:
    """The files under a URI by their names relative to it. Raises ResourceError when the store refuses or is silent."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._store, root = open_store(uri, ResourceError)
        self._root = root.rstrip("/")
        # Drivers that are not made for it (ftp) must not be used by several threads at once.
        self.transfers = TRANSFERS if getattr(self._store, "async_impl", False) else 1

    def sizes(self) -> dict[str, int | None]:
        """All files with their sizes; none where there is no such folder."""
        return attempt(self.uri, self._sizes, ResourceError)

    def read(self, name: str) -> bytes | None:
        """The content of a small file, or None where it is not there."""

        def content() -> bytes | None:
            try:
                found: bytes = self._store.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return found

        return attempt(self._uri(name), content, ResourceError)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        attempt(self._uri(name), partial(self._made, name, self._store.pipe_file, content), ResourceError)

    def put(self, local: Path, name: str) -> None:
        """Copy a local file there."""
        attempt(self._uri(name), partial(self._put, local, name), ResourceError)

    def get(self, name: str, local: Path) -> None:
        """Copy a file from there; it appears whole or not at all."""
        attempt(self._uri(name), partial(self._get, name, local), ResourceError)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

        def removed() -> None:
            try:
                self._store.rm_file(self._path(name))
            except FileNotFoundError:
                return

        attempt(self._uri(name), removed, ResourceError)

    def _sizes(self) -> dict[str, int | None]:
        self._store.invalidate_cache()
        try:
            found: Mapping[str, Mapping[str, Any]] = self._store.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        names = {path.removeprefix(self._root).lstrip("/"): info.get("size") for path, info in found.items()}
        return {name: size for name, size in names.items() if name and ".." not in PurePosixPath(name).parts}

    def _put(self, local: Path, name: str) -> None:
        self._made(name, lambda path: self._store.put_file(str(local), path))

    def _made(self, name: str, write: Callable[..., object], *content: bytes) -> None:
        """Write; where the store wants folders to be made first, make them."""
        try:
            write(self._path(name), *content)
        except FileNotFoundError:
            self._store.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            write(self._path(name), *content)

    def _get(self, name: str, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        temporary = local.with_name(f".{local.name}.{os.getpid()}.tmp")
        try:
            self._store.get_file(self._path(name), str(temporary))
            os.replace(temporary, local)
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _uri(self, name: str) -> str:
        first, chain, tail = self.uri.partition("::")
        return f"{first.rstrip('/')}/{name}{chain}{tail}"
