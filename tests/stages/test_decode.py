"""Clips cover the whole source, overlap as asked, end where it ends, and do not depend on the order of requests."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import level, write_video
from pydantic import ValidationError

from stages import video_io
from stages.box import BoxSpec
from stages.decode import Decode, DecodeConfig, DecodeRequest, DecodeResult, clip_starts, estimate_clips
from stages.errors import DecodeError
from stages.records import Clip, VideoSource
from stages.sources import probe

SPEC = BoxSpec(name="box", clip_len=4, frame_step=2, height=16, width=16)  # span 7, default stride 3


def clip_of(result: DecodeResult) -> Clip:
    assert result.clip is not None
    return result.clip


def decode_all(source: VideoSource, spec: BoxSpec = SPEC, **config: object) -> list[DecodeResult]:
    stage = Decode(DecodeConfig.model_validate(config), spec)
    stage.setup()
    results = [stage.process(DecodeRequest(source=source, clip_idx=0))]
    while not results[-1].is_last:
        results.append(stage.process(DecodeRequest(source=source, clip_idx=len(results))))
    assert stage.process(DecodeRequest(source=source, clip_idx=len(results))).clip is None
    stage.close()
    return results


def same(a: Clip, b: Clip) -> bool:
    fields = ("frames", "frame_idx", "pts_s", "is_padded", "content")
    return a.id == b.id and a.covers == b.covers and all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)


@pytest.mark.parametrize("num_frames", [1, 2, 6, 7, 8, 9, 10, 11, 13, 20])
def test_clips_hold_the_planted_frames_and_the_tail_ends_at_the_last_one(num_frames: int, tmp_path: Path) -> None:
    source = probe(str(write_video(tmp_path / "v.mp4", num_frames)))
    results = decode_all(source)
    starts = clip_starts(num_frames, SPEC, DecodeConfig())
    assert [clip_of(result).covers[0] for result in results] == starts
    assert estimate_clips(source, SPEC, DecodeConfig()) == len(results)
    for idx, result in enumerate(results):
        clip = clip_of(result)
        assert clip.id.clip_idx == idx
        assert clip.covers == (starts[idx], min(num_frames, starts[idx] + 7))
        wanted = starts[idx] + 2 * np.arange(4)
        assert clip.frame_idx.tolist() == np.minimum(wanted, num_frames - 1).tolist()
        assert clip.is_padded.tolist() == (wanted >= num_frames).tolist()
        assert np.allclose(clip.pts_s, clip.frame_idx / 10, atol=1e-6)
        for frame, frame_idx in zip(clip.frames, clip.frame_idx, strict=True):
            assert abs(frame.mean() - level(int(frame_idx))) < 1.5
    assert {idx for result in results for idx in range(*clip_of(result).covers)} == set(range(num_frames))


@given(
    num_frames=st.integers(1, 200),
    clip_len=st.integers(1, 9),
    frame_step=st.integers(1, 4),
    stride=st.none() | st.integers(1, 40),
)
def test_clip_starts_never_overrun_and_end_with_the_last_frame(
    num_frames: int, clip_len: int, frame_step: int, stride: int | None
) -> None:
    spec = BoxSpec(name="box", clip_len=clip_len, frame_step=frame_step, height=8, width=8)
    starts = clip_starts(num_frames, spec, DecodeConfig(clip_stride=stride))
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] == max(0, num_frames - spec.clip_span)
    assert all(b - a <= DecodeConfig(clip_stride=stride).stride(spec) for a, b in pairwise(starts))


@pytest.mark.parametrize(("clip_len", "stride"), [(1, None), (4, 1), (4, 5), (4, 11), (1, 6)])
def test_random_order_gives_what_reading_in_order_gives(clip_len: int, stride: int | None, tmp_path: Path) -> None:
    source = probe(str(write_video(tmp_path / "v.mp4", 31, gop=8)))
    spec = SPEC.model_copy(update={"clip_len": clip_len})
    results = decode_all(source, spec, clip_stride=stride)
    assert [clip_of(result).covers[0] for result in results] == clip_starts(31, spec, DecodeConfig(clip_stride=stride))
    order = [*range(len(results))] * 2
    random.Random(0).shuffle(order)
    stage = Decode(DecodeConfig(clip_stride=stride), spec)
    for idx in order:
        again = stage.process(DecodeRequest(source=source, clip_idx=idx))
        assert same(clip_of(again), clip_of(results[idx]))
        assert again.is_last == results[idx].is_last
    assert stage.process(DecodeRequest(source=source, clip_idx=len(results) + 7)).clip is None


def test_every_frame_is_decoded_once_also_when_a_clip_is_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = probe(str(write_video(tmp_path / "v.mp4", 40)))
    converted: list[int] = []
    original = video_io.to_rgb24
    monkeypatch.setattr(video_io, "to_rgb24", lambda *args: converted.append(1) or original(*args))
    stage = Decode(DecodeConfig(), SPEC)
    for idx in range(len(clip_starts(40, SPEC, DecodeConfig()))):
        first = stage.process(DecodeRequest(source=source, clip_idx=idx))
        again = stage.process(DecodeRequest(source=source, clip_idx=idx))
        assert same(clip_of(first), clip_of(again))
    assert again.is_last
    assert len(converted) == 40


def test_several_videos_interleave_within_a_bound_of_open_readers(tmp_path: Path) -> None:
    sources = [probe(str(write_video(tmp_path / f"{i}.mp4", 12 + i))) for i in range(3)]
    expected = [decode_all(source) for source in sources]
    stage = Decode(DecodeConfig(max_open=2), SPEC)
    for idx in range(3):
        for source, results in zip(sources, expected, strict=True):
            clip = clip_of(stage.process(DecodeRequest(source=source, clip_idx=idx)))
            assert same(clip, clip_of(results[idx]))


def test_from_and_to_bound_the_frames(tmp_path: Path) -> None:
    source = probe(str(write_video(tmp_path / "v.mp4", 50)))  # 10 frames per second
    results = decode_all(source, from_s=1.0, to_s=3.5)
    starts = [10 + start for start in clip_starts(25, SPEC, DecodeConfig())]
    assert [clip_of(result).covers for result in results] == [(start, start + 7) for start in starts]
    assert estimate_clips(source, SPEC, DecodeConfig(from_s=1.0, to_s=3.5)) == len(results)
    with pytest.raises(DecodeError, match="no frame between"):
        decode_all(source, from_s=90.0)
    with pytest.raises(ValidationError, match="not after"):
        DecodeConfig(from_s=2.0, to_s=1.0)


def test_a_picture_is_one_clip_repeated_for_a_video_box(shared_data: Path) -> None:
    source = probe(str(shared_data / "images/catdog.png"))
    [still] = decode_all(source, SPEC.model_copy(update={"clip_len": 1}))
    assert clip_of(still).shape == (1, 16, 16)
    assert not clip_of(still).is_padded.any()
    [moving] = decode_all(source)
    clip = clip_of(moving)
    assert (clip.covers, clip.is_padded.tolist()) == ((0, 1), [False, True, True, True])
    assert all(np.array_equal(frame, clip.frames[0]) for frame in clip.frames)


# frames that decode, whatever the container states
ODD = {
    "corrupted.mp4": 28,
    "no_duration_vfr_vp9.webm": 74,
    "one_pixel_1fps.mp4": 5,
    "rotated_90.mov": 3,
    "unordered_pts.mov": 4,
    "h265_10bit.mp4": 30,
    "av1.mkv": 125,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_covered_to_their_true_end(name: str, shared_data: Path) -> None:
    results = decode_all(probe(str(shared_data / "videos/odd" / name)))
    assert clip_of(results[-1]).covers[1] == ODD[name]
    assert [clip_of(result).covers[0] for result in results] == clip_starts(ODD[name], SPEC, DecodeConfig())
    assert bool(results[-1].warnings) == (name == "corrupted.mp4")


def test_folder_of_frames_and_masks_count_alike(shared_data: Path) -> None:
    spec = SPEC.model_copy(update={"resize": "squash"})
    frames, masks = (decode_all(probe(str(shared_data / "masks/tennis" / kind)), spec) for kind in ("frames", "masks"))
    assert [clip_of(a).covers for a in frames] == [clip_of(b).covers for b in masks]
    assert clip_of(masks[0]).frames.max() > 200


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_backends_give_the_same_clips_of_a_real_video(backend: str, shared_data: Path) -> None:
    source = probe(str(shared_data / "videos/bikes.mp4"))
    spec = BoxSpec(name="box", clip_len=8, frame_step=3, height=56, width=56, short_side=64)
    stage, other = Decode(DecodeConfig(backend=backend), spec), Decode(DecodeConfig(), spec)  # type: ignore[arg-type]
    for idx in (12, 13, 5, 6):
        request = DecodeRequest(source=source, clip_idx=idx)
        assert same(clip_of(stage.process(request)), clip_of(other.process(request)))
