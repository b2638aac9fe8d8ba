"""The substrate that suits a box is recommended: boxes that read motion only, brightness, or nothing; real models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import PlantedBox, read_clip, textured_clip
from torch import Tensor, nn

from stages.box import BlackBox, BoxSpec
from stages.exchange import Subject
from stages.models import TorchBox, load_box
from stages.perturb import PerturbConfig
from stages.records import Clip
from stages.refine import RefineConfig
from stages.score import ScoreConfig
from stages.substrate_choice import (
    MIN_AGREEMENT,
    Row,
    candidates,
    choose_substrate,
    disagreements,
    recommend,
    try_substrates,
)

BOXES = Path(__file__).resolve().parents[2] / "examples" / "boxes"
SHAPE = (8, 16, 16)
PLACE = (slice(2, 9), slice(4, 12))


class Cut(nn.Module):
    """Sees nothing but change: how much of its place is another picture with frame 4 than it was with frame 3."""

    def forward(self, frames: Tensor) -> Tensor:
        jump = 12 * (frames[:, 4] - frames[:, 3]).abs()[:, :, PLACE[0], PLACE[1]].mean((1, 2, 3)) - 3
        return torch.stack([jump, -jump], 1)


class Bright(nn.Module):
    """Sees how bright its place is, whatever moves."""

    def forward(self, frames: Tensor) -> Tensor:
        light = 12 * frames[:, :, :, PLACE[0], PLACE[1]].mean((1, 2, 3, 4)) - 6
        return torch.stack([light, -light], 1)


def subject(clip: Clip, module: nn.Module | BlackBox, *, budget: int = 96) -> Subject:
    t, h, w = clip.shape
    spec = BoxSpec(name="small", clip_len=t, height=h, width=w, resize="squash", batch_size=16)
    box = TorchBox(module, spec, layout="ntchw") if isinstance(module, nn.Module) else module
    return Subject(
        clip=clip,
        box=box,
        target=0,
        perturb=PerturbConfig(budget=budget),
        score=ScoreConfig(device="cpu", batch_size=16),
        refine=RefineConfig(),
    )


def cut_clip() -> Clip:
    """One still texture, then another."""
    clip = textured_clip(SHAPE)
    first, second = clip.frames[0], clip.frames[4]
    return replace(clip, frames=np.stack([first] * 4 + [second] * 4))


def bright_clip() -> Clip:
    """A bright place in the dark; something small moves elsewhere."""
    frames = np.zeros((SHAPE[0], 3, *SHAPE[1:]), np.uint8)
    frames[:, :, PLACE[0], PLACE[1]] = 255
    for idx in range(SHAPE[0]):
        frames[idx, :, 12:14, idx : idx + 3] = 200
    return replace(textured_clip(SHAPE), frames=frames)


def row(substrate: str, **changed: float) -> Row:
    given: dict[str, float] = {
        "skill": 0.5, "log_bayes": 50.0, "num_reliable": 3, "own": 0.6, "others": 0.6, "p_shown": 0.9, "p_left": 0.1
    }  # fmt: skip
    return Row(substrate=substrate, **{**given, **changed})  # type: ignore[arg-type]


def test_motion_is_hidden_by_freezing_it() -> None:
    choice = choose_substrate([subject(cut_clip(), Cut())])
    assert choice.recommended == "freeze", choice.reason
    by_name = {found.substrate: found for found in choice.rows}
    # A mean colour is an event of its own to this box.
    assert by_name["freeze"].skill > by_name["mean"].skill
    assert by_name["freeze"].p_left < 0.2 < 0.8 < by_name["freeze"].p_shown


def test_what_stays_is_not_hidden_by_freezing_it() -> None:
    choice = choose_substrate([subject(bright_clip(), Bright())])
    assert choice.recommended in ("blur", "mean", "noise"), choice.reason
    by_name = {found.substrate: found for found in choice.rows}
    assert by_name["freeze"].p_left == pytest.approx(by_name["freeze"].p_shown, abs=0.05)
    assert not by_name["freeze"].hides


def test_all_substrates_are_asked_with_the_same_masks_and_each_map_is_measured_under_all() -> None:
    names = candidates(SHAPE[0])
    assert set(names) == {"blur", "mean", "noise", "median", "freeze"}
    trials = try_substrates(subject(bright_clip(), Bright(), budget=32), steps=4)
    assert [trial.substrate for trial in trials] == list(names)
    assert all(set(trial.insertion) == set(names) for trial in trials)
    first = trials[0].explained.evidence
    assert [masks.bank.family for masks in first.masks if masks.bank is not None] == ["mixture"]
    for trial in trials[1:]:
        assert trial.explained.evidence.masks == first.masks
        assert not np.array_equal(trial.explained.evidence.scores[0].values, first.scores[0].values)


def test_of_a_picture_the_substrates_of_time_hide_nothing() -> None:
    assert candidates(1) == ("blur", "mean", "noise")


def test_a_box_that_does_not_look_gets_no_recommendation_and_no_warning() -> None:
    clip = textured_clip(SHAPE)
    choice = choose_substrate([subject(clip, PlantedBox(clip, {}), budget=32)], steps=2)
    assert choice.recommended is None
    assert "no substrate gives reliable maps" in choice.reason
    assert choice.warnings == ()


def test_the_rule() -> None:
    """Reliable on most clips, then hiding, then the greatest skill; the first where skills are alike."""
    rows = [row("blur", skill=0.6), row("mean", skill=0.9, p_left=0.8), row("noise", skill=0.95, num_reliable=1)]
    assert recommend(rows, 3)[0] == "blur"
    assert recommend([*rows, row("freeze", skill=0.7)], 3)[0] == "freeze"
    assert recommend([*rows, row("freeze", skill=0.62)], 3)[0] == "blur"
    name, reason = recommend(rows[1:2], 3)
    assert name is None
    assert "0.80 of 0.90 is left under mean" in reason


def test_only_reliable_maps_that_differ_are_warned_of() -> None:
    rows = [row("blur"), row("mean"), row("noise", num_reliable=0)]
    low, high = MIN_AGREEMENT - 0.1, MIN_AGREEMENT + 0.1
    agreement = np.array([[1, low, low], [low, 1, low], [low, low, 1]])
    (warning,) = disagreements(rows, agreement, 3)
    assert warning.startswith("blur and mean disagree")
    assert disagreements(rows, np.where(agreement < 1, high, 1.0), 3) == []


@pytest.mark.slow
def test_freeze_is_recommended_for_the_shot_boundary_model(shared_data: Path) -> None:
    """Windows that hold true cuts, the new shot five frames after their start."""
    weights = shared_data / "weights" / "shot_boundary_conv3d.npz"
    box = load_box(f"python:{BOXES}/shot_boundary.py:box", weights=str(weights))
    clips = [read_clip(shared_data / "videos" / "bikes.mp4", box, start, clip_stride=1) for start in (71, 132, 237)]
    subjects = [replace(subject(clip, box, budget=128), target=1) for clip in clips]
    choice = choose_substrate(subjects, steps=8)
    assert choice.recommended == "freeze", choice.reason
    assert choice.warnings


@pytest.mark.slow
def test_blur_is_recommended_for_pictures(shared_data: Path) -> None:
    box = load_box(f"python:{BOXES}/squeezenet.py:image", weights=str(shared_data / "weights" / "squeezenet_v1.0.npz"))
    clip = read_clip(shared_data / "images" / "goldfish.jpg", box, 0)
    choice = choose_substrate([replace(subject(clip, box, budget=64), target=1)], steps=4)
    assert choice.recommended == "blur", choice.reason
