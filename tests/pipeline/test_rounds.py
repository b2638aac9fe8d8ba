"""Methods that ask again: their rounds go through the scheduler, the journal and the check of a finished run."""

import shutil

import pyarrow.parquet as pq
import pytest
from small_runs import config, expect_equal, expect_same_tables, explain, write_scene

from pipeline.journal import Journal
from pipeline.results import read_explanations
from pipeline.runner import resume
from pipeline.verify import verify_run
from stages import perturb
from stages.errors import ConfigError, ManifestError

# Most clips of the scene are known to this before the budget is spent; a black one never is.
TOLERANCE = 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "rounds"),
    [
        ({"method": "borex", "budget": 8}, [2, 2, 2, 2]),
        ({"prior": "rise"}, [13, 11]),
        ({"refine__adaptive_share": 0.5}, [14, 10]),
        ({"tolerance": 1e-9, "refine__adaptive_share": 0.25, "budget": 102}, [64, 14, 24]),
    ],
    ids=["borex", "prior", "adaptive", "parts"],
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


@pytest.mark.slow
def test_a_run_with_a_tolerance_says_why_each_clip_stopped_and_is_resumed_as_it_was(tmp_path):
    scene = write_scene(tmp_path / "scene.mp4", num_frames=24, black=range(12, 16))
    settings = {"tolerance": TOLERANCE, "refine__adaptive_share": 0.2, "budget": 128}
    found = explain(tmp_path / "run", scene, **settings)
    rows = pq.read_table(found.path / "clips.parquet").to_pylist()
    by_reason = {
        reason: [row["evaluations"] for row in rows if row["stop_reason"] == reason]
        for reason in ("tolerance", "budget")
    }
    assert len(by_reason["tolerance"]) + len(by_reason["budget"]) == len(rows)
    assert by_reason["tolerance"]
    assert by_reason["budget"]
    assert max(by_reason["tolerance"]) < 128
    assert set(by_reason["budget"]) == {128}
    assert verify_run(found.path).is_ok
    # As if it had been killed in the midst of several clips: some later rounds, some maps, the end are not there.
    shutil.copytree(found.path, tmp_path / "again")
    journal = Journal(tmp_path / "again" / "journal")
    later = [path for path in journal.files() if ".r0000." not in path.name]
    for path in later[::2]:
        path.unlink()
    (tmp_path / "again" / "videos.jsonl").write_text(
        "".join(line for line in (found.path / "videos.jsonl").read_text().splitlines(True) if '"done"' not in line)
    )
    again = resume(tmp_path / "again", is_quiet=True)
    assert again.exit_code == 0
    assert 0 < again.figures["evaluations"] < found.figures["evaluations"]
    expect_equal(found.path, again.path)
    expect_same_tables(found.path, again.path)
    assert verify_run(again.path).is_ok


def test_a_run_that_was_begun_with_other_masks_is_not_resumed_with_the_new_ones(tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "scene.mp4", num_frames=24)
    found = explain(tmp_path / "run", scene, budget=32)
    monkeypatch.setitem(perturb.FAMILY_OF_METHOD, "gp", "mixture")
    assert resume(found.path, is_quiet=True).exit_code == 0  # whole: nothing would be asked
    ends = [line for line in (found.path / "videos.jsonl").read_text().splitlines(True) if '"done"' not in line]
    (found.path / "videos.jsonl").write_text("".join(ends))
    manifest = (found.path / "manifest.json").read_bytes()
    with pytest.raises(ManifestError, match=r"the masks 'designed', this version would ask 'mixture'"):
        resume(found.path, is_quiet=True)
    assert (found.path / "manifest.json").read_bytes() == manifest


def test_a_tolerance_belongs_to_the_fingerprint_and_to_a_method_with_a_posterior():
    found = [config(tolerance=tolerance).fingerprint() for tolerance in (0.0, 0.1, 0.2)]
    assert len({*found, config(refine__adaptive_share=0.1).fingerprint()}) == 4
    assert config().fingerprint() == found[0]
    with pytest.raises(ConfigError, match=r"rise has no posterior .* use method gp"):
        config(method="rise", tolerance=0.1)
