"""The memory of the host ends for real: allocations that fail, and Ray's monitor that ends processes."""

import json
from pathlib import Path

import pytest
from small_runs import expect_equal, explain, write_scene
from trials import ON_RAY, start_driver

pytestmark = pytest.mark.slow

GIB = 1 << 30


def log_of(run: Path) -> list[str]:
    return [json.loads(line)["message"] for line in (run / "log.jsonl").read_text().splitlines()]


def memory(name: str) -> int:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return next(int(words[1]) << 10 for words in lines if words[0] == f"{name}:")


def limit() -> float:
    """Bytes that the control group of this process may use."""
    files = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    said = (path.read_text().strip() for path in files if path.exists())
    return min((int(words) for words in said if words != "max"), default=float("inf"))


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene.mp4", 12)


def test_an_allocation_that_fails_halves_the_batch(tmp_path, scene):
    """The process may grow by 512 MiB, the box takes 100 MiB for every clip of a batch, and batches are of 8."""
    whole = explain(tmp_path / "whole", scene)
    run = tmp_path / "run"
    driver = start_driver(run, [scene], {"box__fault": "no memory", "box__every": 100})
    assert driver.wait(timeout=300) == 0, run.with_suffix(".err").read_text()
    expect_equal(whole.path, run)
    halved = [line for line in log_of(run) if "out_of_memory" in line]
    assert halved[0] == "batch_size=4 model=quadrants reason=out_of_memory"


@pytest.mark.ray
def test_a_scorer_that_ray_ends_for_its_memory_comes_back_with_smaller_batches(tmp_path, scene):
    """Ray ends processes when 5 GiB more are in use than now; the box takes 750 MiB for each of the 8 in a batch."""
    ray = pytest.importorskip("ray")
    if memory("MemAvailable") < 10 * GIB:
        pytest.skip(f"needs 10 GiB of free memory, there are {memory('MemAvailable') / GIB:.1f}")
    whole = explain(tmp_path / "whole", scene)
    total = memory("MemTotal")
    if limit() < total:
        pytest.skip("this container may use less memory than its machine has, and Ray's share is of that")
    most = (total - memory("MemAvailable") + 5 * GIB) / total
    monitor = {"memory_usage_threshold": most, "memory_monitor_refresh_ms": 100}
    ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=128 << 20, _system_config=monitor
    )
    try:
        swell = {"box__sleep_s": 0, "box__fault": "swell", "box__every": 750}
        settings = {**ON_RAY, **swell, "engine__num_scorers": 1, "engine__retries": 5}  # readers and writers die too
        run = explain(tmp_path / "run", scene, **settings)
    finally:
        ray.shutdown()
    assert run.exit_code == 0
    assert run.figures["lost_workers"] >= 1
    lines = log_of(run.path)
    assert any("had no memory left" in line and "stage=score" in line for line in lines)
    assert any("stage=score batch_size=4 reason=out_of_memory" in line for line in lines)
    expect_equal(whole.path, run.path)
