"""A film joined from segments is the film of one segment; begun again, it draws what is missing and nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from media import write_video
from planted_film import CAPTION, best_audio, pictures, planted, squash, times

from stages import screen
from stages.film import FilmSummary, FilmWriter
from stages.records import FrameMap, VideoSource
from stages.render import RenderConfig
from stages.segments import segment_frames
from stages.sources import probe
from stages.video_io import read_frames

pytestmark = pytest.mark.slow

NUM_FRAMES, PER_SEGMENT = 50, 12


def maps(count: int = NUM_FRAMES, start: int = 0) -> list[FrameMap]:
    """The planted cell beats like a slow pulse."""
    return [planted(idx, float(np.sin(idx / 5))) for idx in range(start, start + count)]


def begin(
    path: Path, source: VideoSource, frames: list[FrameMap], per_segment: int = PER_SEGMENT, **config: object
) -> FilmWriter:
    """A film to which maps were given, and that nobody has closed: what a kill leaves."""
    settings = RenderConfig.model_validate({"look_ahead_s": 0.2, **config})
    writer = FilmWriter(path, source, squash(source), CAPTION, settings, frames_per_segment=per_segment)
    for frame in frames:
        writer.write(frame)
    return writer


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> VideoSource:
    """Two seconds, thirty frames a second, and a key frame now and then."""
    path = tmp_path_factory.mktemp("source") / "grey.mp4"
    return probe(str(write_video(path, 60, size=(100, 200), fps=30)))


@pytest.fixture
def whole(source: VideoSource, tmp_path: Path) -> bytes:
    """The undisturbed film."""
    return begin(tmp_path / "whole.mp4", source, maps()).close().path.read_bytes()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every frame of the source that is read."""
    found: list[int] = []

    def reading(*args: object, **kwargs: object) -> Iterator[object]:
        for frame in read_frames(*args, **kwargs):  # type: ignore[arg-type]  # handed on
            found.append(frame.idx)
            yield frame

    monkeypatch.setattr(screen, "read_frames", reading)
    return found


def folder(film: Path) -> Path:
    return film.with_name(f".{film.stem}.segments")


@pytest.mark.parametrize(
    ("name", "start", "count"),
    [("carving_ice.mp4", 0, 18), ("carving_ice.mp4", 90, 18), ("odd/no_duration_vfr_vp9.webm", 0, 10)],
)
def test_segments_leave_pictures_times_and_sound_as_they_are(shared_data, tmp_path, name, start, count):
    source = probe(str(shared_data / "videos" / name))
    expected = [frame.pts_s for frame in islice(read_frames(source, start_idx=start), count)]
    frames = maps(len(expected), start)
    one = begin(tmp_path / "one.mp4", source, frames, 1000, crf=0).close()
    begin(tmp_path / "many.mp4", source, frames[:14], 4, crf=0)
    many = begin(tmp_path / "many.mp4", source, frames, 4, crf=0).close()
    assert many.reused_frames >= 4
    np.testing.assert_array_equal(pictures(one.path), pictures(many.path))  # crf 0 loses nothing
    np.testing.assert_allclose(times(many.path), expected, atol=1e-9)
    assert times(one.path) == times(many.path)
    assert many.audio == one.audio
    if many.has_audio:
        assert best_audio(one.path) == best_audio(many.path)


def test_what_the_encoder_loses_at_the_borders_cannot_be_seen(source, tmp_path):
    one, many = (begin(tmp_path / f"{size}.mp4", source, maps(), size).close() for size in (1000, 7))
    assert np.abs(np.array(pictures(one.path)) - np.array(pictures(many.path))).mean() < 2


def test_a_joined_film_states_its_duration_and_can_be_sought_everywhere(source, tmp_path):
    path = begin(tmp_path / "film.mp4", source, maps()).close().path
    expected = times(path)
    assert not folder(path).exists()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(NUM_FRAMES / 30, abs=0.04)
        assert stream.frames == NUM_FRAMES
        for idx in (3, 13, 30, 49):
            container.seek(round(expected[idx] / stream.time_base), stream=stream)
            assert next(container.decode(stream)).time <= expected[idx]


def test_finished_segments_play_long_before_the_source_is_read(source, tmp_path, reads):
    begin(tmp_path / "film.mp4", source, maps())
    begun = sorted(folder(tmp_path / "film.mp4").glob("0*.mp4"))
    assert [path.name for path in begun] == ["000000.mp4", "000001.mp4", "000002.mp4"]
    assert max(reads) < 45
    assert sum(len(times(path)) for path in begun) == 3 * PER_SEGMENT
    assert times(begun[1])[0] == pytest.approx(PER_SEGMENT / 30, abs=0.01)


def test_a_film_begun_again_draws_and_reads_only_what_is_missing(source, tmp_path, whole, reads):
    path = tmp_path / "film.mp4"
    killed = begin(path, source, maps()[:40])  # two segments are whole
    reads.clear()
    noise = np.float32(1e-7)
    again = begin(path, source, [replace(frame, mean=frame.mean + noise) for frame in maps()]).close()
    assert (again.frames, again.reused_frames) == (NUM_FRAMES, 2 * PER_SEGMENT)
    assert min(reads) == 2 * PER_SEGMENT
    assert path.read_bytes() == whole
    assert not folder(path).exists()
    del killed


def test_a_film_that_is_whole_but_for_its_end_is_joined_without_drawing(source, tmp_path, whole, reads):
    path = tmp_path / "film.mp4"
    begin(path, source, maps()).close(keep_segments=True)
    path.unlink()
    reads.clear()
    assert begin(path, source, maps()).close().reused_frames == NUM_FRAMES
    assert reads == []
    assert path.read_bytes() == whole


def test_a_damaged_segment_is_drawn_again_and_no_other(source, tmp_path, whole):
    path = tmp_path / "film.mp4"
    for harm in (lambda file: file.write_bytes(file.read_bytes()[:-9] + b"x" * 9), Path.unlink):
        begin(path, source, maps()).close(keep_segments=True)
        harm(folder(path) / "000001.mp4")
        assert begin(path, source, maps()).close().reused_frames == NUM_FRAMES - PER_SEGMENT
        assert path.read_bytes() == whole


def test_a_segment_drawn_from_another_map_is_drawn_again(source, tmp_path):
    path, frames = tmp_path / "film.mp4", maps()
    frames[20] = replace(frames[20], is_seen=False)  # a clip that failed, and that was asked again later
    begin(path, source, frames).close(keep_segments=True)
    again = begin(path, source, maps()).close()
    assert 0 < again.reused_frames <= NUM_FRAMES - PER_SEGMENT
    fresh = begin(tmp_path / "fresh.mp4", source, maps()).close()
    assert path.read_bytes() == fresh.path.read_bytes()
    assert (again.unseen_frames, again.saturated_share) == (0, fresh.saturated_share)


@pytest.mark.parametrize("change", [{"crf": 30}, {"fade": 0.5}, {"scale": 3.0}, {"look_ahead_s": 0.3}])
def test_segments_of_another_look_are_thrown_away(source, tmp_path, change):
    path = tmp_path / "film.mp4"
    begin(path, source, maps()).close(keep_segments=True)
    again = begin(path, source, maps(), **change).close()
    assert again.reused_frames == 0
    assert path.read_bytes() == begin(tmp_path / "b.mp4", source, maps(), **change).close().path.read_bytes()


@pytest.mark.parametrize("given", [2, 5, 20, 45])
def test_a_stopped_film_plays_and_goes_on_as_if_undisturbed(source, tmp_path, whole, given):
    path = tmp_path / "film.mp4"
    begin(path, source, maps()[:45]).abort()
    kept = len(list(folder(path).glob("0*.mp4")))
    assert kept == 3
    stopped = begin(path, source, maps()[:given]).abort()  # again, at any moment
    assert given <= len(times(path)) <= 45
    assert stopped.frames == given
    assert len(list(folder(path).glob("0*.mp4"))) == kept
    assert begin(path, source, maps()).close().reused_frames >= kept * PER_SEGMENT
    assert path.read_bytes() == whole


def test_a_film_stopped_before_its_first_segment_is_whole_leaves_nothing_else(source, tmp_path):
    path = tmp_path / "film.mp4"
    begin(path, source, maps()[:10]).abort()
    assert len(times(path)) == 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]


def test_a_source_that_ends_early_is_taken_over_as_it_was(shared_data, tmp_path):
    source = probe(str(shared_data / "videos/odd/corrupted.mp4"))
    count = len(list(read_frames(source)))
    path = tmp_path / "film.mp4"

    def draw(**options: bool) -> FilmSummary:
        return begin(path, source, maps(count + 20)).close(**options)

    first = draw(keep_segments=True)
    again = draw()
    assert (first.reused_frames, again.reused_frames) == (0, count)
    assert (again.frames, again.frames_lost) == (first.frames, first.frames_lost) == (count, 20)
    assert len(times(path)) == count


def test_an_error_inside_leaves_no_segment_that_was_not_finished(source, tmp_path):
    path = tmp_path / "film.mp4"
    with pytest.raises(ValueError, match="in order"), begin(path, source, maps()[:20]) as writer:
        writer.write(planted(3))
    assert sorted(entry.suffix for entry in folder(path).iterdir()) == [".json", ".mp4"]


def test_segments_are_whole_groups_of_pictures_of_about_half_a_minute():
    assert segment_frames(29.97) == 24 * 30
    assert segment_frames(25) == 600
    assert segment_frames(1) == 24
    assert segment_frames(240) == 1440  # maps of one segment may have to wait
    assert segment_frames(0.1) == 24
