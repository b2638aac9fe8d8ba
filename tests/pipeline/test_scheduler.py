"""The scheduler on a fake clock: everything once, within bounds, in order, without a deadlock, whatever fails."""

import itertools
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import CLIP_BYTES, Simulation

from pipeline.scheduler import Scheduler
from pipeline.window import Limits
from pipeline.work import DecodeTask, RefineTask, ScoreTask, SinkTask

TIGHT = {"decode": 1, "score": 1, "refine": 1, "sink": 1}


def limits(**changes) -> Limits:
    return Limits(**{"deadline_s": 0.5, "backoff_s": 0.1, "timeout_s": {}, **changes})


def expect_complete(sim: Simulation) -> None:
    """Every video closed, every clip written once and in order, every row of every round answered once."""
    assert sim.ended == dict.fromkeys(sim.clips, True)
    for video, count in sim.clips.items():
        assert sim.last_written(video) == list(range(count))
    streamed = {key: n for key, n in sim.scored.items() if key[2] == "stream"}
    expected = {
        (video, clip, "stream", round_idx, row)
        for video, count in sim.clips.items()
        for clip in range(count)
        if clip not in sim.done.get(video, ())
        for round_idx in range(sim.rounds)
        for row in range(sim.rows if round_idx == 0 else sim.rows // 2)
    }
    assert set(streamed) == expected
    assert set(streamed.values()) <= {1}


@settings(max_examples=80, deadline=None)
@given(
    clips=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    rows=st.integers(2, 13),
    rounds=st.integers(1, 3),
    batch_size=st.integers(1, 16),
    scorers=st.integers(1, 4),
    readers=st.integers(1, 2),
    max_clips=st.integers(1, 6),
    peeks=st.integers(0, 3),
    max_videos=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_row_is_scored_exactly_once_and_windows_hold(
    clips, rows, rounds, batch_size, scorers, readers, max_clips, peeks, max_videos, seed
):
    sim = Simulation(
        limits(max_clips=max_clips, max_bytes=3 * CLIP_BYTES, max_videos=max_videos),
        {f"v{idx}": count for idx, count in enumerate(clips)},
        rows=rows,
        rounds=rounds,
        batch_size=batch_size,
        workers={"decode": readers, "score": scorers, "refine": 1, "sink": 1},
        peeks=peeks,
        verify=(0,),
        seed=seed,
    ).run()
    expect_complete(sim)
    assert sim.most_open <= max_clips
    assert sim.most_bytes <= 3 * CLIP_BYTES
    assert all(1 <= task.rows <= task.size == batch_size for task in sim.batches)
    assert sim.scheduler.ledger.window.num_open == sim.scheduler.ledger.window.num_bytes == 0


@pytest.mark.parametrize("max_clips", [1, 2, 3])
def test_rounds_that_come_back_find_room_with_every_queue_full(max_clips):
    sim = Simulation(
        limits(max_clips=max_clips, max_bytes=max_clips * CLIP_BYTES, queued=TIGHT, sink_clips=1),
        {"a": 20, "b": 20},
        rounds=5,
        workers={"decode": 1, "score": 1, "refine": 1, "sink": 1},
        seconds={"decode": 0.01, "score": 0.01, "refine": 1.0, "sink": 1.0},
        peeks=2,
        verify=(3, 7),
    ).run()
    expect_complete(sim)
    assert sim.most_open == max_clips


def test_batches_are_full_across_clips_and_two_wait_for_every_scorer():
    sim = Simulation(
        limits(), {"a": 240}, rows=7, batch_size=16, workers={"decode": 1, "score": 3, "refine": 1, "sink": 1}
    )
    sim.run()
    expect_complete(sim)
    assert all(task.rows == task.size for task in sim.batches[:-6])
    assert any(len(task.pieces) > 2 for task in sim.batches)
    assert sim.efficiency > 0.9


def test_adaptive_rounds_are_merged_instead_of_sent_half_empty():
    sim = Simulation(limits(), {"a": 80, "b": 80}, rows=16, rounds=4, batch_size=16).run()
    expect_complete(sim)
    assert sim.fill > 0.95
    assert sim.efficiency > 0.95


def test_a_part_filled_batch_leaves_at_the_deadline():
    scheduler = Scheduler(limits(deadline_s=2.0), clip_bytes=1, rows_per_clip=3)
    for stage in ("decode", "score", "refine", "sink"):
        scheduler.worker_up(stage, 0, batch_size=8)
    scheduler.add_video("a")
    first, _ = [task for task in scheduler.admit(0.0) if isinstance(task, DecodeTask)]
    scheduler.decoded(first.seq, 1.0, seconds=1.0, rows=3, nbytes=1, is_last=False)
    assert not [task for task in scheduler.admit(1.0) if isinstance(task, ScoreTask)]  # more may come: it is being read
    assert scheduler.next_wakeup(1.0) == 3.0
    assert not [task for task in scheduler.admit(2.9) if isinstance(task, ScoreTask)]
    (late,) = [task for task in scheduler.admit(3.0) if isinstance(task, ScoreTask)]
    assert late.rows == 3


def test_a_part_filled_batch_leaves_at_once_when_nothing_else_can_come():
    sim = Simulation(limits(deadline_s=1000.0), {"a": 1}, rows=5, batch_size=4).run()
    assert [task.rows for task in sim.batches] == [4, 1]
    assert sim.now < 10


def test_a_scorer_prefers_the_clips_it_has_seen():
    sim = Simulation(
        limits(), {"a": 40}, rows=64, batch_size=8, workers={"decode": 1, "score": 4, "refine": 1, "sink": 1}
    ).run()
    seen = {(piece.job, task.worker) for task in sim.batches for piece in task.pieces}
    assert len(seen) < 1.5 * 40  # without a preference every clip would visit nearly all four scorers


def test_short_videos_are_not_kept_waiting_by_a_long_one():
    sim = Simulation(limits(max_clips=6), {"long": 200, "short": 3}).run()
    expect_complete(sim)
    order = [sim.all_jobs[task.job].video for _, task in sim.started if isinstance(task, DecodeTask)]
    assert order.index("short") < 4
    last_short = max(idx for idx, video in enumerate(order) if video == "short")
    assert last_short < 25


def test_no_clip_starves_while_others_keep_coming():
    sim = Simulation(limits(starvation_s=5.0), {"a": 100}, rows=9, batch_size=8, rounds=2).run()
    began = {}
    for start, task in sim.started:
        if isinstance(task, DecodeTask):
            began.setdefault(task.job, start)
    ends = {}
    for start, task in sim.started:
        if isinstance(task, SinkTask):
            ends.update(dict.fromkeys(task.jobs, start))
    waits = [ends[job] - began[job] for job in ends]
    assert max(waits) < 4 * sorted(waits)[len(waits) // 2]


def test_frames_are_written_in_clip_order_however_the_answers_arrive():
    sim = Simulation(
        limits(max_clips=12),
        {"a": 50},
        rows=4,
        workers={"decode": 1, "score": 5, "refine": 3, "sink": 1},
        seconds={"decode": 0.01, "score": 1.0, "refine": 2.0, "sink": 0.01},
        fails=lambda task, sim: "now" if sim.rng.random() < 0.2 and not isinstance(task, SinkTask) else None,
        seed=3,
    )
    sim.run()
    written = sim.last_written("a")
    assert written == sorted(set(written))
    assert set(written) | {started.clip_idx for started, _ in sim.dropped} == set(range(50))


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


def test_a_video_that_breaks_in_the_middle_keeps_what_came_before():
    def fails(task, sim):
        is_bad = isinstance(task, DecodeTask) and task.job in sim.jobs and sim.jobs[task.job].clip_idx >= 4
        return "permanent" if is_bad else None

    sim = Simulation(limits(), {"a": 9}, fails=fails).run()
    assert sim.last_written("a") == [0, 1, 2, 3]
    assert sim.ended == {"a": True}


def test_clips_in_the_journal_are_replayed_without_reading_or_scoring():
    sim = Simulation(limits(max_clips=2), {"a": 10}, done={"a": {0, 1, 2, 5, 9}}).run()
    expect_complete(sim)
    assert not {clip for _, clip in sim.decoded} & {0, 1, 2, 5}


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
    scheduler.failed(first.seq, 0.1)
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


def test_stopping_finishes_what_is_in_flight_and_closes_the_videos():
    sim = Simulation(limits(max_clips=4), {"a": 1000, "b": 1000}, stop_at=40.0).run()
    assert sim.ended == {"a": False, "b": False}
    assert 0 < len(sim.last_written("a")) < 1000
    assert sim.last_written("a") == list(range(len(sim.last_written("a"))))
    assert sim.now < 60.0


def test_the_measured_window_feeds_many_scorers_without_growing_with_the_video():
    workers = {"decode": 1, "score": 32, "refine": 2, "sink": 1}
    seconds = {"decode": 0.02, "score": 1.0, "refine": 0.01, "sink": 0.01}
    sim = Simulation(limits(), {"a": 300}, rows=64, batch_size=16, workers=workers, seconds=seconds).run()
    assert sim.most_open < 120
    assert sim.efficiency > 0.9
