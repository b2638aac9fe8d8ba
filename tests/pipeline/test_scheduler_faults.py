"""The scheduler on a fake clock when things go wrong: workers that die, clips that fail, answers that come late."""

import itertools
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import CLIP_BYTES, Simulation, expect_complete, limits

from pipeline.scheduler import Scheduler
from pipeline.work import DecodeTask, Mishap, RefineTask, ScoreTask, SinkTask


def test_a_clip_that_always_fails_is_quarantined_and_its_neighbours_are_not():
    def poison(task, sim):
        is_bad = isinstance(task, ScoreTask) and any(
            sim.jobs[p.job].clip_idx == 3 for p in task.pieces if p.job in sim.jobs
        )
        return "now" if is_bad else None

    sim = Simulation(limits(attempts=3), {"a": 8}, rows=6, batch_size=16, fails=poison).run()
    assert [(started.clip_idx, stage) for started, stage in sim.dropped] == [(3, "score")]
    assert sim.last_written("a") == [0, 1, 2, 4, 5, 6, 7]
    assert sim.ended == {"a": True}


@pytest.mark.parametrize("is_blameless", [True, False])
def test_a_scorer_that_was_too_large_costs_a_clip_no_attempt(is_blameless):
    """Two batches are queued; each of the first three deaths takes both, of one clip."""
    deaths = []

    def fails(task, sim):
        if isinstance(task, ScoreTask) and len(deaths) < 6:
            deaths.append(task)
            return "blameless" if is_blameless else "now"
        return None

    sim = Simulation(limits(attempts=3), {"a": 1}, rows=16, batch_size=4, fails=fails).run()
    assert bool(sim.dropped) is not is_blameless
    assert sim.ended == {"a": is_blameless}


def test_retries_wait_longer_each_time():
    tries = []

    def fails(task, sim):
        if isinstance(task, RefineTask) and sim.jobs[task.job].clip_idx == 0:
            tries.append(sim.now)
            return "now" if len(tries) < 4 else None
        return None

    Simulation(limits(attempts=5, backoff_s=1.0), {"a": 1}, fails=fails).run()
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert [round(gap) for gap in gaps] == [1, 2, 4]


def test_a_video_that_cannot_be_opened_ends_and_the_others_go_on():
    def fails(task, sim):
        is_bad = isinstance(task, DecodeTask) and task.job in sim.jobs and sim.jobs[task.job].video == "bad"
        return "permanent" if is_bad else None

    sim = Simulation(limits(), {"bad": 5, "good": 5}, peeks=2, fails=fails).run()
    assert sim.ended == {"bad": False, "good": True}
    assert len([started for started, _ in sim.dropped if started.video == "bad"]) <= 2
    assert sim.last_written("good") == list(range(5))


def test_an_only_clip_that_is_in_the_journal_is_looked_at_again_and_replayed():
    sim = Simulation(limits(), {"a": 1}, done={"a": {0}}, peeks=1).run()
    assert sim.ended == {"a": True}
    assert sim.last_written("a") == [0]


def test_a_video_that_breaks_in_the_middle_keeps_what_came_before():
    def fails(task, sim):
        is_bad = isinstance(task, DecodeTask) and task.job in sim.jobs and sim.jobs[task.job].clip_idx >= 4
        return "permanent" if is_bad else None

    sim = Simulation(limits(), {"a": 9}, fails=fails).run()
    assert sim.last_written("a") == [0, 1, 2, 3]
    assert sim.ended == {"a": True}


@settings(max_examples=60, deadline=None)
@given(
    kills=st.lists(
        st.tuples(st.floats(0.1, 30.0), st.sampled_from(["decode", "score", "refine", "sink"]), st.integers(0, 1)),
        min_size=1,
        max_size=6,
    ),
    max_clips=st.integers(1, 5),
    peeks=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_any_worker_may_die_at_any_time(kills, max_clips, peeks, seed):
    sim = Simulation(
        limits(max_clips=max_clips, attempts=20),
        {"a": 7, "b": 4},
        rounds=2,
        workers={"decode": 2, "score": 2, "refine": 2, "sink": 2},
        seconds={"decode": 0.3, "score": 1.0, "refine": 0.5, "sink": 0.5},
        peeks=peeks,
        verify=(1,),
        kills=list(kills),
        seed=seed,
    ).run()
    expect_complete(sim)


@pytest.mark.parametrize("seed", range(40))
def test_sinks_may_die_while_they_write_a_video_again(seed):
    rng = Random(seed)
    sim = Simulation(
        limits(max_clips=rng.randint(1, 6), attempts=20, sink_clips=rng.choice([1, 2, 8])),
        {"a": rng.randint(4, 14), "b": 4},
        rounds=rng.randint(1, 2),
        workers={"decode": 2, "score": 2, "refine": 2, "sink": 2},
        seconds={"decode": 0.2, "score": 0.5, "refine": 0.5, "sink": rng.choice([0.1, 0.5])},
        peeks=rng.randint(0, 2),
        verify=(1,),
        kills=[(rng.uniform(0.1, 25.0), "sink", rng.randint(0, 1)) for _ in range(rng.randint(2, 8))],
        seed=seed,
    ).run()
    expect_complete(sim)


def test_a_long_video_survives_more_sink_deaths_than_there_are_retries_but_not_at_the_same_clip():
    kills = [(3.0 + 6.0 * number, "sink", 0) for number in range(6)]
    sim = Simulation(limits(attempts=3, sink_clips=1), {"a": 40}, kills=list(kills)).run()
    expect_complete(sim)

    def fails(task, sim):
        at = [sim.all_jobs[job].clip_idx for job in task.jobs] if isinstance(task, SinkTask) else []
        return "error" if 5 in at else None

    sim = Simulation(limits(attempts=3, sink_clips=1), {"a": 12}, fails=fails).run()
    assert sim.ended == {"a": False}
    assert sim.last_written("a") == [0, 1, 2, 3, 4]


def test_frames_that_are_lost_are_read_again():
    lost = Counter()

    def fails(task, sim):
        if isinstance(task, ScoreTask) and not lost[task.pieces[0].job]:
            lost[task.pieces[0].job] += 1
            return "frames"
        return None

    sim = Simulation(limits(), {"a": 4}, fails=fails).run()
    expect_complete(sim)
    assert max(sim.decoded.values()) >= 2


def test_late_and_repeated_answers_are_ignored():
    scheduler = Scheduler(limits(), clip_bytes=1, rows_per_clip=4)
    for stage in ("decode", "score", "refine", "sink"):
        scheduler.worker_up(stage, 0, batch_size=4)
    scheduler.add_video("a")
    (first, *_) = scheduler.admit(0.0)
    scheduler.failed(first.seq, 0.1, Mishap())
    scheduler.decoded(first.seq, 0.2, seconds=0.1, rows=4, nbytes=1, is_last=False)
    assert not scheduler.ledger.rows.is_waiting()
    again = [task for task in scheduler.admit(1.0) if isinstance(task, DecodeTask) and task.job == first.job]
    assert again
    assert again[0].seq != first.seq


def test_a_hanging_batch_is_noticed_but_not_the_one_that_waits_behind_it():
    scheduler = Scheduler(limits(timeout_s={"score": 10.0}), clip_bytes=1, rows_per_clip=8)
    for stage in ("decode", "score", "refine", "sink"):
        scheduler.worker_up(stage, 0, batch_size=4)
    scheduler.add_video("a")
    (first, *_) = scheduler.admit(0.0)
    scheduler.decoded(first.seq, 0.0, seconds=0.1, rows=8, nbytes=1, is_last=True)
    one, two = [task for task in scheduler.admit(0.0) if isinstance(task, ScoreTask)]
    assert scheduler.overdue(9.9) == []
    assert scheduler.overdue(10.0) == [one]
    scheduler.scored(one.seq, 10.0, seconds=10.0)
    assert scheduler.overdue(19.9) == []
    assert scheduler.overdue(20.0) == [two]


@pytest.mark.parametrize("is_chained", [False, True])
def test_a_read_that_failed_is_not_stuck_behind_one_that_waits_for_its_bytes(is_chained):
    """Clip 0 is damaged in the journal and needs room; the room is held by clip 1, whose reader died."""
    sim = Simulation(
        limits(max_clips=1, max_bytes=CLIP_BYTES, attempts=20),
        {"a": 2},
        is_chained=is_chained,
        done={"a": {0}},
        damaged={"a": {0}},
        workers={"decode": 2, "score": 2, "refine": 2, "sink": 2},
        kills=[(0.1015625, "decode", 0)],
    ).run()
    assert sim.last_written("a") == [0, 1]
