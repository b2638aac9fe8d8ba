"""The demo's scene, classifier and shipped clip: what the rest of the project leans on as known truth."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from stages.demo.backdrop import Backdrop
from stages.demo.clips import (
    DEMO_FPS,
    DEMO_VIDEO,
    FOOLED_S,
    PROTAGONIST,
    RIVAL,
    RIVAL_STAY_S,
    demo_clip,
    demo_truth,
    random_clip,
)
from stages.demo.make_clip import write_demo_clip
from stages.demo.network import DEMO_SPEC, LABELS, MOTIONS, SHAPES, WEIGHTS, load_demo_box, load_demo_net
from stages.demo.scene import SceneObject, SceneSpec, render_scene
from stages.demo.train import TrainConfig, accuracy, normalise, soft_labels, train
from stages.errors import ModelError

GREY = Backdrop(kind="clouds", palette=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), grain=0.0, drift=(0.0, 0.0))


def one_object(shape: str, motion: str, **changes: object) -> SceneSpec:
    thing = SceneObject(
        shape=shape, motion=motion, y=0.5, x=0.6, radius=0.16, colour=(1, 0, 0), accent=(1, 0.1, 0), period_s=1.28
    )
    thing = replace(thing, **changes)
    return SceneSpec(height=72, width=96, num_frames=16, fps=12.5, backdrop=GREY, objects=(thing,), light=0.0)


@pytest.fixture(scope="module")
def shipped() -> np.ndarray:
    with av.open(str(DEMO_VIDEO)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def shipped_probabilities(shipped: np.ndarray) -> np.ndarray:
    """Per start (every 5th frame): probabilities of all classes for the window of the shipped file."""
    frames = torch.from_numpy(shipped).permute(0, 3, 1, 2).float() / 255
    size = (DEMO_SPEC.height, DEMO_SPEC.width)
    small = torch.nn.functional.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)
    windows = [
        small[start : start + DEMO_SPEC.clip_span : DEMO_SPEC.frame_step].transpose(0, 1)
        for start in range(0, len(small) - DEMO_SPEC.clip_span + 1, 5)
    ]
    with torch.inference_mode():
        return load_demo_net()(normalise(torch.stack(windows))).softmax(1).numpy()


def test_same_seed_gives_the_same_clip_and_another_seed_another() -> None:
    first, again, other = random_clip(5), random_clip(5), random_clip(6)
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.protagonist, again.protagonist)
    assert first.target_idx == again.target_idx
    assert not np.array_equal(first.frames, other.frames)


@pytest.mark.parametrize("shape", SHAPES)
def test_mask_is_where_the_object_is_painted(shape: str) -> None:
    spec = one_object(shape, "sliding")
    scene, empty = render_scene(spec), render_scene(replace(spec, objects=()))
    is_painted = (scene.frames.astype(int) - empty.frames).max(axis=3) > 20  # shadows only darken
    union, common = (is_painted | scene.masks[0]).sum(), (is_painted & scene.masks[0]).sum()
    assert common / union > 0.9
    # All shapes of one radius cover about the same area, or the larger radius would not mean the dominant object.
    assert 0.75 < scene.masks.mean() * 96 / 72 / (np.pi * 0.15**2) < 1.25


@pytest.mark.parametrize("motion", MOTIONS)
def test_motion_is_what_its_name_says(motion: str) -> None:
    masks = render_scene(one_object("square", motion, angle=0.3)).masks[0]
    ys, xs = np.mgrid[0:72, 0:96]
    area = masks.sum((1, 2))
    path_y, path_x = (masks * ys).sum((1, 2)) / area, (masks * xs).sum((1, 2)) / area
    assert (np.ptp(path_x) > 10) == (motion == "sliding")
    assert (np.ptp(path_y) > 10) == (motion == "bobbing")
    assert (area.max() / area.min() > 1.5) == (motion == "pulsing")
    overlap = (masks[0] & masks[2]).sum() / (masks[0] | masks[2]).sum()
    assert overlap < 0.99


def test_the_object_in_front_hides_the_one_behind() -> None:
    spec = one_object("disc", "spinning")
    front = replace(spec.objects[0], shape="square", radius=0.08)
    scene = render_scene(replace(spec, objects=(*spec.objects, front)))
    assert not (scene.masks[0] & scene.masks[1]).any()
    assert not scene.masks[0][:, 36, 43].any()
    assert scene.masks[1][:, 36, 43].all()


def test_a_scene_of_any_size_shows_the_same_picture() -> None:
    spec = one_object("star", "spinning")
    small = render_scene(spec).masks.mean()
    large = render_scene(replace(spec, height=216, width=288)).masks.mean()
    assert small == pytest.approx(large, rel=0.03)


def test_weights_are_small_and_spec_names_every_class() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000
    assert DEMO_SPEC.labels == LABELS
    assert len(set(LABELS)) == len(SHAPES) * len(MOTIONS)
    assert {PROTAGONIST, RIVAL} <= set(LABELS)


def test_missing_or_foreign_weights_are_named(tmp_path) -> None:
    (tmp_path / "text.safetensors").write_text("not weights")
    for name in ("none.safetensors", "text.safetensors"):
        with pytest.raises(ModelError, match=name):
            load_demo_net(tmp_path / name)


def test_the_box_answers_as_the_network() -> None:
    clip = torch.from_numpy(random_clip(1).frames).permute(0, 3, 1, 2)[None].float() / 255
    box = load_demo_box()
    with torch.inference_mode():
        expected = load_demo_net()(normalise(clip.transpose(1, 2)))
        torch.testing.assert_close(box(clip), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("has_rival", "bar"), [(False, 0.9), (True, 0.8)])
def test_the_network_names_the_protagonist_of_fresh_clips(has_rival: bool, bar: float) -> None:
    assert accuracy(load_demo_net(), range(60), has_rival=has_rival) >= bar


def test_shipped_file_is_the_scene_of_the_generator(shipped: np.ndarray) -> None:
    assert DEMO_VIDEO.stat().st_size < 600_000
    spec = demo_clip()
    assert shipped.shape == (spec.num_frames, spec.height, spec.width, 3)
    for start in (0, 125, 249):  # three moments of the spec, without rendering all of it
        moment = render_scene(replace(spec, num_frames=1, start_s=start / spec.fps)).frames[0]
        error = np.mean(np.square(moment.astype(float) - shipped[start]))
        assert 10 * np.log10(255**2 / error) > 30


def test_shipped_file_has_a_quiet_sound_track_as_long_as_the_picture() -> None:
    with av.open(str(DEMO_VIDEO)) as container:
        sound = np.concatenate([block.to_ndarray() for block in container.decode(audio=0)], axis=1)
        rate = container.streams.audio[0].rate
    assert sound.shape[1] / rate == pytest.approx(10, abs=0.1)
    assert 0.02 < np.abs(sound).max() < 0.3


def test_the_model_is_right_before_and_after_and_fooled_while_the_rival_is_there(
    shipped_probabilities: np.ndarray,
) -> None:
    target, rival = LABELS.index(PROTAGONIST), LABELS.index(RIVAL)
    starts_s = 5 * np.arange(len(shipped_probabilities)) / DEMO_FPS
    stops_s = starts_s + DEMO_SPEC.clip_span / DEMO_FPS
    is_alone = (stops_s < RIVAL_STAY_S[0]) | (starts_s > RIVAL_STAY_S[1])
    top1 = shipped_probabilities.argmax(1)
    assert (top1[is_alone] == target).mean() >= 0.9
    is_fooled = (starts_s >= FOOLED_S[0]) & (stops_s <= FOOLED_S[1])
    assert is_fooled.sum() >= 3
    assert (top1[is_fooled] == rival).mean() >= 0.8


def test_the_protagonist_stays_the_larger_object() -> None:
    spec = demo_clip()
    small = render_scene(replace(spec, height=72, width=96))
    protagonist, rival = small.masks.mean((2, 3))
    assert (protagonist > 0.04).all()
    start, stop = RIVAL_STAY_S
    there = slice(round(start * spec.fps), round(stop * spec.fps))
    assert 0 < rival[there].mean() < protagonist[there].mean()
    assert not rival[: round(start * spec.fps)].any()


def test_labels_soften_with_what_is_hidden() -> None:
    coverage = torch.zeros(1, 2, 1, 2, 2)
    coverage[0, 0, 0, 0], coverage[0, 1, 0, 1, 0] = 1, 1  # protagonist two cells, rival one
    classes = torch.tensor([[3, 7]])
    whole = soft_labels(coverage, coverage, classes)[0]
    hidden = soft_labels(coverage * torch.tensor([0.0, 1.0])[None, :, None, None, None], coverage, classes)[0]
    nothing = soft_labels(0 * coverage, coverage, classes)[0]
    assert whole[3] > 0.8 > 0.2 > whole[7]
    assert hidden[7] > hidden[3]
    assert nothing.max() == pytest.approx(1 / len(LABELS))
    assert float(whole.sum()) == pytest.approx(1)


def test_training_is_a_function_of_its_seed() -> None:
    config = TrainConfig(steps=2, batch_size=3, first_clips=3, fresh_per_step=1, buffer_size=3)
    first, again = (train(config, is_quiet=True).state_dict() for _ in range(2))
    other = train(replace(config, seed=1), is_quiet=True).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.slow
def test_make_clip_writes_the_shipped_pictures(tmp_path, shipped: np.ndarray) -> None:
    write_demo_clip(tmp_path / "again.mp4")
    with av.open(str(tmp_path / "again.mp4")) as container:
        again = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.abs(again.astype(int) - shipped).mean() < 2
    truth = demo_truth()
    assert truth.protagonist.shape == truth.rival.shape == shipped.shape[:3]
