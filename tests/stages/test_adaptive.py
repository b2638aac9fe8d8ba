"""Masks chosen for one clip: they look where its evidence is, cost what they may, and are drawn again alike."""

from dataclasses import replace

import numpy as np
import pytest
from planted import PlantedBox, auc, scorer, textured_clip

from stages.adaptive import ROUND, chosen_masks, posterior_draw, what_is_left
from stages.content import content_of
from stages.designed import most_telling
from stages.gp import Design
from stages.kernels import Kernel, Scaled, Smooth
from stages.masks import NUM_ANCHORS, grids_of
from stages.perturb import Perturb, PerturbConfig
from stages.records import ClipId, Evidence
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import explain_evidence, score_clip

BLOB = (slice(2, 6), slice(6, 11), slice(18, 23))
GRID = (3, 5, 4)
NOISE_VAR = 1_000.0  # of a score, where a voxel's saliency has variance 1


@pytest.fixture(scope="module")
def box():
    return PlantedBox(textured_clip((8, 32, 32)), {0: [(BLOB, 5.0)]})


@pytest.fixture(scope="module")
def evidence(box):
    return score_clip(box.clip, Perturb(PerturbConfig(budget=64)), scorer(box))


def explain(box, budget=96, **settings):
    config = RefineConfig(**settings)
    perturb, score = Perturb(PerturbConfig(budget=budget), config.method, config.prior, config.parts), scorer(box)
    return explain_evidence(box.clip, score_clip(box.clip, perturb, score), score, Refine(config), (0,))


def test_chosen_masks_lie_about_the_one_bright_blob(box, evidence):
    """Of a mask and its complement the smaller is the place that is asked about."""
    truth = box.truth(0) > 0
    bank = grids_of(Perturb(PerturbConfig(budget=256)).process(box.clip.info))[64:]

    def density(grids):
        shares = grids.reshape(len(grids), -1) / 255.0
        places = shares[shares.mean(1) < 0.5]
        return (places[:, truth.ravel()].mean(1) / places.mean(1)).mean()

    assert density(chosen_masks(evidence, (0,), ROUND).grids) > 2 * density(bank)


@pytest.mark.parametrize("kernel", [Kernel(0.4, 0.16, 0.3), Kernel(2.0, 0.32, 0.3)])
def test_chosen_masks_lower_what_is_unknown_more_than_as_many_drawn_at_random(box, kernel):
    """The variance that is left does not depend on scores; it is weighted by the map before they were chosen."""
    first, longer = (Perturb(PerturbConfig(budget=budget, family="mixture")) for budget in (64, 64 + ROUND))
    evidence = score_clip(box.clip, first, scorer(box))
    ours = grids_of(chosen_masks(evidence, (0,), ROUND)).reshape(ROUND, -1) / 255.0
    bank = grids_of(longer.process(box.clip.info)).reshape(64 + ROUND, -1) / 255.0
    mean, var = (
        Refine(RefineConfig()).process(RefineRequest(evidence=evidence, targets=(0,))).maps[0].output("log_odds")
    )
    importance = (mean**2 + var).ravel() / (mean**2 + var).sum()

    def left(rows):
        design = Design(rows, (4, 28, 28), [kernel]).kernel_design(kernel)
        return design.scale * design.posterior_vars([NOISE_VAR / design.scale])[0] @ importance

    before, more, chosen = left(bank[NUM_ANCHORS:64]), left(bank[NUM_ANCHORS:]), left(np.vstack([bank[2:64], ours]))
    assert before - chosen > 1.1 * (before - more) > 0


@pytest.mark.parametrize("prior", ["none", "rise"])
@pytest.mark.parametrize("budget", [64, 130, 151])
def test_the_share_is_asked_for_in_pairs_and_the_budget_holds(box, budget, prior):
    box.calls = 0
    evidence, (saliency,) = explain(box, budget, adaptive_share=0.3, prior=prior)
    assert box.calls == saliency.num_evaluations == budget
    own = [masks for masks in evidence.masks if masks.grids is not None]
    other = sum(len(masks) for masks in evidence.masks if masks.bank is not None)
    spent_on_prior = len(evidence.masks[0]) - NUM_ANCHORS if prior == "rise" else 0
    wanted = 0.3 * (budget - NUM_ANCHORS - spent_on_prior)
    assert wanted - 2 < sum(map(len, own)) == budget - other <= wanted
    for masks in own:
        assert len(masks) < 1.5 * ROUND
        np.testing.assert_array_equal(masks.grids[::2], 255 - masks.grids[1::2])
    assert np.isin([masks.ids.min() for masks in own], range(NUM_ANCHORS)).sum() == 0
    assert saliency.stop_reason == "budget"


def test_a_share_and_a_tolerance_go_together(box):
    never, (whole,) = explain(box, 160, adaptive_share=0.4, tolerance=1e-9)
    assert len(never.masks[0]) == 64
    assert never.masks[-1].grids is not None
    assert whole.num_evaluations == 160
    early, (part,) = explain(box, 160, adaptive_share=0.4, tolerance=1e9)
    assert [len(masks) for masks in early.masks] == [64]
    assert part.stop_reason == "tolerance"


def test_a_box_that_does_not_look_is_asked_its_budget_and_found_out(box):
    _, (saliency,) = explain(PlantedBox(box.clip, {}), 130, adaptive_share=0.5)
    assert saliency.num_evaluations == 130
    assert not saliency.fidelity["log_odds"].is_reliable


def test_content_is_looked_at_in_every_round(box):
    clip = replace(box.clip, content=content_of(box.clip.frames, "mean"))
    evidence, (saliency,) = explain(PlantedBox(clip, box.evidence), 130, adaptive_share=0.5)
    assert [len(masks) for masks in evidence.masks] == [66, ROUND, ROUND]
    assert auc(saliency.output("log_odds")[0], box.truth(0) > 0) > 0.95


def test_chance_derives_from_seed_clip_and_round(evidence):
    first, again = (chosen_masks(evidence, (0,), ROUND) for _ in range(2))
    np.testing.assert_array_equal(first.grids, again.grids)
    elsewhere = ClipId("v", 7)
    moved = Evidence(
        clip_id=elsewhere,
        masks=tuple(replace(masks, clip_id=elsewhere) for masks in evidence.masks),
        scores=tuple(replace(scores, clip_id=elsewhere) for scores in evidence.scores),
    )
    assert not np.array_equal(first.grids, chosen_masks(moved, (0,), ROUND).grids)


def test_draws_have_the_mean_and_the_variance_of_the_posterior():
    rng = np.random.default_rng(0)
    rows, kernel = rng.random((24, 60)), Kernel(0.4, 0.3, 0.2)
    design, y = Design(rows, GRID, [kernel]), rng.standard_normal((24, 1))
    found = design.posterior(y)
    draws = np.stack([posterior_draw(design, kernel, y[:, 0], rng) for _ in range(4_000)])
    error = np.sqrt(found.var[0] / len(draws))
    assert (np.abs(draws.mean(0) - found.mean[0]) < 5 * error).all()
    np.testing.assert_allclose(draws.var(0), found.var[0], rtol=0.15)


def test_fields_have_the_covariance_of_their_kernel():
    rng = np.random.default_rng(1)
    amplitude = rng.random(60) + 0.5
    for covariance in (Smooth(GRID, 0.4, 0.3), Scaled(GRID, 0.4, 0.3, amplitude)):
        draws = np.stack([covariance.draw(rng) for _ in range(4_000)])
        wanted = covariance.expand(covariance.features(np.eye(60)))
        np.testing.assert_allclose(draws.T @ draws / len(draws), wanted, atol=0.12 * wanted.max())


def test_the_first_choice_is_the_best_of_all_by_the_book():
    """Posterior covariances written out, with the pair as two masks that see the same."""
    rng = np.random.default_rng(2)
    rows, kernel = rng.random((24, 60)), Kernel(0.4, 0.3, 0.2)
    design, sets, importance = Design(rows, GRID, [kernel]), rng.random((9, 60)), rng.random(60)
    found = design.kernel_design(kernel)
    prior = found.covariance.expand(np.eye(60)) / found.scale
    cross = design.centred @ prior
    precision = found.basis @ np.diag(1 / (found.values + kernel.noise)) @ found.basis.T
    posterior = prior - cross.T @ precision @ cross

    def after(mask, cov):
        seen = mask - mask.mean()
        for _ in range(2):
            cov = cov - np.outer(cov @ seen, cov @ seen) / (kernel.noise + seen @ cov @ seen)
        return cov

    left = [importance @ np.diag(after(mask, posterior)) for mask in sets]
    centred = sets - sets.mean(1, keepdims=True)
    told = what_is_left(found, kernel.noise, centred)
    first, second = most_telling(told, centred, importance, kernel.noise, 2)
    assert first == int(np.argmin(left))
    left = [importance @ np.diag(after(mask, after(sets[first], posterior))) for mask in sets]
    left[first] = np.inf
    assert second == int(np.argmin(left))
