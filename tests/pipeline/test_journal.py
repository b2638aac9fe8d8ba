"""What was written comes back bit for bit; what is damaged counts as not written."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_run import bank_round, clip_info, grid_round

from pipeline.journal import Journal
from stages.questions import AttributionSpec, Question
from stages.records import ClipId, MaskBatch, Scores


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def test_rounds_come_back_bit_for_bit(journal: Journal) -> None:
    info = clip_info("some/video <1>.mp4", 12)
    for masks, scores in (bank_round(info), grid_round(info, 1), grid_round(info, 2)):
        journal.append(info, masks, scores)
    (bank, bank_scores), (grids, grid_scores), _ = journal.rounds(info.id)
    wanted, wanted_scores = bank_round(info)
    assert bank.bank == wanted.bank
    assert bank.grids is None
    assert bank_scores.values.dtype == np.float32
    np.testing.assert_array_equal(bank_scores.values, wanted_scores.values)
    np.testing.assert_array_equal(grids.grids, grid_round(info, 1)[0].grids)
    np.testing.assert_array_equal(grid_scores.ids, [6, 7, 8])
    assert grids.clip_id == info.id


def test_questions_and_their_maps_come_back_bit_for_bit(journal: Journal) -> None:
    info = clip_info()
    journal.append(info, *bank_round(info))
    spec = AttributionSpec(
        method="captum:LayerGradCam@layer4.1",
        questions=(Question(kind="saliency", class_idx=3), Question(kind="f_tc", class_idx=0)),
        grid=(2, 3, 4),
        evaluations=4,
        seed=7,
    )
    ids, rng = np.arange(2), np.random.default_rng(0)
    maps = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    scores = Scores(clip_id=info.id, round_idx=1, ids=ids, values=rng.normal(size=(2, 5)).astype(np.float32), maps=maps)
    journal.append(info, MaskBatch(clip_id=info.id, round_idx=1, ids=ids, attribution=spec), scores)
    _, (asked, answered) = journal.rounds(info.id)
    assert asked.attribution == spec
    assert asked.num_evaluations == 8
    assert answered.maps is not None
    np.testing.assert_array_equal(answered.maps, maps)
    np.testing.assert_array_equal(answered.values, scores.values)


def test_the_clip_comes_back_without_its_pixels(journal: Journal) -> None:
    info = clip_info(clip_idx=3)
    journal.append(info, *bank_round(info))
    found = journal.info(info.id)
    assert found is not None
    assert (found.id, found.shape, found.covers, found.nbytes) == (info.id, info.shape, info.covers, info.nbytes)
    np.testing.assert_array_equal(found.pts_s, info.pts_s)
    assert found.geometry.box_to_source(0, 0, 12, 16) == (0, 0, 24, 32)


def test_content_comes_back_and_older_journals_have_none(journal: Journal) -> None:
    info = clip_info()
    content = np.random.default_rng(0).integers(0, 256, (2, 4, 4)).astype(np.uint8)
    journal.append(replace(info, content=content), *bank_round(info))
    found = journal.info(info.id)
    assert found is not None
    np.testing.assert_array_equal(found.content, content)
    journal.append(info, *bank_round(info))  # as before there was any
    found = journal.info(info.id)
    assert found is not None
    assert found.content is None


def test_clips_are_listed_in_order_and_per_video(journal: Journal) -> None:
    for video_id, clip_idx in (("v", 11), ("v", 2), ("w", 0)):
        info = clip_info(video_id, clip_idx)
        journal.append(info, *bank_round(info))
    assert journal.clips("v") == [ClipId("v", 2), ClipId("v", 11)]
    assert journal.clips("nothing") == []
    assert len(list(journal.files())) == 3


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9, 1.0])
def test_a_flipped_byte_is_noticed(journal: Journal, position: float, caplog: pytest.LogCaptureFixture) -> None:
    info = clip_info()
    path = journal.append(info, *bank_round(info, num_masks=50))
    # Bytes of the payload: those of zip's own directory may be spare.
    content = bytearray(path.read_bytes())
    values = bank_round(info, num_masks=50)[1].values.tobytes()
    start = content.index(values)
    content[start + int(position * (len(values) - 1))] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert journal.rounds(info.id) == []
    assert "counted as not written" in caplog.text
    assert journal.damaged() == [path]


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_cut_off_file_counts_as_not_written(journal: Journal, keep: int) -> None:
    info = clip_info()
    path = journal.append(info, *bank_round(info))
    path.write_bytes(path.read_bytes()[:keep])
    assert journal.rounds(info.id) == []
    assert journal.info(info.id) is None


def test_rounds_after_a_damaged_one_do_not_count(journal: Journal) -> None:
    info = clip_info()
    journal.append(info, *bank_round(info))
    damaged = journal.append(info, *grid_round(info, 1))
    journal.append(info, *grid_round(info, 2))
    damaged.write_bytes(b"gone")
    assert [masks.round_idx for masks, _ in journal.rounds(info.id)] == [0]


def test_pickles_are_never_loaded(journal: Journal) -> None:
    info = clip_info()
    path = journal.append(info, *bank_round(info))
    np.savez(path, header=np.array([{"a": 1}], dtype=object), checksum=np.zeros(1))
    assert journal.rounds(info.id) == []


def test_effects_are_kept_beside_the_rounds(journal: Journal) -> None:
    info = clip_info()
    journal.append(info, *bank_round(info))
    journal.append(info, *grid_round(info, 5), kind="effect")
    assert len(journal.rounds(info.id)) == 1
    assert list(journal.effects(info.id)) == [5]


def test_masks_and_scores_of_different_clips_are_refused(journal: Journal) -> None:
    info, other = clip_info(clip_idx=0), clip_info(clip_idx=1)
    with pytest.raises(ValueError, match="of one clip"):
        journal.append(info, bank_round(info)[0], bank_round(other)[1])
