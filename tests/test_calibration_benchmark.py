"""The calibration benchmark predicts as the Gaussian process does, and its boxes are what they are said to be."""

import numpy as np
import pytest
import torch

from benchmarks.calibration import verdict
from benchmarks.known_boxes import FIRST_SEED, KINDS, draw_box, noise_scores
from benchmarks.planted import scorer
from benchmarks.predictive import predict
from stages.gp import Design
from stages.kernels import Kernel, kron_apply, matern32
from stages.perturb import Perturb, PerturbConfig
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import score_clip

GRID = (3, 6, 6)
KERNEL = Kernel(time=0.4, space=0.3, noise=0.3)


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    rows, fresh = rng.random((60, 108)), rng.random((40, 108))
    y = rows @ rng.standard_normal((108, 2)) + rng.standard_normal((60, 2))
    return rows, y, fresh


def test_predictions_differ_by_the_map_where_as_much_is_kept(fitted):
    rows, y, fresh = fitted
    fresh = fresh + (0.5 - fresh.mean(1, keepdims=True))
    mean, _ = predict(rows, y, fresh, GRID, {KERNEL: 1.0})
    maps = Design(rows, GRID, (KERNEL,)).posterior(y).mean
    np.testing.assert_allclose(mean - mean[0], (fresh - fresh[0]) @ maps.T, atol=1e-8)


def test_a_mask_left_out_is_predicted_as_the_short_cut_says(fitted):
    rows, y, _ = fitted
    posterior = Design(rows, GRID, (KERNEL,)).posterior(y)
    for n in (0, 17, 59):
        rest = np.delete(np.arange(len(rows)), n)
        mean, var = predict(rows[rest], y[rest], rows[[n]], GRID, {KERNEL: 1.0})
        # The short cut leaves the kernel's scale and amplitude as they are with all masks.
        np.testing.assert_allclose(mean[0], posterior.loo_mean[n], atol=0.1 * y.std())
        np.testing.assert_allclose(var[0], posterior.loo_var[n], rtol=0.15)


def test_intervals_cover_ninety_percent_of_what_the_process_itself_makes():
    rng = np.random.default_rng(1)
    factors = (matern32(3, KERNEL.time), matern32(6, KERNEL.space), matern32(6, KERNEL.space))
    root = np.linalg.cholesky(np.kron(factors[0], np.kron(factors[1], factors[2])) + 1e-9 * np.eye(108))
    rows, fresh = rng.random((80, 108)), rng.random((400, 108))
    centred = rows - rows.mean(1, keepdims=True)
    scale = np.trace(kron_apply(factors, centred, GRID) @ centred.T) / len(rows)
    maps = root @ rng.standard_normal((108, 30)) / np.sqrt(scale)

    def scores(masks):
        noise = np.sqrt(KERNEL.noise) * rng.standard_normal((len(masks), 30))
        return (masks - masks.mean(1, keepdims=True)) @ maps + noise

    truth = scores(fresh)
    mean, var = predict(rows, scores(rows), fresh, GRID, {KERNEL: 1.0})
    covered = np.abs(truth - mean) <= 1.6449 * np.sqrt(var)
    assert 0.87 <= covered.mean() <= 0.93


def test_planted_boxes_are_drawn_again_from_their_seed():
    one, again, other = (draw_box(FIRST_SEED + seed) for seed in (1, 1, 2))
    frames = torch.from_numpy(one.clip.frames.copy()).float()[None] / 255
    assert torch.equal(one(frames), again(frames))
    assert one.evidence != other.evidence
    assert all(box.evidence[0][0][1] > 0 for box in (one, other))  # the target has support


def test_a_saturated_box_is_heard_where_its_own_score_tells_though_the_log_odds_do_not():
    planted = draw_box(FIRST_SEED + 50_015)  # bent; of its log-odds 64 masks do not know enough
    evidence = score_clip(planted.clip, Perturb(PerturbConfig(budget=64, seed=901)), scorer(planted))
    saliency = Refine(RefineConfig()).process(RefineRequest(evidence=evidence, targets=(0,))).maps[0]
    assert not saliency.fidelity["log_odds"].is_reliable
    assert saliency.fidelity["z_t"].is_reliable
    assert verdict(evidence, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_knows_nothing_of_where(kind):
    keep = np.repeat(np.linspace(0.1, 0.9, 20), 50)
    values = noise_scores(kind, keep, 3)
    assert values.shape == (1000, 3)
    assert np.array_equal(values, noise_scores(kind, keep, 3))
    ranks = np.argsort(np.argsort(values[:, 0], kind="stable"), kind="stable")
    follows = abs(np.corrcoef(ranks, keep)[0, 1])
    assert follows < 0.12 or kind.startswith("trend") or kind == "constant"
    assert bool(np.all(values == values[0])) == (kind == "constant")
