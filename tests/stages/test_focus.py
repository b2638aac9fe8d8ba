"""The second look: what it is by formula, that it finds planted evidence better, and what it leaves as it was."""

from pathlib import Path

import numpy as np
import pytest
from planted import PlantedBox, scorer, textured_clip

from stages import focus
from stages.focus import focused
from stages.gp import Design
from stages.kernels import Kernel, Scaled, with_floor
from stages.masks import build_bank
from stages.perturb import Perturb, PerturbConfig
from stages.records import BankSpec
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import score_clip

GRID = (4, 8, 8)


@pytest.fixture(scope="module")
def design() -> Design:
    bank = build_bank(BankSpec(grid=GRID, size=130, seed=0, family="mixture"))
    return Design(bank[2:].reshape(128, -1) / 255.0, GRID)


def scores_of(design: Design, truth: np.ndarray, seed: int) -> np.ndarray:
    """Two outputs and their difference, with noise of a tenth of their spread."""
    y = design.centred @ truth.T
    y = y + 0.1 * y.std(0) * np.random.default_rng(seed).standard_normal(y.shape)
    return np.column_stack([y, y[:, 0] - y[:, 1]])


def sparse_truth(seed: int) -> np.ndarray:
    """Some cells for one output, others for the other."""
    rng = np.random.default_rng([1, seed])
    truth = np.zeros((2, *GRID))
    for found in truth:
        for _ in range(2):
            t, y, x = (int(rng.integers(0, size - 2)) for size in GRID)
            found[t : t + 2, y : y + 2, x : x + 2] = rng.uniform(1, 2) * rng.choice([-1, 1])
    return truth.reshape(2, -1)


def test_it_is_the_mean_of_two_gaussian_processes(design: Design, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against dense matrices: universal kriging under D K D, with one kernel in the list."""
    kernel = Kernel(0.5, 0.15, 0.3, is_scaled=True)
    monkeypatch.setattr(focus, "FOCUS_KERNELS", (kernel,))
    y = scores_of(design, sparse_truth(0), 0)
    first = design.posterior(y)
    amplitude = with_floor(np.abs(first.mean[1]))
    covariance = Scaled(GRID, 0.5, 0.15, amplitude)
    voxels = covariance.expand(covariance.features(np.eye(amplitude.size)))
    gram = design.centred @ voxels @ design.centred.T
    inverse = np.linalg.inv(gram + kernel.noise * np.trace(gram) / len(gram) * np.eye(len(gram)))
    trend = design.trend
    project = inverse - inverse @ trend @ np.linalg.solve(trend.T @ inverse @ trend, trend.T @ inverse)
    cross = voxels @ design.centred.T
    mean = cross @ project @ y[:, 1]
    amp = y[:, 1] @ project @ y[:, 1] / (len(y) - trend.shape[1])
    var = amp * (np.diag(voxels) - (cross @ project * cross).sum(1))
    found = focused(design, y, first)
    np.testing.assert_allclose(found.mean[1], (first.mean[1] + mean) / 2, atol=1e-6 * np.abs(mean).max())
    expected = (first.var[1] + var) / 2 + (first.mean[1] - mean) ** 2 / 4
    np.testing.assert_allclose(found.var[1], expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize("seed", range(6))
def test_sparse_evidence_is_found_better(design: Design, seed: int) -> None:
    truth = sparse_truth(seed)
    y = scores_of(design, truth, seed)
    first = design.posterior(y)
    found = focused(design, y, first)
    for output in range(2):
        place = truth[output] != 0
        shares = [np.abs(maps[output])[place].sum() / np.abs(maps[output]).sum() for maps in (first.mean, found.mean)]
        assert shares[1] > shares[0]
        closeness = [np.corrcoef(maps[output], truth[output])[0, 1] for maps in (first.mean, found.mean)]
        assert closeness[1] > closeness[0] - 0.01


def test_what_is_called_significant_is_there_as_often_as_before(design: Design) -> None:
    """The share of planted voxels among those beyond two standard deviations, over twelve truths together."""
    clear, right = np.zeros(2), np.zeros(2)
    for seed in range(12):
        truth = sparse_truth(seed)
        y = scores_of(design, truth, seed)
        first = design.posterior(y)
        for look, posterior in enumerate((first, focused(design, y, first))):
            found = np.abs(posterior.mean[:2]) > 2 * np.sqrt(posterior.var[:2])
            clear[look] += found.sum()
            right[look] += (truth != 0)[found].sum()
    assert clear[0] > 100
    assert right[1] / clear[1] > right[0] / clear[0] - 0.01


def test_net_is_the_difference_and_the_sign_is_the_scores_s(design: Design) -> None:
    y = scores_of(design, sparse_truth(1), 1)
    found, turned = (focused(design, scores, design.posterior(scores)) for scores in (y, -y))
    scale = np.abs(found.mean).max()
    np.testing.assert_allclose(found.mean[0] - found.mean[1], found.mean[2], atol=1e-9 * scale)
    np.testing.assert_allclose(turned.mean, -found.mean, atol=1e-9 * scale)


def test_the_verdict_s_numbers_are_those_of_the_first_look(design: Design) -> None:
    y = scores_of(design, sparse_truth(2), 2)
    first = design.posterior(y)
    found = focused(design, y, first)
    assert found.log_bayes is first.log_bayes
    assert found.loo_mean is first.loo_mean
    assert found.kernel_evidence is first.kernel_evidence
    assert np.abs(found.mean - first.mean).max() > 0


def test_where_nothing_is_shown_there_is_no_second_look(design: Design) -> None:
    y = np.full((128, 3), 2.0)
    y[:, 1] = scores_of(design, sparse_truth(0), 0)[:, 0]
    y[:, 2] = y[:, 0] - y[:, 1]
    first = design.posterior(y)
    found = focused(design, y, first)
    assert np.abs(first.mean[0]).max() > 0  # rounding
    np.testing.assert_array_equal(found.mean[0], first.mean[0])
    np.testing.assert_array_equal(found.var[0], first.var[0])
    assert np.abs(found.mean[1] - first.mean[1]).max() > 0


def test_evidence_of_one_output_does_not_show_in_another(design: Design) -> None:
    """Where only the others' score has evidence, the target's map is far smaller, next to its own, than in the first
    look; with one amplitude for both it would be nearly as large."""
    before, after = [], []
    for seed in range(6):
        truth = sparse_truth(seed)
        truth[1, truth[0] != 0] = 0
        y = scores_of(design, truth, seed)
        first = design.posterior(y)
        for posterior, shares in ((first, before), (focused(design, y, first), after)):
            target = np.abs(posterior.mean[0])
            shares.append(target[truth[1] != 0].mean() / target[truth[0] != 0].mean())
    assert np.mean(after) < 0.65 * np.mean(before)


@pytest.mark.parametrize("num_frames", [1, 8])
@pytest.mark.parametrize("prior", ["none", "file"])
def test_refinement_looks_twice_unless_told_otherwise(tmp_path: Path, num_frames: int, prior: str) -> None:
    """Every output, a named rival's too, is changed by it; what the verdict rests on is not."""
    place = (slice(0, num_frames), slice(4, 14), slice(4, 14))
    other = (slice(0, num_frames), slice(18, 28), slice(18, 28))
    clip = textured_clip((num_frames, 32, 32))
    box = PlantedBox(clip, {0: [(place, 4.0)], 1: [(other, 3.0)]})
    evidence = score_clip(clip, Perturb(PerturbConfig(budget=64)), scorer(box))
    np.save(tmp_path / "prior.npy", np.random.default_rng(0).random((4, 6, 6)))
    settings = {"rivals": (1,), "prior": "none" if prior == "none" else str(tmp_path / "prior.npy")}
    request = RefineRequest(evidence=evidence, targets=(0,))
    once, twice, default = (
        Refine(RefineConfig.model_validate({**settings, **focus})).process(request).maps[0]
        for focus in ({"focus": False}, {"focus": True}, {})
    )
    np.testing.assert_array_equal(twice.mean, default.mean)
    assert once.fidelity == twice.fidelity
    assert once.details == twice.details
    for name in ("z_t", "lse_n", "log_odds", "rival:1"):
        first, found = once.output(name)[0], twice.output(name)[0]
        assert np.corrcoef(first.ravel(), found.ravel())[0, 1] > 0.8
        assert np.abs(found - first).max() > 0.01 * np.abs(first).max()
    net = twice.output("z_t")[0] - twice.output("lse_n")[0]
    np.testing.assert_allclose(net, twice.output("log_odds")[0], atol=1e-5 * np.abs(net).max())
