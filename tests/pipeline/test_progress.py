"""What a run shows while it works: figures in one line, now and then where nobody watches, a bar on a terminal."""

import io

import pytest

from pipeline.progress import NoView, PlainView, RichView, describe, make_view
from pipeline.stats import Stats


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def after(seconds: float, **counters: int) -> Stats:
    """A run that began at 100 with one scorer of 50 evaluations/s."""
    stats = Stats(began=100.0, **counters)
    stats.scorer_up(0, 50.0, now=100.0)
    stats.tick(100.0 + seconds)
    return stats


@pytest.mark.parametrize(
    ("counters", "told"),
    [
        ({}, "0 clips  0 evaluations/s"),
        (
            {"screened": 3, "expected_screened": 8, "evaluations": 3},
            "3/8 clips screened  0.3 evaluations/s  efficiency 0.01",
        ),
        (
            {"clips": 4, "expected_clips": 10, "evaluations": 400},
            "4/10 clips  40 evaluations/s  efficiency 0.80  15 s to go",
        ),
        ({"clips": 12, "expected_clips": 10, "evaluations": 500}, "12 clips  50 evaluations/s  efficiency 1.00"),
        (
            {"clips": 1, "expected_clips": 61, "evaluations": 100, "failures": 2},
            "1/61 clips  10 evaluations/s  efficiency 0.20  10 min to go  2 failed",
        ),
        (
            {"clips": 1, "expected_clips": 1001, "evaluations": 100},
            "1/1001 clips  10 evaluations/s  efficiency 0.20  2.8 h to go",
        ),
    ],
)
def test_one_line_says_what_is_done_how_fast_and_how_long_it_will_take(counters, told):
    assert describe(after(10.0, **counters), 110.0) == told


def test_lines_come_now_and_then_and_once_at_the_end():
    lines: list[str] = []
    view = PlainView(lines.append, every_s=10.0)
    for second in range(35):
        view.show(after(second + 1.0, clips=second, expected_clips=40), 100.0 + second)
    assert [line.split()[0] for line in lines] == ["10/40", "20/40", "30/40"]
    view.close()
    assert lines[-1].startswith("34/40 clips")


def test_a_run_that_never_began_says_nothing():
    lines: list[str] = []
    view = PlainView(lines.append)
    view.show(Stats(), 0.0)
    view.close()
    assert lines == []


def test_a_terminal_shows_a_bar_that_moves_and_goes(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    view = make_view(is_quiet=False)
    assert isinstance(view, RichView)
    view.show(Stats(), 100.0)
    assert "explaining" not in terminal.getvalue()  # the model is still being loaded
    for second in (10, 20):
        view.show(after(second, clips=second, expected_clips=40, evaluations=50 * second), 100.0 + second)
        view._progress.refresh()
    view.close()
    shown = terminal.getvalue()
    assert "loading the model" in shown
    assert shown.index("10/40 clips") < shown.index("20/40 clips")
    assert "efficiency 1.00" in shown
    assert shown.rstrip("\r\n").endswith("\x1b[2K")  # the line is taken away


@pytest.mark.parametrize(("is_quiet", "kind"), [(True, NoView), (False, PlainView)])
def test_the_view_fits_where_it_is_watched(monkeypatch, is_quiet, kind):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(make_view(is_quiet=is_quiet), kind)
