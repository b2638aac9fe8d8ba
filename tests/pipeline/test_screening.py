"""Ranks of screened clips on planted scores: events first, no frame twice, no video that takes everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan import Allowance, Look, Plan, coverage, stretches
from pipeline.screened import Screened
from pipeline.screening import gains, rank, signals


def log_scores(probs) -> np.ndarray:
    """Two classes, of which class 0 has these probabilities."""
    probs = np.asarray(probs, np.float64)
    return np.stack([np.log(probs), np.log1p(-probs)], 1)


def screened(probs, *, stride: int = 4, span: int = 4, missing: tuple[int, ...] = (), has_end: bool = True) -> Screened:
    idx = np.array([k for k in range(len(probs)) if k not in missing])
    frames = np.stack([idx * stride, idx * stride + span], 1)
    return Screened(
        clip_idx=idx,
        frames=frames,
        span_s=np.stack([frames[:, 0], frames[:, 1] - 1], 1) / 10.0,
        log_scores=log_scores(probs)[idx].astype(np.float32),
        has_end=has_end,
    )


def make(videos: dict[str, Screened], **allowance) -> Plan:
    looks = [Look(video_id=name, screened=seen, targets=(0,)) for name, seen in videos.items()]
    return Plan.make(looks, Allowance(**{"clip_cost": 10, "video_cost": 0, **allowance}), str)


def ranks(plan: Plan) -> dict[str, list[int]]:
    return {name: rows["rank"].tolist() for name, rows in plan.videos().items()}


def test_an_event_is_ranked_before_a_quiet_stretch():
    plan = make({"v": screened([0.05, 0.05, 0.05, 0.9, 0.05, 0.05])})
    assert ranks(plan)["v"].index(0) == 3
    assert set(np.argsort(ranks(plan)["v"])[1:3]) == {2, 4}  # where it begins and ends


def test_strong_rivals_count_as_something_to_explain():
    found = signals(log_scores([0.5, 0.5, 0.99, 0.99]), np.array([0, 5, 10, 15]), (0,))
    assert found.change.tolist() == [0, 0, 0, 0]  # none of them are neighbours
    assert found.contest[0] == pytest.approx(1)
    assert found.priority[0] > found.priority[2]


def test_of_several_targets_the_most_telling_one_speaks():
    found = signals(log_scores([0.9, 0.1]), np.array([0, 2]), (0, 1))
    assert found.target_idx.tolist() == [0, 1]
    assert found.prob == pytest.approx([0.9, 0.9])


def test_a_box_of_one_class_can_be_ranked():
    found = signals(np.array([[1.0], [2.0]]), np.array([0, 1]), (0,))
    assert np.isfinite(found.priority).all()


def test_frames_that_are_explained_already_count_half():
    order, gain = gains(np.array([1.0, 0.9, 0.8]), np.array([[0, 8], [4, 12], [8, 16]]))
    assert order.tolist() == [0, 2, 1]
    assert gain == pytest.approx([1.0, 0.8, 0.45])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=25), st.integers(1, 6), st.integers(1, 12))
def test_gains_never_increase_and_every_clip_is_taken_once(priorities, stride, span):
    starts = np.arange(len(priorities)) * stride
    order, gain = gains(np.array(priorities), np.stack([starts, starts + span], 1))
    assert sorted(order.tolist()) == list(range(len(priorities)))
    assert (np.diff(gain) <= 1e-12).all()
    assert (gain <= np.array(priorities)[order] + 1e-12).all()


def test_a_video_with_a_constant_high_score_does_not_take_everything():
    plan = make({"loud": screened([0.95] * 100), "quiet": screened([0.02] * 9 + [0.5] + [0.02] * 10)})
    assert min(ranks(plan)["quiet"]) <= 1
    first = sorted(ranks(plan)["loud"] + ranks(plan)["quiet"])[:10]
    assert sum(place in first for place in ranks(plan)["quiet"]) >= 2


def test_places_are_shared_in_proportion_to_gains():
    a, b = rank([np.full(100, 2.0), np.full(100, 1.0)])
    assert (a < 30).sum() == 20
    assert (b < 30).sum() == 10


def test_ties_go_to_the_earlier_video_and_the_earlier_clip():
    plan = make({"a": screened([0.3] * 3), "b": screened([0.3] * 3)})
    assert ranks(plan) == {"a": [0, 2, 4], "b": [1, 3, 5]}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=8), min_size=1, max_size=4), st.integers(10, 300))
def test_the_budget_holds_and_the_first_ranks_are_selected(videos, evaluations):
    plan = make({f"v{k}": screened(probs) for k, probs in enumerate(videos)}, video_cost=5, evaluations=evaluations)
    rows = [row for row in plan.table.to_pylist() if row["is_selected"]]
    spent = len(plan.table) + 10 * len(rows) + 5 * len({row["video_id"] for row in rows})
    assert spent <= evaluations or not rows
    assert len(rows) == len(plan.table) or spent > evaluations - 10 - 5
    assert sorted(row["rank"] for row in rows) == list(range(len(rows)))
    assert {row["reason"] for row in plan.table.to_pylist()} <= {"", "beyond the budget"}


def test_the_time_may_allow_less_than_the_budget():
    plan = make({"v": screened([0.5] * 10)}, evaluations=1000, clips=4)
    assert sum(row["is_selected"] for row in plan.table.to_pylist()) == 4
    assert {row["reason"] for row in plan.table.to_pylist()} == {"", "beyond the time"}


def test_orders_name_the_selected_clips_and_cover_all_screened_frames(tmp_path):
    plan = make({"a": screened([0.5, 0.9, 0.5]), "b": screened([0.001] * 3)}, evaluations=6 + 20)
    plan.write(tmp_path)
    again = Plan.read(tmp_path)
    assert again is not None
    assert again.table.equals(plan.table)
    orders = again.orders({"a": (0,)})

    class Source:
        id = "a"

    order = orders(Source())
    assert order.only == set(np.argsort(ranks(plan)["a"])[:2].tolist())
    assert (order.num_frames, order.targets) == (12, (0,))
    Source.id = "b"
    assert orders(Source()) is None


def test_what_was_not_explained_is_told_in_clips_and_in_time():
    plan = make({"a": screened([0.5] * 5), "b": screened([0.5] * 5, missing=(2,), has_end=False)}, clips=4)
    plan = plan.brought_up_to_date({("a", 1), ("b", 0)}, {("a", 0)}, "not reached")
    found = coverage(plan)
    assert (found["clips_screened"], found["clips_explained"], found["clips_not_explained"]) == (9, 2, 7)
    assert found["videos_screened_in_part"] == 1
    assert found["time_not_explained_share"] == pytest.approx(0.8)
    assert (found["longest_gap_s"], found["longest_gap_at_s"]) == (pytest.approx(1.6), pytest.approx(0.4))
    assert found["longest_gap_video"] == "b"
    assert stretches(plan.videos()["a"])[:2] == [(0.0, pytest.approx(0.4), False), (pytest.approx(0.4), 0.8, True)]


def test_every_clip_that_is_missing_has_a_reason():
    plan = make({"a": screened([0.5] * 4)}, clips=3)
    plan = plan.brought_up_to_date({("a", 0)}, {("a", 1)}, "beyond the time")
    rows = {row["clip_idx"]: (row["is_selected"], row["is_explained"], row["reason"]) for row in plan.table.to_pylist()}
    assert rows == {
        0: (True, True, ""),
        1: (True, False, "failed"),
        2: (True, False, "beyond the time"),
        3: (False, False, "beyond the time"),
    }


def test_a_run_in_which_nothing_could_be_screened_has_an_empty_plan():
    plan = make({}).brought_up_to_date(set(), set(), "not reached")
    assert coverage(plan)["clips_screened"] == 0
