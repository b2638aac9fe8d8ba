"""Frames come in order, upright, in true colours and with their own times; jumping in changes nothing."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from media import level, write_video
from PIL import Image

from stages.errors import DecodeError
from stages.sources import probe
from stages.video_io import Backend, Frame, find_frame, packet_index, read_frames


def print_of(frames: Iterable[Frame]) -> list[tuple[int, float, str]]:
    return [(frame.idx, frame.pts_s, sha256(frame.rgb).hexdigest()) for frame in frames]


@pytest.fixture
def videos(shared_data: Path) -> Path:
    return shared_data / "videos"


# file: (frames that decode, last pts in seconds)
REAL = {
    "apply_eye_makeup.avi": (164, 6.56),
    "asl_book.mkv": (109, 3.633),
    "bikes.mp4": (250, 9.96),
    "carving_ice.mp4": (200, 6.6333),
    "odd/av1.mkv": (125, 4.96),
    "odd/h265_10bit.mp4": (30, 0.9667),
    "odd/no_duration_vfr_vp9.webm": (74, None),
    "odd/unordered_pts.mov": (4, 0.09375),
    "odd/one_pixel_1fps.mp4": (5, 4.0),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_give_all_frames_with_increasing_times(name: str, videos: Path) -> None:
    warnings: list[str] = []
    source = probe(str(videos / name))
    count, times = 0, []
    for frame in read_frames(source, on_warning=warnings.append):
        assert frame.idx == count
        assert frame.rgb.shape == (source.height, source.width, 3)
        count += 1
        times.append(frame.pts_s)
    expected, last_s = REAL[name]
    assert count == expected
    assert np.all(np.diff(times) > 0)
    assert last_s is None or times[-1] == pytest.approx(last_s, abs=1e-3)
    assert not warnings


def test_variable_rate_keeps_the_times_of_the_file(videos: Path, tmp_path: Path) -> None:
    times_ms = [0, 40, 300, 310, 900, 1700, 1710]
    source = probe(str(write_video(tmp_path / "vfr.mkv", 7, pts=times_ms)))
    assert [round(frame.pts_s * 1000) for frame in read_frames(source)] == times_ms
    steps = np.diff([frame.pts_s for frame in read_frames(probe(str(videos / "odd/no_duration_vfr_vp9.webm")))])
    assert steps.max() > 1.1 * steps.min()


def test_rotation_metadata_turns_the_picture_as_decord_does(videos: Path) -> None:
    decord = pytest.importorskip("decord")
    path = str(videos / "odd/rotated_90.mov")
    ours = next(read_frames(probe(path))).rgb
    assert np.array_equal(ours, decord.VideoReader(path)[0].asnumpy())


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_every_quarter_turn_is_obeyed(angle: int, turns: int, tmp_path: Path) -> None:
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = 200  # bright at the top left
    source = probe(str(write_video(tmp_path / "t.mp4", 1, pictures=[picture], rotation=angle)))
    rgb = next(read_frames(source)).rgb
    expected = np.rot90(picture, turns)
    assert rgb.shape == expected.shape == (source.height, source.width, 3)
    assert np.abs(rgb.astype(int) - expected).mean() < 12


def test_colour_range_and_matrix_of_the_file_are_obeyed(videos: Path) -> None:
    book = next(read_frames(probe(str(videos / "asl_book.mkv")))).rgb  # full range: limited would clip it at both ends
    assert (book == 255).mean() < 0.02


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("name", ["arm_wrestling.mp4", "bikes.mp4", "flipping_a_pancake.mkv", "apply_eye_makeup.avi"])
def test_jumping_in_gives_what_reading_from_the_start_gives(name: str, backend: Backend, videos: Path) -> None:
    source = probe(str(videos / name))
    whole = print_of(read_frames(source))
    index = packet_index(source.uri, source.sha256)
    assert index is not None
    assert [index.pts_s(idx) for idx in range(len(index.pts))] == [pts_s for _, pts_s, _ in whole]
    for start in (1, len(whole) // 3, 2 * len(whole) // 3 + 1, len(whole) - 1):
        frames = read_frames(source, backend=backend, start_idx=start)
        assert print_of(frame for _, frame in zip(range(4), frames, strict=False)) == whole[start : start + 4]
    assert list(read_frames(source, start_idx=len(whole))) == []


def test_jumping_in_meets_the_planted_frame_in_a_made_file_with_b_frames(tmp_path: Path) -> None:
    source = probe(str(write_video(tmp_path / "gop.mp4", 60, gop=7)))
    index = packet_index(source.uri, source.sha256)
    assert index is not None
    assert index.is_seekable
    assert len(index.key_pts) >= 8
    for start in range(1, 60, 5):
        frame = next(read_frames(source, start_idx=start))
        assert frame.idx == start
        assert abs(frame.rgb.mean() - level(start)) < 1.5


@pytest.mark.parametrize(
    "name", ["carving_ice.mp4", "odd/rotated_90.mov", "odd/corrupted.mp4", "odd/unordered_pts.mov"]
)
def test_decord_and_pyav_agree_to_the_bit(name: str, videos: Path) -> None:
    pytest.importorskip("decord")
    source = probe(str(videos / name))
    assert print_of(read_frames(source, backend="decord")) == print_of(read_frames(source, backend="pyav"))


@pytest.mark.parametrize(
    "name",
    ["odd/av1.mkv", "nasa_13013.mp4", "odd/h265_10bit.mp4", "odd/one_pixel_1fps.mp4", "odd/no_duration_vfr_vp9.webm"],
)
def test_pyav_takes_over_where_decord_does_not_fit(name: str, videos: Path) -> None:
    warnings: list[str] = []
    source = probe(str(videos / name))
    frame = next(read_frames(source, backend="decord", on_warning=warnings.append))
    assert frame.rgb.shape == (source.height, source.width, 3)
    assert "PyAV reads it" in warnings[0]


def test_damage_in_the_middle_keeps_what_decodes_and_warns(videos: Path) -> None:
    warnings: list[str] = []
    frames = list(read_frames(probe(str(videos / "odd/corrupted.mp4")), on_warning=warnings.append))
    assert len(frames) == 28
    assert "reading stops after 2.70 s" in warnings[0]
    assert warnings[1] == "the container states 50 frames, 28 can be decoded"


def test_a_video_cut_off_in_the_middle_keeps_its_beginning(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    whole = write_video(tmp_path / "whole.mkv", 40, pictures=list(noise))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = list(read_frames(probe(str(cut)), on_warning=lambda _: None))
    assert 10 < len(frames) < 30


def test_a_source_without_any_frame_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 3)
    source = probe(str(path))
    path.unlink()
    with pytest.raises(DecodeError, match="no such file"):
        next(read_frames(source))


def test_odd_sizes_are_read_whole(tmp_path: Path) -> None:
    source = probe(str(write_video(tmp_path / "odd.mkv", 2, size=(33, 47), pixel_format="yuv444p")))
    assert [frame.rgb.shape for frame in read_frames(source)] == [(33, 47, 3)] * 2


def test_transparent_pixels_are_white_and_exif_turns_the_picture(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, :3] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    source = probe(str(tmp_path / "alpha.png"))
    rgb = next(read_frames(source)).rgb
    assert rgb[0, 0].tolist() == [255, 0, 0]
    assert rgb[0, 5].tolist() == [255, 255, 255]
    assert source.warnings == ("transparent pixels are shown on white",)

    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "turned.png", exif=exif)
    turned = probe(str(tmp_path / "turned.png"))
    assert (turned.height, turned.width) == next(read_frames(turned)).rgb.shape[:2] == (6, 4)


def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    assert next(read_frames(probe(str(tmp_path / "deep.png")))).rgb[0, 0].tolist() == [128, 128, 128]


def test_an_animation_has_the_times_of_its_delays(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 8, 3), 60 * idx, np.uint8)) for idx in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[100, 200, 50, 100])
    source = probe(str(tmp_path / "a.gif"))
    read = list(read_frames(source))
    assert [frame.pts_s for frame in read] == pytest.approx([0, 0.1, 0.3, 0.35])
    assert [round(frame.rgb.mean() / 60) for frame in read] == [0, 1, 2, 3]
    assert print_of(read_frames(source, start_idx=2)) == print_of(read[2:])


def test_a_damaged_frame_in_a_folder_is_replaced_by_its_neighbour(tmp_path: Path) -> None:
    for idx in range(4):
        Image.fromarray(np.full((6, 8, 3), 60 * idx, np.uint8)).save(tmp_path / f"{idx}.png")
    source = probe(str(tmp_path))
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[:45])
    warnings: list[str] = []
    read = list(read_frames(source, on_warning=warnings.append))
    assert [round(frame.rgb.mean() / 60) for frame in read] == [0, 1, 1, 3]
    assert "2.png" in warnings[0]
    assert print_of(read_frames(source, start_idx=2, on_warning=warnings.append)) == print_of(read[2:])


@pytest.mark.parametrize("name", ["bikes.mp4", "apply_eye_makeup.avi"])
def test_a_time_is_found_from_the_first_frame_on(name: str, videos: Path) -> None:
    source = probe(str(videos / name))
    assert find_frame(source, 0) == 0
    assert find_frame(source, 2.0) == 50
    assert find_frame(source, 2.01) == 51
    assert find_frame(source, 99) == source.num_frames
