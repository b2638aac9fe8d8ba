"""Coordinators as Ray actors: each has its share of workers and of videos; the driver hands out and notes.

Two calls are always on their way to every coordinator, so that it never waits for the driver. One that dies is built
again, after the workers that it left behind have been ended: nobody else may be writing the films that it begins again.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.actors import RayEngine
from pipeline.config import Config
from pipeline.logs import LogLine, LogTray, log_again
from pipeline.memory import peak_memory
from pipeline.metrics import METRICS
from pipeline.ray_cluster import REACH_S, actor_options, begin, cluster_capacity, join, reason
from pipeline.shards import Message, Report, Shard, ShardPlan
from pipeline.topology import ScorerReport, Share, num_scorers
from pipeline.work import StageName
from stages.errors import ExplainError, ResourceError

_log = logging.getLogger(__name__)

# Batches of 60 ms and more on each of them are less than the 300 batches/s that one loop carries (docs/scaling.md).
SCORERS_PER_SHARD = 16
TURN_S = 0.1
TURNS = 2  # calls on their way to a coordinator
MEMORY_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 20.0
MAX_DEATHS = 5  # of one coordinator, without a report in between
END_S = 10.0

Hands = dict[tuple[StageName, int], Any]


class _Coordinator:
    """What Ray runs: a shard."""

    def __init__(self, plan: ShardPlan) -> None:
        self._tray = LogTray()
        self._engine = RayEngine(startup_s=plan.config.engine.startup_s)
        self._shard = Shard(plan, self._engine)
        self._gauges: dict[str, Any] = {}

    def start(self) -> tuple[ScorerReport | None, ExplainError | None, tuple[LogLine, ...], Hands]:
        try:
            report, error = self._shard.start(), None
        except ExplainError as refused:
            report, error = None, refused
        return report, error, self._tray.fetch(), self._engine.hands()

    def advance(self, messages: Sequence[Message], seconds: float) -> tuple[Report, Hands]:
        report = self._shard.advance(messages, seconds)
        return replace(report, logs=self._tray.fetch()), self._engine.hands()

    def memory(self) -> dict[str, int]:
        found = self._engine.memory()
        found["coordinator"] = found.pop("driver")
        return found

    def publish(self, metrics: Mapping[str, float]) -> None:
        from ray.util.metrics import Gauge

        for name, value in metrics.items():
            if name not in self._gauges:
                self._gauges[name] = Gauge(f"heatreel_{name}", description=METRICS[name])
            self._gauges[name].set(value)

    def close(self) -> None:
        self._shard.close()


@dataclass(slots=True, eq=False)
class _Post:
    """One coordinator, as the driver knows it."""

    plan: ShardPlan
    actor: Any = None
    messages: list[Message] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)  # on their way, oldest first; the first may be `start`
    is_starting: bool = True
    hands: Hands = field(default_factory=dict)
    deaths: int = 0
    has_ended: bool = False


class RayFleet:
    """Shards on the cluster at `address`, or on one of its own that ends with it."""

    def __init__(
        self,
        *,
        address: str | None,
        store_bytes: int,
        num_cpus: float,
        num_videos: int,
        patience_s: float = REACH_S,
    ) -> None:
        import ray

        self._ray: Any = ray
        self._is_own = not ray.is_initialized()
        if self._is_own:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            if address is None:
                begin(num_cpus=num_cpus, store_bytes=store_bytes)
            else:
                join(address, patience_s=min(patience_s, REACH_S))
        self._num_videos = num_videos
        self._class = ray.remote(_Coordinator)
        self._posts: list[_Post] = []

    def start(self, config: Config, run: str) -> Sequence[ScorerReport]:
        """Bring up all coordinators, and through them the workers."""
        scorers = num_scorers(cluster_capacity(), config=config)
        wanted = config.engine.num_coordinators or -(-scorers // SCORERS_PER_SHARD)
        count = max(1, min(wanted, scorers, self._num_videos))
        for index in range(count):
            self._posts.append(_Post(ShardPlan(config=config, run=run, share=Share(index=index, count=count))))
            self._launch(self._posts[-1])
        return [self._first_report(post) for post in self._posts]

    def tell(self, shard: int, message: Message) -> None:
        """Goes with the next call."""
        self._posts[shard].messages.append(message)

    def wait(self, timeout_s: float) -> list[tuple[int, Report]]:
        """What the coordinators report; waits for the first."""
        for post in self._posts:
            self._send(post)
        refs = [ref for post in self._posts for ref in post.calls]
        if not refs:
            return []
        self._ray.wait(refs, num_returns=1, timeout=timeout_s)
        ready = set(self._ray.wait(refs, num_returns=len(refs), timeout=0)[0])
        found = []
        for index, post in enumerate(self._posts):
            while post.calls and post.calls[0] in ready:
                if (report := self._take(index, post)) is not None:
                    found.append((index, report))
        return found

    def memory(self) -> dict[str, int]:
        """Peak bytes of the driver, and of every actor whose coordinator answers soon."""
        found = {"driver": peak_memory()}
        refs = {post.actor.memory.remote(): index for index, post in enumerate(self._posts) if not post.is_starting}
        ready = self._ray.wait(list(refs), num_returns=len(refs), timeout=MEMORY_TIMEOUT_S)[0] if refs else []
        for ref in ready:
            prefix = f"{refs[ref]}/" if len(self._posts) > 1 else ""
            try:
                found |= {f"{prefix}{name}": size for name, size in self._ray.get(ref).items()}
            except self._ray.exceptions.RayError:
                _log.info("coordinator=%d memory unknown: it died", refs[ref])
        return found

    def publish(self, metrics: Mapping[str, float]) -> None:
        """As gauges of Ray, for Prometheus, in a coordinator: the driver may be outside the cluster."""
        if not self._posts[0].is_starting:  # always the same one: a gauge keeps its last value
            self._posts[0].actor.publish.remote(metrics)

    def close(self) -> None:
        """Let the coordinators close their workers, end what is left, and the cluster if it is ours."""
        refs = [post.actor.close.remote() for post in self._posts if not post.is_starting]
        if refs:
            self._ray.wait(refs, num_returns=len(refs), timeout=CLOSE_TIMEOUT_S)
        for post in self._posts:
            for actor in (post.actor, *post.hands.values()):
                if actor is not None:
                    self._ray.kill(actor)
        self._posts.clear()
        if self._is_own:
            self._ray.shutdown()

    def coordinator(self, shard: int) -> Any:
        """The handle of a coordinator (tests kill it)."""
        return self._posts[shard].actor

    def hands(self, shard: int) -> Hands:
        """The handles of the workers of a coordinator, as of its last report (tests kill them)."""
        return self._posts[shard].hands

    def _launch(self, post: _Post) -> None:
        resources = post.plan.config.engine.resources.coordinator.resolve()
        is_at_home = not post.plan.config.engine.has_shared_folder
        options = actor_options(resources, is_at_home=is_at_home)
        post.actor = self._class.options(**options, max_restarts=0, max_task_retries=0).remote(post.plan)
        post.is_starting, post.calls = True, [post.actor.start.remote()]

    def _first_report(self, post: _Post) -> ScorerReport:
        index = self._posts.index(post)
        try:
            report, error, lines, post.hands = self._ray.get(post.calls.pop(0))
        except self._ray.exceptions.RayError as dead:
            _log.warning("coordinator=%d %s before it had begun: %s", index, type(dead).__name__, reason(dead))
            post.deaths += 1
            is_mistake = isinstance(dead, self._ray.exceptions.RayTaskError) or getattr(
                dead, "actor_init_failed", False
            )
            if is_mistake or post.deaths > MAX_DEATHS:
                fact = f"coordinator {index} could not begin, {post.deaths} times ({reason(dead)})"
                raise ResourceError("the run", fact, "look at the logs of the cluster; then resume") from dead
            self._ray.kill(post.actor)  # its workers die with it; they had nothing to do yet
            self._launch(post)
            return self._first_report(post)
        log_again(lines, f"coordinator={index}")
        if error is not None:
            raise error
        post.is_starting = False
        known: ScorerReport = report
        return known

    def _send(self, post: _Post) -> None:
        while not (post.is_starting or post.has_ended) and len(post.calls) < TURNS:
            messages, post.messages = post.messages, []
            post.calls.append(post.actor.advance.remote(messages, TURN_S))

    def _take(self, index: int, post: _Post) -> Report | None:
        """The oldest call of a coordinator has been answered, or never will be."""
        try:
            answer = self._ray.get(post.calls.pop(0))
        except self._ray.exceptions.RayError as error:
            return self._begin_again(index, post, error)
        if post.is_starting:
            _, refusal, lines, post.hands = answer
            post.is_starting = False
            return Report(logs=lines, has_ended=refusal is not None, error=refusal)
        report: Report
        report, post.hands = answer
        post.deaths = 0
        post.has_ended |= report.has_ended
        return report

    def _begin_again(self, index: int, post: _Post, error: Exception) -> Report:
        _log.warning("coordinator=%d %s: %s", index, type(error).__name__, reason(error))
        self._ray.kill(post.actor)
        self._end(post.hands)
        post.messages, post.hands = [], {}
        post.deaths += 1
        if post.deaths > MAX_DEATHS:
            post.calls, post.has_ended = [], True
            fact = f"coordinator {index} died {post.deaths} times in a row ({type(error).__name__})"
            return Report(has_ended=True, error=ResourceError("the run", fact, "see log.jsonl; then resume"))
        self._launch(post)
        return Report(is_lost=True)

    def _end(self, hands: Hands) -> None:
        """On return none of these actors works any more."""
        for actor in hands.values():
            self._ray.kill(actor)
        until = time.monotonic() + END_S
        for actor in hands.values():
            try:
                self._ray.get(actor.memory.remote(), timeout=max(until - time.monotonic(), 0.1))
            except (self._ray.exceptions.RayError, TimeoutError):
                continue
