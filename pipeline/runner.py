"""A run from its first to its last line: folder, engine, coordinator, tables, report, manifest.

`run` starts one, `resume` goes on with one that was stopped or killed: what the journal holds is not asked again.
"""

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import merge_tables
from pipeline.casework import Casework
from pipeline.config import Config, make_config
from pipeline.coordinator import Coordinator
from pipeline.engine import Engine, Happening, WorkerDown, WorkerUp
from pipeline.engines import limits_of, make_engine
from pipeline.feed import SourceFeed
from pipeline.journal_writer import BackgroundJournal
from pipeline.logs import logging_to
from pipeline.manifest import RunFolder, Status
from pipeline.metrics import Published
from pipeline.passes import account, run_passes
from pipeline.progress import ProgressView, make_view
from pipeline.record import RunRecord
from pipeline.report import write_report
from pipeline.scheduler import Scheduler
from pipeline.stats import Stats
from pipeline.topology import ScorerReport, other_plans, scorer_plan
from stages.errors import ExplainError, ManifestError
from stages.records import Failure
from stages.targets import needs_scores, resolve_targets

EXIT_FINE, EXIT_FAILURES, EXIT_STOPPED = 0, 3, 130


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run ended. `figures`: what it measured about itself (efficiency and so on)."""

    path: Path
    status: Status
    failures: tuple[Failure, ...]
    figures: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """0 all fine, 3 finished with failures, 130 stopped."""
        if self.status == "stopped":
            return EXIT_STOPPED
        return EXIT_FAILURES if self.failures else EXIT_FINE


def run(
    config: Config,
    sources: Sequence[str],
    out: str | Path,
    *,
    overwrite: bool = False,
    is_quiet: bool = False,
    command: tuple[str, ...] = (),
) -> RunSummary:
    """Explain `sources` into the new folder `out`.

    Raises ManifestError for a folder that is taken, ConfigError for a wrong target, ModelError for a box that cannot be
    built, ResourceError when too much failed. Bad inputs raise nothing: they are the summary's failures.
    """
    folder = RunFolder.create(
        out, config.model_dump(mode="json"), overwrite=overwrite, fingerprint=config.fingerprint(), command=command
    )
    record = RunRecord(folder)
    record.asked_for(sources)
    return _execute(config, folder, record, SourceFeed(sources), is_quiet=is_quiet)


def resume(path: str | Path, *, is_quiet: bool = False) -> RunSummary:
    """Go on with the run in `path`. Raises ManifestError when an input, the weights or the config have changed."""
    folder = RunFolder.open(path, write=True)
    manifest = folder.manifest
    config = make_config(manifest.config)
    folder.expect_same("the configuration", manifest.config_sha256, config.fingerprint())
    record = RunRecord(folder)
    done = {summary.uri for summary in folder.summaries()}
    known = {source.uri: video_id for video_id, source in folder.inputs().items()}
    folder.update(status="running", ended_at=None)
    feed = SourceFeed(record.sources(), known=known, skip=done)
    return _execute(config, folder, record, feed, is_quiet=is_quiet)


def _execute(config: Config, folder: RunFolder, record: RunRecord, feed: SourceFeed, *, is_quiet: bool) -> RunSummary:
    stats, view, started = Stats(), make_view(is_quiet=is_quiet), time.monotonic()
    status: Status = "failed"
    engine: Engine | None = None
    with logging_to(folder.path, is_quiet=is_quiet), closing(BackgroundJournal(folder.path / "journal")) as journal:
        try:
            engine, is_local = make_engine(config, feed)
            coordinator = _prepare(config, folder, record, journal, feed, engine, stats, view, is_local=is_local)
            with _signals(coordinator):
                run_passes(coordinator, folder, record, started=started)
            journal.flush()
            status = "stopped" if coordinator.is_stopped else "finished"
        except KeyboardInterrupt:
            status = "stopped"
            raise
        finally:
            feed.close()
            view.close()
            if engine is not None:
                with suppress(ExplainError):
                    stats.memory = engine.memory()
                engine.close()
            figures = stats.summary(stats.ended or 0.0)
            _finish(config, folder, record, status, figures, is_time_over=stats.is_time_over)
    return RunSummary(path=folder.path, status=status, failures=tuple(record.failures()), figures=figures)


def _prepare(
    config: Config,
    folder: RunFolder,
    record: RunRecord,
    journal: BackgroundJournal,
    feed: SourceFeed,
    engine: Engine,
    stats: Stats,
    view: ProgressView,
    *,
    is_local: bool,
) -> Coordinator:
    """Bring up the scorers, learn from them what the box is, and build the rest on that."""
    engine.start([scorer_plan(config, is_local=is_local)])
    report, said = _first_scorer(engine)
    spec = report.spec
    model = {"name": spec.name, "spec": spec.model_dump(mode="json"), "labels": list(spec.labels)}
    model |= {"weights_sha256": report.weights_sha256, "device": report.device, "warnings": list(report.warnings)}
    folder.expect_same("the model", folder.manifest.model.get("weights_sha256"), report.weights_sha256)
    folder.update(
        model=model, seeds={"run": config.seed}, decoder=config.decode.backend, substrate=config.score.substrate
    )
    if spec.labels and not needs_scores(config.target):
        import numpy as np

        resolve_targets(config.target, np.zeros(len(spec.labels), np.float32), spec)  # a wrong name costs nothing yet
    engine.start(other_plans(config, spec, is_local=is_local))
    limits = limits_of(config, is_local=is_local)
    clip_bytes = 3 * spec.clip_len * spec.height * spec.width
    coordinator = Coordinator(
        Casework(config, spec, journal, str(folder.path), record.has_targets),
        Scheduler(limits, clip_bytes=clip_bytes, rows_per_clip=config.budget),
        engine,
        feed,
        record,
        stats,
        targets=record.targets(),
        show=Published(view, engine.publish).show,
    )
    for happening in said:
        coordinator.take(happening)
    return coordinator


def _first_scorer(engine: Engine) -> tuple[ScorerReport, list[Happening]]:
    said: list[Happening] = []
    while True:
        for happening in engine.wait(1.0):
            said.append(happening)
            if isinstance(happening, WorkerDown) and happening.problem is not None:
                raise happening.problem.error
        for happening in said:
            if isinstance(happening, WorkerUp) and isinstance(happening.report, ScorerReport):
                return happening.report, said


def _finish(
    config: Config,
    folder: RunFolder,
    record: RunRecord,
    status: Status,
    figures: dict[str, Any],
    *,
    is_time_over: bool,
) -> None:
    """Tables, manifest, report: also of a run that was stopped or failed, as far as it got."""
    try:
        done = {summary.video_id for summary in folder.summaries()}
        merge_tables(folder.path, [video_id for video_id in folder.inputs() if video_id in done])
        labels = {str(t.target_idx): t.target for summary in folder.summaries() for t in summary.targets}
        folder.update(targets=labels)
        figures.update(account(folder, record, config, is_time_over=is_time_over))
        folder.finish(status, figures)
        write_report(folder)
    except ManifestError:
        if status == "finished":
            raise
    finally:
        folder.release()


@contextmanager
def _signals(coordinator: Coordinator) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the run in good order; a third one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def stop(number: int, frame: object) -> None:
        nonlocal count
        count += 1
        if count > 2:
            raise KeyboardInterrupt
        coordinator.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
