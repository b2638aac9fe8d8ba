"""The three example boxes on real film and pictures: the answers that their data's README states."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stages.box import BlackBox, BoxSpec
from stages.errors import ModelError
from stages.models import load_box, read_labels

BOXES = Path(__file__).resolve().parents[2] / "examples" / "boxes"

TOP_1 = {
    "catdog.png": "bull mastiff",
    "goldfish.jpg": "goldfish",
    "dogs.png": "collie",
    "swan.jpg": "goose",
    "zebra.jpg": "zebra",
    "elephant.jpg": "African elephant",
    "siamese.jpg": "Siamese cat",
    "pug.jpeg": "pug",
}


def example(factory: str, weights: Path, **options: str) -> BlackBox:
    return load_box(f"python:{BOXES}/{factory}", weights=str(weights), options=options)


def decode(path: Path) -> Iterator[Tensor]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)


def picture(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def fitted(frame: Tensor, spec: BoxSpec, *, antialias: bool | None = None) -> Tensor:
    """One frame in the geometry of the spec, in 8 bits, as [0, 1]. Independent of stages/fit.py on purpose."""
    height, width = spec.height, spec.width
    if spec.resize == "short_side_crop":
        scale = (spec.short_side or spec.height) / min(frame.shape[1:])
        height, width = round(frame.shape[1] * scale), round(frame.shape[2] * scale)
    smooth = spec.antialias if antialias is None else antialias
    frame = F.interpolate(frame[None].float(), (height, width), mode="bilinear", antialias=smooth)[0]
    top, left = (height - spec.height) // 2, (width - spec.width) // 2
    return frame[:, top : top + spec.height, left : left + spec.width].round().clamp(0, 255) / 255


def probabilities(box: BlackBox, frames: Sequence[Tensor], *, antialias: bool | None = None) -> Tensor:
    return box(torch.stack([fitted(frame, box.spec, antialias=antialias) for frame in frames])[None]).softmax(1)[0]


def windowed(box: BlackBox, frames: Sequence[Tensor]) -> Tensor:
    """P(cut) of every window of 10 frames."""
    windows = torch.stack(list(frames)).unfold(0, 10, 1).permute(0, 4, 1, 2, 3)
    return torch.cat([box(part).softmax(1)[:, 1] for part in windows.split(64)])


@pytest.fixture(scope="module")
def shot_boundary(shared_data: Path) -> BlackBox:
    return example("shot_boundary.py:box", shared_data / "weights" / "shot_boundary_conv3d.npz")


@pytest.mark.parametrize(
    ("film", "found", "stated"),
    [
        ("bikes.mp4", [30, 76, 137, 242], [0.98, 1.00, 1.00, 1.00]),
        ("carving_ice.mp4", [55, 97, 115, 135, 153], [0.84, 1.00, 1.00, 1.00, 1.00]),
    ],
)
def test_shot_boundary_finds_the_stated_cuts_and_no_other(
    shared_data: Path, shot_boundary: BlackBox, film: str, found: list[int], stated: list[float]
) -> None:
    frames = [fitted(frame, shot_boundary.spec) for frame in decode(shared_data / "videos" / film)]
    cuts = F.pad(windowed(shot_boundary, frames), (5, 0))  # by the frame that would be the first of the new shot
    assert (cuts > 0.5).nonzero().flatten().tolist() == found
    assert cuts[found].tolist() == pytest.approx(stated, abs=0.01)
    truth = json.loads((shared_data / "labels" / "shot_cuts.json").read_text())["cuts"][f"videos/{film}"]
    assert set(found) < set(truth)


def test_shot_boundary_is_sharp_in_time_and_survives_another_resize(shared_data: Path, shot_boundary: BlackBox) -> None:
    """The windows that start at 131, 132 and 133 of bikes, around the cut at 137."""
    frames = list(islice(decode(shared_data / "videos" / "bikes.mp4"), 131, 143))
    for antialias, tolerance in ((False, 0.002), (True, 0.01)):
        cuts = windowed(shot_boundary, [fitted(frame, shot_boundary.spec, antialias=antialias) for frame in frames])
        assert cuts.tolist() == pytest.approx([0.001, 1.0, 0.0], abs=tolerance)


@pytest.mark.slow
def test_movinet_gives_the_stated_probabilities_on_cows(shared_data: Path) -> None:
    box = example("movinet_a0_stream.py:box", shared_data / "weights" / "movinet_a0_stream_calf7.npz")
    stated = {
        "active-standing": 0.54,
        "ruminating": 0.12,
        "drinking": 0.12,
        "nonactive-standing": 0.10,
        "feeding": 0.08,
    }
    assert box.spec.frame_step == 5
    frames = list(islice(decode(shared_data / "videos" / "cows.mp4"), 0, 76, 5))
    answer = probabilities(box, frames)
    assert {name: float(answer[box.spec.labels.index(name)]) for name in stated} == pytest.approx(stated, abs=0.02)


def test_movinet_is_causal(shared_data: Path) -> None:
    """Later frames do not change what was computed for earlier ones: the logits after 5 frames are those of the 5."""
    box = example("movinet_a0_stream.py:box", shared_data / "weights" / "movinet_a0_stream_calf7.npz")
    frames = torch.rand(1, 6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layer = box.module.layers[1]
    features = torch.rand(6, 8, 20, 20)
    with torch.inference_mode():
        torch.testing.assert_close(layer(features, 6)[:5], layer(features[:5], 5))
    assert not torch.allclose(box(frames), box(frames.flip(1)), atol=1e-3)


def test_squeezenet_names_the_eight_pictures(shared_data: Path) -> None:
    box = example("squeezenet.py:image", shared_data / "weights" / "squeezenet_v1.0.npz")
    names = {}
    for name in TOP_1:
        answer = probabilities(box, [picture(shared_data / "images" / name)])
        names[name] = box.spec.label(int(answer.argmax()))
        if name == "catdog.png":
            assert float(answer.max()) == pytest.approx(0.84, abs=0.02)
    assert names == TOP_1


def test_squeezenet_over_eight_frames_sees_the_racket(shared_data: Path) -> None:
    labels = shared_data / "labels" / "imagenet_synset_words.txt"
    box = example("squeezenet.py:frames_mean", shared_data / "weights" / "squeezenet_v1.0.npz", labels=str(labels))
    paths = sorted((shared_data / "masks" / "tennis" / "frames").glob("*.png"))
    answer = probabilities(box, [picture(paths[idx]) for idx in np.linspace(0, len(paths) - 1, 8).round().astype(int)])
    assert box.spec.labels == read_labels(labels)
    assert box.spec.label(int(answer.argmax())) == "racket, racquet"
    assert float(answer.max()) == pytest.approx(0.69, abs=0.01)


@pytest.mark.parametrize(
    ("factory", "missing"),
    [
        ("shot_boundary.py:box", "conv0.weight"),
        ("movinet_a0_stream.py:box", "stem.weight"),
        ("squeezenet.py:image", ""),
    ],
)
def test_arrays_of_another_network_are_refused_with_the_key(tmp_path: Path, factory: str, missing: str) -> None:
    np.savez(tmp_path / "other.npz", **{"fc.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(ModelError, match=f"lack '{missing}"):
        example(factory, tmp_path / "other.npz")
