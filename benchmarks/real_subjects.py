"""Real models and footage to explain, from a data folder with `weights`, `images`, `videos`, `labels` and `masks`.

SqueezeNet on still pictures (first and second answer) and, its logits averaged over frames, on sequences; a detector of
shot boundaries where it sees a true cut; MoViNet on cattle. Pictures and sequences are halved: on those of the
development half settings may be chosen, the others only report. Cuts are not: the grid's default was chosen in view of
them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.subjects import Half, Subject, cover_on_grid
from stages.box import BlackBox
from stages.decode import Decode, DecodeConfig, DecodeRequest
from stages.masks import grid_for
from stages.measure import two_first
from stages.models import load_box
from stages.records import Clip
from stages.score import Score, ScoreConfig
from stages.sources import find_sources, probe

BOXES = Path(__file__).resolve().parents[1] / "examples" / "boxes"
SQUEEZENET, SHOT_BOUNDARY, MOVINET = (
    BOXES / f"{name}.py" for name in ("squeezenet", "shot_boundary", "movinet_a0_stream")
)
DEVELOPMENT_PICTURES = ("catdog.png", "dogs.png", "elephant.jpg", "goldfish.jpg")
# Folders of frames with masks of their object, and films without.
SEQUENCES: dict[Half, tuple[str, ...]] = {
    "development": ("masks/tennis/frames",),
    "evaluation": ("masks/bmx-trees/frames", "videos/cows.mp4", "videos/soccer_juggle.mp4"),
}
FRAMES, FRAME_STEP = 4, 8  # of a sequence: a clip is scored picture by picture
CUT, CUT_AT = 1, 5  # the answer "cut" of a window says that its frame 5 is the first of a new shot


def pictures(data: Path, half: Half) -> Iterator[Subject]:
    """SqueezeNet on the pictures of a half, each with its first and its second answer."""
    box = _squeezenet(data, "image")
    score = _score(box, 8)
    for uri in find_sources([str(data / "images")]):
        if (Path(uri).name in DEVELOPMENT_PICTURES) == (half == "development"):
            (clip,) = _clips(box, uri, [0])
            first = _subject(Path(uri).name, clip, score)
            yield first
            yield replace(first, name=f"{first.name}-second", target=first.wished, wished=first.target)


def sequences(data: Path, half: Half) -> Iterator[Subject]:
    """The same network on the first clips of sequences, the logits averaged over frames."""
    box = _squeezenet(data, "frames_mean", frames=str(FRAMES), frame_step=str(FRAME_STEP))
    score = _score(box, 8)
    for path in SEQUENCES[half]:
        (clip,) = _clips(box, str(data / path), [0])
        masks = (data / path).with_name("masks")
        name = masks.parent.name if masks.exists() else Path(path).stem
        yield _subject(name, clip, score, truth=_sequence_cover(masks, clip) if masks.exists() else None)


def cuts(data: Path, substrate: str = "freeze") -> Iterator[Subject]:
    """Windows of ten frames that hold a true cut which the detector sees. The truth is
    the last frame of the old shot and the first of the new one.
    """
    box = load_box(f"python:{SHOT_BOUNDARY}:box", weights=str(data / "weights" / "shot_boundary_conv3d.npz"))
    score = _score(box, 64, substrate)
    known: dict[str, list[int]] = json.loads((data / "labels" / "shot_cuts.json").read_text())["cuts"]
    for film, frames in known.items():
        seen = [frame for frame in frames if frame >= CUT_AT]
        starts = [frame - CUT_AT for frame in seen]
        for frame, clip in zip(seen, _clips(box, str(data / film), starts, clip_stride=1), strict=True):
            if two_first(score, clip)[0] == CUT:
                inside = np.zeros(clip.shape, bool)
                inside[CUT_AT - 1 : CUT_AT + 1] = True
                yield _subject(
                    f"{Path(film).stem}-{frame}", clip, score, truth=cover_on_grid(inside, grid_for(clip.shape))
                )


def calves(data: Path) -> Iterator[Subject]:
    """MoViNet, trained on calves in a pen, on the one film of cattle."""
    box = load_box(f"python:{MOVINET}:box", weights=str(data / "weights" / "movinet_a0_stream_calf7.npz"))
    (clip,) = _clips(box, str(data / "videos" / "cows.mp4"), [0])
    yield _subject("cows-movinet", clip, _score(box, 8))


def _squeezenet(data: Path, kind: str, **settings: str) -> BlackBox:
    return load_box(
        f"python:{SQUEEZENET}:{kind}", weights=str(data / "weights" / "squeezenet_v1.0.npz"), options=settings
    )


def _score(box: BlackBox, batch_size: int, substrate: str = "blur") -> Score:
    config = ScoreConfig.model_validate({"device": "cpu", "batch_size": batch_size, "substrate": substrate})
    score = Score(config, lambda: box)
    score.setup()
    return score


def _clips(box: BlackBox, uri: str, indices: Sequence[int], clip_stride: int | None = None) -> list[Clip]:
    decode = Decode(DecodeConfig(clip_stride=clip_stride), box.spec)
    source = probe(uri)
    found = [decode.process(DecodeRequest(source=source, clip_idx=idx)).clip for idx in indices]
    decode.close()
    return [clip for clip in found if clip is not None]


def _subject(name: str, clip: Clip, score: Score, truth: np.ndarray | None = None) -> Subject:
    target, second = two_first(score, clip)
    return Subject(name=name, clip=clip, score=score, target=target, wished=second, truth=truth)


def _sequence_cover(masks: Path, clip: Clip) -> np.ndarray:
    files = sorted(masks.glob("*.png"))
    shown = []
    for idx in clip.frame_idx:
        mask = np.asarray(Image.open(files[int(idx)]).convert("L")) > 127
        geometry = clip.geometry
        y = ((np.arange(geometry.model_h_px) + 0.5) * geometry.scale_y + geometry.offset_y_px).astype(int)
        x = ((np.arange(geometry.model_w_px) + 0.5) * geometry.scale_x + geometry.offset_x_px).astype(int)
        shown.append(mask[np.ix_(y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1))])
    return cover_on_grid(np.stack(shown), grid_for(clip.shape))
