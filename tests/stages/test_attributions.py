"""Maps asked of the model itself: Captum's methods as priors, what they cost, and where they are refused."""

import numpy as np
import pytest
import torch
from planted import PlantedBox, auc, scorer, textured_clip
from pydantic import ValidationError
from torch_boxes import BrightSpot, Counted, Linear3d, spec_of

from stages.errors import ConfigError, NumericsError
from stages.masks import NUM_ANCHORS
from stages.models_torch import TorchBox
from stages.perturb import Perturb, PerturbConfig
from stages.questions import PASSES, captum_method, occlusion_cells
from stages.records import Clip
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.regrid import regrid
from stages.score import Score, ScoreConfig, ScoreRequest
from stages.single import explain_clip, score_clip

pytest.importorskip("captum")

SHAPE = (4, 16, 16)
PLACE = (slice(0, 4), slice(2, 8), slice(8, 14))


def bright_clip(shape: tuple[int, int, int] = SHAPE) -> Clip:
    """Dark, with one bright place."""
    clip = textured_clip(shape)
    frames = np.zeros_like(clip.frames)
    frames[: shape[0], :, 2:8, 8:14] = 255
    return Clip(
        **{name: getattr(clip, name) for name in ("id", "frame_idx", "pts_s", "is_padded", "covers", "geometry")},
        frames=frames,
    )


def prior_map(box, clip, prior, *, budget=128, targets=(0,)):
    """The map with which a prior answers for the first target, and the round that asked."""
    score = scorer(box, substrate="mean")
    evidence = score_clip(clip, Perturb(PerturbConfig(budget=budget), prior=prior), score)
    more = Refine(RefineConfig(prior=prior)).process(RefineRequest(evidence=evidence, targets=targets)).more
    answer = score.process(ScoreRequest(batches=(more,), clips={clip.id: clip})).scores[0]
    return answer.maps[0].astype(np.float64), more, answer


def test_lrp_of_a_linear_box_is_gradient_times_input():
    clip = textured_clip(SHAPE)
    torch.manual_seed(0)
    net = Linear3d(SHAPE)
    found, _, answer = prior_map(TorchBox(net, spec_of(clip)), clip, "captum:LRP")
    weights = net.head.weight[0].detach().numpy().reshape(3, *SHAPE)
    truth = (weights * clip.frames.transpose(1, 0, 2, 3) / 255).sum(0)
    np.testing.assert_allclose(found, regrid(truth, found.shape), atol=1e-4)
    assert answer.values[0, 0] == pytest.approx(truth.sum(), abs=1e-4)


@pytest.mark.parametrize("name", ["LayerGradCam", "GuidedGradCam", "LRP", "Lime", "KernelShap", "Occlusion"])
def test_every_method_finds_the_bright_spot_and_costs_what_it_is_charged_with(name):
    clip = bright_clip()
    net = Counted(BrightSpot())
    box = TorchBox(net, spec_of(clip))
    prior = f"captum:{name}"
    prior_map(box, clip, prior)  # finds the layer, once for a scorer
    score = Score(ScoreConfig(substrate="blur", device="cpu", batch_size=16), lambda: box, asks_inside=prior)
    score.setup()
    evidence = score_clip(clip, Perturb(PerturbConfig(budget=128), prior=prior), score)
    more = Refine(RefineConfig(prior=prior)).process(RefineRequest(evidence=evidence, targets=(0,))).more
    score.process(ScoreRequest(batches=(more,), clips={clip.id: clip}))
    net.passes[0] = 0
    answer = score.process(ScoreRequest(batches=(more,), clips={clip.id: clip})).scores[0]
    assert net.passes[0] == more.num_evaluations
    found = answer.maps[0]
    place = np.zeros(SHAPE)
    place[PLACE] = 1
    assert auc(found, regrid(place, found.shape) > 0.5) > 0.85


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("dim", [2, 3])
def test_frames_of_an_image_model_become_time(name, dim):
    clip = bright_clip()
    changes = {"frames": "mean"} if dim == 2 else {}
    found, _, _ = prior_map(TorchBox(BrightSpot(dim), spec_of(clip, **changes)), clip, f"captum:{name}")
    assert found.shape == (2, 16, 16)
    assert found[:, 3:7, 9:13].mean() > found[:, 9:, :6].mean() + 1e-9


def test_the_last_convolution_that_is_a_map_is_looked_at():
    clip = bright_clip()
    box = TorchBox(BrightSpot(), spec_of(clip))
    named, _, _ = prior_map(box, clip, "captum:LayerGradCam@last")
    default, _, _ = prior_map(box, clip, "captum:LayerGradCam")
    other, _, _ = prior_map(box, clip, "captum:LayerGradCam@stem")
    np.testing.assert_array_equal(default, named)
    assert np.abs(other - named).max() > 1e-6


def test_the_module_of_the_box_is_left_as_it_was():
    clip = bright_clip()
    box = TorchBox(BrightSpot(), spec_of(clip))
    before = {name: tensor.clone() for name, tensor in box.module.state_dict().items()}
    prior_map(box, clip, "captum:LRP")
    assert box.module.act.inplace
    for name, tensor in box.module.state_dict().items():
        torch.testing.assert_close(tensor, before[name])


class Silent(torch.nn.Module):
    def forward(self, clips):
        return clips.mean((2, 3, 4))


@pytest.mark.parametrize(
    ("module", "prior", "words"),
    [
        (BrightSpot(), "captum:LayerGradCam@lst", "did you mean last"),
        (BrightSpot(is_reused=True), "captum:LRP", "runs its module act more than once"),
        (Silent(), "captum:LayerGradCam", "no convolution.*captum:LayerGradCam@LAYER"),
        (BrightSpot(), "captum:LayerGradCam@pool", None),
        (None, "captum:LayerGradCam", "black box: it shows no PyTorch module"),
        (None, "captum:Lime", None),
        (None, "mask-optimisation", "black box"),
    ],
)
def test_what_a_box_cannot_answer_is_refused_when_it_is_loaded(module, prior, words):
    clip = bright_clip()
    box = PlantedBox(clip, {0: [(PLACE, 5.0)]}) if module is None else TorchBox(module, spec_of(clip))
    score = Score(ScoreConfig(device="cpu"), lambda: box, asks_inside=prior)
    if words is None:
        score.setup()
    else:
        with pytest.raises(ConfigError, match=words):
            score.setup()


def test_a_module_that_captum_cannot_follow_is_named():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv3d(3, 2, 3)
            self.act = torch.nn.SiLU()

        def forward(self, clips):
            return self.act(self.conv(clips)).mean((2, 3, 4))

    clip = bright_clip()
    with pytest.raises(ConfigError, match="SiLU"):
        prior_map(TorchBox(Odd(), spec_of(clip)), clip, "captum:LRP")


@pytest.mark.parametrize("prior", ["captum:GradCam", "captum:LRP@last", "captum:", "captum:layergradcam"])
def test_an_unknown_method_is_refused_with_the_nearest(prior):
    with pytest.raises(ValidationError, match="captum:"):
        RefineConfig(prior=prior)


@pytest.mark.parametrize("method", ["gp", "borex"])
@pytest.mark.parametrize("targets", [(0,), (0, 1)])
def test_the_budget_holds_with_the_prior_and_every_target_has_its_own(method, targets):
    clip = bright_clip((1, 16, 16))
    net = Counted(BrightSpot(2))
    prior, budget = "captum:LayerGradCam@module.last", 24
    score = Score(ScoreConfig(device="cpu", batch_size=8), lambda: TorchBox(net, spec_of(clip)), asks_inside=prior)
    score.setup()
    net.passes[0] = 0
    refine, perturb = (
        Refine(RefineConfig(method=method, prior=prior)),
        Perturb(PerturbConfig(budget=budget), method, prior),
    )
    maps = explain_clip(clip, perturb, score, refine, targets)
    assert net.passes[0] == maps[0].num_evaluations == budget
    assert len(maps) == len(targets)


def test_clips_with_such_priors_share_one_design():
    clip = bright_clip()
    score = scorer(TorchBox(BrightSpot(), spec_of(clip)))
    evidence = score_clip(clip, Perturb(PerturbConfig(budget=40), prior="captum:LRP"), score)
    assert len(evidence.masks[0]) == NUM_ANCHORS
    assert evidence.masks[0].bank.family == "designed"


def test_a_budget_that_cannot_pay_is_refused():
    clip = bright_clip()
    box = TorchBox(BrightSpot(), spec_of(clip))
    with pytest.raises(NumericsError, match="do not pay"):
        prior_map(box, clip, "captum:GuidedGradCam", budget=6)


@pytest.mark.parametrize("grid", [(1, 28, 28), (8, 28, 28), (2, 16, 9), (1, 3, 28)])
@pytest.mark.parametrize("most", [4, 30, 60, 100])
def test_occlusion_is_charged_with_the_cells_it_hides(grid, most):
    charge = captum_method("captum:Occlusion").charge(grid, most)
    assert 3 <= charge <= most
    assert int(np.prod(occlusion_cells(grid, charge - 1))) + 2 == charge
