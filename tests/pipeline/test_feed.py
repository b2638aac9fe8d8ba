"""Sources are found by name ahead of the run and probed a few ahead of it, however slow that is."""

import threading
import time

import pytest

from pipeline import feed as feed_module
from pipeline.feed import AHEAD, SourceFeed
from stages.errors import DecodeError, ResourceError


@pytest.fixture
def slow_probe(monkeypatch):
    """Probes wait until they are let go; names of those that began."""
    begun: list[str] = []
    go = threading.Event()

    def probe(uri: str, video_id: str):
        begun.append(uri)
        go.wait(30)
        raise DecodeError(uri, "is no video", "give one")

    monkeypatch.setattr(feed_module, "probe", probe)
    yield begun, go
    go.set()


def files(folder, count: int) -> list[str]:
    paths = [folder / f"{idx:03d}.mp4" for idx in range(count)]
    for path in paths:
        path.touch()
    return [str(path) for path in paths]


@pytest.mark.parametrize(("count", "most", "found"), [(8, 5, 5), (1, 5, 1), (3, 3, 3)])
def test_sources_are_counted_without_waiting_for_their_content(tmp_path, slow_probe, count, most, found):
    feed = SourceFeed(files(tmp_path, count))
    assert feed.num_at_least(most) == found
    assert len(slow_probe[0]) <= 1
    feed.close()


def test_finished_sources_do_not_count(tmp_path, slow_probe):
    names = files(tmp_path, 4)
    feed = SourceFeed(names, skip=names[:3])
    assert feed.num_at_least(4) == 1
    feed.close()


def test_only_a_few_are_probed_ahead(tmp_path, slow_probe):
    begun, go = slow_probe
    go.set()
    feed = SourceFeed(files(tmp_path, 50))
    until = time.monotonic() + 10
    while len(begun) < AHEAD + 1 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)  # what would be too many had time to come
    assert len(begun) == AHEAD + 1  # one waits for its place
    feed.close()


def test_every_source_comes_in_order_and_then_the_end(tmp_path, slow_probe):
    slow_probe[1].set()
    names = files(tmp_path, 20)
    feed, seen = SourceFeed(names), []
    while not feed.has_ended:
        if (item := feed.poll(1.0)) is not None:
            seen.append(item.uri)
    assert seen == names


def test_a_folder_that_may_not_be_read_is_named_and_does_not_hang(monkeypatch, slow_probe):
    slow_probe[1].set()

    def find(names):
        yield "first.mp4"
        raise PermissionError(13, "Permission denied", "/archive/secret")

    monkeypatch.setattr(feed_module, "find_sources", find)
    feed = SourceFeed(["/archive"])
    assert feed.num_at_least(5) == 1
    assert feed.poll(10.0).uri == "first.mp4"
    with pytest.raises(ResourceError, match=r"/archive/secret: cannot be listed \(Permission denied\)"):
        feed.poll(10.0)
