"""Inputs are found, told apart by content, and named; what is wrong with one is said by `probe`."""

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from media import write_audio, write_video
from PIL import Image

from stages.errors import DecodeError
from stages.sources import find_sources, probe, unique_id


def save_picture(path: Path, size: tuple[int, int] = (8, 6), mode: str = "RGB", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


def test_a_folder_of_numbered_pictures_is_one_source_and_other_media_are_many(tmp_path: Path) -> None:
    for number in range(3):
        save_picture(tmp_path / "shot" / f"img_{number:03}.png")
    save_picture(tmp_path / "pets" / "cat.png")
    save_picture(tmp_path / "pets" / "deep" / "dog.jpg")
    (tmp_path / "pets" / "notes.md").write_text("not media")
    found = [Path(uri).relative_to(tmp_path).as_posix() for uri in find_sources([str(tmp_path)])]
    assert found == ["pets/cat.png", "pets/deep/dog.jpg", "shot"]


def test_globs_and_lists_are_expanded_each_source_once(tmp_path: Path) -> None:
    first, second = save_picture(tmp_path / "a.png"), save_picture(tmp_path / "b b.png")
    listing = tmp_path / "list.txt"
    listing.write_text(f"# pictures\na.png\n\n{second}\nlist.txt\nmissing.mp4\n")
    expected = [str(first), str(second), str(tmp_path / "missing.mp4")]
    assert list(find_sources([str(listing)])) == expected
    assert list(find_sources([str(tmp_path / "*.png"), str(first)])) == expected[:2]


def test_listing_is_lazy(tmp_path: Path) -> None:
    first = save_picture(tmp_path / "a.png")
    listing = tmp_path / "list.txt"
    listing.write_text(f"{first}\n")
    sources = find_sources([str(first), str(tmp_path / "later")])
    assert list(islice(sources, 1)) == [str(first)]
    later = save_picture(tmp_path / "later" / "new.png")
    assert list(sources) == [str(later)]


def test_what_does_not_exist_is_handed_on_for_probe_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    args = [str(tmp_path / "no.mp4"), str(tmp_path / "no*.mp4"), str(tmp_path / "empty")]
    assert list(find_sources(args)) == args
    for arg, fact in zip(args, ["no such file", "pattern", "no video and no picture"], strict=True):
        with pytest.raises(DecodeError, match=fact) as error:
            probe(arg)
        assert error.value.item == arg
        assert error.value.remedy


def test_ids_are_unique_safe_and_stable() -> None:
    taken: set[str] = set()
    assert unique_id("/a/My clip (1).mp4", taken) == "My_clip_1"
    second = unique_id("/b/my clip (1).mp4", taken)
    assert second.startswith("my_clip_1-")
    assert second == unique_id("/b/my clip (1).mp4", {"my_clip_1"})
    assert unique_id("/b/my clip (1).mp4", taken) not in ("My_clip_1", second)
    assert unique_id("/c/../../..mp4", taken) == "source"
    assert unique_id("/d/影.mp4", taken).startswith("source-")
    assert "/" not in unique_id("/e/x" + "y" * 300 + ".mp4", taken)


BROKEN = {
    "text": ("note.mp4", lambda path: path.write_text("hello\n" * 9), "text"),
    "zero bytes": ("zero.mp4", lambda path: path.touch(), "empty"),
    "noise": ("noise.mkv", lambda path: path.write_bytes(bytes(range(256)) * 9), "not a video or a picture"),
    "audio": ("audio.mp4", write_audio, "audio but no video"),
    "playlist": ("list.mp4", lambda path: path.write_text("#EXTM3U\n#EXTINF:1\n/etc/passwd\n"), "text"),
    "damaged picture": ("bad.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50), "damaged"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_not_a_video_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    name, write, fact = BROKEN[kind]
    write(tmp_path / name)
    with pytest.raises(DecodeError, match=fact):
        probe(str(tmp_path / name))


def test_an_mp4_cut_off_before_its_index_is_named_as_such(shared_data: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    whole = write_video(tmp_path / "whole.mp4", 20).read_bytes()
    for size, fact in ((whole.index(b"moov") - 8, "cut off before its index"), (whole.index(b"stsd"), "is cut off")):
        cut.write_bytes(whole[:size])
        with pytest.raises(DecodeError, match=fact):
            probe(str(cut))
    picture = tmp_path / "cut.jpg"
    picture.write_bytes((shared_data / "images/goldfish.jpg").read_bytes()[:20000])
    with pytest.raises(DecodeError, match="truncated"):
        probe(str(picture))


def test_content_decides_not_the_name(shared_data: Path, tmp_path: Path) -> None:
    disguised = tmp_path / "picture.mp4"
    shutil.copy(shared_data / "images/pug.jpeg", disguised)
    assert probe(str(disguised)).kind == "image"
    video = shutil.copy(shared_data / "videos/odd/rotated_0.mov", tmp_path / "video.jpg")
    assert probe(str(video)).kind == "video"


# file: (height, width, frames stated, fps, has audio, rotation)
FACTS = {
    "cows.mp4": (1080, 1920, 153, 25.0, False, 0),
    "carving_ice.mp4": (360, 360, 200, 30.0, True, 0),
    "nasa_13013.mp4": (180, 320, 325, 25.0, True, 0),
    "flipping_a_pancake.mkv": (240, 426, None, 30.0, True, 0),
    "odd/rotated_90.mov": (568, 320, 3, 30.0, False, 90),
    "odd/one_pixel_1fps.mp4": (1, 1, 5, 1.0, False, 0),
    "odd/h265_10bit.mp4": (200, 200, 30, 30.0, False, 0),
}


@pytest.mark.parametrize("name", FACTS)
def test_probe_states_the_facts_of_real_files(name: str, shared_data: Path) -> None:
    source = probe(str(shared_data / "videos" / name), "v")
    facts = (source.height, source.width, source.num_frames, source.fps, source.has_audio, source.rotation_deg)
    assert facts == FACTS[name]
    assert (source.id, source.kind) == ("v", "video")


def test_probe_reads_the_hash_and_warns_of_what_it_leaves_out(shared_data: Path) -> None:
    ice = probe(str(shared_data / "videos/carving_ice.mp4"))
    assert ice.sha256 == "572fae2d93fceeea3f89bf2dc30619d6a191495b867f965c27337e60375d0ea0"
    assert ice.warnings == ("an attached picture is ignored",)
    assert "2 video streams" in probe(str(shared_data / "videos/nasa_13013.mp4")).warnings[0]


def test_a_folder_of_frames_needs_one_size_and_reports_gaps(shared_data: Path, tmp_path: Path) -> None:
    tennis = probe(str(shared_data / "masks/tennis/frames"))
    assert (tennis.kind, tennis.num_frames, tennis.height, tennis.width) == ("frames", 32, 240, 432)
    for number in (1, 2, 5):
        save_picture(tmp_path / f"{number}.png")
    assert "2 numbers are missing" in probe(str(tmp_path)).warnings[1]
    save_picture(tmp_path / "6.png", size=(9, 9))
    with pytest.raises(DecodeError, match=r"6\.png has another size"):
        probe(str(tmp_path))


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_is_a_video_and_one_frame_is_a_picture(suffix: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 8, 3), 40 * idx, np.uint8)) for idx in range(4)]
    moving, still = tmp_path / f"moving.{suffix}", tmp_path / f"still.{suffix}"
    frames[0].save(moving, save_all=True, append_images=frames[1:], duration=50)
    frames[0].save(still)
    source = probe(str(moving))
    assert (source.kind, source.num_frames, source.fps) == ("video", 4, pytest.approx(20))
    assert probe(str(still)).kind == "image"
