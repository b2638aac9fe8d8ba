"""The scheduler on a fake clock: everything once, within bounds, in order, without a deadlock, whatever fails."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import CLIP_BYTES, Simulation, expect_complete, limits

from pipeline.scheduler import Scheduler
from pipeline.work import DecodeTask, ScoreTask, SinkTask

TIGHT = {"decode": 1, "score": 1, "refine": 1, "sink": 1}


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


def test_clips_in_the_journal_are_replayed_without_reading_or_scoring():
    sim = Simulation(limits(max_clips=2), {"a": 10}, done={"a": {0, 1, 2, 5, 9}}).run()
    expect_complete(sim)
    assert not {clip for _, clip in sim.decoded} & {0, 1, 2, 5}


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
