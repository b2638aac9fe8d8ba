"""A head that is too busy for another client is asked again; one that refuses is not."""

import re
import socket

import pytest

from pipeline import ray_cluster
from pipeline.ray_cluster import CLIENT_TRIES, join
from stages.errors import ResourceError

ray = pytest.importorskip("ray")
BUSY = ConnectionAbortedError("Initialization failure from server:\nRuntimeError: Starting Ray client server failed.")
REFUSES = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 1.0")


@pytest.fixture
def head(monkeypatch):
    """The address of a port that answers, as a head's does."""
    monkeypatch.setattr(ray_cluster, "CLIENT_PAUSE_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"ray://127.0.0.1:{server.getsockname()[1]}"


def answers(monkeypatch, *errors: Exception) -> list[str]:
    """Ray raises these, one a call, and joins after them; gives the addresses it was asked for."""
    asked: list[str] = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        if len(asked) <= len(errors):
            raise errors[len(asked) - 1]

    monkeypatch.setattr(ray, "init", init)
    return asked


def test_a_busy_head_is_asked_again(monkeypatch, head):
    asked = answers(monkeypatch, *[BUSY] * (CLIENT_TRIES - 1))
    join(head)
    assert asked == [head] * CLIENT_TRIES


def test_a_head_that_stays_busy_is_named(monkeypatch, head):
    asked = answers(monkeypatch, *[BUSY] * CLIENT_TRIES)
    with pytest.raises(ResourceError, match=rf"{re.escape(head)}: RuntimeError: Starting Ray client server failed"):
        join(head)
    assert len(asked) == CLIENT_TRIES


def test_a_head_that_refuses_is_not_asked_again(monkeypatch, head):
    asked = answers(monkeypatch, REFUSES)
    with pytest.raises(ResourceError, match=r"Ray: 1\.0"):
        join(head)
    assert asked == [head]
