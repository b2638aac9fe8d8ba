"""Whole runs on threads: what comes out, what faults cost, stopping and going on."""

import json
import os

import av
import pytest
from small_runs import BOX, config, expect_equal, explain, write_scene

from pipeline.engine import Answer, StagePlan, WorkerDown, WorkerUp
from pipeline.journal import Journal
from pipeline.local import LocalEngine
from pipeline.results import read_explanations
from pipeline.runner import resume, run
from stages.errors import ConfigError, DecodeError, ManifestError, ModelError, ResourceError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.mp4")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scene):
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    return explain(out, scene)


def test_a_video_becomes_film_maps_tables_and_a_report(undisturbed):
    assert undisturbed.exit_code == 0
    (explanation,) = read_explanations(undisturbed.path)
    assert len(explanation.pts_s) == 40
    assert explanation.is_seen.all()
    (film,) = (undisturbed.path / "films").iterdir()
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 40
    assert (undisturbed.path / "report" / "index.html").is_file()
    manifest = json.loads((undisturbed.path / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["model"]["name"] == "quadrants"
    assert manifest["counts"]["clips"] == 10


def test_the_run_says_how_well_it_used_the_box(undisturbed):
    figures = undisturbed.figures
    assert figures["evaluations"] >= 10 * 24
    assert 0 < figures["efficiency"] < 1.5
    assert 0.8 < figures["batch_fill"] <= 1
    assert figures["peak_memory_bytes"]["driver"] > 50e6
    assert figures["clips"] == 10


def test_every_round_is_in_the_journal(undisturbed):
    journal = Journal(undisturbed.path / "journal")
    clips = journal.clips("scene")
    assert [clip.clip_idx for clip in clips] == list(range(10))
    ((masks, scores),) = journal.rounds(clips[3])
    assert len(masks) == len(scores.values) == 24


def test_a_box_that_fails_now_and_then_costs_retries_and_nothing_else(tmp_path, scene, undisturbed):
    again = explain(tmp_path / "run", scene, box__fault="now and then", box__every=4, engine__retries=9)
    assert again.exit_code == 0
    assert again.figures["retries"] > 0
    expect_equal(undisturbed.path, again.path)


def test_a_clip_on_which_the_box_always_fails_is_left_out(tmp_path):
    scene = write_scene(tmp_path / "black.mp4", black=range(12, 16))
    summary = explain(tmp_path / "run", scene, box__fault="black")
    assert summary.exit_code == 3
    (failure,) = summary.failures
    assert (failure.clip_idx, failure.stage, failure.error) == (3, "score", "ModelError")
    (explanation,) = read_explanations(summary.path)
    assert len(explanation.pts_s) == 40
    assert not explanation.is_seen[12:16].any()
    assert explanation.is_seen[16:].all()


def test_a_device_without_memory_for_a_batch_is_given_smaller_ones(tmp_path, scene, undisturbed):
    again = explain(tmp_path / "run", scene, box__fault="out of memory", box__every=3)
    assert again.exit_code == 0
    assert "out_of_memory" in (tmp_path / "run" / "log.jsonl").read_text()
    expect_equal(undisturbed.path, again.path)


def test_a_box_that_hangs_is_given_up_and_asked_again(tmp_path, scene, undisturbed):
    again = explain(
        tmp_path / "run", scene, box__fault="hang", box__marker=tmp_path, engine__score_timeout_s=1.0, engine__retries=9
    )
    assert again.exit_code == 0
    assert again.figures["lost_workers"] == 1
    expect_equal(undisturbed.path, again.path)


def test_an_interrupted_run_is_valid_and_goes_on_without_asking_again(tmp_path, scene, undisturbed):
    options = {"box__fault": "interrupt", "box__marker": tmp_path, "box__every": 8}
    first = explain(tmp_path / "run", scene, **options, engine__window_clips=2)
    assert first.exit_code == 130
    assert json.loads((first.path / "manifest.json").read_text())["status"] == "stopped"
    (film,) = (first.path / "films").iterdir()
    with av.open(str(film)) as container:
        seen = sum(1 for _ in container.decode(video=0))
    assert 0 < seen < 40
    second = resume(first.path, is_quiet=True)
    assert second.exit_code == 0
    assert second.figures["replayed_clips"] > 0
    assert second.figures["evaluations"] < undisturbed.figures["evaluations"]
    expect_equal(undisturbed.path, second.path, tolerance=1e-6)


def test_resuming_a_finished_run_asks_nothing(undisturbed):
    again = resume(undisturbed.path, is_quiet=True)
    assert again.exit_code == 0
    assert again.figures["evaluations"] == 0


def test_resuming_with_a_changed_input_is_refused(tmp_path, scene):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(scene.read_bytes())
    options = {"box__fault": "interrupt", "box__marker": tmp_path, "box__every": 4}
    first = explain(tmp_path / "run", copy, **options)
    assert first.exit_code == 130
    write_scene(copy, seed=9)
    with pytest.raises(ManifestError, match=r"copy\.mp4 changed since the run began"):
        resume(first.path, is_quiet=True)


def test_resuming_with_a_changed_model_or_configuration_is_refused(tmp_path, scene):
    box = tmp_path / "box.py"
    box.write_bytes(BOX.read_bytes())
    options = {"model__name": f"python:{box}:make", "box__fault": "interrupt", "box__marker": tmp_path, "box__every": 4}
    first = explain(tmp_path / "run", scene, **options)
    assert first.exit_code == 130
    box.write_text(box.read_text() + "# trained again\n")
    with pytest.raises(ManifestError, match="the model changed since the run began"):
        resume(first.path, is_quiet=True)
    box.write_bytes(BOX.read_bytes())
    manifest = first.path / "manifest.json"
    content = json.loads(manifest.read_text())
    content["config"]["perturb"]["budget"] += 8
    manifest.write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="the configuration changed since the run began"):
        resume(first.path, is_quiet=True)


def test_broken_inputs_become_failures_and_the_others_are_explained(tmp_path, scene):
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    summary = explain(tmp_path / "run", tmp_path / "missing.mp4", text, scene)
    assert summary.exit_code == 3
    assert [failure.stage for failure in summary.failures] == ["decode", "decode"]
    assert len(list(read_explanations(summary.path))) == 1


def test_too_many_failures_end_the_run(tmp_path):
    missing = [tmp_path / f"{idx}.mp4" for idx in range(5)]
    with pytest.raises(ResourceError, match="more than 2 failures"):
        explain(tmp_path / "run", *missing, engine__max_failures=2)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "failed"


def test_an_unknown_class_is_refused_before_anything_is_asked(tmp_path, scene):
    with pytest.raises(ConfigError, match="upper left"):
        explain(tmp_path / "run", scene, target="uper left")
    assert not list((tmp_path / "run" / "journal").iterdir())


def test_ranked_targets_are_found_by_looking_first(tmp_path, scene):
    summary = explain(tmp_path / "run", scene, target="top3")
    targets = {explanation.target_idx for explanation in read_explanations(summary.path)}
    assert len(targets) == 3
    rows = [json.loads(line) for line in (summary.path / "videos.jsonl").read_text().splitlines()]
    (chosen,) = [row["targets"] for row in rows if row["event"] == "targets"]
    assert set(chosen) == targets


def test_many_short_videos_leave_no_files_or_threads_behind(tmp_path):
    import threading

    sources = [write_scene(tmp_path / f"v{idx}.mp4", 4, seed=idx) for idx in range(12)]
    explain(tmp_path / "warm", sources[0])
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    summary = explain(tmp_path / "run", *sources)
    assert summary.exit_code == 0
    assert len(list(read_explanations(summary.path))) == 12
    after = len(os.listdir("/proc/self/fd")), threading.active_count()
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1]


def test_a_run_folder_that_is_taken_is_refused(undisturbed, scene):
    with pytest.raises(ManifestError, match="resume"):
        run(config(), [str(scene)], undisturbed.path, is_quiet=True)


class Echo:
    """A stage that answers with its request."""

    def setup(self) -> None:
        pass

    def process(self, request):
        if isinstance(request, Exception):
            raise request
        return request

    def close(self) -> None:
        pass


def _wait_for(engine, count):
    said = []
    while len(said) < count:
        said += engine.wait(5.0)
    return said


def test_errors_of_a_stage_come_back_as_data():
    engine = LocalEngine()
    engine.start([StagePlan(name="refine", build=Echo)])
    assert isinstance(_wait_for(engine, 1)[0], WorkerUp)
    for seq, request in enumerate(["fine", DecodeError("a.mp4", "broken", "copy it"), KeyError("bug")]):
        engine.submit(seq, "refine", 0, request)
    fine, expected, bug = _wait_for(engine, 3)
    assert isinstance(fine, Answer)
    assert fine.value == "fine"
    assert expected.problem.is_permanent
    assert str(expected.problem.error) == "a.mp4: broken; copy it"
    assert not bug.problem.is_permanent
    assert "KeyError" in bug.problem.error.fact
    engine.close()


def test_a_stage_that_cannot_be_set_up_says_why():
    def build():
        raise ConfigError("model x", "is unknown", "use another")

    engine = LocalEngine()
    engine.start([StagePlan(name="score", build=build)])
    (down,) = _wait_for(engine, 1)
    assert isinstance(down, WorkerDown)
    assert isinstance(down.problem.error, ConfigError)
    engine.close()


DRIFTING_BOX = """
import os, time, torch
from stages.box import BoxSpec

class Bright(torch.nn.Module):
    def __init__(self, gain, marker):
        super().__init__()
        self.gain, self.asked = torch.nn.Parameter(torch.tensor(gain)), marker + "-second-asked"
    def forward(self, frames):
        if self.gain > 1:
            open(self.asked, "w").close()
        else:  # however busy the machine is, the second scorer comes up before the first is through with the run
            until = time.monotonic() + 30
            while not os.path.exists(self.asked) and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.05)
        seen = self.gain * frames.mean((1, 2, 3, 4))
        return torch.stack([seen, -seen], 1)

def make(marker):
    spec = BoxSpec(name="bright", clip_len=4, height=24, width=24, resize="squash", batch_size=8)
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        return Bright(1.0, marker), spec
    except FileExistsError:
        return Bright(2.0, marker), spec
"""


def test_scorers_that_load_different_weights_end_the_run(scene, tmp_path):
    box = tmp_path / "box.py"
    box.write_text(DRIFTING_BOX)
    settings = {"model__name": f"python:{box}:make", "box__marker": tmp_path / "loaded", "engine__num_scorers": 2}
    with pytest.raises(ModelError, match=r"loaded other weights .* give every node"):
        explain(tmp_path / "run", scene, **settings)
