"""Screening, wanted clips and the end of the time, on the fake clock: every wanted clip once, no other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import CLIP_BYTES, Simulation

from pipeline.orders import Order
from pipeline.window import Limits
from pipeline.work import DecodeTask, RefineTask, SinkTask

SCREEN = Order(is_screening=True)
KILLS = st.lists(
    st.tuples(st.floats(0.1, 20.0), st.sampled_from(["decode", "score", "refine", "sink"]), st.integers(0, 1)),
    max_size=4,
)
TWO = {"decode": 2, "score": 2, "refine": 2, "sink": 2}


def limits(**changes) -> Limits:
    return Limits(**{"deadline_s": 0.5, "backoff_s": 0.1, "timeout_s": {}, "attempts": 20, **changes})


@settings(max_examples=60, deadline=None)
@given(
    clips=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    done=st.sets(st.integers(0, 11)),
    batch_size=st.integers(1, 9),
    max_clips=st.integers(1, 9),
    kills=KILLS,
    seed=st.integers(0, 99),
)
def test_screening_asks_one_row_of_every_clip_once_and_writes_nothing(clips, done, batch_size, max_clips, kills, seed):
    videos = {f"v{idx}": count for idx, count in enumerate(clips)}
    sim = Simulation(
        limits(max_clips=max_clips, max_bytes=3 * CLIP_BYTES),
        videos,
        batch_size=batch_size,
        done=dict.fromkeys(videos, done),
        orders=dict.fromkeys(videos, SCREEN),
        workers=TWO,
        kills=list(kills),
        seed=seed,
    ).run()
    asked = {
        (name, clip, "screen", 0, 0) for name, count in videos.items() for clip in range(count) if clip not in done
    }
    assert dict(sim.scored) == dict.fromkeys(asked, 1)
    assert sim.ended == dict.fromkeys(videos, True)
    assert not [task for _, task in sim.started if isinstance(task, SinkTask | RefineTask)]
    assert sim.scheduler.ledger.window.num_open == sim.scheduler.ledger.window.num_bytes == 0


def test_rows_of_many_screened_clips_fill_one_batch():
    sim = Simulation(
        limits(), {"a": 240}, rows=64, batch_size=16, orders={"a": SCREEN}, seconds={"decode": 0.01, "score": 1.0}
    ).run()
    assert all(task.rows == task.size for task in sim.batches[2:-4])


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 12),
    only=st.sets(st.integers(0, 14), min_size=1),
    done=st.sets(st.integers(0, 11)),
    max_clips=st.integers(1, 4),
    kills=KILLS,
    seed=st.integers(0, 99),
)
def test_only_wanted_clips_are_read_and_written_in_order(count, only, done, max_clips, kills, seed):
    sim = Simulation(
        limits(max_clips=max_clips),
        {"a": count},
        rounds=2,
        done={"a": done & set(range(count))},
        orders={"a": Order(only=frozenset(only))},
        workers=TWO,
        kills=list(kills),
        seed=seed,
    ).run()
    wanted = sorted(only & set(range(count)))
    assert sim.last_written("a") == wanted
    assert sim.ended == {"a": bool(wanted)}
    assert {clip for _, _, clip in [(0, *key) for key in sim.decoded if sim.decoded[key]]} <= set(wanted)


@pytest.mark.parametrize("moment", [0.05, 3.0, 9.0, 25.0])
def test_when_the_time_is_over_no_clip_is_begun_and_those_in_flight_are_finished(moment):
    sim = Simulation(limits(max_clips=4), {"a": 500, "b": 500}, begin_no_more_at=moment, verify=(0,)).run()
    begun = {(sim.all_jobs[task.job].video, sim.all_jobs[task.job].clip_idx) for _, task in sim.started
             if isinstance(task, DecodeTask)}  # fmt: skip
    for name in ("a", "b"):
        clips = sorted(clip for video, clip in begun if video == name)
        assert sim.last_written(name) == clips == list(range(len(clips)))
        assert sim.ended[name] == bool(clips)
        if clips:  # regions are still removed for real, and the files closed in good order
            assert sim.actions[f"{name}/0"][-2:] == ["finish", "close"]
            assert sim.scored[(name, 0, "verify", 0, 0)] == 1
    late = [start for start, task in sim.started if isinstance(task, DecodeTask) and start > moment + 1.5]
    assert all(sim.all_jobs[task.job].purpose == "verify" for start, task in sim.started
               if isinstance(task, DecodeTask) and start in late)  # fmt: skip
