"""The journal, written behind the coordinator's back: the loop that feeds the scorers never waits for the disk.

Rounds that come together are committed together: all files are written, then brought to the disk, then named, then
their folders are brought to the disk, so a round costs half of what it costs alone. A round is on the disk some
milliseconds after its last score. That is safe: reading a clip waits for what is on its way, a video counts as finished
only after a flush, and a round lost in a crash is asked of the box again, with the same answer. Few rounds are on their
way at a time; behind a slow disk the loop waits.
"""

import logging
import os
import queue
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

from pipeline.files import sync_folder, writing
from pipeline.journal import Journal, JournalRecord, Kind, pack
from stages.errors import ExplainError, ResourceError
from stages.records import ClipId, ClipInfo, MaskBatch, Scores

_log = logging.getLogger(__name__)

WRITERS = 2
MAX_GROUP = 16
MAX_PENDING = 64

_Order = tuple[Path, JournalRecord, "Future[None]"]


class BackgroundJournal(Journal):
    """A Journal whose `append` returns before the file is there. What a write raised is raised by a later call."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._pending: dict[Path, tuple[ClipId, Future[None]]] = {}
        self._threads = [threading.Thread(target=self._write, name="journal", daemon=True) for _ in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def append(self, info: ClipInfo, masks: MaskBatch, scores: Scores, *, kind: Kind = "round") -> Path:
        """Have one round written down. Raises ResourceError when an earlier one could not be."""
        self.expect_one_round(info, masks, scores)
        self._reap(most=MAX_PENDING)
        path = self._path(info.id, masks.round_idx, kind)
        if path in self._pending:  # asked twice, after a crash of the sink: one after the other
            self._await([path])
        done: Future[None] = Future()
        self._pending[path] = info.id, done
        self._orders.put((path, JournalRecord(info=info, masks=masks, scores=scores), done))
        return path

    def rounds(self, clip_id: ClipId) -> list[tuple[MaskBatch, Scores]]:
        """As in a Journal; waits for what is being written of this clip."""
        self._await_clip(clip_id)
        return super().rounds(clip_id)

    def effects(self, clip_id: ClipId) -> dict[int, tuple[MaskBatch, Scores]]:
        """As in a Journal; waits for what is being written of this clip."""
        self._await_clip(clip_id)
        return super().effects(clip_id)

    def info(self, clip_id: ClipId) -> ClipInfo | None:
        """As in a Journal; waits for what is being written of this clip."""
        self._await_clip(clip_id)
        return super().info(clip_id)

    def flush(self) -> None:
        """On return everything is on the disk. Raises ResourceError when something could not be written."""
        self._reap(most=0)

    def close(self) -> None:
        """Let the writers end. Call `flush` before to hear of their errors."""
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()

    def _await_clip(self, clip_id: ClipId) -> None:
        self._await([path for path, (owner, _) in self._pending.items() if owner == clip_id])

    def _reap(self, most: int) -> None:
        """Forget what is written; wait until at most `most` are on their way."""
        self._await([path for path, (_, done) in self._pending.items() if done.done()])
        self._await(list(self._pending)[: max(len(self._pending) - most, 0)])

    def _await(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._pending.pop(path)[1].result()

    def _write(self) -> None:
        while (order := self._orders.get()) is not None:
            group, has_ended = [order], False
            while len(group) < MAX_GROUP and not has_ended:
                try:
                    more = self._orders.get_nowait()
                except queue.Empty:
                    break
                has_ended = more is None
                group += [more] if more is not None else []
            try:
                _commit(group)
            except (ExplainError, OSError, ValueError, MemoryError) as error:
                _log.warning("journal=%s not written: %s", self.folder, error)
            finally:  # nobody may wait for ever
                for path, _, done in group:
                    if not done.done():
                        done.set_exception(ResourceError(str(path), "was not written", "see log.jsonl, then resume"))
            if has_ended:
                return


def _commit(group: list[_Order]) -> None:
    """Bring some rounds to the disk: each is there whole or not at all, and its future says which."""
    ready: list[tuple[Path, Path, Future[None], int]] = []
    for path, record, done in group:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
                ready.append((path, temporary, done, descriptor))
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(pack(record))
        except ExplainError as error:
            done.set_exception(error)
    for path, temporary, done, descriptor in ready:
        try:
            with writing(path):
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                if not done.done():
                    os.replace(temporary, path)
        except ExplainError as error:
            if not done.done():
                done.set_exception(error)
        finally:
            temporary.unlink(missing_ok=True)
    for folder in {path.parent for path, _, done, _ in ready if not done.done()}:
        with writing(folder):
            sync_folder(folder)
    for _, _, done, _ in ready:
        if not done.done():
            done.set_result(None)
