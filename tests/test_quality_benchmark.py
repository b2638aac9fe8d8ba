"""The quality benchmark measures what it says: prefixes of one bank, disjoint halves, paired comparisons."""

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import PlantedBox, scorer, textured_clip

from benchmarks.known_boxes import planted_subjects
from benchmarks.quality import BANK_METHODS, CAPTUM_METHODS, FREE_METHODS, Plan, measure, prefix, read_part
from benchmarks.quality_report import COLOURS, METRICS, Row, comparisons, curves_svg, table
from benchmarks.real_subjects import calves, cuts, pictures, sequences
from benchmarks.subjects import DEVELOPMENT_SEEDS, EVALUATION_SEEDS, Half, Subject, demo_subjects
from stages.demo.train import FIRST_TRAINING_SEED
from stages.perturb import Perturb, PerturbConfig
from stages.single import score_clip

pytestmark = pytest.mark.slow

CORNER = (slice(0, 8), slice(0, 16), slice(0, 16))


def planted_subject() -> tuple[Subject, PlantedBox]:
    clip = textured_clip()
    box = PlantedBox(clip, {0: [(CORNER, 5.0)], 1: [((slice(0, 8), slice(16, 32), slice(16, 32)), 3.0)]})
    subject = Subject(
        name="planted", clip=clip, score=scorer(box), target=0, wished=1, truth=(box.truth(0) > 0).astype(float)
    )
    return subject, box


def test_settings_are_chosen_on_other_clips_than_those_of_the_report() -> None:
    assert not set(DEVELOPMENT_SEEDS) & set(EVALUATION_SEEDS)
    assert max(*DEVELOPMENT_SEEDS, *EVALUATION_SEEDS) < FIRST_TRAINING_SEED
    assert len(EVALUATION_SEEDS) >= 60


def test_a_prefix_is_what_a_smaller_budget_would_have_asked() -> None:
    subject, _ = planted_subject()
    large, small = (score_clip(subject.clip, Perturb(PerturbConfig(budget=n)), subject.score) for n in (24, 10))
    cut = prefix(large, 10)
    assert cut.num_evaluations == 10
    np.testing.assert_allclose(cut.scores[0].values, small.scores[0].values, atol=1e-6)


def test_every_method_is_measured_once_at_every_budget_and_the_bank_is_asked_once(tmp_path: Path) -> None:
    subject, box = planted_subject()
    plan = Plan(budgets=(16, 24), borex_budgets=(16,), steps=4, removal_steps=2)
    rows = measure([subject], plan, tmp_path)
    found = {(row.method, row.budget): row.values for row in rows}
    assert set(found) == {(m, b) for m in BANK_METHODS for b in (16, 24)} | {(m, 0) for m in FREE_METHODS} | {
        ("borex", 16)
    }
    assert all(set(values) == set(METRICS) and len(values["insertion"]) == 1 for values in found.values())
    # Three banks of 24 and twice 16 for BOREx; for each answer 5 + 5 + 3 + 3 masks at most.
    calls = box.calls
    assert calls <= 3 * 24 + 2 * 16 + 16 * len(rows)
    assert read_part(tmp_path / "planted.json", plan).keys() == found.keys()
    again = measure([subject], plan, tmp_path)
    assert box.calls == calls
    assert [row.values["insertion"] for row in again] == [row.values["insertion"] for row in rows]
    assert read_part(tmp_path / "planted.json", replace(plan, steps=5)) == {}
    assert found["gp", 24]["insertion"][0] > found["random", 0]["insertion"][0]
    assert found["gp", 24]["energy"][0] > 1.5
    assert math.isclose(found["random", 0]["energy"][0], 1, abs_tol=0.1)


def test_comparisons_are_paired_and_name_sixteen_times_as_many() -> None:
    rows = []
    for method, budget, level in (("gp", 32, 0.6), ("rise", 32, 0.4), ("rise", 512, 0.5), ("random", 0, 0.3)):
        noise = np.linspace(0, 0.09, 10)
        values = {name: list(level + noise * (1 + level)) for name in METRICS}
        rows.append(Row(method=method, budget=budget, values=values))
    found = {c["other"]: c for c in comparisons(rows) if c["metric"] == "insertion"}
    assert set(found) == {"rise@32", "rise@512", "random@0"}
    assert found["rise@512"]["difference"]["mean"] == pytest.approx(0.1 + 0.0045)  # type: ignore[index]  # a dict
    assert found["rise@512"]["p"] == pytest.approx(2 / 2**10)
    assert found["rise@512"]["p_holm"] == pytest.approx(3 * 2 / 2**10)
    assert "| gp | 32 | 0.672" in table(rows)
    drawing = curves_svg(rows, "title")
    assert drawing.count(f'stroke="{COLOURS["rise"]}" stroke-width') >= 1


def test_the_subjects_are_the_first_answers_of_the_demo_model() -> None:
    (subject,) = demo_subjects(EVALUATION_SEEDS, 1)
    assert subject.target != subject.wished
    assert subject.truth is None or 0 < subject.truth.mean() < 0.5


def test_planted_boxes_of_the_halves_are_others_and_their_truth_is_what_the_box_reads() -> None:
    halves: tuple[Half, ...] = ("development", "evaluation")
    ours, theirs = (list(planted_subjects(half, 1)) for half in halves)
    assert not {subject.name for subject in ours} & {subject.name for subject in theirs}
    for subject in ours:
        box = subject.score.box
        whole = torch.from_numpy(subject.clip.frames.copy())[None].float() / 255
        hidden = whole.clone()
        assert subject.truth is not None
        inside = subject.truth.repeat(2, axis=0) >= 1  # cells of two frames
        hidden[0].permute(1, 0, 2, 3)[:, torch.from_numpy(inside)] = 0.5
        shown, without = (torch.as_tensor(box(frames))[0, subject.target] for frames in (whole, hidden))
        assert float(without) < float(shown) - 0.3


def test_planted_boxes_are_measured_with_all_methods_but_those_from_inside() -> None:
    plan = Plan(budgets=(16,), captum_budgets=(16,), borex_budgets=(16,), optimised_budgets=(16,), steps=4)
    rows = measure(islice(planted_subjects("development", 1), 1), plan.suiting("planted"))
    assert {row.method for row in rows} == {*BANK_METHODS, *FREE_METHODS, *CAPTUM_METHODS, "borex"}
    assert plan.suiting("demo") == plan


def test_real_subjects_are_halved_and_cuts_have_their_truth(shared_data: Path) -> None:
    halves: tuple[Half, ...] = ("development", "evaluation")
    names = [{subject.name for subject in pictures(shared_data, half)} for half in halves]
    assert [len(some) for some in names] == [8, 8]
    assert not names[0] & names[1]
    found = list(cuts(shared_data))
    assert len(found) == 13
    for subject in found:
        assert subject.truth is not None
        assert [float(frame) for frame in subject.truth.mean((1, 2))] == [0, 0, 1, 0, 0]  # cells of two frames: 4 and 5
    (tennis,) = sequences(shared_data, "development")
    assert tennis.truth is not None
    assert 0 < tennis.truth.mean() < 0.3
    (cows,) = calves(shared_data)
    assert cows.clip.shape == (16, 172, 172)
