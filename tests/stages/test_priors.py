"""Initial maps from files and from the first masks of a clip."""

import numpy as np
import pytest
from planted import PlantedBox, auc, scorer, textured_clip
from pydantic import ValidationError

from stages.errors import ConfigError
from stages.masks import NUM_ANCHORS
from stages.perturb import Perturb, PerturbConfig
from stages.priors import RISE_FAMILY, RISE_MASKS, file_prior
from stages.records import Evidence
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import explain_clip, score_clip

PLACE = (slice(2, 6), slice(4, 14), slice(16, 28))


@pytest.fixture(scope="module")
def box():
    return PlantedBox(textured_clip((8, 32, 32)), {0: [(PLACE, 5.0)]})


@pytest.mark.parametrize("shape", [(16, 56, 42), (1, 7, 7), (112, 112), (3, 5, 100)])
def test_a_map_of_any_size_is_brought_to_the_grid(tmp_path, shape):
    grid = (4, 28, 28)
    values = np.zeros(shape)
    values[..., : shape[-1] // 2] = 1.0  # the left half
    np.save(tmp_path / "prior.npy", values)
    found = file_prior(str(tmp_path / "prior.npy"), grid)
    assert found.shape == grid
    assert found.dtype == np.float32
    assert found[..., :10].min() > 0.9
    assert found[..., 18:].max() < 0.1


def test_an_npz_names_its_prior(tmp_path):
    np.savez(tmp_path / "two.npz", other=np.zeros((2, 2)), prior=np.ones((2, 2)))
    np.savez(tmp_path / "one.npz", whatever=np.ones((2, 2)))
    for name in ("two.npz", "one.npz"):
        np.testing.assert_array_equal(file_prior(str(tmp_path / name), (1, 2, 2)), np.ones((1, 2, 2)))


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (np.zeros((2, 2, 2, 2)), "2, 2, 2, 2"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.zeros((0, 4)), "0, 4"),
        (np.array([["a", "b"]]), "U1"),
        (None, "not readable"),
    ],
)
def test_a_file_without_a_map_is_refused_before_the_first_clip(tmp_path, content, fact):
    path = tmp_path / "bad.npy"
    path.write_bytes(b"no array") if content is None else np.save(path, content)
    with pytest.raises(ConfigError, match=fact):
        Refine(RefineConfig(prior=str(path))).setup()


@pytest.mark.parametrize("settings", [{"prior": "magic"}, {"prior": "rise", "method": "occlusion"}])
def test_what_is_no_prior_or_has_no_use_for_one_is_refused(settings):
    with pytest.raises(ValidationError, match="prior"):
        RefineConfig(**settings)


def test_a_file_lifts_a_map_of_few_evaluations(box, tmp_path):
    np.save(tmp_path / "prior.npy", box.truth(0))
    evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=24)), scorer(box))
    found = {}
    for prior in ("none", str(tmp_path / "prior.npy")):
        refine = Refine(RefineConfig(prior=prior))
        refine.setup()
        saliency = refine.process(RefineRequest(evidence=evidence, targets=(0,))).maps[0]
        found[prior] = np.corrcoef(saliency.output("z_t")[0].ravel(), box.truth(0).ravel())[0, 1]
    assert found.pop(str(tmp_path / "prior.npy")) > found["none"] + 0.2
    assert saliency.details["prior_weight"] > 0.9


@pytest.mark.parametrize("budget", [64, 210])
def test_a_rise_prior_takes_its_masks_from_the_budget(box, budget):
    perturb, score = Perturb(PerturbConfig(budget=budget), prior="rise"), scorer(box)
    evidence = score_clip(box.clip, perturb, score)
    assert len(evidence.masks[0]) == NUM_ANCHORS + min(RISE_MASKS, (budget - NUM_ANCHORS) // 2)
    assert evidence.masks[0].bank.family == RISE_FAMILY
    more = Refine(RefineConfig(prior="rise")).process(RefineRequest(evidence=evidence, targets=(0,))).more
    assert more.round_idx == 1
    assert more.bank.family == "designed"
    box.calls = 0
    saliency = explain_clip(box.clip, perturb, score, Refine(RefineConfig(prior="rise")), (0,))[0]
    assert box.calls == saliency.num_evaluations == budget
    assert auc(saliency.output("z_t")[0], box.truth(0) > 0) > 0.85


def test_evidence_of_one_round_alone_is_refined_without_asking(box):
    evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=48)), scorer(box))
    assert isinstance(evidence, Evidence)
    assert Refine(RefineConfig()).process(RefineRequest(evidence=evidence, targets=(0,))).more is None
