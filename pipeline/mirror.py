"""Run folders behind URIs: worked on in a local folder, and mirrored to the store.

A run needs locks, renames, appends and growing films, which object stores do not have. So `mirrored` gives a local work
folder, brought up to date first, and a thread carries to the store what is finished: after every video, and journals
now and then. The order of a round (outputs, then the lists that name them, then the manifest, then a marker) leaves
the store in a state from which any machine can resume. What cannot be pushed stays in the work folder.

A work folder that knows the store's marker is the truth; where another session has written since, the store is.
"""

import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pipeline.files import read_lines, remove, safe_name
from pipeline.manifest import RUN_CONTENTS
from pipeline.twin import LISTS, MANIFEST, MARKER, Twin
from stages.errors import ExplainError, ManifestError, ResourceError
from stages.remote import cache_folder
from stages.stores import expect_remote, is_remote, local_name, name_of

Purpose = Literal["new", "resume", "add", "read"]  # add: files beside those of the run, which may be going on

WORK_VARIABLE = "HEATREEL_WORK_DIR"
POLL_S = 1.0
JOURNAL_S = 60.0  # how much answered work another machine may have to ask again

_log = logging.getLogger(__name__)


@contextmanager
def mirrored(place: str | Path, purpose: Purpose, *, overwrite: bool = False) -> Iterator[Path]:
    """The local folder of a run for as long as the block runs; what changes in it is pushed to where `place` says.

    A local path is itself. Raises ManifestError where the run is taken, or worked on by others; ResourceError when the
    store cannot be used, or when something could not be pushed in the end: it stays in the work folder.
    """
    if not is_remote(str(place)):
        yield Path(local_name(str(place)))
        return
    expect_remote(str(place))
    uri = str(place).rstrip("/")
    folder = work_folder(uri)
    with _only_one(folder.parent, uri):
        mirror = _Mirror(Twin(uri, folder, folder.parent / "index.json"), purpose)
        mirror.begin(overwrite=overwrite)
        try:
            yield folder
        except BaseException:
            try:
                mirror.end()
            except ExplainError as error:  # what ended the block matters more
                _log.warning("uri=%s not pushed: %s", uri, error)
            raise
        mirror.end()


def work_folder(uri: str) -> Path:
    """Where the run behind a URI is worked on: in HEATREEL_WORK_DIR, or in `runs` of the cache folder."""
    base = Path(os.environ.get(WORK_VARIABLE) or cache_folder() / "runs").expanduser()
    digest = hashlib.sha256(uri.encode(errors="surrogateescape")).hexdigest()[:12]
    name = safe_name(name_of(uri))
    return base / f"{name}-{digest}" / name


class _Mirror:
    """When what is carried, and who is right where the work folder and the store differ."""

    def __init__(self, twin: Twin, purpose: Purpose) -> None:
        self._twin = twin
        self._uri, self._folder = twin.uri, twin.folder
        self._purpose = purpose
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, *, overwrite: bool) -> None:
        """Bring the work folder up to date; a writer says that it writes, and starts to push."""
        there = self._twin.remote.sizes()
        if self._purpose == "new":
            self._expect_free(there, overwrite)
            self._set_aside(keep=False)
            self._twin.adopt(None)
            self._twin.mark()
            self._clear(there)
        else:
            self._catch_up(there)
            if self._purpose == "resume":
                self._twin.mark()
        if self._purpose in ("new", "resume"):
            self._thread = threading.Thread(target=self._watch, name="mirror", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Push all that is left. Raises ResourceError with what stays local, and where."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._purpose == "read":
            return
        try:
            if self._purpose != "add":
                self._twin.expect_still_ours()
            self._twin.push(self._twin.files())
            self._twin.remove_gone()
            if self._purpose != "add":
                self._seal(dict.fromkeys(LISTS))
        except ResourceError as error:
            fact = f"not everything could be pushed ({error.item}: {error.fact})"
            remedy = f"all of it lies in {self._folder}; {error.remedy}, then run `heatreel resume {self._uri}`"
            raise ResourceError(self._uri, fact, remedy) from error
        finally:
            self._twin.save()

    def _expect_free(self, there: Mapping[str, int | None], overwrite: bool) -> None:
        if MANIFEST in there:
            if not overwrite:
                remedy = f"go on with it by `heatreel resume {self._uri}`, or replace it with --overwrite"
                raise ManifestError(self._uri, "there is a run in this folder already", remedy)
            if b'"heatreel-run"' not in (self._twin.remote.read(MANIFEST) or b"")[:4096]:
                fact = f"its {MANIFEST} is not one of heatreel's"
                raise ManifestError(self._uri, fact, "choose another folder with --out")
        elif any(name.partition("/")[0] not in (*RUN_CONTENTS, MARKER) for name in there):
            fact = "the folder is not empty and holds no heatreel run"
            raise ManifestError(self._uri, fact, "choose an empty one with --out")
        if self._twin.changed() and not overwrite:
            remedy = f"push them by `heatreel resume {self._uri}`, or drop them with --overwrite"
            raise ManifestError(self._uri, f"results that were never pushed lie in {self._folder}", remedy)

    def _catch_up(self, there: Mapping[str, int | None]) -> None:
        """Decide who is right, the work folder or the store, and pull what is missing."""
        marker = self._twin.marker() if MARKER in there else None
        names = [name for name in there if name != MARKER]
        if MANIFEST not in there:
            self._twin.remote.read(MANIFEST)  # raises: some stores that do not answer list nothing
            self._twin.forget()  # the first push failed, or the store was emptied: all is to be pushed
        elif self._twin.is_marked(marker):
            self._twin.pull([name for name in names if self._twin.is_lacking(name, there[name])])
        else:
            self._set_aside(keep=bool(self._twin.changed()))
            self._twin.pull(names)
        if not (self._folder / MANIFEST).exists():
            raise ManifestError(self._uri, "there is no heatreel run here", "give the folder of a run")
        self._twin.adopt(marker)

    def _set_aside(self, *, keep: bool) -> None:
        """Empty the work folder; what the store does not have is kept under another name."""
        if keep:
            aside = self._folder.with_name(f"{self._folder.name}.{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
            os.replace(self._folder, aside)
            _log.warning("uri=%s was written elsewhere; what was never pushed from here lies in %s", self._uri, aside)
        remove(self._folder)
        self._twin.forget()

    def _clear(self, there: Mapping[str, int | None]) -> None:
        """Remove the run that is replaced from the store, the manifest last."""
        ours = [name for name in there if name.partition("/")[0] in RUN_CONTENTS]
        for name in sorted(ours, key=lambda name: name == MANIFEST):
            self._twin.remote.remove(name)

    def _watch(self) -> None:
        """Push after every finished video, and journals now and then, until the block ends."""
        seen: dict[str, int] = {}
        waited = 0.0
        while not self._stop.wait(POLL_S):
            waited += POLL_S
            sizes = {name: _size(self._folder / name) for name in (*LISTS, MANIFEST)}
            if sizes == seen and waited < JOURNAL_S:
                continue
            try:
                self._push_finished()
                seen, waited = sizes, 0.0
            except ManifestError as error:
                _log.warning("uri=%s pushing stops: %s", self._uri, error)
                return
            except (ExplainError, OSError) as error:  # `end` tries again, and says it
                _log.warning("uri=%s not pushed yet: %s", self._uri, error)

    def _push_finished(self) -> None:
        """Everything that will not change any more, then the lists as they were before it was collected."""
        self._twin.expect_still_ours()
        lists: dict[str, int | None] = {name: _size(self._folder / name) for name in LISTS}
        done = [row for row in read_lines(self._folder / "videos.jsonl") if row.get("event") == "done"]
        parts = (*(output for row in done for output in row.get("outputs", ())), "journal", "parts")
        self._twin.push([name for part in parts for name in self._twin.files(part)])
        self._seal(lists)

    def _seal(self, lists: Mapping[str, int | None]) -> None:
        """Lists, manifest, marker: from here on the store holds this round."""
        self._twin.push_lists(lists)
        self._twin.push_manifest()
        self._twin.mark()


@contextmanager
def _only_one(folder: Path, uri: str) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        fact = f"its work folder {folder} cannot be written ({error.strerror or error})"
        raise ResourceError(uri, fact, f"set {WORK_VARIABLE} to a folder that can") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fact = "another heatreel process on this machine works on it"
            raise ManifestError(uri, fact, "wait for it, or stop it") from None
        yield


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
