"""What the scheduler remembers of a clip on its way (`Job`) and of a video that is open (`Video`). No pixels."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pipeline.orders import EVERYTHING, Order
from pipeline.work import Piece, Purpose

Phase = Literal["stream", "finish", "verify", "close"]


@dataclass(slots=True)
class Job:
    """One clip on its way. `nbytes` are held while the frames may still be asked about."""

    id: int
    video: str
    clip_idx: int
    purpose: Purpose
    rows: int = 0  # of the current round
    round_idx: int = 0
    num_scored: int = 0
    nbytes: int = 0
    has_frames: bool = False
    is_first_look: bool = False  # a peek that became the only clip of its video
    parked: list[Piece] = field(default_factory=list)  # rows that wait for the frames to be read again
    attempts: int = 0

    @property
    def is_in_window(self) -> bool:
        """Replays hold credits of their own, so that they cannot wait for the clips that wait for them."""
        return self.purpose != "replay"

    @property
    def is_in_stream(self) -> bool:
        """Whether clips of this kind come in order, so that the last of them is the end of the video."""
        return self.purpose in ("screen", "stream", "replay")


class Video:
    """One open video: what to read next, what waits for its turn to be written."""

    def __init__(
        self,
        name: str,
        *,
        peek: Iterable[int],
        done: Iterable[int],
        order: Order = EVERYTHING,
        is_chained: bool = False,
    ) -> None:
        self.name = name
        self.is_chained = is_chained  # clips are refined one after the other
        self.only = order.only
        self._wanted_stop = 0 if order.only is None else max(order.only, default=-1) + 1
        self.is_screening = order.is_screening  # clips end with their first round; nothing is written
        self.done = frozenset(done) if order.only is None else order.only & frozenset(done)  # in the journal
        self.peeks = deque(peek)
        self.is_gated = bool(self.peeks)  # refinement waits for the target
        self.num_peeks = len(self.peeks)  # not yet answered
        self.is_unseen = 0 in self.peeks  # the first look at clip 0 may show that it is all there is
        self.held: list[int] = []  # jobs that wait at the gate, or for the clip before them
        self.replays = deque(() if order.is_screening else sorted(self.done))
        self.num_replaying = 0
        self.next_idx = 0
        self.end_idx: int | None = None if order.only is None else self._wanted_stop  # no clip from here on
        self.again: deque[int] = deque()  # jobs to be read (again) before anything new
        self.verify: deque[int] = deque()  # clips to ask again about their regions
        self.jobs: set[int] = set()
        self.ready: dict[int, int] = {}  # clip_idx -> job, refined, not yet written
        self.skipped: set[int] = set()
        self.next_sink = 0
        self.num_sunk = 0
        self.phase: Phase = "stream"
        self.sink_seq: int | None = None
        self.sink_worker: int | None = None
        self.decode_worker: int | None = None
        self.epoch = 0
        self.most_sunk = 0  # of all epochs
        self.sink_attempts = 0  # without progress
        self.sink_not_before = 0.0
        self.last_served = 0
        self.is_failed = False
        self.is_cut = False  # the run was stopped before all of it was done

    @property
    def is_urgent(self) -> bool:
        """Whether something already begun waits for a read."""
        return bool(self.again or self.verify or (self.peeks and self.phase == "stream"))

    @property
    def is_streaming(self) -> bool:
        """Whether clips may still be asked for that were not asked for yet."""
        self._pass_over_known()
        return self.phase == "stream" and (self.end_idx is None or self.next_idx < self.end_idx or bool(self.replays))

    def next_stream_idx(self) -> int | None:
        """The next clip to read, passing over those in the journal and those that are not wanted."""
        self._pass_over_known()
        if self.is_unseen:
            return None
        if self.end_idx is not None and self.next_idx >= self.end_idx:
            return None
        return self.next_idx

    def end_at(self, clip_idx: int) -> None:
        """There is no clip from `clip_idx` on, besides those in the journal."""
        self.end_idx = clip_idx if self.end_idx is None else min(self.end_idx, clip_idx)

    def has_settled(self, clip_idx: int) -> bool:
        """Whether the maps of this clip are final, or will never come."""
        is_left_out = clip_idx in self.skipped or self._is_unwanted(clip_idx)
        return clip_idx < self.next_sink or clip_idx in self.ready or is_left_out

    def take_ready(self, most: int) -> list[int]:
        """The next refined jobs in clip order, without gaps."""
        taken: list[int] = []
        while len(taken) < most:
            if self.next_sink in self.ready:
                taken.append(self.ready.pop(self.next_sink))
            elif self.next_sink not in self.skipped and not self._is_unwanted(self.next_sink):
                break
            self.next_sink += 1
        return taken

    def return_ready(self, jobs: Iterable[tuple[int, int]]) -> None:
        """Put back what `take_ready` gave, as (clip_idx, job)."""
        for clip_idx, job in jobs:
            self.ready[clip_idx] = job
            self.next_sink = min(self.next_sink, clip_idx)

    def skip(self, clip_idx: int) -> None:
        """This clip will never come."""
        self.skipped.add(clip_idx)

    def start_over(self, replaying: Iterable[int] = ()) -> None:
        """The sink lost its state: everything written so far, and what was `replaying`, is replayed, in clip order."""
        written = [idx for idx in range(self.next_sink) if idx not in self.skipped and not self._is_unwanted(idx)]
        self.replays = deque(sorted({*written, *self.replays, *replaying}))
        self.ready = {idx: job for idx, job in self.ready.items() if job in self.jobs}
        self.next_sink = 0
        self.num_sunk = 0
        self.phase = "stream"
        self.verify.clear()
        self.sink_seq = None
        self.sink_worker = None
        self.epoch += 1

    def stop(self) -> None:
        """Read nothing that was not asked for yet; what is not done then is missing."""
        self.is_cut |= self.phase == "stream" and (self.end_idx is None or self.next_idx < self.end_idx)
        self.end_here()
        self.is_cut |= bool(self.verify)
        self.verify.clear()

    def end_here(self) -> None:
        """Begin no further clip; those that were begun are all there is."""
        if self.phase == "stream":
            gaps = set(range(self.next_idx, max(self.done, default=0))) - self.done  # before clips of the journal
            self.skipped |= gaps
            self.end_at(self.next_idx)
            self.num_peeks -= len(self.peeks)
            self.is_unseen &= 0 not in self.peeks
            self.peeks.clear()

    def give_up(self) -> None:
        """Nothing more will be read or refined; only what is written remains to be closed."""
        self.stop()
        self.replays.clear()
        self.ready.clear()
        self.again.clear()
        self.held.clear()
        self.end_idx = 0
        if self.phase == "verify":
            self.phase = "close"

    def _pass_over_known(self) -> None:
        while self.next_idx in self.done or self._is_unwanted(self.next_idx):
            self.next_idx += 1

    def _is_unwanted(self, clip_idx: int) -> bool:
        return self.only is not None and clip_idx not in self.only and clip_idx < self._wanted_stop
