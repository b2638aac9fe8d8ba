"""The kernels that follow a clip's content: what they are, what they find, and that they make nothing up."""

import numpy as np
import pytest
from planted import PlantedBox, auc, scorer, textured_clip

from stages.gp import Design
from stages.kernels import LOST_SHARE, MIN_AMPLITUDE, Kernel, Scaled, amplitude_of, matern32
from stages.perturb import Perturb, PerturbConfig
from stages.records import Evidence, Scores
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import score_clip

GRID = (3, 5, 4)
PLACE = (slice(0, 8), slice(4, 16), slice(4, 14))


@pytest.fixture
def content() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, GRID).astype(np.uint8)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    box = PlantedBox(textured_clip(), {0: [(PLACE, 4.0)]}, num_classes=2)
    return score_clip(box.clip, Perturb(PerturbConfig(budget=48)), scorer(box))


def with_content(evidence: Evidence, content: np.ndarray, values: np.ndarray | None = None) -> Evidence:
    masks, scores = evidence.masks[0], evidence.scores[0]
    if values is not None:
        scores = Scores(clip_id=masks.clip_id, round_idx=0, ids=masks.ids, values=values.astype(np.float32))
    return Evidence(clip_id=masks.clip_id, masks=(masks,), scores=(scores,), content=content)


def explain(evidence: Evidence):
    return Refine(RefineConfig()).process(RefineRequest(evidence=evidence, targets=(0,))).maps[0]


def place_on_the_grid(grid: tuple[int, int, int]) -> np.ndarray:
    inside = np.zeros((8, 32, 32))
    inside[PLACE] = 1
    import torch

    return torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(inside)[None], grid)[0].numpy() > 0.5


def test_features_are_a_root_of_the_covariance(content: np.ndarray) -> None:
    covariance = Scaled(GRID, 0.4, 0.3, amplitude_of(content))
    dense = covariance.expand(covariance.features(np.eye(60)))
    rows = np.random.default_rng(1).random((7, 60))
    np.testing.assert_allclose(dense, dense.T, atol=1e-12)
    np.testing.assert_allclose(covariance.expand(covariance.features(rows)), rows @ dense, atol=1e-12)
    np.testing.assert_allclose(covariance.gram(covariance.features(rows)), rows @ dense @ rows.T, atol=1e-11)
    np.testing.assert_allclose(covariance.variance, np.diag(dense), atol=1e-12)


def test_little_of_the_smooth_kernel_is_left_out(content: np.ndarray) -> None:
    amplitude = amplitude_of(content)
    dense = np.kron(np.kron(matern32(3, 0.4), matern32(5, 0.3)), matern32(4, 0.3)) * np.outer(amplitude, amplitude)
    kept = Scaled(GRID, 0.4, 0.3, amplitude).variance
    assert (kept <= np.diag(dense) + 1e-9).all()
    assert kept.sum() > (1 - LOST_SHARE) ** 3 * np.diag(dense).sum() * 0.97


def test_amplitude_follows_content_and_is_never_zero() -> None:
    content = np.zeros(GRID, np.uint8)
    content[1, 2, 2] = 255
    amplitude = amplitude_of(content)
    assert (amplitude**2).mean() == pytest.approx(1)
    assert amplitude.min() > 0
    assert amplitude.max() == pytest.approx(amplitude.min() * (1 + 60 / MIN_AMPLITUDE))


def test_the_kernels_of_the_bank_are_shared_and_not_computed_again(content: np.ndarray) -> None:
    shared = Design(np.random.default_rng(2).random((24, 60)), GRID)
    found = shared.with_content(content)
    plain = shared.kernels[0]
    assert found.kernel_design(plain) is shared.kernel_design(plain)
    assert any(kernel.is_scaled for kernel in found.kernels)
    assert not any(kernel.is_scaled for kernel in shared.kernels)


def test_uniform_content_changes_little() -> None:
    rng = np.random.default_rng(3)
    rows = rng.random((24, 60))
    y = ((rows - rows.mean(1, keepdims=True)) @ rng.standard_normal(60))[:, None]
    kernel = Kernel(0.4, 0.3, 0.2)
    plain = Design(rows, GRID, [kernel])
    uniform = plain.with_content(np.full(GRID, 255, np.uint8), [Kernel(0.4, 0.3, 0.2, is_scaled=True)])
    a, b = plain.posterior(y).mean, uniform.posterior(y).mean
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97


def test_right_content_sharpens_and_wrong_content_hardly_harms(evidence: Evidence) -> None:
    gt, gh, gw = evidence.masks[0].bank.grid  # type: ignore[union-attr]  # the first round is of a bank
    place = place_on_the_grid((gt, gh, gw))
    right = np.where(place, 255, 60).astype(np.uint8)
    found = {
        name: auc(explain(with_content(evidence, content)).output("log_odds")[0], place)
        for name, content in (("right", right), ("wrong", right[:, ::-1, ::-1]), ("none", np.zeros_like(right)))
    }
    assert found["right"] >= found["none"]
    assert found["wrong"] > found["none"] - 0.02


@pytest.mark.parametrize("kind", ["constant", "noise", "keep-fraction"])
@pytest.mark.parametrize("seed", range(4))
def test_content_makes_no_evidence(evidence: Evidence, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = evidence.masks[0]
    place = place_on_the_grid(masks.bank.grid)  # type: ignore[union-attr]
    if kind == "constant":
        values = np.tile(rng.standard_normal(3), (len(masks), 1))
    else:
        values = rng.standard_normal((len(masks), 3))
    if kind == "keep-fraction":
        from stages.designs import rows_of

        values = np.outer(rows_of(evidence).mean(1) ** 2, [3.0, -1.0, 0.5]) + 0.05 * values
    saliency = explain(with_content(evidence, np.where(place, 255, 10).astype(np.uint8), values))
    assert not saliency.fidelity["log_odds"].is_reliable
