"""The passes of a run: a first look at every clip where that is asked for, then the clips that the limits allow.

Without `--screen` clips are explained in order until the limits are reached. With it every clip is scored as it is
(one evaluation), all clips are ranked (`screening.py`), and those are explained that the budget reaches (`plan.py`).
Screening may use half of either limit; what it did not reach is not in the plan. Minutes count for each session.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.cases import NUM_PEEKS
from pipeline.config import Config
from pipeline.dispatcher import Dispatcher, Sources
from pipeline.feed import KnownFeed
from pipeline.manifest import RunFolder
from pipeline.orders import Order, Orders, explain_everything
from pipeline.plan import Allowance, Look, Plan, coverage
from pipeline.record import RunRecord
from pipeline.screened import ScreenedStore
from stages.box import BoxSpec
from stages.decode import estimate_clips
from stages.records import VideoSource
from stages.targets import mean_probabilities, needs_scores, resolve_targets

# Of either limit, for screening.
SCREEN_SHARE = 0.5
# Of the bare model's speed, when the time is turned into clips.
PIPELINE_SHARE = 0.9


@dataclass(slots=True, eq=False)
class FirstCome:
    """Orders within a budget, first come, first served; what an earlier session allowed stays allowed.

    Containers say how many clips a source has; one that does not say gets all that is left.
    """

    record: RunRecord
    evaluations: int
    clip_cost: int
    video_cost: int
    expected: Callable[[VideoSource], int | None]
    is_screening: bool = False

    def __post_init__(self) -> None:
        self.evaluations -= sum(cost for _, cost in self.record.allowed.values())

    def __call__(self, source: VideoSource) -> Order | None:
        """The order for a source, in the order of the sources; None when nothing is left for it."""
        if source.id not in self.record.allowed:
            most = max((self.evaluations - self.video_cost) // self.clip_cost, 0)
            wanted = self.expected(source)
            is_all = wanted is not None and wanted <= most
            clips = wanted if is_all and wanted is not None else most
            cost = self.video_cost + self.clip_cost * clips if clips else 0
            self.evaluations -= cost
            self.record.allow(source.id, None if is_all else clips, cost)
        clips_allowed, _ = self.record.allowed[source.id]
        if clips_allowed == 0:
            return None
        only = None if clips_allowed is None else frozenset(range(clips_allowed))
        return Order(only=only, is_screening=self.is_screening)


@dataclass(frozen=True, slots=True, eq=False)
class Passes:
    """All passes of a session, carried out by `dispatcher` with a box of this spec."""

    dispatcher: Dispatcher
    config: Config
    spec: BoxSpec
    folder: RunFolder
    record: RunRecord

    def run(self, feed: Sources, *, started: float) -> None:
        """Explain the sources of `feed` as far as the limits allow; the session began at `started`."""
        limit_s = None if self.config.screen.max_minutes is None else 60 * self.config.screen.max_minutes
        deadline = None if limit_s is None else started + limit_s
        if not self.config.screen.enabled:
            self.dispatcher.run_pass(feed, self._in_order(), deadline)
            return
        plan = Plan.read(self.folder.path)
        if plan is None:
            half = None if limit_s is None else started + SCREEN_SHARE * limit_s
            self.dispatcher.run_pass(feed, self._screening_orders(), half)
            if self.dispatcher.is_stopped:
                return
            plan = self._make_plan(deadline)
            feed = KnownFeed(self.folder.inputs().values())
        self.dispatcher.run_pass(feed, plan.orders(self.record.targets()), deadline)

    def _in_order(self) -> Orders:
        total = self.config.screen.budget_total
        if total is None:
            return explain_everything
        cost = _video_cost(self.config) + (NUM_PEEKS if needs_scores(self.config.target) else 0)
        return FirstCome(self.record, total, self.config.budget, cost, self._expected)

    def _expected(self, source: VideoSource) -> int | None:
        return estimate_clips(source, self.spec, self.config.decode)

    def _screening_orders(self) -> Orders:
        """Screen what is not screened yet, with half of the budget at most."""
        store, total = ScreenedStore(self.folder.path), self.config.screen.budget_total
        first_come: FirstCome | None = None
        if total is not None:
            most = int(SCREEN_SHARE * total)
            first_come = FirstCome(self.record, most, 1, 0, self._expected, is_screening=True)

        def order(source: VideoSource) -> Order | None:
            found = Order(is_screening=True) if first_come is None else first_come(source)
            seen = store.read(source.id)
            return None if seen is not None and seen.is_whole else found

        return order

    def _make_plan(self, deadline: float | None) -> Plan:
        """Rank what was screened, choose the targets by it, and write both down."""
        config, spec, store = self.config, self.spec, ScreenedStore(self.folder.path)
        targets: dict[str, tuple[int, ...]] = {}

        def looks() -> Iterator[Look]:
            for video_id in self.folder.inputs():
                if (seen := store.read(video_id)) is not None:
                    targets[video_id] = resolve_targets(config.target, mean_probabilities(seen.log_scores), spec)
                    yield Look(video_id=video_id, screened=seen, targets=targets[video_id])

        allowance = Allowance(
            clip_cost=config.budget,
            video_cost=_video_cost(config),
            evaluations=config.screen.budget_total,
            clips=None if deadline is None else self._clips_until(deadline),
        )
        plan = Plan.make(looks(), allowance, lambda idx: spec.labels[idx] if idx < len(spec.labels) else f"class {idx}")
        for video_id, rows in plan.videos().items():
            if rows["is_selected"].any():
                self.record.has_targets(video_id, targets[video_id])
        self.record.screened()
        plan.write(self.folder.path)
        return plan

    def _clips_until(self, deadline: float) -> int | None:
        """How many clips the time is likely to allow after screening: as the scorers, and as reading, carry them."""
        stats, now = self.dispatcher.stats(), self.dispatcher.now()
        elapsed_s = max(stats.elapsed_s(now), 1e-9)
        bare = max(sum(stats.bare_rates.values()), stats.possible / elapsed_s)  # one may be away just now
        rates = [PIPELINE_SHARE * bare / self.config.budget]
        rates += [stats.screened / elapsed_s]  # 0 when an earlier session has screened
        known = [rate for rate in rates if rate > 0]
        return int(max(deadline - now, 0.0) * min(known)) if known else None


def account(folder: RunFolder, record: RunRecord, config: Config, *, is_time_over: bool) -> dict[str, Any]:
    """For the manifest: what was and what was not explained; brings the plan up to date. Without limits nothing."""
    settings = config.screen
    if not settings.is_active:
        return {}
    limits = {"budget_total": settings.budget_total, "max_minutes": settings.max_minutes, "is_time_over": is_time_over}
    plan = Plan.read(folder.path)
    inputs, done = folder.inputs(), {summary.video_id: summary.num_clips for summary in folder.summaries()}
    if settings.enabled and plan is not None:
        failed = {(failure.video_id, failure.clip_idx) for failure in record.failures()}
        missed = "beyond the time" if is_time_over else "not reached"
        plan = plan.brought_up_to_date(_explained(folder.path), failed, missed)
        plan.write(folder.path)
        figures = coverage(plan)
        return {"screening": {**limits, **figures, "sources_not_screened": len(inputs) - figures["videos_screened"]}}
    if settings.enabled or "spec" not in folder.manifest.model:
        return {}
    spec = BoxSpec.model_validate(folder.manifest.model["spec"])
    counts = [estimate_clips(source, spec, config.decode) for source in inputs.values()]
    return {
        "limits": {
            **limits,
            "clips_explained": sum(done.values()),
            "clips_expected": sum(count or 0 for count in counts),
            "sources_of_unknown_length": counts.count(None),
            "sources_without_explanation": len(inputs.keys() - done.keys()),
        }
    }


def _video_cost(config: Config) -> int:
    """Evaluations that the regions of a video take at most: each strong one is removed, beside its clip untouched."""
    words = [word.strip() for word in config.target.split(",")]
    num_targets = sum(3 if word == "top3" else 1 for word in words)
    return 2 * 2 * config.aggregate.verified_regions * num_targets


def _explained(run: Path) -> set[tuple[str, int]]:
    path = run / "clips.parquet"
    if not path.is_file():
        return set()
    table = pq.read_table(path, columns=["video_id", "clip_idx"])
    return set(zip(table["video_id"].to_pylist(), table["clip_idx"].to_pylist(), strict=True))
