"""A sink fed with maps leaves films, stores and rows that say what the maps say, and the same ones when fed again."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from PIL import Image
from planted_run import OUTPUTS, answer, clip_info, run_sink, saliency, sink_spec, write_video

from pipeline.artifacts import merge_tables, part_path
from pipeline.files import hash_file
from pipeline.sink import SinkSpec, VideoSink
from stages import film
from stages.screen import Screen
from stages.video_io import Frame


@pytest.fixture
def spec(tmp_path: Path) -> SinkSpec:
    return sink_spec(tmp_path / "run", write_video(tmp_path / "v.mp4"))


def rows(spec: SinkSpec, table: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(part_path(Path(spec.run), table, spec.source.id)).to_pylist()  # type: ignore[arg-type]  # a table's name
    return found


def test_rows_of_frames_are_means_in_log_odds_per_one_per_cent(spec: SinkSpec) -> None:
    run_sink(spec)
    frames = rows(spec, "frames")
    assert [row["frame_idx"] for row in frames] == list(range(12))
    assert [row["pts_s"] for row in frames] == pytest.approx([idx / 10 for idx in range(12)])
    # A quarter of the 6 x 8 cells holds .01 for, a quarter half as much F-TC, a quarter .01 F-NTC; 192 voxels a clip.
    assert frames[5]["for"] == pytest.approx(0.01 / 4 * 1.92, rel=1e-4)
    assert frames[5]["f_tc"] == pytest.approx(0.005 / 4 * 1.92, rel=1e-4)
    assert frames[5]["f_ntc"] == pytest.approx(0.01 / 4 * 1.92, rel=1e-4)
    assert frames[5]["net"] == pytest.approx(-0.005 / 4 * 1.92, rel=1e-4)
    assert frames[5]["uncertainty"] == pytest.approx(0.001 * 1.92, rel=1e-4)
    assert (frames[5]["is_seen"], frames[5]["is_reliable"]) == (True, True)
    assert 0 < frames[5]["peak_y_px"] < 24  # type: ignore[operator]  # a number: the peak of |net| is in the upper left


def test_rows_of_clips_are_totals_in_units_of_the_score(spec: SinkSpec) -> None:
    run_sink(spec)
    clip = rows(spec, "clips")[1]
    assert (clip["clip_idx"], clip["frame_start"], clip["frame_stop"]) == (1, 4, 8)
    assert clip["for"] == pytest.approx(4 * 12 * 0.01, rel=1e-4)
    assert clip["f_tc"] == pytest.approx(4 * 12 * 0.005, rel=1e-4)
    # softmax of (0, 2, 1, 0, 0) and of five zeros
    assert clip["prob"] == pytest.approx(np.exp(2) / (np.exp(2) + np.exp(1) + 3))
    assert clip["prob_replaced"] == pytest.approx(0.2)
    assert clip["log_odds"] == pytest.approx(2 - np.log(np.exp(1) + 3))
    assert (clip["top1"], clip["target"], clip["evaluations"], clip["seconds"]) == ("cat", "cat", 64, 0.5)


def test_regions_carry_what_happened_when_they_were_removed(spec: SinkSpec) -> None:
    summary = run_sink(spec)
    regions = rows(spec, "regions")
    assert {row["kind"] for row in regions} == {"support", "f_tc", "f_ntc"}
    support = next(row for row in regions if row["kind"] == "support")
    assert (support["frame_start"], support["frame_stop"]) == (0, 12)
    assert support["boxes"][0] == [0.0, 0.0, 24.0, 32.0]  # type: ignore[index]  # a list: the upper left quarter, in source pixels
    assert support["prob_before"] == pytest.approx(np.exp(2) / (np.exp(2) + 4))
    assert support["prob_after"] == pytest.approx(np.exp(-1) / (np.exp(-1) + 4))
    assert (support["top1_before"], support["top1_after"]) == ("cat", "dog")
    assert summary.targets[0].num_regions == len(regions)


def test_questions_keep_everything_first_and_then_remove_one_region_each(spec: SinkSpec) -> None:
    sink = VideoSink(spec)
    for clip_idx in range(3):
        info = clip_info("v", clip_idx)
        sink.add(info, [saliency(info)])
    (question,) = sink.finish(12)
    assert question.grids is not None
    assert question.grids.shape == (4, 4, 6, 8)
    assert (question.grids[0] == 255).all()
    removed = question.grids[1:] == 0
    assert sorted(removed.mean(axis=(1, 2, 3))) == [0.25, 0.25, 0.25]
    assert not (removed[0] & removed[1]).any()
    sink.close([answer(question)])


def test_without_an_answer_a_region_stays_unverified(spec: SinkSpec) -> None:
    run_sink(spec, has_answers=False)
    assert all(row["prob_before"] is None and row["top1_after"] is None for row in rows(spec, "regions"))


def test_the_film_has_a_picture_for_every_frame(spec: SinkSpec) -> None:
    summary = run_sink(spec)
    path = Path(spec.run) / summary.targets[0].product
    assert path.name == "v.cat-1.mp4"
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 12


def test_the_store_holds_the_stitched_maps(spec: SinkSpec) -> None:
    summary = run_sink(spec)
    group = zarr.open_group(Path(spec.run) / summary.targets[0].maps, mode="r")
    assert group["mean"].shape == (3, 12, 6, 8)
    np.testing.assert_allclose(group["mean"][:, 7], saliency(clip_info("v", 1)).mean[:, 3], atol=1e-7)
    assert group.attrs["outputs"] == list(OUTPUTS)
    assert group.attrs["is_complete"] is True


def test_the_summary_counts_and_shares(spec: SinkSpec) -> None:
    summary = run_sink(spec)
    (target,) = summary.targets
    assert (summary.num_frames, summary.num_clips) == (12, 3)
    assert summary.duration_s == pytest.approx(1.2)
    assert (target.share_for, target.share_f_tc, target.share_f_ntc) == pytest.approx((0.4, 0.2, 0.4), rel=1e-4)
    assert (target.evaluations, target.num_reliable_clips, target.stop_reasons) == (192, 3, {"budget": 3})
    assert set(summary.outputs) == {target.product, target.maps}


def test_without_a_signal_nothing_counts_as_a_region(spec: SinkSpec) -> None:
    summary = run_sink(spec, is_reliable=False)
    assert not summary.is_reliable
    assert rows(spec, "regions") == []


def test_two_targets_share_the_questions_of_a_clip(tmp_path: Path) -> None:
    spec = sink_spec(tmp_path / "run", write_video(tmp_path / "v.mp4"), targets=(1, 2))
    summary = run_sink(spec)
    assert [target.target for target in summary.targets] == ["cat", "<b>bird</b>"]
    assert len({target.product for target in summary.targets}) == 2
    assert len(rows(spec, "frames")) == 24


def test_fed_again_after_a_crash_it_leaves_the_same_files(spec: SinkSpec) -> None:
    first = run_sink(spec)
    table = hash_file(part_path(Path(spec.run), "frames", "v"))
    crashed = VideoSink(spec)
    info = clip_info("v", 0)
    crashed.add(info, [saliency(info)])
    crashed.abort()
    again = run_sink(spec)
    maps, product = again.targets[0].maps, again.targets[0].product
    assert again.outputs[maps] == first.outputs[maps]
    assert again.outputs[product] == first.outputs[product]
    assert hash_file(part_path(Path(spec.run), "frames", "v")) == table
    assert merge_tables(Path(spec.run), ["v"])["frames"] == 12


def die(sink: VideoSink) -> None:
    """What the end of its process does to a sink: its files stay as they are, its lock is gone."""
    sink._right.give_back()


def test_begun_again_it_draws_only_the_segments_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    compose = Screen.compose

    def counted(screen: Screen, picture: Frame, *args: Any, **kwargs: Any) -> av.VideoFrame:
        drawn.append(picture.idx)
        return compose(screen, picture, *args, **kwargs)

    monkeypatch.setattr(Screen, "compose", counted)
    monkeypatch.setattr(film, "segment_frames", lambda fps: 4)
    video = write_video(tmp_path / "v.mp4")
    undisturbed = run_sink(sink_spec(tmp_path / "whole", video, look_ahead_s=0.15))
    spec = sink_spec(tmp_path / "run", video, look_ahead_s=0.15)
    killed = VideoSink(spec)
    for clip_idx in range(3):
        info = clip_info("v", clip_idx)
        killed.add(info, [saliency(info)])
    assert list((tmp_path / "run" / "films" / ".v.cat-1.segments").glob("0*.mp4"))
    die(killed)
    drawn.clear()
    summary = run_sink(spec)
    assert drawn == list(range(4, 12))
    assert summary.outputs[summary.targets[0].product] == undisturbed.outputs[undisturbed.targets[0].product]
    assert [path.name for path in (tmp_path / "run" / "films").iterdir()] == ["v.cat-1.mp4"]


def test_until_a_video_is_closed_its_segments_stay(spec: SinkSpec) -> None:
    for is_last in (False, True):
        sink = VideoSink(spec)
        for clip_idx in range(3):
            info = clip_info("v", clip_idx)
            sink.add(info, [saliency(info)])
        questions = sink.finish(12)
        if is_last:
            sink.close([answer(question) for question in questions])
        die(sink)
        names = {path.name for path in (Path(spec.run) / "films").iterdir()}
        assert names == {"v.cat-1.mp4"} if is_last else {"v.cat-1.mp4", ".v.cat-1.segments"}


def test_names_from_outside_stay_inside(tmp_path: Path) -> None:
    spec = sink_spec(tmp_path / "run", write_video(tmp_path / "v.mp4"), video_id="../../<script>")
    run_sink(spec)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "v.mp4"}


def test_a_clip_without_a_map_for_every_target_is_a_bug(spec: SinkSpec) -> None:
    info = clip_info("v", 0)
    with pytest.raises(ValueError, match="one map for each"):
        VideoSink(spec).add(info, [])


def test_nothing_of_a_request_is_kept_that_would_hold_it_in_the_object_store(spec: SinkSpec) -> None:
    class Held(np.ndarray):
        """An array that can be watched."""

    sink, info = VideoSink(spec), clip_info(spec.source.id)
    whole = np.zeros(64, np.int64).view(Held)
    frame_idx = whole[:4]
    frame_idx[:] = info.frame_idx
    sink.add(replace(info, frame_idx=frame_idx), [saliency(info)])
    alive = weakref.ref(whole)
    del whole, frame_idx
    gc.collect()
    assert alive() is None
    sink.abort()


def test_a_picture_becomes_a_png(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(picture)
    spec = sink_spec(tmp_path / "run", picture)
    spec = replace(spec, source=replace(spec.source, kind="image", num_frames=1))
    sink = VideoSink(spec)
    info = clip_info("v", 0, length=1)
    sink.add(info, [saliency(info)])
    summary = sink.close([answer(question) for question in sink.finish(1)])
    product = Path(spec.run) / summary.targets[0].product
    assert product.parent.name == "pictures"
    with Image.open(product) as image:
        assert image.format == "PNG"
    assert (summary.num_frames, summary.duration_s) == (1, 0.0)
