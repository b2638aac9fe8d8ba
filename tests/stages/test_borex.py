"""BOREx refines an initial map, also a wrong one, within its budget, and remembers nothing between rounds."""

import numpy as np
import pytest
from planted import PlantedBox, auc, scorer, textured_clip
from scipy.ndimage import gaussian_filter

from stages.baselines import BASELINES
from stages.borex import HALF_SIZES_PX, Answers, answers, grids_for, next_ids, refined_map, windows_of
from stages.masks import NUM_ANCHORS
from stages.perturb import Perturb, PerturbConfig
from stages.records import ClipId, Evidence
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.score import ScoreRequest
from stages.single import explain_clip, score_clip

PLACE = (slice(0, 1), slice(10, 26), slice(30, 46))


@pytest.fixture(scope="module")
def box():
    return PlantedBox(textured_clip((1, 56, 56)), {0: [(PLACE, 5.0)]})


def explain(box, *, budget, prior="none", **settings):
    refine = Refine(RefineConfig(method="borex", prior=prior, **settings))
    perturb = Perturb(PerturbConfig(budget=budget), "borex", prior)
    return explain_clip(box.clip, perturb, scorer(box), refine, (0,))[0]


def similarity(values, truth):
    return float(np.corrcoef(values.ravel(), truth.ravel())[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mirrored", "random", "centre"])
def test_it_refines_a_poor_map_within_a_few_queries(box, tmp_path, kind):
    truth = box.truth(0)
    initial = {
        "mirrored": truth[:, :, ::-1],
        "random": np.random.default_rng(0).random(truth.shape),
        "centre": BASELINES["centre"](box.clip, scorer(box), 0, 0, 0),
    }[kind]
    np.save(tmp_path / "prior.npy", initial)
    found = explain(box, budget=30, prior=str(tmp_path / "prior.npy")).output("log_odds")[0]
    assert similarity(found, truth) > similarity(initial, truth) + 0.02
    assert auc(found, truth > 0) > auc(initial, truth > 0) - 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mirrored", "blurred", "random", "centre", "kernel-shap"])
def test_from_any_of_five_maps_it_comes_to_the_place(box, tmp_path, kind):
    """Poor maps become better by much; good ones keep the place but lose in shape, for windows blur what they find."""
    truth = box.truth(0)
    score = scorer(box)
    initial = {
        "mirrored": lambda: truth[:, :, ::-1],
        "blurred": lambda: gaussian_filter(truth, (0, 5, 5)),
        "random": lambda: np.random.default_rng(0).random(truth.shape),
        "centre": lambda: BASELINES["centre"](box.clip, score, 0, 0, 0),
        "kernel-shap": lambda: BASELINES["kernel-shap"](box.clip, score, 0, 99, 0),
    }[kind]()
    np.save(tmp_path / "prior.npy", initial)
    budget = NUM_ANCHORS + 2 * 50  # the queries of the paper
    found = explain(box, budget=budget, prior=str(tmp_path / "prior.npy")).output("log_odds")[0]
    assert auc(found, truth > 0) > 0.85
    if kind in ("mirrored", "random", "centre"):
        assert similarity(found, truth) > similarity(initial, truth) + 0.25
        assert auc(found, truth > 0) > auc(initial, truth > 0) + 0.15
    else:
        assert auc(found, truth > 0) > 0.95


@pytest.mark.parametrize(("budget", "batch"), [(4, 1), (7, 1), (10, 2)])
def test_the_budget_is_kept_whatever_the_batch(box, budget, batch):
    box.calls = 0
    saliency = explain(box, budget=budget, borex_batch=batch)
    assert box.calls == saliency.num_evaluations == budget - budget % 2


def test_the_next_window_depends_on_the_evidence_and_the_seed_alone(box):
    refine, score = Refine(RefineConfig(method="borex")), scorer(box)
    evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=12), "borex"), score)
    asked = []
    for _ in range(3):
        more = refine.process(RefineRequest(evidence=evidence, targets=(0,))).more
        again = Refine(RefineConfig(method="borex")).process(RefineRequest(evidence=evidence, targets=(0,))).more
        np.testing.assert_array_equal(more.ids, again.ids)
        np.testing.assert_array_equal(more.grids, again.grids)
        answer = score.process(ScoreRequest(batches=(more,), clips={box.clip.id: box.clip})).scores[0]
        evidence = Evidence(clip_id=evidence.clip_id, masks=(*evidence.masks, more), scores=(*evidence.scores, answer))
        asked.append(int(more.ids[0]))
    assert len(set(asked)) == 3  # it looks elsewhere each time


def test_the_first_window_is_the_smallest_one_where_the_prior_is_largest(box):
    windows = windows_of((1, 28, 28))
    prior = np.zeros((1, 28, 28))
    prior[0, 20, 6] = 1.0
    nothing = np.zeros(0, np.int64)
    ids = next_ids(windows, answers(nothing, nothing, np.zeros(0)), prior, 0, box.clip.id, 1)
    r, c, s = windows.points((ids[:1] - NUM_ANCHORS) // 2)[0]
    assert s == HALF_SIZES_PX[0]
    assert abs(r - 20.5 * 8) <= 4
    assert abs(c - 6.5 * 8) <= 4


@pytest.mark.parametrize("grid", [(1, 28, 28), (1, 14, 20), (8, 28, 28)])
def test_a_window_and_its_complement_have_the_size_that_was_asked_for(grid):
    windows = windows_of(grid)
    index = int(np.prod(windows.shape) // 2)
    point = windows.points(np.array([index]))[0]
    halves = point[3:] if windows.is_video else [np.inf, point[2], point[2]]
    centres = point[:3] if windows.is_video else [112.0, *point[:2]]
    kept, blanked = grids_for(windows, np.array([NUM_ANCHORS + 2 * index, NUM_ANCHORS + 2 * index + 1]))
    assert (kept.astype(int) + blanked == 255).all()
    share = np.prod([(min(c + s, 224) - max(c - s, 0)) / 224 for c, s in zip(centres, halves, strict=True)])
    assert kept.mean() / 255 == pytest.approx(share, abs=5e-3)


def test_a_video_is_asked_with_cuboids():
    place = (slice(0, 4), slice(4, 16), slice(16, 28))
    box = PlantedBox(textured_clip((8, 32, 32)), {0: [(place, 5.0)]})
    saliency = explain(box, budget=8)
    assert saliency.mean.shape[1:] == (4, 28, 28)
    assert saliency.num_evaluations == 8
    assert np.abs(saliency.output("log_odds")[0]).max() > 0


def test_net_is_the_difference_of_its_parts(box):
    saliency = explain(box, budget=6)
    difference = saliency.output("z_t")[0] - saliency.output("lse_n")[0]
    np.testing.assert_allclose(saliency.output("log_odds")[0], difference, atol=1e-6)


def test_pooling_averages_what_lies_inside_the_picture():
    """A window over the edge is filled up neither with zeros nor with the edge: as in the public code."""
    windows = windows_of((1, 28, 28))
    ramp = np.tile(np.linspace(-1, 1, 28), (1, 28, 1))
    asked = np.ravel_multi_index((0, 0, 0), windows.shape)  # far from what is looked at below
    told = Answers(indices=np.array([asked]), rounds=np.zeros(1, np.int64), y=np.zeros(1))
    found = refined_map(windows, told, ramp, 0, ClipId("v", 0))
    last_px = 224 - 4  # the middle of the last cell; the mean of a ramp is its value in the middle of what lies inside
    middles_px = [(last_px - half + 224) / 2 for half in HALF_SIZES_PX]
    h = ramp[0, 0] * 0.1 / np.abs(ramp).mean()
    expected = np.interp(np.mean(middles_px) / 8 - 0.5, np.arange(28), h)
    assert found[0, 14, -1] == pytest.approx(expected, abs=0.005)
