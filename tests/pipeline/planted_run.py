"""Small records with known content for the tests of the run folder."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from pipeline.files import hash_file
from pipeline.sink import SinkSpec, VideoSink
from pipeline.summaries import TargetSummary, VideoSummary
from stages.records import (
    BankSpec,
    ClipId,
    ClipInfo,
    Fidelity,
    FrameMap,
    Geometry,
    MaskBatch,
    SaliencyMap,
    Scores,
    VideoSource,
)
from stages.render import RenderConfig

OUTPUTS = ("z_t", "lse_n", "log_odds")
GEOMETRY = Geometry(source_h_px=48, source_w_px=64, model_h_px=24, model_w_px=32, scale_y=2.0, scale_x=2.0)


def clip_info(video_id: str = "v", clip_idx: int = 0, *, length: int = 4) -> ClipInfo:
    frames = np.arange(clip_idx * length, (clip_idx + 1) * length)
    return ClipInfo(
        id=ClipId(video_id, clip_idx),
        shape=(length, 24, 32),
        frame_idx=frames,
        pts_s=frames / 10.0,
        is_padded=np.zeros(length, bool),
        covers=(clip_idx * length, (clip_idx + 1) * length),
        geometry=GEOMETRY,
        nbytes=length * 3 * 24 * 32,
    )


def bank_round(info: ClipInfo, *, num_masks: int = 6, num_classes: int = 5) -> tuple[MaskBatch, Scores]:
    ids = np.arange(num_masks)
    bank = BankSpec(grid=(2, 3, 4), size=num_masks, seed=7)
    values = np.random.default_rng(info.id.clip_idx).normal(size=(num_masks, num_classes)).astype(np.float32)
    return (
        MaskBatch(clip_id=info.id, round_idx=0, ids=ids, bank=bank),
        Scores(clip_id=info.id, round_idx=0, ids=ids, values=values),
    )


def grid_round(info: ClipInfo, round_idx: int = 1, *, num_classes: int = 5) -> tuple[MaskBatch, Scores]:
    rng = np.random.default_rng(round_idx)
    ids = np.arange(6, 9)
    grids = rng.integers(0, 256, (3, 2, 3, 4), dtype=np.uint8)
    values = rng.normal(size=(3, num_classes)).astype(np.float32)
    return (
        MaskBatch(clip_id=info.id, round_idx=round_idx, ids=ids, grids=grids),
        Scores(clip_id=info.id, round_idx=round_idx, ids=ids, values=values),
    )


def saliency(info: ClipInfo, *, target_idx: int = 1, is_reliable: bool = True, value: float = 0.01) -> SaliencyMap:
    """For the target in the upper left, for others in the lower right; every variance tiny."""
    mean = np.zeros((3, 4, 6, 8), np.float32)
    mean[0, :, :3, :4] = value
    mean[0, :, 3:, :4] = -value / 2
    mean[1, :, 3:, 4:] = value
    mean[2] = mean[0] - mean[1]
    fidelity = Fidelity(q2=0.8, coverage=0.9, is_reliable=is_reliable)
    return SaliencyMap(
        clip_id=info.id,
        target_idx=target_idx,
        method="gp",
        outputs=OUTPUTS,
        mean=mean,
        var=np.full_like(mean, (value / 10) ** 2),
        fidelity=dict.fromkeys(OUTPUTS, fidelity),
        reference=np.array([0.0, 2.0, 1.0, 0.0, 0.0], np.float32),
        replaced=np.zeros(5, np.float32),
        num_evaluations=64,
        stop_reason="budget",
    )


def frame_map(frame_idx: int, *, video_id: str = "v", value: float = 0.01, is_reliable: bool = True) -> FrameMap:
    clip = saliency(clip_info(video_id), value=value)
    return FrameMap(
        video_id=video_id,
        target_idx=1,
        frame_idx=frame_idx,
        outputs=OUTPUTS,
        mean=clip.mean[:, 0] * (1 + frame_idx),
        var=clip.var[:, 0],
        is_seen=True,
        is_reliable=is_reliable,
    )


def source(video_id: str = "v", **changes: object) -> VideoSource:
    known = {"uri": f"/media/{video_id}.mp4", "kind": "video", "sha256": "ab" * 32, "height": 48, "width": 64}
    return VideoSource(**{"id": video_id, **known, "fps": 10.0, "num_frames": 8, **changes})  # type: ignore[arg-type]  # planted


def target_summary(**changes: object) -> TargetSummary:
    known = TargetSummary(
        target_idx=1,
        target="cat",
        prob=0.81,
        top1_idx=1,
        top1="cat",
        share_for=0.6,
        share_f_tc=0.1,
        share_f_ntc=0.3,
        q2=0.75,
        coverage=0.9,
        num_clips=2,
        num_reliable_clips=2,
        num_regions=1,
        evaluations=128,
        method="gp",
        stop_reasons={"budget": 2},
        product="films/v.cat-1.mp4",
        maps="maps/v.cat-1.zarr",
    )
    return replace(known, **changes)  # type: ignore[arg-type]  # tests name real fields


def summary(video_id: str = "v", **changes: object) -> VideoSummary:
    known = VideoSummary(
        video_id=video_id,
        uri=f"/media/{video_id}.mp4",
        kind="video",
        num_frames=8,
        num_clips=2,
        duration_s=0.8,
        targets=(target_summary(),),
        outputs={f"films/{video_id}.mp4": "ff"},
    )
    return replace(known, **changes)  # type: ignore[arg-type]  # tests name real fields


def write_video(path: Path, *, num_frames: int = 12, height: int = 48, width: int = 64) -> Path:
    """A real, tiny H.264 file at 10 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for idx in range(num_frames):
            picture = np.full((height, width, 3), 40 + 10 * idx, np.uint8)
            picture[idx : idx + 12, idx : idx + 16] = (220, 120, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def sink_spec(
    run: Path, video: Path, *, video_id: str = "v", targets: tuple[int, ...] = (1,), **render: object
) -> SinkSpec:
    return SinkSpec(
        run=str(run),
        source=source(video_id, uri=str(video), num_frames=12, sha256=hash_file(video)),
        targets=targets,
        labels=("dog", "cat", "<b>bird</b>", "fish", "newt"),
        model="planted",
        render=RenderConfig(**render),  # type: ignore[arg-type]  # tests name real settings
    )


def run_sink(spec: SinkSpec, *, num_clips: int = 3, is_reliable: bool = True, has_answers: bool = True) -> VideoSummary:
    """Three clips of four frames through a sink; a removed region halves the logit of the target."""
    sink = VideoSink(spec)
    for clip_idx in range(num_clips):
        info = clip_info(spec.source.id, clip_idx)
        sink.add(info, [saliency(info, target_idx=t, is_reliable=is_reliable) for t in spec.targets], seconds=0.5)
    questions = sink.finish(num_clips * 4)
    return sink.close([answer(question) for question in questions] if has_answers else ())


def answer(question: MaskBatch) -> Scores:
    values = np.zeros((len(question), 5), np.float32)
    values[:, 1] = [2.0, *[-1.0] * (len(question) - 1)]
    return Scores(clip_id=question.clip_id, round_idx=question.round_idx, ids=question.ids, values=values)
