"""The coordinators of a run, seen from its driver: here the one beside threads; `ray_fleet.py` has them in actors."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.config import Config
from pipeline.local import LocalEngine
from pipeline.shards import Message, Report, Shard, ShardPlan, Stop
from pipeline.topology import ScorerReport, Share


class Fleet(Protocol):
    """Keeps the shards of a run."""

    def start(self, config: Config, run: str) -> Sequence[ScorerReport]:
        """Bring up all shards; a report of the first scorer of each. Raises what a shard cannot start for."""
        ...

    def tell(self, shard: int, message: Message) -> None:
        """Send a message; returns at once."""

    def wait(self, timeout_s: float) -> list[tuple[int, Report]]:
        """The reports that came since the last call; works or waits for about `timeout_s` at most."""
        ...

    def memory(self) -> dict[str, int]:
        """Peak resident bytes of this process ("driver"), of coordinators and of workers."""
        ...

    def publish(self, metrics: Mapping[str, float]) -> None:
        """Let those who watch the cluster see these figures (names as in `metrics.METRICS`)."""

    def close(self) -> None:
        """End everything."""


class LocalFleet:
    """One shard in this process. It works while the driver waits."""

    def __init__(self) -> None:
        self._shard: Shard | None = None
        self._messages: list[Message] = []

    def start(self, config: Config, run: str) -> Sequence[ScorerReport]:
        """Bring up the threads."""
        self._shard = Shard(ShardPlan(config=config, run=run, share=Share()), LocalEngine())
        return [self._shard.start()]

    def tell(self, shard: int, message: Message) -> None:
        """Kept until the shard works; but it may be at work now, and a stop is to be heeded at once."""
        if isinstance(message, Stop) and self._shard is not None:
            self._shard.stop()
        else:
            self._messages.append(message)

    def wait(self, timeout_s: float) -> list[tuple[int, Report]]:
        """Let the shard work."""
        assert self._shard is not None, "start() has not run"
        messages, self._messages = self._messages, []
        return [(0, self._shard.advance(messages, timeout_s))]

    def memory(self) -> dict[str, int]:
        """All threads live in the driver."""
        return {} if self._shard is None else self._shard.engine.memory()

    def publish(self, metrics: Mapping[str, float]) -> None:
        """Nobody watches one process."""

    def close(self) -> None:
        """End the threads."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None
