"""TorchBox: layouts, normalisation, batches; planted modules whose right answer is known."""

import pytest
import torch
from torch import Tensor, nn

from stages.box import BoxSpec
from stages.errors import ModelError
from stages.models_torch import TorchBox, as_scores

SPEC = BoxSpec(name="planted", clip_len=4, height=6, width=5)


class Probe(nn.Module):
    """Answers with what it was given at fixed places: its scores say which axis is which."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :7]


class Averages(nn.Module):
    """Mean colour of a picture."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def clips(n: int = 3, t: int = 4) -> Tensor:
    return torch.rand(n, t, 3, 6, 5, generator=torch.Generator().manual_seed(0))


def test_clip_networks_get_n_c_t_h_w() -> None:
    frames = clips()
    expected = frames.permute(0, 2, 1, 3, 4).flatten(1)[:, :7]
    torch.testing.assert_close(TorchBox(Probe(), SPEC)(frames), expected)


def test_ntchw_networks_get_frames_as_they_are() -> None:
    frames = clips()
    torch.testing.assert_close(TorchBox(Probe(), SPEC, layout="ntchw")(frames), frames.flatten(1)[:, :7])


def test_frame_means_average_the_scores_of_the_right_frames() -> None:
    spec = SPEC.model_copy(update={"frames": "mean"})
    frames = clips()
    torch.testing.assert_close(TorchBox(Averages(), spec)(frames), frames.mean((1, 3, 4)))


def test_an_image_box_refuses_clips_of_several_frames() -> None:
    box = TorchBox(Averages(), SPEC.model_copy(update={"clip_len": 1}))
    assert box(clips(t=1)).shape == (3, 3)
    with pytest.raises(ModelError, match="frames: mean"):
        box(clips(t=4))


def test_normalisation_follows_the_spec_in_bgr_and_leaves_the_input_alone() -> None:
    spec = BoxSpec(
        name="caffe",
        height=6,
        width=5,
        channel_order="bgr",
        value_scale=255.0,
        mean=(104, 117, 123),
        std=(2, 4, 8),
    )
    frames = torch.zeros(1, 1, 3, 6, 5)
    frames[:, :, 0], frames[:, :, 2] = 1.0, 0.5  # red 255, green 0, blue 127.5
    before = frames.clone()
    expected = torch.tensor([[(127.5 - 104) / 2, (0 - 117) / 4, (255 - 123) / 8]])
    torch.testing.assert_close(TorchBox(Averages(), spec)(frames), expected)
    assert torch.equal(frames, before)


def test_slices_of_a_batch_score_like_the_batch() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.LazyLinear(5)
    )
    network(torch.rand(2, 3, 4, 6, 5))  # materialise, and give the batch norm something to remember
    box = TorchBox(network.train(), SPEC)
    frames = clips(6)
    whole = box(frames)
    parts = torch.cat([box(frames[:1]), box(frames[1:5]), box(frames[5:])])
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole, box(frames))


def test_the_fingerprint_sees_one_changed_weight_and_nothing_else() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    assert TorchBox(first, SPEC).weights_sha256 == TorchBox(second, SPEC).weights_sha256
    with torch.no_grad():
        second.weight[1, 2] += 1e-6
    assert TorchBox(first, SPEC).weights_sha256 != TorchBox(second, SPEC).weights_sha256


def test_answers_of_several_kinds_are_understood() -> None:
    scores = torch.rand(2, 3)
    assert as_scores((scores, "features"), SPEC) is scores
    assert as_scores({"logits": scores}, SPEC) is scores
    torch.testing.assert_close(as_scores(scores.numpy(), SPEC), scores)
    with pytest.raises(ModelError, match="returned str instead of scores"):
        as_scores("cat", SPEC)
