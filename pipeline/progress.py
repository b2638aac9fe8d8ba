"""What a run shows while it works, on the error stream: a Rich bar on a terminal, lines elsewhere, or nothing."""

import sys
from collections.abc import Callable
from typing import Protocol

from pipeline.stats import Stats

PLAIN_EVERY_S = 10.0
RICH_EVERY_S = 0.2


class ProgressView(Protocol):
    """Shown again and again with the same counters."""

    def show(self, stats: Stats, now: float) -> None:
        """The state now; may be called very often."""

    def close(self) -> None:
        """The last state, once."""


class NoView:
    """Shows nothing (--quiet, --json)."""

    def show(self, stats: Stats, now: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainView:
    """A line now and then."""

    def __init__(self, write: Callable[[str], object] | None = None, every_s: float = PLAIN_EVERY_S) -> None:
        self._write = write or (lambda text: sys.stderr.write(f"{text}\n"))
        self._every_s = every_s
        self._next: float | None = None
        self._last: tuple[Stats, float] | None = None

    def show(self, stats: Stats, now: float) -> None:
        """Print when it is time again."""
        self._last = stats, now
        if self._next is None:
            self._next = now + self._every_s
        if now >= self._next:
            self._next = now + self._every_s
            self._write(describe(stats, now))

    def close(self) -> None:
        """Print the end."""
        if self._last is not None and self._last[0].began is not None:
            self._write(describe(*self._last))


class RichView:
    """One bar that moves."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.fields[text]}")
        columns = (TextColumn("{task.description}"), BarColumn(), text, TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("loading the model", total=None, text="")
        self._next = 0.0
        self._progress.start()

    def show(self, stats: Stats, now: float) -> None:
        """Move the bar."""
        if now < self._next or stats.began is None:
            return
        self._next = now + RICH_EVERY_S
        done, expected, what = stats.progress
        self._progress.update(
            self._task,
            description="screening" if what else "explaining",
            completed=done,
            total=max(expected, done) or None,
            text=describe(stats, now),
        )

    def close(self) -> None:
        """Take the bar away: the table of results follows."""
        self._progress.stop()


def make_view(*, is_quiet: bool) -> ProgressView:
    """The view that fits where the run is watched."""
    if is_quiet:
        return NoView()
    return RichView() if sys.stderr.isatty() else PlainView()


def describe(stats: Stats, now: float) -> str:
    """clips, evaluations/s, efficiency, time to go, in one line."""
    done, expected, what = stats.progress
    total = f"/{expected}" if expected >= done and expected else ""
    parts = [f"{done}{total} clips {what}".rstrip(), f"{stats.rate(now):.3g} evaluations/s"]
    if (efficiency := stats.efficiency()) is not None:
        parts.append(f"efficiency {efficiency:.2f}")
    if (eta_s := stats.eta_s(now)) is not None:
        parts.append(f"{_time(eta_s)} to go")
    if stats.failures:
        parts.append(f"{stats.failures} failed")
    return "  ".join(parts)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
