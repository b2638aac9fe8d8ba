"""pytorchvideo's hub: heads that softmax, two pathways, detection networks; compared with the untouched networks."""

import pytest
import torch
from pytorchvideo.models import hub
from torch import Tensor, nn

from stages.models import load_box
from stages.models_hub import LogMeanExp, Pathways, WholeFrame, known_models
from stages.models_weights import fixed_seed


def test_all_constructors_are_known_and_detection_ones_too() -> None:
    assert {"x3d_s", "slowfast_r101", "mvit_base_16", "efficient_x3d_xs", "slow_r50_detection"} <= set(known_models())


@pytest.mark.parametrize("side", [5, 6])  # one position in the head, and several whose probabilities are averaged
def test_softmax_of_the_box_is_the_probability_of_the_original(side: int) -> None:
    with fixed_seed():
        original = hub.x3d_xs(pretrained=False).eval().blocks[-1]
    head = load_box("pytorchvideo:x3d_xs").module.blocks[-1]
    with torch.no_grad():  # random weights hardly tell classes apart: make them
        original.proj.weight.mul_(300)
        head.proj.weight.mul_(300)
    features = torch.rand(2, 192, 4, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        probabilities, scores = original(features), head(features)
    assert float(probabilities.max()) > 0.02
    torch.testing.assert_close(scores.softmax(1), probabilities, rtol=1e-4, atol=1e-7)


def test_log_mean_exp_is_the_log_of_the_mean() -> None:
    probs = torch.rand(2, 5, 2, 3, 3) * 1e-3
    torch.testing.assert_close(LogMeanExp()(probs.log()).exp(), probs.mean((2, 3, 4), keepdim=True))


def test_slowfast_gets_every_fourth_frame_beside_all_frames() -> None:
    class Spy(nn.Module):
        def forward(self, pathways: list[Tensor]) -> Tensor:
            slow, fast = pathways
            assert fast.shape[2] == 32
            return slow[:, 0, :, 0, 0]

    clip = torch.arange(32.0).view(1, 1, 32, 1, 1).expand(2, 3, 32, 4, 4)
    assert Pathways(Spy())(clip)[1].tolist() == [0, 4, 8, 13, 17, 22, 26, 31]  # as in the hub's own example


def test_detection_networks_see_the_whole_frame_of_their_own_clip() -> None:
    class Spy(nn.Module):
        def forward(self, clip: Tensor, regions: Tensor) -> Tensor:
            return regions

    regions = WholeFrame(Spy())(torch.rand(2, 3, 4, 6, 8))
    assert regions.tolist() == [[0, 0, 0, 8, 6], [1, 0, 0, 8, 6]]


def test_num_classes_fits_the_last_layer() -> None:
    box = load_box("pytorchvideo:efficient_x3d_xs", options={"num_classes": "7"})
    assert box.spec.labels == ()
    assert box(torch.rand(1, 4, 3, 64, 64)).shape == (1, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slowfast_r50", "slow_r50_detection", "mvit_base_16", "c2d_r50"])
def test_networks_of_every_kind_run(name: str) -> None:
    box = load_box(f"pytorchvideo:{name}")
    spec = box.spec
    scores = box(torch.rand(1, spec.clip_len, 3, spec.height, spec.width))
    assert scores.shape == (1, len(spec.labels) or 80)
