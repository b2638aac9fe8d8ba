"""Clips that are refined one after the other, on the fake clock: in order, complete, without a deadlock."""

from random import Random

import numpy as np
import planted_run
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import CLIP_BYTES, Simulation, expect_complete, limits

from pipeline.cases import VideoCase
from pipeline.orders import Order
from pipeline.work import RefineTask, ScoreTask, SinkTask
from stages.heritage import Heritage
from stages.records import ClipId

TWO = {"decode": 2, "score": 2, "refine": 2, "sink": 2}
KILLS = st.lists(
    st.tuples(st.floats(0.1, 30.0), st.sampled_from(["decode", "score", "refine", "sink"]), st.integers(0, 1)),
    max_size=6,
)


class Chain(Simulation):
    """Keeps what clips leave as the casework does, and looks whether it is there when the next clip is refined."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cases = {name: VideoCase(planted_run.source(name)) for name in self.clips}
        self.without: list[int] = []  # clips that were refined without what the clip before leaves
        self.most_left = 0

    def _admit(self) -> None:
        num_known = len(self.started)
        super()._admit()
        for _, task in self.started[num_known:]:
            if isinstance(task, RefineTask):
                clip = self.all_jobs[task.job]
                if clip.clip_idx - 1 not in self.cases[clip.video].left:
                    self.without.append(clip.clip_idx)
            elif isinstance(task, SinkTask):
                for job in task.jobs:
                    self.cases[task.video].goes_to_sink(self.all_jobs[job].clip_idx)

    def _refine(self, task):
        num_finals = len(self.finals)
        super()._refine(task)
        for _, video, clip_idx in self.finals[num_finals:]:
            clip_id = ClipId(video, clip_idx)
            self.cases[video].hand_on(Heritage(clip_id=clip_id, frame_idx=np.arange(4), maps={}))
            self.most_left = max(self.most_left, len(self.cases[video].left))


@settings(max_examples=60, deadline=None)
@given(
    clips=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    done=st.sets(st.integers(0, 8)),
    damaged=st.sets(st.integers(0, 8)),
    max_clips=st.integers(1, 6),
    max_bytes=st.integers(1, 3),
    peeks=st.integers(0, 3),
    rounds=st.integers(1, 2),
    kills=KILLS,
    seed=st.integers(0, 99),
)
def test_the_clip_before_is_always_final_first_and_nothing_waits_for_ever(
    clips, done, damaged, max_clips, max_bytes, peeks, rounds, kills, seed
):
    videos = {f"v{idx}": count for idx, count in enumerate(clips)}
    there = {name: done & set(range(count)) if count > 1 else set() for name, count in videos.items()}
    sim = Chain(
        limits(max_clips=max_clips, max_bytes=max_bytes * CLIP_BYTES, max_videos=2, attempts=20),
        videos,
        rounds=rounds,
        is_chained=True,
        done=there,
        damaged=dict.fromkeys(videos, damaged),
        workers=TWO,
        peeks=peeks,
        verify=(0,),
        kills=list(kills),
        seed=seed,
    ).run()
    assert sim.ended == dict.fromkeys(videos, True)
    for name, count in videos.items():
        assert sim.last_written(name) == list(range(count))
    assert set(sim.without) == {0}  # whatever is written again, and however often
    assert sim.scheduler.ledger.window.num_open == sim.scheduler.ledger.window.num_bytes == 0


@pytest.mark.parametrize("stage", [ScoreTask, RefineTask])
def test_a_clip_that_always_fails_does_not_keep_the_next_one_waiting(stage):
    def poison(task, sim):
        jobs = [piece.job for piece in task.pieces] if isinstance(task, ScoreTask) else [getattr(task, "job", -1)]
        is_bad = isinstance(task, stage) and any(sim.jobs[job].clip_idx == 3 for job in jobs if job in sim.jobs)
        return "now" if is_bad else None

    sim = Chain(limits(attempts=3, max_clips=6), {"a": 8}, rows=6, is_chained=True, fails=poison).run()
    assert [started.clip_idx for started, _ in sim.dropped] == [3]
    assert sim.last_written("a") == [0, 1, 2, 4, 5, 6, 7]
    assert sorted(sim.without) == [0, 4]


def test_clips_that_are_not_wanted_are_not_waited_for():
    sim = Chain(limits(max_clips=4), {"a": 12}, is_chained=True, orders={"a": Order(only=frozenset({2, 3, 7}))}).run()
    assert sim.last_written("a") == [2, 3, 7]
    assert sorted(sim.without) == [2, 7]


def test_scoring_is_never_held_back_and_what_waits_holds_no_pixels():
    """A refiner as slow as can be: the window fills with scored clips, and their bytes are free for others."""
    slow = {"decode": 0.01, "score": 0.01, "refine": 5.0, "sink": 0.01}
    sim = Chain(
        limits(max_clips=9, max_bytes=3 * CLIP_BYTES), {"a": 9}, is_chained=True, seconds=slow, workers=TWO
    ).run()
    expect_complete(sim)
    first_final = min(at for at, _, _ in sim.finals)
    assert max(begin for begin, task in sim.started if isinstance(task, ScoreTask)) < first_final


@pytest.mark.parametrize("is_chained", [False, True])
@pytest.mark.parametrize("how", ["stop_at", "begin_no_more_at"])
def test_gaps_in_the_journal_do_not_hold_up_a_run_that_ends_early(how, is_chained):
    sim = Chain(limits(max_clips=1), {"a": 9}, done={"a": {0, 1, 5, 6}}, is_chained=is_chained, **{how: 0.05})
    written = sim.run().last_written("a")
    assert {0, 1, 5, 6} <= set(written)
    assert written == sorted(written)
    assert len(written) < 9


def test_what_clips_leave_does_not_add_up():
    sim = Chain(limits(max_clips=4), {"a": 120}, is_chained=True).run()
    expect_complete(sim)
    assert sim.without == [0]
    assert sim.most_left <= 9


@pytest.mark.parametrize("seed", range(30))
def test_sinks_may_die_while_clips_of_the_journal_wait_for_others(seed):
    rng = Random(seed)
    count = rng.randint(4, 14)
    sim = Chain(
        limits(max_clips=rng.randint(1, 6), attempts=20, sink_clips=rng.choice([1, 2, 8])),
        {"a": count},
        is_chained=True,
        done={"a": set(rng.sample(range(count), rng.randint(1, count - 1)))},
        workers=TWO,
        seconds={"decode": 0.2, "score": 0.5, "refine": 0.5, "sink": rng.choice([0.1, 0.5])},
        kills=[(rng.uniform(0.1, 12.0), "sink", rng.randint(0, 1)) for _ in range(rng.randint(2, 8))],
        seed=seed,
    ).run()
    assert sim.last_written("a") == list(range(count))
    assert set(sim.without) == {0}
