"""What the quality benchmark explains: a model's scorer, clips of it, the class to explain, and the truth where known.

The demo model's clips are generated: seeds of the development half may be used to choose settings, those of the
evaluation half only to report; pictures and sequences are halved as well. Seeds from 1,000,000 on trained the model.
Real models and footage come from a data folder with `weights/`, `images/` and `masks/NAME/frames`, `masks/NAME/masks`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from scipy.special import softmax

from stages.content import content_of
from stages.decode import Decode, DecodeConfig, DecodeRequest
from stages.demo.clips import random_clip
from stages.masks import grid_for
from stages.measure import ask
from stages.metrics import cover_of_cells
from stages.models import load_box
from stages.records import Clip, ClipId, Geometry, MaskBatch
from stages.regrid import regrid
from stages.score import Score, ScoreConfig
from stages.sources import find_sources, probe

DEVELOPMENT_SEEDS = range(50_000, 50_060)
EVALUATION_SEEDS = range(60_000, 60_060)
SQUEEZENET = Path(__file__).resolve().parents[1] / "examples" / "boxes" / "squeezenet.py"
Half = Literal["development", "evaluation"]
# Pictures and sequences on which settings may be chosen; all others of the data folder only report.
DEVELOPMENT_PICTURES = ("catdog.png", "dogs.png", "elephant.jpg", "goldfish.jpg")
SEQUENCES: dict[Half, tuple[str, ...]] = {"development": ("tennis",), "evaluation": ("bmx-trees",)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """One clip to explain. `target` is the first answer; `wished` the class of the removal gain: the true class where
    the model is known to be wrong, else the runner-up. `truth`: cover of the target's object on the voxel grid."""

    name: str
    clip: Clip
    score: Score
    target: int
    wished: int
    truth: np.ndarray | None


def demo_subjects(seeds: range, num: int) -> Iterator[Subject]:
    """The first `num` generated clips of a half, with the demo model."""
    score = Score(ScoreConfig(device="cpu"), lambda: load_box("demo"))
    score.setup()
    for seed in seeds[:num]:
        scene = random_clip(seed)
        clip = plain_clip(ClipId(f"demo-{seed}", 0), np.ascontiguousarray(scene.frames.transpose(0, 3, 1, 2)))
        target, second = _two_first(score, clip)
        is_right = target == scene.target_idx
        mask = scene.protagonist if is_right else scene.rival if target == scene.rival_idx else None
        yield Subject(
            name=clip.id.video_id,
            clip=clip,
            score=score,
            target=target,
            wished=second if is_right else scene.target_idx,
            truth=None if mask is None else _cover(mask, clip),
        )


def data_subjects(data: Path, half: Half) -> Iterator[Subject]:
    """SqueezeNet on half of the pictures of a data folder, first and second answer, and frames-mean on a sequence."""
    weights = str(data / "weights" / "squeezenet_v1.0.npz")
    is_wanted = half == "development"
    pictures = [
        uri for uri in find_sources([str(data / "images")]) if (_name(uri) in DEVELOPMENT_PICTURES) == is_wanted
    ]
    for subject in _squeezenet(f"python:{SQUEEZENET}:image", weights, pictures, None):
        yield subject
        yield replace(subject, name=f"{subject.name}-second", target=subject.wished, wished=subject.target)
    for name in SEQUENCES[half]:
        folder = data / "masks" / name
        yield from _squeezenet(f"python:{SQUEEZENET}:frames_mean", weights, [str(folder / "frames")], folder / "masks")


def _squeezenet(model: str, weights: str, uris: list[str], masks: Path | None) -> Iterator[Subject]:
    box = load_box(model, weights=weights)
    score = Score(ScoreConfig(device="cpu", batch_size=8), lambda: box)
    score.setup()
    decode = Decode(DecodeConfig(), box.spec)
    for uri in uris:
        clip = decode.process(DecodeRequest(source=probe(uri), clip_idx=0)).clip
        assert clip is not None
        target, second = _two_first(score, clip)
        yield Subject(
            name=masks.parent.name if masks else _name(uri),
            clip=clip,
            score=score,
            target=target,
            wished=second,
            truth=None if masks is None else _sequence_cover(masks, clip),
        )
    decode.close()


def _name(uri: str) -> str:
    return Path(uri).name


def _sequence_cover(masks: Path, clip: Clip) -> np.ndarray:
    files = sorted(masks.glob("*.png"))
    shown = []
    for idx in clip.frame_idx:
        mask = np.asarray(Image.open(files[int(idx)]).convert("L")) > 127
        geometry = clip.geometry
        y = ((np.arange(geometry.model_h_px) + 0.5) * geometry.scale_y + geometry.offset_y_px).astype(int)
        x = ((np.arange(geometry.model_w_px) + 0.5) * geometry.scale_x + geometry.offset_x_px).astype(int)
        shown.append(mask[np.ix_(y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1))])
    return _cover(np.stack(shown), clip)


def _cover(mask: np.ndarray, clip: Clip) -> np.ndarray:
    gt, gh, gw = grid_for(clip.shape)
    return regrid(cover_of_cells(mask, (gh, gw)), (gt, gh, gw))


def _two_first(score: Score, clip: Clip) -> tuple[int, int]:
    whole = MaskBatch(clip_id=clip.id, round_idx=0, ids=np.arange(1), grids=np.full((1, 1, 1, 1), 255, np.uint8))
    probs = softmax(ask(score, clip, [whole])[0].values[0])
    first, second = np.argsort(-probs)[:2]
    return int(first), int(second)


def plain_clip(clip_id: ClipId, frames: np.ndarray, substrate: str = "blur") -> Clip:
    t, _, h, w = frames.shape
    return Clip(
        id=clip_id,
        frames=frames,
        frame_idx=np.arange(t),
        pts_s=np.arange(t) / 25.0,
        is_padded=np.zeros(t, bool),
        covers=(0, t),
        geometry=Geometry(source_h_px=h, source_w_px=w, model_h_px=h, model_w_px=w, scale_y=1.0, scale_x=1.0),
        content=content_of(frames, substrate),
    )
