"""Trained models that were made elsewhere, on footage that was made elsewhere: the maps point where the truth lies."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.special import softmax

from pipeline.demo import cells_of
from pipeline.manifest import RunFolder
from pipeline.results import read_explanations
from stages.aggregate import frame_slices
from stages.decode import Decode, DecodeConfig, DecodeRequest
from stages.evidence import decompose_arrays
from stages.metrics import energy_in_mask
from stages.models import load_box
from stages.perturb import Perturb, PerturbConfig
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.score import Score, ScoreConfig
from stages.single import score_clip
from stages.sources import probe

pytestmark = pytest.mark.slow

BOXES = Path(__file__).resolve().parents[2] / "examples" / "boxes"
CUT = 1
CUT_AT = 5  # "cut" of the window that starts at frame i means: frame i + 5 is the first of a new shot


def run(*arguments: object, exit_code: int = 0) -> None:
    from pipeline.cli import main

    argv, sys.argv = sys.argv, ["heatreel", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == exit_code
    finally:
        sys.argv = argv


def test_the_cut_is_found_in_time(shared_data):
    """In the windows that the model calls a cut at the true place, frames 4 and 5 carry the most net support."""
    box = load_box(
        f"python:{BOXES}/shot_boundary.py:box", weights=str(shared_data / "weights/shot_boundary_conv3d.npz")
    )
    score = Score(ScoreConfig(substrate="freeze", device="cpu", batch_size=64), lambda: box)
    score.setup()
    perturb, refine = Perturb(PerturbConfig(budget=128)), Refine(RefineConfig())
    windows, hits = 0, 0
    for video, cuts in json.loads((shared_data / "labels/shot_cuts.json").read_text())["cuts"].items():
        decode = Decode(DecodeConfig(clip_stride=1), box.spec)
        source = probe(str(shared_data / video))
        for cut in cuts:
            clip = decode.process(DecodeRequest(source=source, clip_idx=cut - CUT_AT)).clip if cut >= CUT_AT else None
            if clip is None:
                continue
            evidence = score_clip(clip, perturb, score)
            if softmax(evidence.scores[0].values[0])[CUT] < 0.5:
                continue  # the model misses this cut
            windows += 1
            saliency = refine.process(RefineRequest(evidence=evidence, targets=(CUT,))).maps[0]
            net = saliency.outputs.index("log_odds")
            support = np.array([mean[net].mean() for _, mean, _ in frame_slices(clip.info, saliency)])
            hits += set(np.argsort(-support)[:2].tolist()) == {CUT_AT - 1, CUT_AT}
        decode.close()
    assert windows == 13
    assert hits >= 12


def test_the_racket_is_explained_by_the_player(shared_data, tmp_path):
    """Support for "racket" inside the player's mask: at least 2.5 times the mask's share of the picture."""
    frames = shared_data / "masks/tennis/frames"
    run(
        "explain", frames, "--model", f"python:{BOXES}/squeezenet.py:frames_mean",
        "--weights", shared_data / "weights/squeezenet_v1.0.npz", "--target", "racket", "--budget", 256,
        "--out", tmp_path / "run", "--engine", "local", "--quiet",
    )  # fmt: skip
    (found,) = read_explanations(tmp_path / "run")
    masks = np.stack(
        [np.asarray(Image.open(shared_data / f"masks/tennis/masks/{i:05d}.png")) > 127 for i in range(len(found.pts_s))]
    )
    support = decompose_arrays(found.outputs, found.mean, found.var)["support"]
    assert energy_in_mask(support, cells_of(masks, found)).ratio >= 2.5


def test_the_dog_speaks_for_another_class_than_the_cat(shared_data, tmp_path):
    """catdog.png, target "tiger cat": support on the cat (lower half), F-NTC on the dog's face (upper half)."""
    run(
        "explain", shared_data / "images/catdog.png", "--model", f"python:{BOXES}/squeezenet.py:image",
        "--weights", shared_data / "weights/squeezenet_v1.0.npz", "--target", "tiger cat", "--budget", 256,
        "--out", tmp_path / "run", "--engine", "local", "--quiet",
    )  # fmt: skip
    (found,) = read_explanations(tmp_path / "run")
    maps = decompose_arrays(found.outputs, found.mean, found.var)
    lower = {kind: maps[kind][0, 14:].sum() / maps[kind][0].sum() for kind in ("support", "f_ntc")}
    assert lower["support"] > 0.6
    assert lower["f_ntc"] < 0.4
    dog_face = (slice(1, 12), slice(9, 18))
    peak = np.unravel_index(maps["f_ntc"][0].argmax(), maps["f_ntc"][0].shape)
    assert dog_face[0].start <= peak[0] < dog_face[0].stop
    assert dog_face[1].start <= peak[1] < dog_face[1].stop
    assert found.is_significant


@pytest.mark.parametrize("prior", ["none", "captum:LayerGradCam", "captum:GuidedGradCam", "captum:LRP"])
def test_captum_priors_on_a_real_network_are_used_or_refused_and_written_down(shared_data, tmp_path, prior):
    """catdog.png, "tiger cat", 48 evaluations: most of the net evidence for the cat lies in the lower half."""
    run(
        "explain", shared_data / "images/catdog.png", "--model", f"python:{BOXES}/squeezenet.py:image",
        "--weights", shared_data / "weights/squeezenet_v1.0.npz", "--target", "tiger cat", "--budget", 48,
        "--prior", prior, "--out", tmp_path / "run", "--engine", "local", "--quiet",
    )  # fmt: skip
    (found,) = read_explanations(tmp_path / "run")
    (row,) = pq.read_table(tmp_path / "run/clips.parquet").to_pylist()
    assert row["evaluations"] == 48
    assert (row["prior_weight"] is None) == (prior == "none")
    if prior == "captum:LayerGradCam":
        assert row["is_prior_refused"] is False
    assert lower_share(found, "support") > 0.5


def lower_share(found, kind):
    """The share of a picture's evidence that lies in its lower half."""
    values = decompose_arrays(found.outputs, found.mean, found.var)[kind][0]
    return float(values[14:].sum() / values.sum())


def test_a_damaged_film_is_explained_as_far_as_it_goes_and_recorded(shared_data, tmp_path):
    """corrupted.mp4 breaks off after 28 of 50 frames: those are explained, and a failure says what is missing."""
    odd = shared_data / "videos/odd"
    run(
        "explain", odd / "corrupted.mp4", odd / "rotated_0.mov", "--model", f"python:{BOXES}/shot_boundary.py:box",
        "--weights", shared_data / "weights/shot_boundary_conv3d.npz", "--target", "cut", "--budget", 16,
        "--out", tmp_path / "run", "--engine", "local", "--quiet", exit_code=3,
    )  # fmt: skip
    (failure,) = RunFolder.open(tmp_path / "run").failures()
    assert failure.video_id == "corrupted"
    assert failure.stage == "decode"
    assert "reading stops" in failure.reason
    frames = {found.source.id: len(found.pts_s) for found in read_explanations(tmp_path / "run")}
    assert frames == {"corrupted": 28, "rotated_0": 3}
