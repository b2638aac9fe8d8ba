"""The file of screened clips: what was flushed is there, what a crash cut off or damaged is not."""

import numpy as np
import pytest
from planted_run import clip_info

from pipeline.screened import ScreenedStore


def scores(clip_idx: int) -> np.ndarray:
    return np.arange(5, dtype=np.float32) + clip_idx


@pytest.fixture
def store(tmp_path):
    store = ScreenedStore(tmp_path)
    for clip_idx in (2, 0, 1):
        store.append(clip_info("v", clip_idx), scores(clip_idx), is_last=clip_idx == 2)
    store.flush("v")
    return store


def test_clips_come_back_in_order_with_place_and_scores(store):
    seen = store.read("v")
    assert seen.clip_idx.tolist() == [0, 1, 2]
    assert seen.frames.tolist() == [[0, 4], [4, 8], [8, 12]]
    assert seen.span_s[1] == pytest.approx([0.4, 0.7])
    np.testing.assert_array_equal(seen.log_scores, [scores(0), scores(1), scores(2)])
    assert seen.is_whole
    assert store.num_damaged() == 0


def test_a_video_without_its_end_or_with_a_gap_is_not_whole(tmp_path):
    store = ScreenedStore(tmp_path)
    store.append(clip_info("v", 0), scores(0), is_last=False)
    store.flush("v")
    assert not store.read("v").is_whole
    store.append(clip_info("v", 2), scores(2), is_last=True)
    store.flush("v")
    assert not store.read("v").is_whole
    assert store.read("v").has_end


@pytest.mark.parametrize("cut", [1, 30, 59])
def test_a_record_that_a_crash_cut_off_is_not_there_and_is_healed(store, tmp_path, cut):
    (path,) = (tmp_path / "screened").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert store.read("v").clip_idx.tolist() == [0, 2]
    assert store.num_damaged() == 1
    store.append(clip_info("v", 1), scores(1), is_last=False)
    store.flush("v")
    assert path.read_bytes() == whole


def test_a_damaged_record_counts_as_not_written(store, tmp_path):
    (path,) = (tmp_path / "screened").iterdir()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert store.read("v").clip_idx.tolist() == [0, 2]
    assert store.num_damaged() == 1


def test_nothing_is_there_before_anything_was_screened(tmp_path):
    assert ScreenedStore(tmp_path).read("v") is None
    assert ScreenedStore(tmp_path).num_damaged() == 0
