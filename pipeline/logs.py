"""Logging of a run: every message of the driver as a JSON line in log.jsonl; warnings also on the error stream.

Messages are `key=value` words, ids first; the pairs are picked out again, to be searched by clip or stage.
"""

import json
import logging
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

LogLine = tuple[float, int, str, str]  # when, level, logger, message

_log = logging.getLogger(__name__)

_PAIR = re.compile(r"(?:^|\s)([a-z_]+)=(\S+)")
_OURS = ("pipeline", "stages")


class JsonLines(logging.Formatter):
    """One JSON object for each record: time, level, logger, message, and the pairs in its first line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        message = record.getMessage()
        content = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            **{f"id_{key}": value for key, value in _PAIR.findall(message.partition("\n")[0])},
        }
        if record.exc_info:
            content["trace"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False)


def log_trace(ids: str, trace: str) -> None:
    """Say where an unexpected error came from, if that is known."""
    if trace:
        _log.info("%s\n%s", ids, trace)


@contextmanager
def logging_to(folder: Path, *, is_quiet: bool = False) -> Iterator[None]:
    """Log into the run folder while the block runs. Loggers of other packages are left as they are."""
    file = logging.FileHandler(folder / "log.jsonl", encoding="utf-8", delay=True)
    file.setFormatter(JsonLines())
    handlers: list[logging.Handler] = [file]
    if not is_quiet:
        stream = logging.StreamHandler(sys.stderr)
        stream.setLevel(logging.ERROR)
        stream.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        handlers.append(stream)
    loggers = [logging.getLogger(name) for name in _OURS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate
            for handler in handlers:
                logger.removeHandler(handler)
        file.close()


class LogTray(logging.Handler):
    """Keeps what a process far from the run folder has to say until somebody fetches it; old lines go first."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[LogLine] = deque(maxlen=most)
        for name in _OURS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record as a line."""
        self._lines.append((record.created, record.levelno, record.name, record.getMessage()))

    def fetch(self) -> tuple[LogLine, ...]:
        """The lines since the last call."""
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        return tuple(lines)


def log_again(lines: Iterable[LogLine], where: str) -> None:
    """Say here what was said `where`, such as "worker=score-3"."""
    for created, level, name, message in lines:
        told = {"created": created, "levelno": level, "levelname": logging.getLevelName(level), "name": name}
        logging.getLogger(name).handle(logging.makeLogRecord({**told, "msg": "%s %s", "args": (where, message)}))
