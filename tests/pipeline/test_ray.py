"""The same runs through Ray actors: equal results with any number of workers, and when actors are killed."""

import threading
import time

import pytest
from small_runs import expect_equal, explain, write_scene

from pipeline.engine import Answer, FramesLostError, StagePlan, WorkerDown, WorkerUp
from stages.records import Clip
from stages.score import ScoreRequest

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray for all tests of this file; engines join it and leave it running."""
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.mp4")


@pytest.fixture(scope="module")
def local_run(tmp_path_factory, scene):
    return explain(tmp_path_factory.mktemp("runs") / "local", scene)


@pytest.mark.parametrize("num_scorers", [1, 2])
def test_ray_and_threads_give_the_same_maps(tmp_path, scene, local_run, num_scorers):
    # The box takes a moment, so that with two scorers the answers come back in another order.
    summary = explain(
        tmp_path / "run", scene, engine="ray", engine__num_scorers=num_scorers, box__sleep_s=0.02 * num_scorers
    )
    assert summary.exit_code == 0
    expect_equal(local_run.path, summary.path)
    assert set(summary.figures["peak_memory_bytes"]) >= {"driver", "score-0", "decode-0", "refine-0", "sink-0"}


@pytest.mark.parametrize("stage", ["decode", "refine", "sink"])
def test_an_actor_that_is_killed_costs_nothing_but_time(tmp_path, scene, local_run, fleets, stage):
    killed = []

    def kill():
        while not killed:
            time.sleep(0.05)
            if (tmp_path / "run" / "journal" / "scene" / "000002.r0000.npz").exists():
                killed.append(stage)
                ray.kill(fleets[0].hands(0)[stage, 0])

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    summary = explain(tmp_path / "run", scene, engine="ray", engine__retries=9, box__sleep_s=0.1)
    assert killed == [stage]
    assert summary.exit_code == 0
    expect_equal(local_run.path, summary.path)


def test_a_scorer_that_dies_is_replaced_and_its_batches_are_asked_again(tmp_path, scene, local_run):
    summary = explain(
        tmp_path / "run", scene, engine="ray", engine__retries=9, box__fault="die", box__marker=tmp_path, box__every=5
    )
    assert summary.exit_code == 0
    assert summary.figures["lost_workers"] == 1
    expect_equal(local_run.path, summary.path)


def fetching_stage():
    """A class that is sent to the actors whole: they cannot import this file."""

    class FetchesClips:
        """A stage that says what it got."""

        def setup(self) -> None:
            pass

        def process(self, request):
            if isinstance(request, float):
                time.sleep(request)
            if isinstance(request, str):
                raise FramesLostError(request)
            clip = next(iter(request.clips.values()))
            got = clip() if callable(clip) else clip
            return isinstance(got, Clip), got.frames.flags.writeable, got.frames.nbytes

        def close(self) -> None:
            pass

    return FetchesClips


def _wait_for(engine, count, kind):
    said = []
    deadline = time.monotonic() + 60
    while len(said) < count and time.monotonic() < deadline:
        said += [happening for happening in engine.wait(1.0) if isinstance(happening, kind)]
    return said


def test_pixels_go_from_actor_to_actor_and_arrive_read_only(scene):
    from functools import partial

    from pipeline.actors import HeldClip, RayEngine
    from stages.box import BoxSpec
    from stages.decode import Decode, DecodeConfig, DecodeRequest
    from stages.sources import probe

    spec = BoxSpec(name="any", clip_len=4, height=224, width=224, resize="squash")
    engine = RayEngine()
    engine.start(
        [
            StagePlan(name="decode", build=partial(Decode, DecodeConfig(), spec)),
            StagePlan(name="score", build=fetching_stage()),
        ]
    )
    _wait_for(engine, 2, WorkerUp)
    engine.submit(1, "decode", 0, DecodeRequest(source=probe(str(scene)), clip_idx=0))
    (read,) = _wait_for(engine, 1, Answer)
    assert isinstance(read.value.frames, HeldClip)
    engine.submit(2, "score", 0, ScoreRequest(batches=(), clips={read.value.info.id: read.value.frames}))
    (fetched,) = _wait_for(engine, 1, Answer)
    assert fetched.value == (True, False, 4 * 3 * 224 * 224)
    engine.submit(3, "score", 0, "gone")
    (lost,) = _wait_for(engine, 1, Answer)
    assert lost.problem.has_lost_frames
    engine.close()


def test_requests_of_a_killed_actor_are_answered_as_lost_and_another_takes_its_place(scene):
    from pipeline.actors import RayEngine

    engine = RayEngine()
    engine.start([StagePlan(name="score", build=fetching_stage())])
    _wait_for(engine, 1, WorkerUp)
    engine.submit(7, "score", 0, 60.0)
    ray.kill(engine.hands()["score", 0])
    said = _wait_for(engine, 3, (Answer, WorkerDown, WorkerUp))
    (answer,) = [happening for happening in said if isinstance(happening, Answer)]
    assert (answer.seq, answer.problem.is_lost) == (7, True)
    assert [type(happening) for happening in said if happening is not answer] == [WorkerDown, WorkerUp]
    engine.close()
