"""Sources behind URIs are found, fetched once, read like local ones, kept in bounds; what is wrong is said."""

import shutil
import threading
from importlib.util import find_spec
from pathlib import Path

import fsspec
import numpy as np
import pytest
from media import level, write_video
from PIL import Image
from stores import FlakyStore, Site, serving

from stages.errors import DecodeError
from stages.remote import local_copy, newest
from stages.sources import current_sha256, find_sources, probe, unique_id
from stages.stores import local_name, name_of
from stages.video_io import find_frame, is_container, read_frames


@pytest.fixture
def folder(tmp_path, store_cache):
    folder = tmp_path / "site"
    (folder / "shot").mkdir(parents=True)
    write_video(folder / "a.mp4", 30)
    shutil.copy(folder / "a.mp4", folder / "b c.mp4")
    for number in range(3):
        Image.new("RGB", (8, 6), (level(number),) * 3).save(folder / "shot" / f"img_{number}.png")
    (folder / "notes.md").write_text("not media")
    (folder / "list.txt").write_text("# two\na.mp4\nshot/img_0.png\n")
    return folder


@pytest.fixture
def site(folder):
    with serving(folder) as site:
        yield site


@pytest.fixture
def memory(folder):
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/bucket", recursive=True)
    yield "memory://bucket"
    store.rm("/bucket", recursive=True)


def entries(cache: Path) -> list[Path]:
    return [path for path in (cache / "inputs").iterdir() if path.is_dir()]


def test_folders_globs_and_lists_of_a_store_are_expanded_as_local_ones_are(memory, folder):
    local = [Path(uri).relative_to(folder).as_posix() for uri in find_sources([str(folder)])]
    assert local == ["a.mp4", "b c.mp4", "shot"]
    assert list(find_sources([memory])) == [f"{memory}/{name}" for name in local]
    assert list(find_sources([f"{memory}/*.mp4", f"{memory}/a.mp4"])) == [f"{memory}/a.mp4", f"{memory}/b c.mp4"]
    assert list(find_sources([f"{memory}/list.txt"])) == [f"{memory}/a.mp4", f"{memory}/shot/img_0.png"]


def test_web_folders_globs_and_local_lists_of_addresses(site, folder, tmp_path):
    assert list(find_sources([f"{site.url}/*.mp4"])) == [f"{site.url}/a.mp4", f"{site.url}/b c.mp4"]
    assert f"{site.url}/shot/" in [uri.rstrip("/") + "/" for uri in find_sources([f"{site.url}/"])]
    listing = tmp_path / "list.txt"
    listing.write_text(f"{site.url}/a.mp4?key=1\nfile://{folder}/b%20c.mp4\n")
    assert list(find_sources([str(listing)])) == [f"{site.url}/a.mp4?key=1", f"{folder}/b c.mp4"]


@pytest.mark.parametrize("manners", [{}, {"has_ranges": False}, {"has_etags": False}], ids=str)
def test_a_web_video_is_read_as_the_local_file_is(folder, manners):
    local = probe(str(folder / "a.mp4"), "v")
    with serving(folder, **manners) as site:
        source = probe(f"{site.url}/a.mp4", "v")
        assert source.uri == f"{site.url}/a.mp4"
        assert (source.sha256, source.num_frames, source.codec) == (local.sha256, local.num_frames, local.codec)
        for backend in ("pyav", "decord"):
            for start in (0, 17):
                found = list(read_frames(source, backend=backend, start_idx=start))
                wanted = list(read_frames(local, backend=backend, start_idx=start))
                assert [frame.pts_s for frame in found] == [frame.pts_s for frame in wanted]
                for frame, other in zip(found, wanted, strict=True):
                    np.testing.assert_array_equal(frame.rgb, other.rgb)
        assert find_frame(source, 1.0) == find_frame(local, 1.0)
        assert is_container(source)
        assert site.gets.count("a.mp4") == 1


@pytest.mark.parametrize("store", ["site", "memory"])
def test_a_folder_of_frames_and_a_picture_in_a_store(store, request):
    found = request.getfixturevalue(store)
    root = found.url if isinstance(found, Site) else found
    frames = probe(f"{root}/shot/")
    assert (frames.kind, frames.num_frames) == ("frames", 3)
    assert [int(frame.rgb[0, 0, 0]) for frame in read_frames(frames)] == [level(idx) for idx in range(3)]
    picture = probe(f"{root}/shot/img_1.png")
    assert (picture.kind, picture.width, picture.id) == ("image", 8, "img_1")


def test_an_archive_in_a_store_is_a_store(folder, tmp_path, site):
    archive = shutil.make_archive(str(folder / "clips"), "zip", folder, "shot")
    assert Path(archive).is_file()
    uri = f"zip://shot/*.png::{site.url}/clips.zip"
    found = list(find_sources([uri]))
    assert found == [f"zip://shot/img_{number}.png::{site.url}/clips.zip" for number in range(3)]
    assert probe(found[1]).kind == "image"


def test_many_readers_at_once_fetch_once(site):
    found = []
    readers = [threading.Thread(target=lambda: found.append(current_sha256(f"{site.url}/a.mp4"))) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(set(found)) == 1
    assert site.gets.count("a.mp4") == 1


@pytest.mark.parametrize("has_etags", [True, False])
def test_a_changed_input_is_noticed(folder, has_etags, store_cache):
    with serving(folder, has_etags=has_etags) as site:
        source = probe(f"{site.url}/a.mp4")
        write_video(folder / "a.mp4", 31)
        assert probe(source.uri).sha256 != source.sha256
        assert sum(1 for _ in read_frames(source)) == 30, "a run that began with the old one goes on with it"
        for entry in entries(store_cache):
            shutil.rmtree(entry)
        with pytest.raises(DecodeError, match="has changed since it was first read"):
            next(read_frames(source))


def test_the_cache_is_bounded_but_what_is_read_stays(folder, site, store_cache, monkeypatch):
    size = (folder / "a.mp4").stat().st_size
    monkeypatch.setenv("HEATREEL_CACHE_GB", str(1.5 * size / 1e9))
    source = probe(f"{site.url}/a.mp4")
    with local_copy(source.uri, source.sha256) as path, newest(f"{site.url}/b c.mp4") as other:
        assert path.is_file()
        assert other.is_file()
    (folder / "d.mp4").write_bytes((folder / "a.mp4").read_bytes())
    with newest(f"{site.url}/d.mp4"):
        assert len(entries(store_cache)) == 1
    assert sum(1 for _ in read_frames(source)) == 30, "what had to go is fetched again"


def test_passing_faults_are_tried_again_and_others_are_not(site, monkeypatch):
    site.faults["a.mp4"] = [503, 500]
    assert probe(f"{site.url}/a.mp4").num_frames == 30
    site.faults["b c.mp4"] = [403] * 9
    with pytest.raises(DecodeError, match=r"access is denied.*credentials"):
        probe(f"{site.url}/b c.mp4")
    assert site.gets.count("b c.mp4") == 1


def test_a_missing_page_is_no_such_file(site):
    for name, fact in {"no.mp4": "no such file", "no*.mp4": "no file matches"}.items():
        with pytest.raises(DecodeError, match=fact):
            probe(f"{site.url}/{name}")


def test_a_cut_off_transfer_is_tried_again(memory, monkeypatch):
    store = type(fsspec.filesystem("memory"))
    whole, calls = store.get_file, []

    def cut(self, path, local, **options):
        whole(self, path, local, **options)
        calls.append(path)
        if len(calls) == 1:
            Path(local).write_bytes(Path(local).read_bytes()[:100])

    monkeypatch.setattr(store, "get_file", cut)
    assert probe(f"{memory}/a.mp4").num_frames == 30
    assert len(calls) == 2


BAD = {
    "gs://bucket/a.mp4": ("needs a package that is not installed", "pip install gcsfs"),
    "nosuch://bucket/a.mp4": ("not a protocol that is known", "spelling"),
    "memory://nowhere/a.mp4": ("no such file", "check the URI"),
    "memory://nowhere/*.mp4": ("no file matches the pattern", "quote"),
    "memory://bucket/notes.md": ("it contains text", "media file"),
    "http://127.0.0.1:9/a.mp4": ("does not answer as it should", "network"),
    "http://no.such.host.invalid/a.mp4": ("does not answer as it should", "network"),
    "nosuch://": ("not a protocol that is known", "spelling"),
    "memory://nowhere/list.txt": ("no such file", "check the URI"),
}


@pytest.mark.parametrize("uri", BAD)
def test_a_bad_uri_is_listed_as_it_is_and_refused_with_reason_and_remedy(uri, memory):
    if uri.startswith("gs:") and find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    assert list(find_sources([uri])) == [uri]
    fact, remedy = BAD[uri]
    with pytest.raises(DecodeError, match=fact) as error:
        probe(uri)
    assert error.value.item == uri
    assert remedy in error.value.remedy


def test_refused_access_names_the_credentials(folder):
    FlakyStore.reset()
    fsspec.filesystem("flaky").put_file(str(folder / "a.mp4"), "/x/a.mp4")
    FlakyStore.num_faults = 2
    assert probe("flaky://x/a.mp4").num_frames == 30
    FlakyStore.refused = {"get"}
    with pytest.raises(DecodeError, match=r"access is denied \(get is not for you\)"):
        probe("flaky://x/a.mp4")


NAMES = {
    "https://host/dir/My%20clip.mp4?sig=a.b/c": "My clip.mp4",
    "s3://bucket/a?b.mp4": "a?b.mp4",
    "zip://in/x.png::s3://bucket/a.zip": "x.png",
    "simplecache::https://host/y.mp4": "y.mp4",
    "/tmp/z.mp4": "z.mp4",
    "s3://bucket/shot/": "shot",
}


@pytest.mark.parametrize("uri", NAMES)
def test_names_leave_out_what_is_not_name(uri):
    assert name_of(uri) == NAMES[uri]


def test_ids_of_remote_sources_come_from_their_names():
    taken: set[str] = set()
    assert unique_id("https://host/clip.mp4?sig=1.2", taken) == "clip"
    assert unique_id("s3://bucket/clip.mp4", taken).startswith("clip-")


def test_file_uris_are_local_paths(folder):
    assert local_name(f"file://{folder}/b%20c.mp4") == f"{folder}/b c.mp4"
    assert list(find_sources([f"file://{folder}/*.mp4"])) == [f"{folder}/a.mp4", f"{folder}/b c.mp4"]
    assert probe(f"file://{folder}/a.mp4").num_frames == 30
