"""What a clip leaves to the next one: its map moved in time, a prior that cannot hurt, evidence that is added up."""

from dataclasses import replace

import numpy as np
import pytest
from planted import PlantedBox, scorer, textured_clip
from pydantic import ValidationError

from stages.borex import SIDE_PX, windows_of
from stages.heritage import Heritage, moved
from stages.kernels import DEFAULT_KERNELS, added, known_of
from stages.masks import NUM_ANCHORS
from stages.perturb import Perturb, PerturbConfig
from stages.records import ClipId
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.score import ScoreRequest
from stages.single import score_clip

SHAPE, STRIDE = (8, 32, 32), 4
PREVIOUS = RefineConfig(prior="previous")


def planted(seed, clip_idx):
    """Clip 0 or 1 of a stream whose box looks at places that stay: only time goes on."""
    rng = np.random.default_rng(seed)
    start = STRIDE * clip_idx
    clip = textured_clip(SHAPE, seed=seed + 100 * clip_idx, clip_idx=clip_idx, start=start)
    parts = {0: [], 1: []}
    for k, gain in ((0, 4.0), (0, -3.0), (1, 4.0)):
        y, x = (int(v) for v in rng.integers(0, 22, 2))
        begin = int(rng.integers(0, 6))
        time = slice(max(begin - start, 0), min(begin + 6 - start, SHAPE[0]))
        if time.start < time.stop:
            parts[k].append(((time, slice(y, y + 9), slice(x, x + 9)), gain))
    return PlantedBox(clip, parts, num_classes=2)


def explain(box, evidence, before=None, config=PREVIOUS, targets=(0,)):
    request = RefineRequest(evidence=evidence, targets=targets, frame_idx=box.clip.frame_idx, before=before)
    return Refine(config).process(request)


def evidence_of(box, budget=64, seed=0):
    return score_clip(box.clip, Perturb(PerturbConfig(budget=budget, seed=seed)), scorer(box))


def test_a_map_is_moved_by_the_stride():
    values = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
    found = moved(values, np.arange(8), np.arange(4, 12))
    np.testing.assert_allclose(found[:, 0, 0], [2, 3, 0, 0], atol=1e-6)  # beyond the end nothing is known
    np.testing.assert_array_equal(moved(values, np.arange(8), np.arange(8)), values)
    back = moved(values, np.arange(4, 12), np.arange(8))
    np.testing.assert_allclose(back[:, 0, 0], [0, 0, 0, 1], atol=1e-6)


def test_the_step_between_frames_counts_and_not_their_number():
    values = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((1, 1, 1), np.float32)
    frames = np.arange(0, 24, 3)
    np.testing.assert_allclose(moved(values, frames, frames + 6).ravel(), [1, 2, 3, 0], atol=1e-6)
    np.testing.assert_allclose(moved(values, frames, frames + 3).ravel(), [0.5, 1.5, 2.5, 0], atol=1e-6)


@pytest.mark.parametrize(("start", "has_prior"), [(0, True), (4, True), (6, True), (7, False), (80, False)])
def test_there_is_a_prior_only_where_the_clips_share_a_cell(start, has_prior):
    left = Heritage(clip_id=ClipId("v", 0), frame_idx=np.arange(8), maps={0: np.ones((4, 2, 2), np.float32)})
    assert (left.prior_for(np.arange(start, start + 8), 0) is not None) == has_prior


@pytest.mark.parametrize(
    ("clip_idx", "start", "has_before", "why"),
    [(0, 0, False, "first clip"), (1, 4, False, "clip before not explained"), (1, 8, True, "no overlap")],
)
def test_without_a_clip_to_start_from_the_map_is_the_default_bit_for_bit(clip_idx, start, has_before, why):
    clip = textured_clip(SHAPE, clip_idx=clip_idx, start=start)
    box = PlantedBox(clip, {0: [((slice(2, 6), slice(4, 14), slice(16, 28)), 5.0)]})
    evidence = evidence_of(box, 32)
    left = Heritage(
        clip_id=ClipId("v", clip_idx - 1), frame_idx=np.arange(8), maps={0: np.ones((4, 28, 28), np.float32)}
    )
    (found,) = explain(box, evidence, left if has_before else None).maps
    (plain,) = explain(box, evidence, config=RefineConfig()).maps
    np.testing.assert_array_equal(found.mean, plain.mean)
    np.testing.assert_array_equal(found.var, plain.var)
    assert found.fidelity == plain.fidelity
    assert found.details == {**plain.details, "no_prior": why}


@pytest.fixture(scope="module")
def correlations():
    """Agreement with the truth of clip 1, over planted streams, by what its refinement started from."""
    found = {}
    for seed in range(6):
        before, box = planted(seed, 0), planted(seed, 1)
        truth = (box.truth(0) - box.truth(1)).ravel()
        left = explain(before, evidence_of(before, 256)).left
        turned = replace(left, maps={0: left.maps[0][::-1, ::-1, ::-1].copy()})
        evidence = evidence_of(box, 20)
        for name, given in (("none", None), ("previous", left), ("turned", turned)):
            (saliency,) = explain(box, evidence, given).maps
            found.setdefault(name, []).append(np.corrcoef(saliency.output("log_odds")[0].ravel(), truth)[0, 1])
    return {name: float(np.mean(values)) for name, values in found.items()}


def test_the_posterior_of_the_clip_before_makes_up_for_few_evaluations(correlations):
    assert correlations["previous"] > correlations["none"] + 0.1


def test_a_wrong_map_of_the_clip_before_costs_nothing(correlations):
    assert correlations["turned"] >= 0.98 * correlations["none"]


def test_every_target_starts_from_its_own_map():
    before, box = planted(0, 0), planted(0, 1)
    left = explain(before, evidence_of(before), targets=(0, 1)).left
    assert set(left.maps) == {0, 1}
    evidence = evidence_of(box)
    together = explain(box, evidence, left, targets=(1, 0)).maps
    for saliency in together:
        (alone,) = explain(box, evidence, left, targets=(saliency.target_idx,)).maps
        np.testing.assert_array_equal(saliency.mean, alone.mean)
    assert np.abs(left.maps[0] + left.maps[1]).max() < 1e-5  # two classes: their log-odds are opposite


def test_net_stays_the_difference_of_its_parts():
    before, box = planted(1, 0), planted(1, 1)
    (found,) = explain(box, evidence_of(box), explain(before, evidence_of(before)).left).maps
    assert found.details["prior_weight"] > 0
    difference = found.output("z_t")[0] - found.output("lse_n")[0]
    np.testing.assert_allclose(found.output("log_odds")[0], difference, atol=1e-6)


def test_evidence_for_kernels_is_summed_over_clips_and_decides_between_them():
    config = RefineConfig(pool_kernels=True)
    before, box = planted(2, 0), planted(2, 1)
    evidence = evidence_of(box, 32)
    left = explain(before, evidence_of(before), config=config).left
    alone = explain(box, evidence, config=config).left
    both = explain(box, evidence, left, config=config)
    for kernel, total in both.left.log_evidence[0].items():
        assert total == pytest.approx(left.log_evidence[0][kernel] + alone.log_evidence[0][kernel])
    # Overwhelming evidence of earlier clips for one kernel: it is the one that is used, whatever this clip says.
    wanted = DEFAULT_KERNELS[0]
    sure = replace(left, log_evidence={0: {kernel: 1e6 * (kernel == wanted) for kernel in DEFAULT_KERNELS}})
    details = explain(box, evidence, sure, config=config).maps[0].details
    assert (details["kernel_time"], details["kernel_space"], details["kernel_noise"]) == (
        wanted.time,
        wanted.space,
        wanted.noise,
    )


def test_pooling_does_not_change_the_first_clip():
    box = planted(3, 0)
    evidence = evidence_of(box, 32)
    (found,) = explain(box, evidence, config=RefineConfig(pool_kernels=True)).maps
    (plain,) = explain(box, evidence, config=RefineConfig()).maps
    np.testing.assert_array_equal(found.mean, plain.mean)


def test_clips_that_lack_a_kernel_have_no_opinion_on_it():
    one, two, three = DEFAULT_KERNELS[:3]
    first, second = {one: 0.0, two: -2.0}, {one: -1.0, two: -3.0, three: -1.5}
    total = added(first, second)
    mixture = np.logaddexp(0.0, -2.0) - np.log(2)
    assert total == pytest.approx({one: -1.0, two: -5.0, three: mixture - 1.5})
    assert added({}, second) == second
    np.testing.assert_array_equal(known_of({}, (one, two)), [0.0, 0.0])


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("rise", {"prior": "previous"}, "use gp or borex"),
        ("mask-optimisation", {"prior": "previous"}, "use gp or borex"),
        ("kernel-shap", {"prior": "previous"}, "use gp or borex"),
        ("rise", {"pool_kernels": True}, "use gp"),
        ("borex", {"pool_kernels": True}, "no kernels to pool"),
        ("borex", {"prior": "previous", "pool_kernels": True}, "no kernels to pool"),
    ],
)
def test_methods_that_take_nothing_from_the_clip_before_say_so(method, settings, words):
    with pytest.raises(ValidationError, match=words):
        RefineConfig(method=method, **settings)


BOREX = RefineConfig(method="borex", prior="previous", borex_batch=4)


def ask_borex(box, before=None, config=BOREX, budget=18, targets=(0,)):
    """A clip through BOREx to its end; the result, and the rounds that were asked."""
    score = scorer(box)
    evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=budget), "borex", config.prior), score)
    while (result := explain(box, evidence, before, config, targets)).more is not None:
        answer = score.process(ScoreRequest(batches=(result.more,), clips={box.clip.id: box.clip})).scores[0]
        evidence = replace(evidence, masks=(*evidence.masks, result.more), scores=(*evidence.scores, answer))
    assert box.calls == result.maps[0].num_evaluations <= budget
    return result, evidence.masks[1:]


@pytest.fixture(scope="module")
def streams():
    """Two clips of a stream with one place that stays, and what a good map of the first leaves."""
    found = []
    for seed in range(3):
        y, x = (int(v) for v in np.random.default_rng(seed).integers(0, 20, 2))
        boxes = []
        for clip_idx in range(2):
            clip = textured_clip(SHAPE, seed=seed + 100 * clip_idx, clip_idx=clip_idx, start=STRIDE * clip_idx)
            place = (slice(0, 8), slice(y, y + 12), slice(x, x + 12))
            boxes.append(PlantedBox(clip, {0: [(place, 5.0)]}, num_classes=2))
        found.append((boxes[1], explain(boxes[0], evidence_of(boxes[0], 256)).left))
    return found


def test_borex_asks_first_where_the_map_of_the_clip_before_is_largest(streams):
    box, left = streams[0]
    peak = np.exp(-((np.arange(28)[:, None] - 20) ** 2 + (np.arange(28) - 6) ** 2) / 32).astype(np.float32)
    before = replace(left, maps={0: np.multiply.outer(np.arange(4, dtype=np.float32), peak)})
    evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=18), "borex", "previous"), scorer(box))
    more = explain(box, evidence, before, BOREX).more
    t, r, c, *_ = windows_of((4, 28, 28)).points((more.ids[:1] - NUM_ANCHORS) // 2)[0] * 28 / SIDE_PX - 0.5
    # It grows with time until it ends, half-way through this clip.
    assert (t + 0.5) / 7 == pytest.approx(1.5)
    assert (r, c) == pytest.approx((20, 6), abs=1.5)


@pytest.mark.slow
def test_borex_keeps_to_the_place_of_the_clip_before(streams):
    agreement = {}
    for box, left in streams:
        truth = box.truth(0).ravel()
        for name, before in (("none", None), ("previous", left)):
            box.calls = 0
            (saliency,) = ask_borex(box, before)[0].maps
            agreement.setdefault(name, []).append(np.corrcoef(saliency.output("log_odds")[0].ravel(), truth)[0, 1])
    assert np.mean(agreement["previous"]) > np.mean(agreement["none"]) + 0.1


def test_borex_without_a_map_to_start_from_starts_from_nothing(streams):
    box, left = streams[0]
    flat = replace(left, maps={0: np.zeros_like(left.maps[0])})
    results = []
    for before, config in ((None, BOREX), (flat, BOREX), (None, BOREX.model_copy(update={"prior": "none"}))):
        box.calls = 0
        results.append(ask_borex(box, before, config, budget=10)[0])
    found, from_flat, plain = results
    np.testing.assert_array_equal(found.maps[0].mean, plain.maps[0].mean)
    np.testing.assert_array_equal(from_flat.maps[0].mean, plain.maps[0].mean)
    assert found.maps[0].details == {"no_prior": "clip before not explained"}
    assert set(found.left.maps) == {0}
    assert plain.left is None
