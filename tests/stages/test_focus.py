"""The second look: what it is by formula, that it finds planted evidence better, and what it leaves as it was."""

import numpy as np
import pytest

from stages import focus
from stages.focus import amplitude_of_map, focused
from stages.gp import Design
from stages.kernels import Kernel, Scaled
from stages.masks import build_bank
from stages.records import BankSpec

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
    amplitude = amplitude_of_map(first.mean[1])
    assert amplitude is not None
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
    constant = np.full((128, 3), 2.0)
    first = design.posterior(constant)
    assert amplitude_of_map(np.zeros(256)) is None
    found = focused(design, constant, first)
    assert np.isfinite(found.mean).all()
    assert np.abs(found.mean).max() < 1e-9


def test_evidence_of_one_output_does_not_show_in_another(design: Design) -> None:
    """Where only the others' score has evidence, the target's map is as small as before, next to its own evidence."""
    before, after = [], []
    for seed in range(6):
        truth = sparse_truth(seed)
        truth[1, truth[0] != 0] = 0
        y = scores_of(design, truth, seed)
        first = design.posterior(y)
        for posterior, shares in ((first, before), (focused(design, y, first), after)):
            target = np.abs(posterior.mean[0])
            shares.append(target[truth[1] != 0].mean() / target[truth[0] != 0].mean())
    assert np.mean(after) < np.mean(before)


def test_the_amplitude_has_a_floor_and_no_sign() -> None:
    amplitude = amplitude_of_map(np.array([2.0, 0, 0, -2.0]))
    assert amplitude is not None
    assert (amplitude**2).mean() == pytest.approx(1)
    assert amplitude[0] == amplitude[3] > 10 * amplitude[1] > 0
