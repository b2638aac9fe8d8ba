"""Mask rows that wait for a scorer, and how they become batches. In: rounds of clips. Out: pieces that fill a batch.

Batches are filled across clips. A clip's home is the scorer that saw it last (its pixels are on that device): each
scorer serves its own clips first, then clips without a home, then those of others: a preference, never a wait.
Rows of a failed batch come back one clip at a time, so that the clip which is to blame is found.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.work import Piece


@dataclass(slots=True)
class _Waiting:
    job: int
    round_idx: int
    start: int
    stop: int
    since: float  # when the job was last served, or queued
    home: int | None


class RowQueue:
    """Rounds waiting to be scored, oldest first. Every operation costs no more than the pieces it hands out.

    `deadline_s`: a scorer without work sends a part-filled batch after this long. `starvation_s`: a clip that was not
    served for this long goes first, whatever its home.
    """

    def __init__(self, *, deadline_s: float, starvation_s: float) -> None:
        self._deadline_s = deadline_s
        self._starvation_s = starvation_s
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()  # by time of last service
        self._by_home: dict[int | None, OrderedDict[int, _Waiting]] = {}
        self._alone: list[tuple[float, Piece]] = []  # (not before, piece)
        self.num_rows = 0

    def put(self, piece: Piece, now: float, home: int | None = None) -> None:
        """Queue a round (or what is left of one) of a job; a job has one round waiting at a time."""
        if not len(piece):
            return
        waiting = _Waiting(piece.job, piece.round_idx, piece.start, piece.stop, now, home)
        self._waiting[piece.job] = waiting
        self._by_home.setdefault(home, OrderedDict())[piece.job] = waiting
        self.num_rows += len(piece)

    def put_alone(self, piece: Piece, not_before: float) -> None:
        """Queue rows that must not share a batch with another clip."""
        self._alone.append((not_before, piece))

    def drop(self, job: int) -> None:
        """Forget everything that waits for this job."""
        waiting = self._waiting.pop(job, None)
        if waiting is not None:
            del self._by_home[waiting.home][job]
            self.num_rows -= waiting.stop - waiting.start
        self._alone = [(ready, piece) for ready, piece in self._alone if piece.job != job]

    def is_waiting(self) -> bool:
        """Whether anything waits at all."""
        return bool(self.num_rows or self._alone)

    def next_change(self) -> float | None:
        """The clock time at which waiting alone changes what `take` would answer."""
        times = [ready for ready, _ in self._alone]
        if self._waiting:
            times.append(next(iter(self._waiting.values())).since + self._deadline_s)
        return min(times, default=None)

    def take(self, worker: int, size: int, now: float, *, is_idle: bool, may_arrive: bool) -> tuple[Piece, ...]:
        """The next batch of at most `size` rows for this scorer, or nothing.

        Less than `size` rows are handed out only to an idle scorer, when no more rows can arrive soon or when the
        oldest clip has waited for the deadline.
        """
        for at, (ready, piece) in enumerate(self._alone):
            if ready <= now:
                del self._alone[at]
                head = Piece(piece.job, piece.round_idx, piece.start, min(piece.stop, piece.start + size))
                if head.stop < piece.stop:
                    self._alone.insert(at, (ready, Piece(piece.job, piece.round_idx, head.stop, piece.stop)))
                return (head,)
        if not self._waiting:
            return ()
        if self.num_rows < size:
            has_waited = now - next(iter(self._waiting.values())).since >= self._deadline_s
            if not (is_idle and (has_waited or not may_arrive)):
                return ()
        return self._fill(worker, size, now)

    def _fill(self, worker: int, size: int, now: float) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        room = size
        while room and self._waiting:
            waiting = next(self._candidates(worker, now))
            stop = min(waiting.stop, waiting.start + room)
            pieces.append(Piece(waiting.job, waiting.round_idx, waiting.start, stop))
            room -= stop - waiting.start
            self.num_rows -= stop - waiting.start
            self._serve(waiting, stop, worker, now)
        return tuple(pieces)

    def _candidates(self, worker: int, now: float) -> Iterator[_Waiting]:
        oldest = next(iter(self._waiting.values()))
        if now - oldest.since >= self._starvation_s:
            yield oldest
        yield from (self._by_home.get(worker) or {}).values()
        yield from (self._by_home.get(None) or {}).values()
        yield from max(self._by_home.values(), key=len).values()

    def _serve(self, waiting: _Waiting, stop: int, worker: int, now: float) -> None:
        del self._waiting[waiting.job]
        homed = self._by_home[waiting.home]
        if stop == waiting.stop or waiting.home != worker:
            del homed[waiting.job]
            if not homed:
                del self._by_home[waiting.home]
        if stop < waiting.stop:
            waiting.start, waiting.since = stop, now
            self._waiting[waiting.job] = waiting
            if waiting.home != worker:
                waiting.home = worker
                self._by_home.setdefault(worker, OrderedDict())[waiting.job] = waiting
