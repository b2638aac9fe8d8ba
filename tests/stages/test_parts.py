"""A bank asked in parts: clips stop when their map is known well enough, and are what they were when they are not."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from planted import PlantedBox, scorer, textured_clip
from pydantic import ValidationError

from stages.designs import rows_of
from stages.exchange import Subject
from stages.parts import FIRST_LOOK, next_look, relative_variance
from stages.perturb import Perturb, PerturbConfig
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.score import ScoreConfig
from stages.single import explain_evidence, score_clip

BUDGET = 200
# Reached by the planted places below between the first look and the budget.
LOOSE = 0.22
NEVER = 1e-9


@pytest.fixture(scope="module")
def box():
    place, other = (slice(1, 5), slice(2, 14), slice(3, 15)), (slice(2, 8), slice(18, 30), slice(14, 28))
    return PlantedBox(textured_clip((8, 32, 32)), {0: [(place, 5.0), (other, -3.0)]}, num_classes=3)


def explain(box, targets=(0,), budget=BUDGET, **settings):
    config = RefineConfig(**settings)
    perturb, score = Perturb(PerturbConfig(budget=budget), config.method, config.prior, config.parts), scorer(box)
    first = score_clip(box.clip, perturb, score)
    return explain_evidence(box.clip, first, score, Refine(config), targets)


def test_looks_grow_so_that_they_stay_few():
    looks = [0]
    while looks[-1] < 5_000:
        looks.append(next_look(looks[-1]))
    assert looks[1:6] == [FIRST_LOOK, 96, 128, 192, 256]
    assert all(look % 2 == 0 for look in looks)  # masks may come in pairs
    assert all(1.3 < later / earlier <= 1.5 for earlier, later in pairwise(looks[1:]))
    assert [next_look(look - 1) for look in looks[1:]] == looks[1:]


def test_a_clip_that_is_known_well_enough_stops_and_has_the_map_of_that_budget(box):
    evidence, (saliency,) = explain(box, tolerance=LOOSE)
    assert saliency.stop_reason == "tolerance"
    assert saliency.num_evaluations == evidence.num_evaluations < BUDGET
    assert next_look(saliency.num_evaluations - 1) == saliency.num_evaluations
    assert relative_variance(saliency) < LOOSE
    _, (plain,) = explain(box, budget=saliency.num_evaluations)
    np.testing.assert_allclose(saliency.mean, plain.mean, atol=1e-6)
    np.testing.assert_allclose(saliency.var, plain.var, atol=1e-6)
    assert plain.stop_reason == "budget"


def test_it_stops_at_the_first_look_that_is_below_the_tolerance(box):
    _, (saliency,) = explain(box, tolerance=LOOSE)
    looks = [FIRST_LOOK, *(look for look in (96, 128, 192) if look <= saliency.num_evaluations)]
    found = [relative_variance(explain(box, budget=look)[1][0]) for look in looks]
    assert [left < LOOSE for left in found] == [False] * (len(looks) - 1) + [True]


@pytest.mark.parametrize("prior", ["none", "rise"])
def test_a_clip_that_never_gets_there_is_explained_as_without_a_tolerance(box, prior):
    evidence, (in_parts,) = explain(box, tolerance=NEVER, prior=prior)
    whole, (at_once,) = explain(box, prior=prior)
    assert len(evidence.masks) > len(whole.masks)
    np.testing.assert_array_equal(rows_of(evidence), rows_of(whole))
    assert in_parts.stop_reason == at_once.stop_reason == "budget"
    assert in_parts.num_evaluations == at_once.num_evaluations == BUDGET
    np.testing.assert_allclose(in_parts.mean, at_once.mean, atol=1e-6)
    np.testing.assert_allclose(in_parts.var, at_once.var, atol=1e-6)


def test_a_prior_from_inside_the_model_leaves_the_bank_in_parts(box):
    pytest.importorskip("captum")
    settings = {"prior": "captum:KernelShap", "budget": 160}
    _, (in_parts,) = explain(box, tolerance=NEVER, **settings)
    _, (at_once,) = explain(box, **settings)
    assert in_parts.num_evaluations == at_once.num_evaluations
    np.testing.assert_allclose(in_parts.mean, at_once.mean, atol=1e-6)


def test_every_target_must_be_known(box):
    """The third class outshouts both others, so that the second one's log-odds never change."""
    loud = PlantedBox(box.clip, box.evidence, squash=lambda z: z + torch.tensor([0.0, 0.0, 100.0]))
    assert explain(loud, (0,), tolerance=LOOSE)[1][0].stop_reason == "tolerance"
    assert {saliency.stop_reason for saliency in explain(loud, (0, 1), tolerance=LOOSE)[1]} == {"budget"}


def test_a_box_that_does_not_look_gets_its_whole_budget():
    _, (saliency,) = explain(PlantedBox(textured_clip((8, 32, 32)), {}), tolerance=1e9)
    assert saliency.stop_reason == "budget"
    assert saliency.num_evaluations == BUDGET


def test_the_rounds_of_a_finished_clip_give_its_map_again(box):
    evidence, maps = explain(box, tolerance=LOOSE)
    found = Refine(RefineConfig(tolerance=LOOSE)).process(RefineRequest(evidence=evidence, targets=(0,)))
    assert found.more is None
    assert [saliency.stop_reason for saliency in found.maps] == ["tolerance"]
    np.testing.assert_array_equal(found.maps[0].mean, maps[0].mean)


def test_a_clip_asked_again_with_the_same_masks_is_not_asked_for_more(box):
    """As the sanity checks do, with boxes whose maps would never be known well enough."""
    subject = Subject(
        clip=box.clip,
        box=box,
        target=0,
        perturb=PerturbConfig(budget=BUDGET),
        score=ScoreConfig(substrate="mean", device="cpu"),
        refine=RefineConfig(tolerance=LOOSE, adaptive_share=0.2),
    )
    base = subject.explain()
    blind = subject.explain(PlantedBox(box.clip, {}), masks=base.evidence.masks)
    assert blind.saliency.num_evaluations == base.saliency.num_evaluations < BUDGET


@pytest.mark.parametrize("settings", [{"tolerance": 0.2}, {"adaptive_share": 0.2}])
@pytest.mark.parametrize("method", ["rise", "occlusion", "borex", "mask-optimisation"])
def test_methods_without_a_posterior_of_voxels_are_asked_as_a_whole(method, settings):
    with pytest.raises(ValidationError, match="use method gp"):
        RefineConfig(method=method, **settings)
