"""Scores do not depend on how the work is split; bad boxes are named; memory is found out once."""

import numpy as np
import pytest
import torch
from planted import PlantedBox, scorer, textured_clip
from torch import nn

from stages.box import BoxSpec
from stages.errors import ModelError, ResourceError
from stages.models_torch import TorchBox
from stages.perturb import Perturb, PerturbConfig
from stages.rewired import Rewired
from stages.score import Score, ScoreConfig, ScoreRequest

PLACE = (slice(0, 4), slice(2, 9), slice(3, 9))


@pytest.fixture
def box():
    return PlantedBox(textured_clip((4, 16, 16)), {0: [(PLACE, 3.0)], 1: [((slice(0, 2),) * 3, 1.0)]})


def ask(score, clip, masks, pieces):
    batches = tuple(masks.rows(a, b) for a, b in pieces)
    result = score.process(ScoreRequest(batches=batches, clips={clip.id: lambda: clip}))
    return np.concatenate([scores.values for scores in result.scores])


@pytest.mark.parametrize("substrate", ["blur", "freeze", "noise"])
def test_pieces_of_a_batch_are_the_batch(box, substrate):
    masks = Perturb(PerturbConfig(budget=40)).process(box.clip.info)
    whole = ask(scorer(box, substrate=substrate, batch_size=64), box.clip, masks, [(0, 40)])
    for pieces in ([(0, 7), (7, 40)], [(0, 1), (1, 39), (39, 40)]):
        split = ask(scorer(box, substrate=substrate, batch_size=8), box.clip, masks, pieces)
        np.testing.assert_allclose(split, whole, atol=1e-5)


def test_clips_share_batches_and_keep_their_scores_apart(box):
    other = textured_clip((4, 16, 16), seed=9, clip_idx=1)
    perturb = Perturb(PerturbConfig(budget=8))
    first, second = perturb.process(box.clip.info), perturb.process(other.info)
    request = ScoreRequest(
        batches=(first.rows(0, 3), second, first.rows(3, 8)), clips={c.id: c for c in (box.clip, other)}
    )
    result = scorer(box).process(request)
    assert [(s.clip_id.clip_idx, len(s.ids)) for s in result.scores] == [(0, 3), (1, 8), (0, 5)]
    alone = scorer(box).process(ScoreRequest(batches=(second,), clips={other.id: other}))
    np.testing.assert_allclose(result.scores[1].values, alone.scores[0].values, atol=1e-6)


def test_row_0_is_the_untouched_clip_and_row_1_the_substrate(box):
    masks = Perturb(PerturbConfig(budget=8)).process(box.clip.info)
    values = ask(scorer(box), box.clip, masks, [(0, 8)])
    np.testing.assert_allclose(values[0], [3.0, 1.0, 0.0], atol=1e-6)
    assert values[1, 0] < 0.6 * values[0, 0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: torch.full((len(x), 3), float("nan")), "NaN"),
        (lambda x: torch.zeros(len(x)), "shape"),
        (lambda x: torch.zeros(len(x) + 1, 3), "rows for"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_box_that_answers_nonsense_is_named(box, answer, words):
    box.__class__ = type("Broken", (PlantedBox,), {"__call__": lambda self, frames: answer(frames)})
    masks = Perturb(PerturbConfig(budget=8)).process(box.clip.info)
    with pytest.raises(ModelError, match=words) as raised:
        ask(scorer(box), box.clip, masks, [(0, 8)])
    assert raised.value.item == "planted"


def test_out_of_memory_halves_the_batch_and_is_remembered(box):
    sizes = []

    def small_device(self, frames):
        sizes.append(len(frames))
        if len(frames) > 5:
            raise torch.OutOfMemoryError("planted")
        return PlantedBox.__call__(self, frames)

    box.__class__ = type("Small", (PlantedBox,), {"__call__": small_device})
    masks = Perturb(PerturbConfig(budget=12)).process(box.clip.info)
    score = scorer(box, batch_size=16)
    values = ask(score, box.clip, masks, [(0, 12)])
    assert len(values) == 12
    assert sizes == [12, 8, 4, 4, 4]
    ask(score, box.clip, masks, [(0, 4)])
    assert sizes[-1] == 4


def test_a_clip_that_never_fits_is_a_resource_error(box):
    def no_memory(self, frames):
        raise torch.OutOfMemoryError("planted")

    box.__class__ = type("Full", (PlantedBox,), {"__call__": no_memory})
    masks = Perturb(PerturbConfig(budget=8)).process(box.clip.info)
    with pytest.raises(ResourceError, match="does not fit"):
        ask(scorer(box, batch_size=4), box.clip, masks, [(0, 8)])


def test_tuning_finds_a_size_and_measures_the_bare_model(box):
    score = Score(ScoreConfig(device="cpu"), lambda: box)
    score.setup()
    tuning = score.tune()
    assert tuning.batch_size == box.spec.batch_size
    assert tuning.evaluations_per_s > 0


def test_cached_clips_are_bounded(box):
    score = scorer(box, cached_clips=2)
    perturb = Perturb(PerturbConfig(budget=8))
    fetched = []
    for clip_idx in (0, 1, 2, 2, 0):
        clip = textured_clip((4, 16, 16), seed=clip_idx, clip_idx=clip_idx)

        def fetch(clip=clip):
            fetched.append(clip.id.clip_idx)
            return clip

        score.process(ScoreRequest(batches=(perturb.process(clip.info),), clips={clip.id: fetch}))
    assert fetched == [0, 1, 2, 0]


class Keeps:
    """A box that remembers where its batches lay, and of every one as much as `part` takes."""

    def __init__(self, box, part):
        self._box, self._part = box, part
        self.spec, self.device, self.weights_sha256 = box.spec, box.device, box.weights_sha256
        self.kept, self.then, self.places = [], [], []

    def to(self, _):
        return self

    def __call__(self, frames):
        self.kept.append(self._part(frames))
        self.then.append(np.array(self.kept[-1]))
        self.places.append(frames.data_ptr())
        return self._box(frames)


@pytest.mark.parametrize(
    "part", [lambda frames: frames, lambda frames: frames[0, 0], lambda frames: frames[:1].numpy()]
)
def test_a_box_may_keep_what_it_is_given(box, part):
    keeping = Keeps(box, part)
    masks = Perturb(PerturbConfig(budget=32)).process(box.clip.info)
    ask(scorer(keeping, batch_size=4), box.clip, masks, [(0, 32)])
    assert len(keeping.kept) == 8
    for kept, then in zip(keeping.kept, keeping.then, strict=True):
        np.testing.assert_array_equal(kept, then)


def test_batches_of_a_box_that_keeps_nothing_lie_in_the_same_memory(box):
    forgetful = Keeps(box, lambda frames: float(frames[0, 0, 0, 0, 0]))
    masks = Perturb(PerturbConfig(budget=30)).process(box.clip.info)
    ask(scorer(forgetful, batch_size=4), box.clip, masks, [(0, 30)])  # the last batch is smaller
    assert len(forgetful.places) == 8
    assert len(set(forgetful.places)) == 1


class Weighs(nn.Module):
    """Answers with weighted sums of every value it is given, so that axes, channels and values all matter."""

    def forward(self, values):
        weights = torch.rand((values[0].numel(), 3), generator=torch.Generator().manual_seed(0)) - 0.5
        return values.flatten(1) @ weights


@pytest.mark.parametrize("substrate", ["blur", "freeze", "noise"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["ncthw", "ntchw", "nchw"])
def test_clips_that_are_normalised_once_get_the_scores_of_batches_that_are_normalised_by_the_box(
    layout, order, substrate
):
    clip = textured_clip((4, 16, 16))
    spec = BoxSpec(
        name="weighs",
        clip_len=4,
        height=16,
        width=16,
        channel_order=order,
        value_scale=2.0,
        mean=(0.1, 0.4, 0.7),
        std=(0.5, 1.0, 2.0),
        frames="mean" if layout == "nchw" else "clip",
    )
    box = TorchBox(Weighs(), spec, layout=layout)
    masks = Perturb(PerturbConfig(budget=24)).process(clip.info)
    # The second box is foreign: it is asked with frames in [0, 1].
    ours, foreign = (
        ask(scorer(one, substrate=substrate, batch_size=16), clip, masks, [(0, 5), (5, 24)])
        for one in (box, Rewired(box))
    )
    np.testing.assert_allclose(ours, foreign, atol=1e-4)
    assert np.ptp(ours, axis=0).min() > 0.1
