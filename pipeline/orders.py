"""What is to be done with a source: all of it, some of its clips, or a first look at every clip (screening)."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from stages.records import VideoSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """`only`: the clips that are wanted, None for all. `is_screening`: clips are scored untouched, and nothing more.

    `targets`, when they are known beforehand; `num_frames`, when the film goes on behind the last wanted clip.
    """

    is_screening: bool = False
    only: frozenset[int] | None = None
    targets: tuple[int, ...] | None = None
    num_frames: int = 0


EVERYTHING = Order()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A video for a coordinator. `targets`: what an earlier, unfinished attempt has chosen."""

    source: VideoSource
    order: Order = EVERYTHING
    targets: tuple[int, ...] | None = None


# The order for a source; None: nothing of it is to be done.
Orders = Callable[[VideoSource], Order | None]


def explain_everything(source: VideoSource) -> Order | None:
    """Every clip of every source."""
    return EVERYTHING


@dataclass(slots=True)
class Feed:
    """The videos that wait to be opened; `has_ended`: no others will come."""

    waiting: deque[Assignment] = field(default_factory=deque)
    has_ended: bool = False

    def close(self) -> None:
        """Forget what waits; take in nothing more."""
        self.waiting.clear()
        self.has_ended = True
