"""Tables and maps hold what was put in, at any size, and appear only when they are whole."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from planted_run import GEOMETRY, OUTPUTS, frame_map

from pipeline import artifacts
from pipeline.artifacts import SCHEMAS, MapStore, PartWriter, about_maps, merge_tables, part_path


def frame_row(video_id: str, frame_idx: int) -> dict[str, object]:
    numbers = {"pts_s": frame_idx / 10, "for": 1.5, "f_tc": 0.0, "f_ntc": 0.25, "net": 1.25, "uncertainty": 0.1}
    place = {"peak_y_px": 3.0, "peak_x_px": 4.0, "is_seen": True, "is_reliable": True}
    return {"video_id": video_id, "target_idx": 1, "target": "cat", "frame_idx": frame_idx, **numbers, **place}


def test_parts_are_joined_in_the_order_of_the_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "ROWS_IN_MEMORY", 4)
    for video_id, num_frames in (("b", 5), ("a", 10)):
        part = PartWriter(tmp_path, "frames", video_id)
        for frame_idx in range(num_frames):
            part.add(frame_row(video_id, frame_idx))
        part.close()
    assert merge_tables(tmp_path, ["a", "missing", "b"]) == {"clips": 0, "frames": 15, "regions": 0}
    table = pq.read_table(tmp_path / "frames.parquet")
    assert table.column("video_id").to_pylist() == ["a"] * 10 + ["b"] * 5
    assert table.column("frame_idx").to_pylist() == [*range(10), *range(5)]
    assert table.slice(12, 1).to_pylist() == [frame_row("b", 2)]
    assert pq.read_table(tmp_path / "clips.parquet").schema.equals(SCHEMAS["clips"])


def test_a_part_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    part = PartWriter(tmp_path, "frames", "v")
    part.add(frame_row("v", 0))
    assert not part_path(tmp_path, "frames", "v").exists()
    part.abort()
    assert list((tmp_path / "parts" / "frames").iterdir()) == []


def test_a_row_that_does_not_fit_is_a_bug(tmp_path: Path) -> None:
    part = PartWriter(tmp_path, "frames", "v")
    with pytest.raises(ValueError, match="row has"):
        part.add({**frame_row("v", 0), "extra": 1})
    part.abort()


def test_a_crash_while_joining_leaves_the_old_table(tmp_path: Path) -> None:
    part = PartWriter(tmp_path, "frames", "v")
    part.add(frame_row("v", 0))
    part.close()
    merge_tables(tmp_path, ["v"])
    part_path(tmp_path, "frames", "w").write_bytes(b"not parquet")
    with pytest.raises(Exception, match="Parquet"):
        merge_tables(tmp_path, ["v", "w"])
    assert pq.read_table(tmp_path / "frames.parquet").num_rows == 1


def test_maps_come_back_frame_by_frame_with_what_explains_them(tmp_path: Path) -> None:
    path = tmp_path / "maps" / "v.cat-1.zarr"
    about = about_maps(video_id="v", target_idx=1, target="cat", geometry=GEOMETRY, grid=(4, 6, 8), frames_per_clip=4)
    store = MapStore(path, outputs=OUTPUTS, grid_hw=(6, 8), about=about)
    for frame_idx in range(70):
        store.append(frame_map(frame_idx), frame_idx / 10)
    assert zarr.open_group(path, mode="r")["mean"].shape == (3, 64, 6, 8)  # whole chunks, while it is still written
    store.close()
    group = zarr.open_group(path, mode="r")
    assert group["mean"].shape == group["var"].shape == (3, 70, 6, 8)
    assert group["mean"].chunks == (3, 32, 6, 8)
    np.testing.assert_array_equal(group["mean"][:, 69], frame_map(69).mean)
    np.testing.assert_allclose(group["pts_s"][:], np.arange(70) / 10)
    assert group["is_seen"][:].all()
    assert group.attrs["outputs"] == list(OUTPUTS)
    assert group.attrs["voxels_per_clip"] == 192
    assert group.attrs["geometry"]["scale_y"] == 2.0
    assert group.attrs["is_complete"] is True


def test_written_again_a_store_has_the_same_bytes(tmp_path: Path) -> None:
    from pipeline.files import hash_file

    hashes = set()
    for _ in range(2):
        store = MapStore(tmp_path / "v.zarr", outputs=OUTPUTS, grid_hw=(6, 8), about={"video_id": "v"})
        for frame_idx in range(40):
            store.append(frame_map(frame_idx), frame_idx / 10)
        store.close()
        hashes.add(hash_file(tmp_path / "v.zarr"))
    assert len(hashes) == 1


@pytest.mark.parametrize(("asked_for", "used"), [(None, artifacts.STORE_THREADS), (7, 7)])
def test_a_store_is_written_by_few_threads_unless_told_otherwise(tmp_path, asked_for, used) -> None:
    with zarr.config.set({"threading.max_workers": asked_for}):
        MapStore(tmp_path / "v.zarr", outputs=OUTPUTS, grid_hw=(6, 8), about={"video_id": "v"}).close()
        assert zarr.config.get("threading.max_workers") == used
