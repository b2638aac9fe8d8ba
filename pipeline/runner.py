"""A run from its first to its last line: folder, coordinators, dispatcher, tables, report, manifest.

`run` starts one, `resume` goes on with one that was stopped or killed: what the journal holds is not asked again.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import merge_tables
from pipeline.config import Config, changed_config, make_config
from pipeline.dispatcher import Dispatcher
from pipeline.engines import make_fleet
from pipeline.feed import SourceFeed
from pipeline.fleet import Fleet
from pipeline.journal import Journal
from pipeline.logs import logging_to
from pipeline.manifest import RunFolder, Status
from pipeline.metrics import Published
from pipeline.mirror import mirrored
from pipeline.passes import Passes, account
from pipeline.progress import make_view
from pipeline.record import RunRecord
from pipeline.report import write_report
from pipeline.stats import Stats
from pipeline.topology import ScorerReport
from stages.errors import ExplainError, ManifestError
from stages.perturb import Perturb
from stages.records import Failure
from stages.targets import needs_scores, resolve_targets

_log = logging.getLogger(__name__)

FEED_CLOSE_S = 2.0  # so long is a listing waited for that hangs on its store

EXIT_FINE, EXIT_FAILURES, EXIT_STOPPED = 0, 3, 130


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run ended. `figures`: what it measured about itself; `path`: its folder, the local one of a URI's."""

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
    settings = config.model_dump(mode="json")
    with mirrored(out, "new", overwrite=overwrite) as path:
        folder = RunFolder.create(
            path, settings, overwrite=overwrite, fingerprint=config.fingerprint(), command=command
        )
        record = RunRecord(folder)
        record.asked_for(sources)
        return _execute(config, folder, record, SourceFeed(sources), is_quiet=is_quiet)


def resume(
    path: str | Path,
    *,
    is_quiet: bool = False,
    options: Mapping[str, object] | None = None,
    overrides: Sequence[str] = (),
) -> RunSummary:
    """Go on with the run in `path`, if asked on another cluster or device (`pipeline.config.changed_config`).

    Raises ManifestError when an input, the weights or the config have changed, ConfigError for a setting that may not.
    """
    with mirrored(path, "resume") as work:
        return _resume(work, is_quiet=is_quiet, options=options or {}, overrides=overrides)


def _resume(path: Path, *, is_quiet: bool, options: Mapping[str, object], overrides: Sequence[str]) -> RunSummary:
    folder = RunFolder.open(path, write=True)
    manifest = folder.manifest
    config = changed_config(make_config(manifest.config), options=options, overrides=overrides)
    folder.expect_same("the configuration", manifest.config_sha256, config.fingerprint())
    record = RunRecord(folder)
    done = {summary.uri for summary in folder.summaries()}
    known = {source.uri: video_id for video_id, source in folder.inputs().items()}
    for uri in known.keys() - done:
        expect_same_masks(folder, config, known[uri])
    folder.update(status="running", ended_at=None, config=config.model_dump(mode="json"))
    feed = SourceFeed(record.sources(), known=known, skip=done)
    return _execute(config, folder, record, feed, is_quiet=is_quiet)


def expect_same_masks(folder: RunFolder, config: Config, video_id: str) -> None:
    """Raise ManifestError where the first clip of a video was asked with masks of another kind than would be asked now.

    `perturb.family: auto` is the method's own kind, which another version of heatreel may have changed.
    """
    journal, refine = Journal(folder.path / "journal"), config.refine
    perturb = Perturb(config.perturb, refine.method, refine.prior, refine.parts)
    for clip_id in journal.clips(video_id)[:1]:
        first = journal.first(clip_id)
        then, now = (None, None) if first is None else (first.masks.bank, perturb.process(first.info).bank)
        if then is not None and now is not None and then.family != now.family:
            raise ManifestError(
                str(folder.path),
                f"{clip_id} was asked with the masks {then.family!r}, this version would ask {now.family!r}",
                "resume it with the version that began it, or start a new run with another --out",
            )


def _execute(config: Config, folder: RunFolder, record: RunRecord, feed: SourceFeed, *, is_quiet: bool) -> RunSummary:
    stats, view, started = Stats(), make_view(is_quiet=is_quiet), time.monotonic()
    status: Status = "failed"
    fleet: Fleet | None = None
    dispatcher: Dispatcher | None = None
    with logging_to(folder.path, is_quiet=is_quiet):
        run_id = folder.manifest.run_id
        _log.info("run=%s begins in %s", run_id, folder.path)
        try:
            fleet = make_fleet(config, feed)
            reports = fleet.start(config, str(folder.path.resolve()))
            write_down_model(config, folder, reports)
            dispatcher = Dispatcher(
                fleet,
                len(reports),
                record,
                max_failures=config.engine.max_failures,
                targets=record.targets(),
                show=Published(view, fleet.publish).show,
            )
            with _signals(dispatcher):
                Passes(dispatcher, config, reports[0].spec, folder, record).run(feed, started=started)
                dispatcher.finish()
            status = "stopped" if dispatcher.is_stopped else "finished"
        except KeyboardInterrupt:
            status = "stopped"
            raise
        finally:
            feed.close()
            view.close()
            now = time.monotonic()
            if dispatcher is not None:
                stats = dispatcher.stats()
            if fleet is not None:
                with suppress(ExplainError):
                    stats.memory = fleet.memory()
                fleet.close()
            figures = stats.summary(now)
            _log.info("run=%s ends status=%s clips=%d", run_id, status, stats.clips)
            _finish(config, folder, record, status, figures, is_time_over=stats.is_time_over)
            feed.close(FEED_CLOSE_S)
    return RunSummary(path=folder.path, status=status, failures=tuple(record.failures()), figures=figures)


def write_down_model(config: Config, folder: RunFolder, reports: Sequence[ScorerReport]) -> None:
    """What the first scorer of every coordinator says of the box.

    Raises ManifestError, ModelError and ConfigError before anything is asked of it.
    """
    report = reports[0]
    spec = report.spec
    model = {"name": spec.name, "spec": spec.model_dump(mode="json"), "labels": list(spec.labels)}
    model |= {"weights_sha256": report.weights_sha256, "device": report.device, "warnings": list(report.warnings)}
    folder.expect_same("the model", folder.manifest.model.get("weights_sha256"), report.weights_sha256)
    # A coordinator of a new run knows only its own first scorer.
    for shard, other in enumerate(reports):
        if (refusal := other.refusal(shard, report.weights_sha256)) is not None:
            raise refusal
    folder.update(
        model=model, seeds={"run": config.seed}, decoder=config.decode.backend, substrate=config.score.substrate
    )
    if spec.labels and not needs_scores(config.target):
        import numpy as np

        resolve_targets(config.target, np.zeros(len(spec.labels), np.float32), spec)  # a wrong name costs nothing yet


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
def _signals(dispatcher: Dispatcher) -> Iterator[None]:
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
        dispatcher.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
