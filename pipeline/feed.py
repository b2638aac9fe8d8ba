"""Sources, found and probed in threads of their own, some ahead of the run: thousands of files are listed lazily.

Names are found further ahead than files are probed: a probe reads the file, and may have to fetch it.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from stages.errors import ExplainError, ResourceError
from stages.records import Failure, VideoSource
from stages.sources import find_sources, probe, unique_id

AHEAD = 4
NAMES_AHEAD = 1024
PATIENCE_S = 10.0
PUT_S = 0.2


class KnownFeed:
    """Sources that have been probed before; what the coordinator asks of a `SourceFeed`."""

    def __init__(self, sources: Iterable[VideoSource]) -> None:
        self._left = deque(sources)

    def poll(self, timeout_s: float = 0.0) -> VideoSource | Failure | None:
        """The next source; None at the end."""
        return self._left.popleft() if self._left else None

    @property
    def has_ended(self) -> bool:
        """Whether nothing will come any more."""
        return not self._left

    def close(self) -> None:
        """Give no further source."""
        self._left.clear()


class SourceFeed:
    """Gives each source as a VideoSource, or as the Failure that says why it is none.

    `known`: ids of sources of an earlier run, by URI; `skip`: URIs that are done.
    """

    def __init__(
        self, names: Iterable[str], known: Mapping[str, str] | None = None, skip: Collection[str] = ()
    ) -> None:
        self._names = list(names)
        self._skip = frozenset(skip)
        self._known = dict(known or {})
        self._uris: queue.Queue[str | ExplainError | None] = queue.Queue(NAMES_AHEAD)
        self._queue: queue.Queue[VideoSource | Failure | ExplainError | None] = queue.Queue(AHEAD)
        self._num_found = 0
        self._is_all_found = threading.Event()
        self._returned: deque[VideoSource | Failure] = deque()
        self._is_closed = threading.Event()
        self.is_exhausted = False
        self._threads = [
            threading.Thread(target=self._find_all, name="names", daemon=True),
            threading.Thread(target=self._probe_all, name="sources", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def poll(self, timeout_s: float = 0.0) -> VideoSource | Failure | None:
        """The next source if one is there; None also at the end, when `is_exhausted`."""
        if self._returned:
            return self._returned.popleft()
        if self.is_exhausted:
            return None
        try:
            item = self._queue.get(timeout=timeout_s) if timeout_s else self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, ExplainError):
            raise item
        self.is_exhausted = item is None
        return item

    def is_long(self, seconds: float) -> bool:
        """Whether the sources hold more than so much video, or too many files to tell; looks no further than needed."""
        seen: list[VideoSource | Failure] = []
        total = 0.0
        while total <= seconds and len(seen) < 64 and not self.is_exhausted:
            item = self.poll(timeout_s=0.1)
            if item is not None:
                seen.append(item)
                total += (item.duration_s or 0.0) if isinstance(item, VideoSource) and item.kind != "image" else 0.0
        self._returned.extendleft(reversed(seen))
        return total > seconds

    def num_at_least(self, most: int) -> int:
        """How many sources there are by name, or `most` if there are more; does not wait for long."""
        until = time.monotonic() + PATIENCE_S
        while self._num_found < most and not self._is_all_found.wait(0.05) and time.monotonic() < until:
            continue
        return min(self._num_found, most)

    @property
    def has_ended(self) -> bool:
        """Whether nothing will come any more."""
        return self.is_exhausted and not self._returned

    def close(self, wait_s: float = 0.0) -> None:
        """List no further, and wait so long for the threads to end: a store that does not answer may hold them."""
        self._is_closed.set()
        self.is_exhausted = True
        self._returned.clear()
        until = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))

    def _find_all(self) -> None:
        try:
            for uri in find_sources(self._names):
                if uri in self._skip:
                    continue
                self._num_found += 1
                self._put(self._uris, uri)
                if self._is_closed.is_set():
                    return
        except ExplainError as error:
            self._put(self._uris, error)
        except OSError as error:  # a folder or a list that may not be read
            fact, remedy = f"cannot be listed ({error.strerror or error})", "check its permissions, or name its files"
            self._put(self._uris, ResourceError(str(error.filename or "the sources"), fact, remedy))
        finally:
            self._is_all_found.set()
            self._put(self._uris, None)

    def _probe_all(self) -> None:
        taken = {name.casefold() for name in self._known.values()}
        while not self._is_closed.is_set():
            try:
                uri = self._uris.get(timeout=PUT_S)
            except queue.Empty:
                continue
            if self._is_closed.is_set():
                return
            if isinstance(uri, str):
                self._put(self._queue, self._probe(uri, self._known.get(uri) or unique_id(uri, taken)))
                continue
            self._put(self._queue, uri)
            if uri is None:
                return

    def _probe(self, uri: str, video_id: str) -> VideoSource | Failure:
        try:
            return probe(uri, video_id)
        except ExplainError as error:
            kind, reason, remedy = type(error).__name__, error.fact, error.remedy
            return Failure(video_id=video_id, uri=uri, stage="decode", error=kind, reason=reason, remedy=remedy)

    def _put(self, where: "queue.Queue[Any]", item: object) -> None:
        while not self._is_closed.is_set():
            try:
                where.put(item, timeout=PUT_S)
                return
            except queue.Full:
                continue
