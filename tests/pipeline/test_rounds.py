"""Methods that ask again: their rounds go through the scheduler, the journal and the check of a finished run."""

import pytest
from small_runs import explain, write_scene

from pipeline.journal import Journal
from pipeline.results import read_explanations
from pipeline.verify import verify_run


@pytest.mark.parametrize(
    ("settings", "rounds"),
    [({"method": "borex", "budget": 8}, [2, 2, 2, 2]), ({"prior": "rise"}, [13, 11])],
    ids=["borex", "prior"],
)
def test_every_round_is_asked_once_and_the_maps_follow_from_the_journal(tmp_path, settings, rounds):
    scene = write_scene(tmp_path / "scene.mp4", num_frames=8)
    found = explain(tmp_path / "run", scene, **settings)
    assert found.exit_code == 0
    journal = Journal(found.path / "journal")
    clips = journal.clips("scene")
    assert clips
    for clip in clips:
        assert [len(masks) for masks, _ in journal.rounds(clip)] == rounds
    (explanation,) = read_explanations(found.path)
    assert explanation.is_seen.all()
    assert verify_run(found.path).is_ok
