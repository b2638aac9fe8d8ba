"""The driver's loop on shards that only talk: who gets which video, what is written down, what a dead shard costs."""

from collections import deque
from itertools import chain

import pytest
from planted_run import source, summary

from pipeline.dispatcher import Dispatcher
from pipeline.orders import Assignment
from pipeline.shards import NoMore, Report, Stop, TargetsChosen, VideoGone
from pipeline.stats import Stats
from stages.errors import ManifestError, ResourceError
from stages.records import Failure


class Feed:
    def __init__(self, items):
        self.items = deque(items)

    @property
    def has_ended(self):
        return not self.items

    def poll(self):
        return self.items.popleft() if self.items else None

    def close(self):
        self.items.clear()


class Notes:
    def __init__(self, done=()):
        self.done, self.lines = set(done), []

    def opened(self, video):
        return video.id not in self.done

    def has_targets(self, video_id, targets):
        self.lines.append(("targets", video_id, targets))

    def completed(self, video):
        self.lines.append(("done", video.video_id))

    def failed(self, failure):
        self.lines.append(("failed", failure.uri))


class TalkingFleet:
    """Every shard finishes one of its videos in each turn. `dies`: turns in which a shard dies instead."""

    def __init__(self, count, *, dies=(), holds=2):
        self.videos = [deque() for _ in range(count)]
        self.assigned = [[] for _ in range(count)]
        self.num_assigned = [0] * count
        self.no_more = [False] * count
        self.stops = [0] * count
        self.turns, self.dies, self.holds = 0, dict(dies), holds

    def tell(self, shard, order):
        if isinstance(order, Assignment):
            self.videos[shard].append(order)
            self.assigned[shard].append(order)
            self.num_assigned[shard] += 1
        self.no_more[shard] |= isinstance(order, NoMore)
        self.stops[shard] += isinstance(order, Stop)

    def wait(self, timeout_s):
        self.turns += 1
        return [(shard, self.report(shard)) for shard in range(len(self.videos))]

    def report(self, shard):
        if self.dies.get(self.turns) == shard:
            self.videos[shard].clear()
            self.num_assigned[shard], self.no_more[shard] = 0, False
            return Report(is_lost=True)
        said = []
        if self.videos[shard]:
            video_id = self.videos[shard].popleft().source.id
            said = [TargetsChosen(video_id, (1,)), summary(video_id), VideoGone(video_id)]
        has_ended = (self.no_more[shard] and not self.videos[shard]) or self.stops[shard] > 0
        return Report(
            said=tuple(said),
            wants=self.holds - len(self.videos[shard]),
            num_assigned=self.num_assigned[shard],
            has_ended=has_ended,
            stats=Stats(clips=3 * self.num_assigned[shard], bare_rates={0: 10.0}),
        )


def dispatch(fleet, notes, items, **options):
    dispatcher = Dispatcher(fleet, len(fleet.videos), notes, **options)
    dispatcher.run_pass(Feed(items))
    dispatcher.finish()
    return dispatcher


def failure(uri):
    return Failure(video_id="", uri=uri, stage="decode", error="DecodeError", reason="is no video", remedy="give one")


def test_every_video_goes_to_one_shard_and_all_shards_work():
    fleet, notes = TalkingFleet(3), Notes()
    dispatch(fleet, notes, [source(f"v{idx}") for idx in range(12)])
    given = [[order.source.id for order in shard] for shard in fleet.assigned]
    assert sorted(chain.from_iterable(given)) == sorted(f"v{idx}" for idx in range(12))
    assert all(len(shard) >= 3 for shard in given)
    assert sorted(line[1] for line in notes.lines if line[0] == "done") == sorted(f"v{idx}" for idx in range(12))


def test_a_shard_gets_no_more_than_it_wants():
    fleet = TalkingFleet(1, holds=2)
    most = []
    fleet_report = fleet.report
    fleet.report = lambda shard: most.append(len(fleet.videos[shard])) or fleet_report(shard)
    dispatch(fleet, Notes(), [source(f"v{idx}") for idx in range(20)])
    assert max(most) <= 2


def test_videos_that_an_earlier_run_finished_are_passed_over_and_failures_noted():
    fleet, notes = TalkingFleet(1), Notes(done={"v1"})
    dispatcher = dispatch(fleet, notes, [source("v0"), failure("bad.mp4"), source("v1"), source("v2")])
    assert [order.source.id for order in fleet.assigned[0]] == ["v0", "v2"]
    assert ("failed", "bad.mp4") in notes.lines
    assert dispatcher.stats().failures == 1


def test_a_shard_that_died_gets_its_open_videos_again_with_the_targets_that_were_chosen():
    fleet, notes = TalkingFleet(2, dies={2: 0}), Notes()
    dispatcher = dispatch(fleet, notes, [source(f"v{idx}") for idx in range(8)], targets={"v2": (7,)})
    done = [line[1] for line in notes.lines if line[0] == "done"]
    assert sorted(done) == sorted(f"v{idx}" for idx in range(8))
    again = [order.source.id for order in fleet.assigned[0]]
    assert len(again) > len(set(again))
    assert {order.targets for shard in fleet.assigned for order in shard if order.source.id == "v2"} == {(7,)}
    assert dispatcher.stats().lost_workers == 1


def test_figures_of_all_shards_are_added_and_those_of_the_dead_are_kept():
    fleet = TalkingFleet(2, dies={3: 1})
    dispatcher = dispatch(fleet, Notes(), [source(f"v{idx}") for idx in range(8)])
    total = dispatcher.stats()
    assert total.clips >= 3 * 8
    assert sorted(total.bare_rates.values()) == [10.0, 10.0]


def test_more_failures_than_allowed_end_the_run_everywhere():
    fleet = TalkingFleet(2)
    items = [source("v0"), *(failure(f"{idx}.mp4") for idx in range(3)), *(source(f"w{idx}") for idx in range(50))]
    with pytest.raises(ResourceError, match="more than 2 failures"):
        dispatch(fleet, Notes(), items, max_failures=2)
    assert fleet.stops == [2, 2]


def test_a_changed_input_ends_the_run():
    class Changed(Notes):
        def opened(self, video):
            raise ManifestError("run", "v0 changed since the run began", "put the old one back")

    with pytest.raises(ManifestError, match="changed"):
        dispatch(TalkingFleet(1), Changed(), [source("v0")])
