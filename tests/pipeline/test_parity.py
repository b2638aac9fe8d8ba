"""Maps do not depend on how the work was spread: engines, numbers of workers and coordinators, order of the answers."""

import pytest
from small_runs import Shuffled, ShufflingEngine, expect_equal, expect_same_tables, explain, write_scene

from pipeline import fleet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return [write_scene(folder / f"scene{idx}.mp4", 24 + 8 * idx, seed=idx) for idx in range(3)]


@pytest.fixture(scope="module")
def local_run(tmp_path_factory, scenes):
    return explain(tmp_path_factory.mktemp("runs") / "local", *scenes)


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_answers_in_any_order_give_the_same_maps(tmp_path, scenes, local_run, monkeypatch, num_workers):
    monkeypatch.setattr(fleet, "LocalEngine", ShufflingEngine)
    counts = {f"engine__num_{kind}": num_workers for kind in ("scorers", "decoders", "refiners", "sinks")}
    summary = explain(tmp_path / "run", *scenes, **counts)
    assert summary.exit_code == 0
    expect_equal(local_run.path, summary.path)
    expect_same_tables(local_run.path, summary.path)


@pytest.mark.ray
@pytest.mark.slow
class TestOnRay:
    @pytest.fixture(scope="class", autouse=True)
    def cluster(self):
        ray = pytest.importorskip("ray")
        ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
        yield
        ray.shutdown()

    @pytest.mark.parametrize("num_scorers", [1, 2, 5])
    def test_any_number_of_actors_gives_the_same_maps(self, tmp_path, scenes, local_run, num_scorers):
        # The box takes a moment, so that the answers of several scorers come back in another order.
        counts = {"scorers": num_scorers} | dict.fromkeys(("decoders", "refiners", "sinks"), min(num_scorers, 3))
        settings = {f"engine__num_{kind}": count for kind, count in counts.items()}
        summary = explain(tmp_path / "run", *scenes, engine="ray", box__sleep_s=0.02 * num_scorers, **settings)
        assert summary.exit_code == 0
        expect_equal(local_run.path, summary.path)
        expect_same_tables(local_run.path, summary.path)

    def test_answers_of_actors_in_any_order_give_the_same_maps(self, tmp_path, scenes, local_run, monkeypatch):
        from pipeline.actors import RayEngine

        class ShufflingActors(Shuffled, RayEngine):
            """The coordinator is in this process, its workers are actors."""

        monkeypatch.setattr(fleet, "LocalEngine", lambda: ShufflingActors(startup_s=300))
        counts = {f"engine__num_{kind}": 2 for kind in ("scorers", "decoders", "refiners", "sinks")}
        summary = explain(tmp_path / "run", *scenes, box__sleep_s=0.2, **counts)  # so that all actors get to work
        assert summary.exit_code == 0
        assert {"score-1", "sink-1"} <= summary.figures["peak_memory_bytes"].keys()
        expect_equal(local_run.path, summary.path)
        expect_same_tables(local_run.path, summary.path)

    def test_videos_sharded_over_coordinators_give_the_same_maps(self, tmp_path, scenes, local_run):
        summary = explain(tmp_path / "run", *scenes, engine="ray", engine__num_scorers=2, engine__num_coordinators=2)
        assert summary.exit_code == 0
        assert {name for name in summary.figures["peak_memory_bytes"] if "coordinator" in name} == {
            "0/coordinator",
            "1/coordinator",
        }
        assert summary.figures["clips"] == 6 + 8 + 10
        expect_equal(local_run.path, summary.path)
        expect_same_tables(local_run.path, summary.path)
