"""A prior map in the posterior: the rank-one path is the dense one, a good prior helps, a wrong one is refused."""

from dataclasses import replace

import numpy as np
import pytest
from planted import PlantedBox, scorer, textured_clip
from scipy.linalg import solve
from scipy.special import logsumexp

from stages.directions import LOG_ODDS, TAUS
from stages.gp import Design
from stages.kernels import Kernel, matern32
from stages.perturb import Perturb, PerturbConfig
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import score_clip

GRID = (3, 5, 4)


@pytest.fixture
def rows():
    return np.random.default_rng(0).random((24, 60))


def test_rank_one_additions_are_the_dense_mixture(rows, monkeypatch):
    """K + tau h h^T written out (Rasmussen & Williams 2.41-2.42, 5.10-5.12), a mixture over tau, amp profiled."""
    monkeypatch.setattr("stages.gp.MIN_WEIGHT", 0.0)
    kernel = Kernel(0.4, 0.3, 0.2)
    rng = np.random.default_rng(1)
    h = rng.random(60)
    keep = rows.mean(1)
    trend, centred = np.vander(keep - 0.5, 3, increasing=True), rows - keep[:, None]
    y = (centred @ h)[:, None] * [1.0, -0.5] + 0.3 * rng.standard_normal((24, 2))
    found = Design(rows, GRID, [kernel]).posterior(y, h)

    dense = np.kron(np.kron(matern32(3, 0.4), matern32(5, 0.3)), matern32(4, 0.3))
    scale = np.trace(centred @ dense @ centred.T) / 24
    direction = (h - h.mean()) / h.std()
    logs, means, variances, held_out = [], [], [], []
    for tau, log_odds in zip(TAUS, LOG_ODDS, strict=True):
        prior = (dense + tau * np.outer(direction, direction)) / scale
        cov = centred @ prior @ centred.T + kernel.noise * np.eye(24)
        inv = np.linalg.inv(cov)
        precision = inv - inv @ trend @ solve(trend.T @ inv @ trend, trend.T @ inv)
        amp = np.einsum("no,nm,mo->o", y, precision, y) / 21
        log_det = np.linalg.slogdet(cov)[1] + np.linalg.slogdet(trend.T @ inv @ trend)[1]
        logs.append(log_odds + (-0.5 * 21 * np.log(amp) - 0.5 * log_det).sum())
        cross = prior @ centred.T
        means.append((cross @ precision @ y).T)
        variances.append(amp[:, None] * np.diag(prior - cross @ precision @ cross.T)[None])
        held_out.append(y - (precision @ y) / np.diag(precision)[:, None])
    weights = np.exp(np.array(logs) - logsumexp(logs))
    mean = np.tensordot(weights, means, 1)
    second = np.tensordot(weights, np.array(variances) + np.square(means), 1)
    assert found.prior_weight == pytest.approx(1 - weights[0], abs=1e-9)
    np.testing.assert_allclose(found.mean, mean, atol=1e-9)
    np.testing.assert_allclose(found.var, second - mean**2, atol=1e-9)
    np.testing.assert_allclose(found.loo_mean, np.tensordot(weights, held_out, 1), atol=1e-9)


def test_no_prior_and_a_constant_prior_are_the_same_map(rows):
    y = np.random.default_rng(2).standard_normal((24, 2))
    design = Design(rows, GRID)
    without, constant = design.posterior(y), design.posterior(y, np.full(60, 0.3))
    np.testing.assert_array_equal(constant.mean, without.mean)
    np.testing.assert_array_equal(constant.var, without.var)
    assert constant.prior_beta == ()


def test_scale_offset_and_sign_of_a_prior_do_not_matter(rows):
    h = np.random.default_rng(3).random(60)
    y = (rows @ h)[:, None] + 0.1 * np.random.default_rng(4).standard_normal((24, 1))
    design = Design(rows, GRID)
    straight, changed = design.posterior(y, h), design.posterior(y, 7 - 1000 * h)
    np.testing.assert_allclose(changed.mean, straight.mean, atol=1e-9)
    assert straight.prior_beta[0] > 0 > changed.prior_beta[0]


def test_net_is_the_difference_of_its_parts_with_a_prior_too(rows):
    rng = np.random.default_rng(5)
    y = rng.standard_normal((24, 2))
    found = Design(rows, GRID).posterior(np.column_stack([y, y[:, 0] - y[:, 1]]), rng.random(60))
    np.testing.assert_allclose(found.mean[2], found.mean[0] - found.mean[1], atol=1e-9)


@pytest.fixture(scope="module")
def planted():
    """Correlations of the map with the truth at 32 and 64 evaluations over clips, by kind of prior."""
    found = {}
    rng = np.random.default_rng(0)
    for trial in range(3):
        corners = rng.integers(0, 22, (3, 2))
        cuboids = [(slice(2, 6), slice(int(y), int(y) + 9), slice(int(x), int(x) + 9)) for y, x in corners]
        box = PlantedBox(
            textured_clip((8, 32, 32)),
            {0: [(cuboids[0], 4.0), (cuboids[1], -3.0)], 1: [(cuboids[2], 4.0)]},
            num_classes=2,
        )
        truth = box.truth(0) - box.truth(1)
        priors = {"none": None, "good": truth, "mirrored": truth[::-1, ::-1, ::-1]}
        for budget in (16, 32, 64):
            evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=budget, seed=trial)), scorer(box))
            for name, prior in priors.items():
                given = evidence if prior is None else replace(evidence, prior=prior.astype(np.float32))
                saliency = Refine(RefineConfig()).process(RefineRequest(evidence=given, targets=(0,))).maps[0]
                net = saliency.output("log_odds")[0]
                found.setdefault((name, budget), []).append(np.corrcoef(net.ravel(), truth.ravel())[0, 1])
    return {key: float(np.mean(values)) for key, values in found.items()}


def test_a_good_prior_saves_at_least_half_of_the_evaluations(planted):
    assert planted["good", 16] > planted["none", 32] + 0.2


@pytest.mark.parametrize("budget", [32, 64])
def test_a_mirrored_prior_loses_at_most_two_percent(planted, budget):
    assert planted["mirrored", budget] >= 0.98 * planted["none", budget]
