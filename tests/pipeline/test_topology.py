"""How many workers there are is tested where clusters are; here: the plan of a scorer that took too much memory."""

import logging

import pytest

from pipeline.config import load_config
from pipeline.engine import Capacity, StagePlan
from pipeline.topology import ScorerReport, scorer_plan
from stages.box import BoxSpec
from stages.score import Score
from stages.tuning import Tuning

SPEC = BoxSpec(name="any", clip_len=1, height=8, width=8, resize="squash")


def report(size: int) -> ScorerReport:
    tuning = Tuning(batch_size=size, evaluations_per_s=1.0)
    return ScorerReport(spec=SPEC, weights_sha256="", device="cpu", tuning=tuning)


def batch_size(plan: StagePlan) -> int | None:
    stage = plan.build()
    assert isinstance(stage, Score)
    return stage.config.batch_size


@pytest.mark.parametrize("given", [None, 64])
def test_what_the_scorer_said_it_had_is_halved_until_one_clip_is_left(caplog, given):
    caplog.set_level(logging.WARNING)
    plan = scorer_plan(load_config(options={"score.batch_size": given}), Capacity(num_cpus=2))
    assert batch_size(plan) == given
    sizes, had = [], 12
    while True:
        assert plan.frugal is not None
        smaller = plan.frugal(report(had))
        if smaller is None:
            break
        plan, had = smaller, batch_size(smaller)
        sizes.append(had)
    assert sizes == [6, 3, 1]
    assert [f"batch_size={size}" in line for size, line in zip(sizes, caplog.messages, strict=True)] == [True] * 3


@pytest.mark.parametrize(("given", "sizes"), [(None, [4, 2, 1]), (8, [4, 2, 1]), (3, [1])])
def test_a_scorer_that_never_became_ready_is_given_less_each_time(given, sizes):
    plan = scorer_plan(load_config(options={"score.batch_size": given}), Capacity(num_cpus=2))
    found = []
    while (smaller := plan.frugal(None)) is not None:
        plan = smaller
        found.append(batch_size(plan))
    assert found == sizes
