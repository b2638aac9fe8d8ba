"""Which masks the first round asks: RISE's single ones on pictures, designed ones on clips, the user's if named."""

import numpy as np
import pytest

from benchmarks.planted import PlantedBox, scorer
from stages.masks import NUM_ANCHORS
from stages.perturb import Perturb, PerturbConfig
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import explain_clip, score_clip
from tests.planted import textured_clip

STILL, CLIP = (1, 32, 32), (8, 32, 32)


@pytest.mark.parametrize(
    ("shape", "method", "family", "asked"),
    [
        (STILL, "gp", "auto", "rise-single"),
        (CLIP, "gp", "auto", "designed"),
        (CLIP, "mask-optimisation", "auto", "mixture"),
        (STILL, "gp", "mixture", "mixture"),
        (CLIP, "gp", "rise-single", "rise-single"),
        (STILL, "occlusion", "auto", "occlusion"),
        (STILL, "centred-rise", "auto", "rise-single"),
        (STILL, "lime", "auto", "mixture"),
    ],
)
def test_a_method_asks_with_its_own_masks_and_the_default_on_stills_with_single_cells(shape, method, family, asked):
    config = PerturbConfig.model_validate({"budget": 64, "family": family})
    assert Perturb(config, method).process(textured_clip(shape).info).bank.family == asked


@pytest.mark.parametrize(("shape", "family"), [(STILL, "rise-single"), (CLIP, "designed")])
def test_after_the_masks_of_a_rise_prior_come_those_that_are_asked_without_one(shape, family):
    box = PlantedBox(textured_clip(shape), {0: [((slice(None), slice(4, 16), slice(4, 16)), 4.0)]}, num_classes=3)
    evidence = score_clip(box.clip, Perturb(PerturbConfig(budget=64), prior="rise"), scorer(box))
    more = Refine(RefineConfig(prior="rise")).process(RefineRequest(evidence=evidence, targets=(0,))).more
    assert more is not None
    assert more.bank.family == family
    assert len(more) == 64 - len(evidence.masks[0])
    assert more.ids[0] == NUM_ANCHORS


def test_on_planted_stills_single_cells_tell_more_than_the_mixture():
    """Correlation of the map of z_t with what is planted, over places and gains that are drawn."""
    rng = np.random.default_rng(7)
    gained = []
    for _ in range(12):
        y, x = rng.integers(0, 20, 2)
        places = {0: [((slice(None), slice(y, y + 10), slice(x, x + 12)), float(rng.uniform(2, 6)))]}
        box = PlantedBox(textured_clip(STILL), places, num_classes=3)
        found = {
            family: explain_clip(
                box.clip,
                Perturb(PerturbConfig.model_validate({"budget": 64, "family": family})),
                scorer(box),
                Refine(RefineConfig()),
                (0,),
            )[0].output("z_t")[0]
            for family in ("auto", "mixture")
        }
        of_family = {name: np.corrcoef(map_.ravel(), box.truth(0).ravel())[0, 1] for name, map_ in found.items()}
        assert of_family["auto"] > 0.8
        gained.append(of_family["auto"] - of_family["mixture"])
    assert np.mean(gained) > 0
