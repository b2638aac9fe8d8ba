from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from media import write_video
from planted_film import CAPTION, GRID, best_audio, film, pictures, planted, squash, times

from stages.film import FilmSummary, FilmWriter
from stages.records import VideoSource
from stages.render import RenderConfig
from stages.sources import probe
from stages.strip import Strip
from stages.video_io import read_frames


@pytest.fixture
def grey(tmp_path: Path) -> VideoSource:
    """Two seconds of flat grey, 240 x 120."""
    frames = [np.full((120, 240, 3), 120, np.uint8)] * 20
    return probe(str(write_video(tmp_path / "grey.mp4", 20, pictures=frames)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "fate"),
    [
        ("carving_ice.mp4", None, "copied"),
        ("flipping_a_pancake.mkv", 40, "copied"),
        ("apply_eye_makeup.avi", 60, "copied"),
        ("nasa_13013.mp4", 30, "copied"),
        ("odd/unordered_pts.mov", None, "none"),
    ],
)
def test_size_time_stamps_and_sound_are_those_of_the_source(shared_data, tmp_path, name, count, fate):
    path = shared_data / "videos" / name
    source = probe(str(path))
    expected = [frame.pts_s for frame in islice(read_frames(source), count)]
    summary = film(source, tmp_path / "film.mp4", [planted(idx) for idx in range(len(expected))])
    np.testing.assert_array_equal(times(summary.path), expected)
    assert (summary.frames, summary.audio, summary.frames_lost) == (len(expected), fate, 0)
    assert summary.width == source.width * summary.zoom
    if fate == "copied":
        heard, meant = best_audio(summary.path), best_audio(path)
        if count is None:
            assert len(heard) == len(meant)
        assert heard[-1][0] > expected[-1] - 0.1
        assert [content for _, content in heard] == [content for _, content in meant[: len(heard)]]
        np.testing.assert_allclose([at for at, _ in heard], [at for at, _ in meant[: len(heard)]], atol=1e-3)


def test_variable_rate_is_kept_and_foreign_sound_becomes_aac(shared_data, tmp_path):
    source = probe(str(shared_data / "videos/odd/no_duration_vfr_vp9.webm"))
    expected = [frame.pts_s for frame in islice(read_frames(source), 12)]
    assert np.ptp(np.diff(expected)) > 0
    summary = film(source, tmp_path / "a.mp4", [planted(idx) for idx in range(12)])
    np.testing.assert_array_equal(times(summary.path), expected)
    bunny = probe(str(shared_data / "videos/big_buck_bunny_0_30.webm"))
    summary = film(bunny, tmp_path / "b.mp4", [planted(idx) for idx in range(12)])
    assert summary.audio == "re-encoded"
    sound = best_audio(summary.path)
    assert sound[0][0] == pytest.approx(0, abs=0.1)
    assert 0.3 < sound[-1][0] < 0.7  # twelve frames of 24 a second


def test_a_part_of_a_video_keeps_its_own_times_and_sound(shared_data, tmp_path):
    source = probe(str(shared_data / "videos/carving_ice.mp4"))
    expected = [frame.pts_s for frame in read_frames(source)][90:120]
    summary = film(source, tmp_path / "film.mp4", [planted(idx) for idx in range(90, 120)])
    np.testing.assert_allclose(times(summary.path), expected, atol=1e-9)
    sound = best_audio(summary.path)
    assert expected[0] - 0.2 < sound[0][0]
    assert sound[-1][0] < expected[-1] + 0.2


def test_orange_stands_where_the_evidence_is_and_blue_against_it(grey, tmp_path):
    maps = [planted(0, 1.0), planted(1, -1.0), planted(2, 0.0)]
    for_it, against, nothing = pictures(film(grey, tmp_path / "f.mp4", maps, scale=1.0).path)
    y, x = round(1.5 / 4 * 120), round(4.5 / 6 * 240)
    assert for_it[y, x, 0] > for_it[y, x, 2] + 100
    assert against[y, x, 2] > against[y, x, 0] + 100
    assert np.ptp(nothing[y, x]) < 8
    for picture in (for_it, against, nothing):
        assert np.abs(picture[100:118, :60] - 120).max() < 8


def test_one_scale_holds_for_the_whole_video_and_what_exceeds_it_is_counted(grey, tmp_path):
    maps = [planted(idx, 0.5) for idx in range(10)] + [planted(idx, 2.0) for idx in range(10, 20)]
    early = film(grey, tmp_path / "early.mp4", maps, look_ahead_s=0.5)
    assert early.scale == pytest.approx(0.5)
    assert early.saturated_share == pytest.approx(10 / (20 * 24))
    whole = film(grey, tmp_path / "whole.mp4", maps)
    assert whole.scale == pytest.approx(2.0)
    assert whole.saturated_share == 0
    seen = pictures(whole.path)
    y, x = round(1.5 / 4 * 120), round(4.5 / 6 * 240)
    weak, strong = (seen[idx][y, x, 0] - seen[idx][y, x, 2] for idx in (5, 15))
    assert 10 < weak < 0.7 * strong


def test_unreliable_and_unseen_frames_say_so_instead_of_colours(grey, tmp_path):
    maps = [planted(0), replace(planted(1), is_reliable=False), replace(planted(2), is_seen=False), planted(4)]
    summary = film(grey, tmp_path / "f.mp4", maps, scale=1.0)
    assert (summary.frames, summary.unseen_frames) == (5, 2)  # frame 3 was left out
    shown, unreliable, unseen, skipped, _ = pictures(summary.path)
    y, x = round(1.5 / 4 * 120), round(4.5 / 6 * 240)
    assert np.ptp(shown[y, x]) > 100
    assert np.ptp(unreliable[y, x]) < 8
    for picture in (unseen, skipped):
        assert picture[:80].mean() < 90
        assert np.ptp(picture[:80], axis=-1).max() < 12
    amber = np.abs(np.stack([unreliable, shown])[:, 120:] - np.array([255, 205, 84])).max(-1).min((1, 2))
    assert amber[0] < 60 < amber[1]


@pytest.mark.slow
def test_what_is_drawn_can_be_played_while_the_film_grows(shared_data, tmp_path):
    source = probe(str(shared_data / "videos/carving_ice.mp4"))
    path, copy = tmp_path / "film.mp4", tmp_path / "so_far.mp4"
    writer = FilmWriter(path, source, squash(source), CAPTION, RenderConfig(look_ahead_s=1))
    for idx in range(110):
        writer.write(planted(idx))
    (growing,) = (tmp_path / ".film.segments").iterdir()
    copy.write_bytes(growing.read_bytes())
    so_far = times(copy)
    assert 30 <= len(so_far) <= 80
    assert not path.exists()
    writer.close()
    np.testing.assert_array_equal(times(path)[: len(so_far)], so_far)


@pytest.mark.parametrize("size", [(61, 203), (75, 41), (1, 1)])
def test_odd_and_tiny_pictures_make_playable_films(tmp_path, size):
    frames = [np.full((*size, 3), 50 + 20 * idx, np.uint8) for idx in range(3)]
    path = write_video(tmp_path / "tiny.mkv", 3, codec="ffv1", pixel_format="yuv444p", pictures=frames)
    source = probe(str(path))
    assert (source.height, source.width) == size
    summary = film(source, tmp_path / "film.mp4", [planted(idx) for idx in range(3)])
    shown = pictures(summary.path)
    assert len(shown) == 3
    assert shown[0].shape == (summary.height, summary.width, 3)
    assert summary.width >= 200
    assert summary.height % 2 == summary.width % 2 == 0
    assert summary.zoom == (1 if size[1] >= 200 else -(-200 // size[1]))
    height = round(size[0] * summary.zoom)
    brightness = [picture[round(0.8 * height) : height, :10].mean() for picture in shown]
    assert np.diff(brightness).min() > 8


def test_side_by_side_separates_the_two_kinds_of_against(grey, tmp_path):
    mean = np.zeros((3, *GRID), np.float32)
    mean[0, 1, 1] = -1  # hinders the target
    mean[1, 1, 4] = 1  # speaks for others
    mean[2] = mean[0] - mean[1]
    summary = film(grey, tmp_path / "f.mp4", [replace(planted(0), mean=mean)], side_by_side=True, scale=1.0)
    picture = pictures(summary.path)[0]
    assert summary.width > 3 * 240
    top = (summary.height - _strip_height(summary)) // 2
    left, right = round(1.5 / 6 * 240), round(4.5 / 6 * 240)
    f_tc, f_ntc = picture[top:, :240], picture[top:, 242:482]
    row = top - 120 + round(1.5 / 4 * 120)
    assert np.ptp(f_tc[row, left]) > 100
    assert np.ptp(f_tc[row, right]) < 10
    assert np.ptp(f_ntc[row, left]) < 10
    assert np.ptp(f_ntc[row, right]) > 60


def _strip_height(summary: FilmSummary) -> int:
    return Strip(summary.width, CAPTION, has_profile=True).height


def test_maps_beyond_the_end_of_a_damaged_source_are_counted_not_drawn(shared_data, tmp_path):
    source = probe(str(shared_data / "videos/odd/corrupted.mp4"))
    count = len(list(read_frames(source)))
    summary = film(source, tmp_path / "film.mp4", [planted(idx) for idx in range(count + 3)])
    assert (summary.frames, summary.frames_lost) == (count, 3)
    assert len(times(summary.path)) == count


def test_frames_out_of_order_are_a_bug(grey, tmp_path):
    writer = FilmWriter(tmp_path / "f.mp4", grey, squash(grey), CAPTION, RenderConfig())
    writer.write(planted(3))
    with pytest.raises(ValueError, match="in order"):
        writer.write(planted(2))
    writer.close()
    with pytest.raises(ValueError, match="after close"):
        writer.write(planted(4))


def test_a_film_without_maps_is_no_film(grey, tmp_path):
    summary = film(grey, tmp_path / "f.mp4", [])
    assert summary.frames == 0
    assert not summary.path.exists()
