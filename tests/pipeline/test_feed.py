"""Sources are found by name ahead of the run and probed a few ahead of it, however slow that is."""

import threading
import time

import pytest

from pipeline import feed as feed_module
from pipeline.feed import AHEAD, SourceFeed
from stages.errors import DecodeError, ResourceError


@pytest.fixture(autouse=True)
def feeds(monkeypatch):
    """Every feed of a test ends with it, whatever came of the test."""
    made: list[SourceFeed] = []
    original = SourceFeed.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(SourceFeed, "__init__", init)
    yield made
    for feed in made:
        feed.close(10.0)


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("names", "sources")]


@pytest.fixture
def slow_probe(monkeypatch, feeds):
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


def wait_for(begun: list[str], count: int) -> None:
    until = time.monotonic() + 10
    while len(begun) < count and time.monotonic() < until:
        time.sleep(0.01)


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


def test_finished_sources_do_not_count(tmp_path, slow_probe):
    names = files(tmp_path, 4)
    feed = SourceFeed(names, skip=names[:3])
    assert feed.num_at_least(4) == 1


def test_only_a_few_are_probed_ahead(tmp_path, slow_probe):
    begun, go = slow_probe
    go.set()
    SourceFeed(files(tmp_path, 50))
    wait_for(begun, AHEAD + 1)
    time.sleep(0.3)  # what would be too many had time to come
    assert len(begun) == AHEAD + 1  # one waits for its place


def test_a_closed_feed_probes_no_further_and_leaves_no_thread(tmp_path, slow_probe):
    begun, go = slow_probe
    feed = SourceFeed(files(tmp_path, 50))
    wait_for(begun, 1)
    feed.close()
    go.set()
    feed.close(10.0)
    assert len(begun) == 1
    assert not own_threads()


def test_a_probe_that_does_not_end_holds_nobody_up(tmp_path, slow_probe):
    begun, _ = slow_probe
    feed = SourceFeed(files(tmp_path, 2))
    wait_for(begun, 1)
    feed.close(0.05)
    assert own_threads()  # it is still at its probe


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
