"""The sanity checks pass on sound explanations and fail where something is wrong; laws of time and of class numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import PlantedBox, read_clip, textured_clip
from torch import Tensor, nn

from stages.box import BlackBox, BoxSpec
from stages.demo.clips import DEMO_VIDEO
from stages.exchange import Subject, similarity, time_evidence, time_share
from stages.models import TorchBox, load_box
from stages.perturb import PerturbConfig
from stages.records import Clip
from stages.refine import RefineConfig
from stages.rewired import Deaf, Rewired, constant_answer, layers_by_use, randomised
from stages.sanity import (
    Finding,
    check_constant,
    check_frozen,
    check_permuted,
    check_random,
    check_randomised,
    check_reversed,
    check_sanity,
    check_shuffled,
)
from stages.score import ScoreConfig

BOXES = Path(__file__).resolve().parents[2] / "examples" / "boxes"
SHAPE = (8, 16, 16)
PLACE = (slice(1, 4), slice(2, 8), slice(3, 10))  # early in the clip: reversed, it is late
RIVAL_PLACE = (slice(5, 8), slice(8, 15), slice(8, 15))


def spec(**settings: object) -> BoxSpec:
    t, h, w = SHAPE
    given = {"name": "small", "clip_len": t, "height": h, "width": w, "resize": "squash", "batch_size": 16}
    return BoxSpec.model_validate({**given, **settings})


def subject(clip: Clip, box: BlackBox, target: int = 0, *, budget: int = 64, substrate: str = "mean") -> Subject:
    return Subject(
        clip=clip,
        box=box,
        target=target,
        perturb=PerturbConfig(budget=budget),
        score=ScoreConfig.model_validate({"substrate": substrate, "device": "cpu", "batch_size": 16}),
        refine=RefineConfig(),
    )


def planted(**settings: object) -> Subject:
    clip = textured_clip(SHAPE)
    box = PlantedBox(clip, {0: [(PLACE, 4.0)], 1: [(RIVAL_PLACE, 3.0)]})
    return subject(clip, box, **settings)  # type: ignore[arg-type]


class Brightness(nn.Module):
    """Scores from a place's brightness, N T C H W; its weights are there, and matter only where it `listens`."""

    def __init__(self, *, listens: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(256, 12), nn.Linear(12, 3)
        self.listens = listens
        with torch.no_grad():
            for layer in (self.first, self.last):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1)))

    def forward(self, frames: Tensor) -> Tensor:
        scores: Tensor = self.last(torch.tanh(self.first(frames.mean((1, 2)).flatten(1))))
        if self.listens:
            return scores
        place = 5 * frames[:, :, :, 2:8, 3:10].mean((1, 2, 3, 4))
        return torch.stack([place, -place, 0 * place], 1) + 0 * scores


class Movement(nn.Module):
    """Scores the change between frames, and the time of it: blind to a still clip, lost when frames are shuffled."""

    def forward(self, frames: Tensor) -> Tensor:
        change = (frames[:, 1:] - frames[:, :-1]).abs().mean((2, 3, 4))
        later = torch.linspace(-1, 1, change.shape[1])
        return 20 * torch.stack([change @ later, -(change @ later)], 1)


def growing_clip() -> Clip:
    """A bright square moves, faster and faster."""
    clip = textured_clip(SHAPE)
    frames = np.zeros_like(clip.frames)
    for idx, x in enumerate((0, 0, 0, 1, 2, 4, 7, 10)):
        frames[idx, :, 4:10, x : x + 5] = 255
    return replace(clip, frames=frames)


def only(findings: object) -> Finding:
    (found,) = findings  # type: ignore[misc]
    assert isinstance(found, Finding)
    return found


def test_a_map_that_follows_the_weights_goes_when_they_are_drawn_anew() -> None:
    box = TorchBox(Brightness(listens=True), spec(), layout="ntchw")
    clip = textured_clip(SHAPE)
    asked = subject(clip, box, substrate="blur")
    steps = list(check_randomised(asked, asked.explain()))
    assert [step.measured.split(",")[0] for step in steps] == ["1 of 2 layers", "all 2 layers"]
    assert steps[-1].result == "pass"


def test_a_map_that_does_not_depend_on_the_weights_is_found_out() -> None:
    box = TorchBox(Brightness(listens=False), spec(), layout="ntchw")
    asked = subject(textured_clip(SHAPE), box)
    last = list(check_randomised(asked, asked.explain()))[-1]
    assert last.result == "fail"
    assert last.similarity == pytest.approx(1.0, abs=1e-6)


def test_layers_are_randomised_in_the_order_of_their_use_and_the_model_stays_as_it_was() -> None:
    box = TorchBox(Brightness(listens=True), spec(), layout="ntchw")
    frames = torch.rand(1, 8, 3, 16, 16)
    assert layers_by_use(box, frames) == ["first", "last"]
    before = box(frames)
    other = randomised(box, ["last"], seed=0)
    assert torch.equal(box(frames), before)
    assert torch.equal(other.module.first.weight, box.module.first.weight)  # type: ignore[union-attr]
    assert not torch.equal(other.module.last.weight, box.module.last.weight)  # type: ignore[union-attr]
    assert torch.equal(other(frames), randomised(box, ["last"], seed=0)(frames))
    assert not torch.equal(other(frames), randomised(box, ["last"], seed=1)(frames))


def test_a_box_whose_weights_are_out_of_reach_is_named() -> None:
    found = only(check_randomised(planted(), planted().explain()))
    assert found.result == "not applicable"
    assert "no torch module" in found.measured


def test_boxes_that_do_not_look_have_no_reliable_signal() -> None:
    asked = planted()
    base = asked.explain()
    assert base.is_reliable
    for check in (check_constant, check_random):
        found = check(asked, base)
        assert (found.result, found.is_reliable) == ("pass", False)


def test_classes_under_other_numbers_have_the_same_maps() -> None:
    asked = planted()
    assert check_permuted(asked, asked.explain()).result == "pass"


def test_a_reversed_clip_has_the_reversed_map() -> None:
    """For a box that turns its input round again, under every substrate without a direction, and exactly."""
    for substrate in ("mean", "blur", "median"):
        asked = planted(substrate=substrate)
        base = asked.explain()
        assert time_share(base.net) > 0.05
        law, plain = check_reversed(asked, base)
        assert law.result == "pass", law
        assert substrate in law.expected
        assert law.similarity == pytest.approx(1, abs=1e-4)
        # The planted box expects its evidence at a time of its own: backwards it does not find it.
        assert plain.similarity is not None
        assert plain.similarity < 0.9


def test_a_map_that_is_not_reversed_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks that stay as they are while the clip runs backwards: the map cannot be the reversed one."""
    asked = planted()
    base = asked.explain()
    monkeypatch.setattr("stages.sanity._reversed", lambda masks, clip_id: replace(masks, clip_id=clip_id))
    assert next(check_reversed(asked, base)).result == "fail"


@pytest.mark.parametrize("substrate", ["freeze", "noise"])
def test_a_substrate_with_a_direction_is_exchanged_before_time_is_reversed(substrate: str) -> None:
    asked = planted(substrate=substrate, budget=32)
    law = next(check_reversed(asked, asked.explain()))
    assert law.result == "pass"
    assert "blur" in law.expected


def test_shuffled_frames_change_nothing_for_a_model_without_order() -> None:
    box = TorchBox(nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 3)), spec(frames="mean"))
    asked = subject(textured_clip(SHAPE), box, substrate="blur")
    found = check_shuffled(asked, asked.explain())
    assert found.expected.startswith("order-blind")
    assert found.result == "pass"


def test_shuffled_frames_change_the_map_of_a_model_of_movement() -> None:
    box = TorchBox(Movement(), spec(), layout="ntchw")
    asked = subject(growing_clip(), box, substrate="freeze")
    found = check_shuffled(asked, asked.explain())
    assert found.expected.startswith("other scores")
    assert found.result == "pass"


def test_a_still_clip_holds_no_motion() -> None:
    box = TorchBox(Movement(), spec(), layout="ntchw")
    asked = subject(growing_clip(), box, substrate="freeze", budget=128)
    base = asked.explain()
    assert base.is_reliable
    motion, times = check_frozen(asked, base)
    assert (motion.result, motion.is_reliable) == ("pass", False)
    assert times.result == "pass"
    assert time_evidence(base) > 5


def test_a_picture_has_no_time() -> None:
    clip = textured_clip((1, 16, 16))
    asked = subject(clip, PlantedBox(clip, {0: [((slice(0, 1), slice(2, 8), slice(3, 10)), 4.0)]}))
    findings = {finding.check: finding.result for finding in check_sanity(asked)}
    assert findings["time reversed"] == findings["frozen frame"] == findings["frames shuffled"] == "not applicable"
    assert findings["constant box"] == findings["classes permuted"] == "pass"


def test_boxes_in_the_place_of_others_keep_their_spec() -> None:
    clip = textured_clip(SHAPE)
    box = PlantedBox(clip, {0: [(PLACE, 4.0)]})
    frames = torch.from_numpy(clip.frames.copy()).float()[None] / 255
    assert torch.equal(Rewired(box, before=lambda f: 1 - f)(1 - frames), box(frames))
    deaf = Deaf(box, constant_answer(np.array([1.0, 2.0])))
    assert deaf(frames.repeat(3, 1, 1, 1, 1)).tolist() == [[1.0, 2.0]] * 3
    assert (deaf.spec.scores, deaf.spec.height) == ("logits", 16)


def test_a_map_that_stays_has_no_share_in_time() -> None:
    still = np.tile(np.random.default_rng(0).random((1, 4, 4)), (5, 1, 1))
    assert time_share(still) == pytest.approx(0, abs=1e-12)
    assert time_share(still + np.arange(5.0)[:, None, None]) > 0.9
    assert time_share(np.ones((5, 4, 4))) == 0
    flat = planted(budget=32)
    nothing = flat.explain(Deaf(flat.box, constant_answer(np.zeros(3))))
    assert similarity(nothing, flat.explain()) == 0


@pytest.mark.slow
def test_the_demo_model_passes_every_check() -> None:
    box = load_box("demo")
    clip = read_clip(DEMO_VIDEO, box, 2)
    asked = subject(clip, box, budget=64, substrate="blur")
    target = int(np.argmax(asked.explain().saliency.reference))
    findings = list(check_sanity(replace(asked, target=target)))
    assert [finding.check for finding in findings if finding.result == "fail"] == []
    assert {"weights randomised", "time reversed", "frozen frame, motion"} <= {finding.check for finding in findings}


@pytest.mark.slow
def test_squeezenet_forgets_its_map_with_its_weights(shared_data: Path) -> None:
    box = load_box(f"python:{BOXES}/squeezenet.py:image", weights=str(shared_data / "weights" / "squeezenet_v1.0.npz"))
    clip = read_clip(shared_data / "images" / "zebra.jpg", box, 0)
    asked = subject(clip, box, 340, budget=48, substrate="blur")  # zebra
    base = asked.explain()
    steps = list(check_randomised(asked, base))
    assert steps[-1].result == "pass"
    assert steps[-1].measured.startswith("all 26 layers")


@pytest.mark.slow
def test_the_cut_of_a_reversed_film_lies_where_the_mirror_puts_it(shared_data: Path) -> None:
    """The window holds frames 132 to 141 of bikes; a new shot starts with frame 5, also backwards."""
    weights = shared_data / "weights" / "shot_boundary_conv3d.npz"
    box = load_box(f"python:{BOXES}/shot_boundary.py:box", weights=str(weights))
    clip = read_clip(shared_data / "videos" / "bikes.mp4", box, 132, clip_stride=1)
    asked = subject(clip, box, 1, budget=128, substrate="freeze")
    law, plain = check_reversed(asked, asked.explain(substrate="blur"))
    assert law.result == "pass"
    backwards = replace(clip, id=replace(clip.id, video_id="backwards"), frames=clip.frames[::-1].copy())
    strongest = [int(np.abs(asked.explain(clip=shown).net).mean((1, 2)).argmax()) for shown in (clip, backwards)]
    assert strongest == [2, 4 - 2]  # cells of two frames
    assert plain.similarity is not None
