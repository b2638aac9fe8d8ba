"""The background journal: the same files, later; nothing is lost and no error is swallowed."""

import threading
from contextlib import closing

import numpy as np
import pytest
from planted_run import bank_round, clip_info, grid_round

from pipeline import journal_writer
from pipeline.journal import Journal
from pipeline.journal_writer import MAX_PENDING, BackgroundJournal
from stages.errors import ResourceError


def test_many_rounds_are_all_there_after_a_flush_and_equal(tmp_path):
    infos = [clip_info("v", clip_idx) for clip_idx in range(3 * MAX_PENDING)]
    with closing(BackgroundJournal(tmp_path)) as journal:
        for info in infos:
            journal.append(info, *bank_round(info))
        journal.flush()
        assert not list(tmp_path.rglob("*.tmp"))
        found = Journal(tmp_path)
        assert found.clips("v") == [info.id for info in infos]
        assert found.damaged() == []
        ((_, scores),) = found.rounds(infos[70].id)
        np.testing.assert_array_equal(scores.values, bank_round(infos[70])[1].values)


def test_reading_a_clip_waits_for_what_is_on_its_way(tmp_path, monkeypatch):
    gate = threading.Event()
    commit = journal_writer._commit
    monkeypatch.setattr(journal_writer, "_commit", lambda group: (gate.wait(10), commit(group)))
    info = clip_info()
    with closing(BackgroundJournal(tmp_path)) as journal:
        journal.append(info, *bank_round(info))
        journal.append(info, *grid_round(info))
        journal.append(info, *grid_round(info, 0), kind="effect")
        assert list(tmp_path.rglob("*.npz")) == []
        threading.Timer(0.1, gate.set).start()
        assert len(journal.rounds(info.id)) == 2
        assert list(journal.effects(info.id)) == [0]
        assert journal.info(info.id) is not None


def test_a_write_that_fails_is_heard_of_at_the_next_call_and_leaves_nothing(tmp_path):
    (tmp_path / "full").write_text("a file where the video's folder should be")
    info, other = clip_info("full"), clip_info("v")
    with closing(BackgroundJournal(tmp_path)) as journal:
        journal.append(other, *bank_round(other))
        journal.append(info, *bank_round(info))
        with pytest.raises(ResourceError, match="cannot be written"):
            journal.flush()
        journal.flush()
        assert journal.clips("v") == [other.id]
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_loop_waits_when_the_disk_is_far_behind(tmp_path, monkeypatch):
    gate = threading.Event()
    commit = journal_writer._commit
    monkeypatch.setattr(journal_writer, "_commit", lambda group: (gate.wait(10), commit(group)))
    done = threading.Event()
    with closing(BackgroundJournal(tmp_path)) as journal:

        def append() -> None:
            for clip_idx in range(MAX_PENDING + 2):
                info = clip_info("v", clip_idx)
                journal.append(info, *bank_round(info))
            done.set()

        threading.Thread(target=append).start()
        assert not done.wait(0.3)
        gate.set()
        assert done.wait(10)
