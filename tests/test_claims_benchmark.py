"""The benchmark of claims measures what it says: planted places, priors and their mirror, what was measured is kept."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import claims
from benchmarks.claims_report import SUMMARIES, words
from benchmarks.known_boxes import planted_subjects
from benchmarks.subjects import EVALUATION_SEEDS, Half, demo_subjects

pytestmark = pytest.mark.slow


def test_what_is_said_of_a_planted_box_is_what_was_found() -> None:
    """That F-TC is told from F-NTC is held, over several boxes, by `test_planted_boxes.py`."""
    (name, case), *_ = claims.planted_cases(1, None)
    found = case()
    assert name == f"additive, noise {claims.FRESH_SEED}"
    lines = {line["what"]: line for line in SUMMARIES["planted"]({name: found})}
    assert set(lines) == {f"{group}: {pair}" for group in ("all", "additive, noise") for pair in found}
    for pair, value in found.items():
        own = len(set(pair.removesuffix(" places").split(" map, "))) == 1
        assert lines[f"all: {pair}"]["mean"] == value
        assert lines[f"all: {pair}"]["reach the goal"] == (value >= 0.95 if own else value <= 0.6)
    assert "f_ntc map, f_tc places" in words(lines.values())


def test_the_boxes_of_the_claim_are_those_of_no_other_benchmark(tmp_path: Path) -> None:
    halves: tuple[Half, ...] = ("development", "evaluation")
    used = {subject.name.rsplit("-", 1)[1] for half in halves for subject in planted_subjects(half, 8)}
    claimed = [name.rsplit(" ", 1)[1] for name, _ in claims.planted_cases(8, tmp_path)]
    assert not used & set(claimed)
    assert min(map(int, claimed)) >= 20_000
    assert len(claimed) == 3 * len(set(claimed))  # every form has the same seeds, noise and footage different ones


def test_a_prior_and_its_mirror_are_measured_at_every_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BUDGETS", (16, 32))
    monkeypatch.setattr(claims, "PRIOR_BUDGET", 48)
    monkeypatch.setattr(claims, "STEPS", 4)
    (subject,) = demo_subjects(EVALUATION_SEEDS, 1)
    found = claims.with_priors(subject)
    priors = {name.split(" @ ")[0] for name in found}
    assert priors == {"none", *(f"{good}{turn}" for good in claims.GOOD_PRIORS for turn in ("", ", mirrored"))}
    assert {f"{prior} @ {budget}" for prior in priors for budget in (16, 32)} < set(found)
    assert found["another seed's map"] > found["another seed's map, mirrored"]


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    asked = []

    def case(value: float) -> dict[str, float]:
        asked.append(value)
        return {"value": value}

    def cases() -> list[claims.Case]:
        return [("first", lambda: case(1.0)), ("second, of two", lambda: case(2.0))]

    assert set(claims.measure(cases(), tmp_path, deadline=0)) == {"first"}  # one case is always begun
    assert claims.measure(cases(), tmp_path, float("inf")) == {
        "first": {"value": 1.0},
        "second, of two": {"value": 2.0},
    }
    assert asked == [1.0, 2.0]


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    level = rng.random(8)
    cases = {f"picture {idx}": {"prior": value, "BOREx": value + 0.1} for idx, value in enumerate(level)}
    lines = {line["what"]: line for line in SUMMARIES["borex"](cases)}
    assert lines["pictures: BOREx - prior"]["mean"] == pytest.approx(0.1)
    assert lines["pictures: BOREx - prior"]["p"] == pytest.approx(2 / 2**8)
    assert lines["prior"]["most"] == level.max()
