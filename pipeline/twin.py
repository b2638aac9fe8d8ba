"""A local folder and its twin behind a URI: what both have in common, and carrying over what only one of them has.

The marker, heatreel-mirror.json in the store, names the last writing session and its round. The index, a local file,
remembers the marker and, of every file, the size and time of change at which it was carried.
"""

import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.files import write_json
from pipeline.storage import RemoteFolder
from stages.errors import ManifestError

MARKER, MANIFEST = "heatreel-mirror.json", "manifest.json"
LISTS = ("failures.jsonl", "videos.jsonl")

Stamp = tuple[int, int]  # size, time of the last change in ns


class Twin:
    """What is carried between `folder` and the store. Raises ResourceError when the store refuses or is silent."""

    def __init__(self, uri: str, folder: Path, index: Path) -> None:
        self.uri = uri
        self.folder = folder
        self.remote = RemoteFolder(uri)
        self._index = index
        known = parse(index.read_bytes() if index.exists() else None) or {}
        self._markers: list[Any] = known.get("markers", [])
        self._carried: dict[str, Stamp] = {name: (size, at) for name, (size, at) in known.get("files", {}).items()}
        self._session = uuid.uuid4().hex
        self._round = 0
        self._lock = threading.Lock()

    def is_marked(self, marker: Any) -> bool:
        """Whether nobody else has written to the store since this folder and it were alike."""
        return marker is not None and marker in self._markers

    def marker(self) -> Any:
        """What the store says who wrote to it last; None where it says nothing."""
        return parse(self.remote.read(MARKER))

    def adopt(self, marker: Any) -> None:
        """The folder and the store are alike now."""
        self._markers = [marker]
        self.save()

    def mark(self) -> None:
        """End a round, or (first) say that this session writes. Whichever marker a kill leaves there is known here."""
        marker = {"session": self._session, "round": self._round}
        self._round += 1
        self._markers = [*self._markers[-1:], marker]
        self.save()
        self.remote.write(MARKER, json.dumps(marker).encode())

    def expect_still_ours(self) -> None:
        """Raise ManifestError when another session has begun to write to the store."""
        marker = self.marker()
        if marker is not None and marker.get("session") != self._session:
            fact = "another heatreel process has taken over this run"
            raise ManifestError(self.uri, fact, f"what was computed here lies in {self.folder}")

    def files(self, part: str = "") -> list[str]:
        """The names of the files in the folder, or in a part of it; none that are only half there."""
        top = self.folder / part
        found = [top] if top.is_file() else sorted(top.rglob("*"))
        files = [path for path in found if path.is_file() and not path.name.startswith(".")]
        return [path.relative_to(self.folder).as_posix() for path in files]

    def changed(self) -> list[str]:
        """What the folder holds and the store was never given."""
        return [name for name in self.files() if self._carried.get(name) != stamp_of(self.folder / name)]

    def is_lacking(self, name: str, size: int | None) -> bool:
        """Whether a file of the store is missing here, or (untouched here) has another size there."""
        path = self.folder / name
        if not path.exists():
            return True
        is_untouched = self._carried.get(name) == stamp_of(path)
        return is_untouched and size is not None and size != path.stat().st_size

    def pull(self, names: Sequence[str]) -> None:
        """Fetch files."""

        def get(name: str) -> None:
            self.remote.get(name, self.folder / name)
            self._carry(name, stamp_of(self.folder / name))

        try:
            self._each(get, names)
        finally:
            self.save()

    def push(self, names: Sequence[str]) -> None:
        """Carry files that have changed; the lists and the manifest have their own turn."""
        stamps = {name: stamp_of(self.folder / name) for name in names if name not in (*LISTS, MANIFEST)}

        def put(name: str) -> None:
            self.remote.put(self.folder / name, name)
            self._carry(name, stamps[name])

        self._each(put, [name for name, stamp in stamps.items() if self._carried.get(name) != stamp])

    def push_lists(self, sizes: Mapping[str, int | None]) -> None:
        """Carry whole lines of the lists, up to a size of each that was seen earlier (None: all)."""
        for name, size in sizes.items():
            path = self.folder / name
            if path.exists() and self._carried.get(name) != (stamp := stamp_of(path)):
                content = path.read_bytes()[:size]
                self.remote.write(name, content[: content.rfind(b"\n") + 1])
                self._carry(name, stamp if len(content) == stamp[0] else (len(content), 0))

    def push_manifest(self) -> None:
        """Carry the manifest."""
        path = self.folder / MANIFEST
        if path.exists() and self._carried.get(MANIFEST) != (stamp := stamp_of(path)):
            self.remote.put(path, MANIFEST)
            self._carry(MANIFEST, stamp)

    def remove_gone(self) -> None:
        """Remove from the store what was carried there and is not in the folder any more."""
        for name in [name for name in self._carried if not (self.folder / name).exists()]:
            self.remote.remove(name)
            del self._carried[name]

    def forget(self) -> None:
        """Nothing counts as carried."""
        self._carried.clear()

    def save(self) -> None:
        """Write the index."""
        with self._lock:
            content = {"uri": self.uri, "markers": self._markers, "files": dict(self._carried)}
        write_json(self._index, content)

    def _carry(self, name: str, stamp: Stamp) -> None:
        with self._lock:
            self._carried[name] = stamp

    def _each(self, transfer: Callable[[str], None], names: Sequence[str]) -> None:
        with ThreadPoolExecutor(self.remote.transfers) as pool:
            try:
                for _ in pool.map(transfer, names):
                    pass
            finally:  # one fault ends it: the others would meet the same
                pool.shutdown(cancel_futures=True)


def stamp_of(path: Path) -> Stamp:
    """By what a file is seen to change."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def parse(content: bytes | None) -> Any:
    """The JSON in some bytes; None for no bytes and for damaged ones."""
    try:
        return json.loads(content or b"null")
    except ValueError:
        return None
