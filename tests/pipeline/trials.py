"""What fault trials share: a cluster whose nodes can be killed, moments in a run, and who is killed at them."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

TESTS = Path(__file__).parent
NUM_FRAMES, NUM_CLIPS = 64, 16
STORE = 128 << 20
# The dead are noticed within some seconds, not within a minute; figures reach the page of a node soon.
QUICK = {
    "metrics_report_interval_ms": 1000,
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 5,
}
ON_RAY = {
    "engine": "ray",
    "box__sleep_s": 0.1,
    "engine__retries": 20,
    "engine__num_scorers": 2,
    "engine__num_decoders": 1,
    "engine__num_refiners": 1,
    "engine__num_sinks": 1,
    "engine__resources": {stage: {"num_cpus": 0.5} for stage in ("decode", "score", "refine", "sink", "coordinator")},
}


class Nodes:
    """A head without processors, and nodes that do the work: any of them can be killed and replaced."""

    def __init__(self, count: int = 2, **resources: Any) -> None:
        import ray
        from ray.cluster_utils import Cluster

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.client_address = f"ray://127.0.0.1:{free.getsockname()[1]}"
        head = {
            "num_cpus": 0,
            "object_store_memory": STORE,
            "include_dashboard": False,
            "ray_client_server_port": int(self.client_address.rpartition(":")[2]),
            "_system_config": QUICK,
        }
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self._resources = resources
        self.nodes = [self.add() for _ in range(count)]
        ray.init(address=self.cluster.address, log_to_driver=False)

    def add(self, **resources: Any) -> Any:
        return self.cluster.add_node(num_cpus=4, object_store_memory=STORE, **{**self._resources, **resources})

    def kill(self, number: int) -> None:
        """A node is gone from one moment to the next; another joins."""
        self.cluster.remove_node(self.nodes.pop(number), allow_graceful=False)
        self.nodes.append(self.add())

    def exported(self) -> dict[str, float]:
        """What the nodes tell Prometheus now, by name; the highest where several do."""
        import ray

        found: dict[str, float] = {}
        for node in ray.nodes():
            page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            with suppress(OSError), urllib.request.urlopen(page, timeout=5) as answer:
                rows = (line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[:1] != "#")
                for name, value in rows:
                    plain = name.partition("{")[0]
                    found[plain] = max(float(value), found.get(plain, float("-inf")))
        return found

    def client_log(self) -> str:
        """What the servers of the head's clients said, so that a failure can be understood."""
        logs = sorted(Path(self.cluster.head_node.get_logs_dir_path()).glob("ray_client_server*.err"))
        return "".join(f"\n== {log.name}\n{log.read_text()[-4000:]}" for log in logs)

    def close(self) -> None:
        import ray

        ray.shutdown()
        self.cluster.shutdown()


def rounds_of(run: Path) -> int:
    return len(list((run / "journal").glob("*/*.r*.npz")))


def moments(seed: int, count: int) -> list[int]:
    """Numbers of journalled rounds after which something is killed; the first part of a run, so that it is felt."""
    return sorted(Random(seed).sample(range(1, NUM_CLIPS * 3 // 4), count))


def run_with_accidents(
    explain: Callable[[], Any], run: Path, numbers: Sequence[int], kill: Callable[[int], None]
) -> Any:
    """Explains in a thread; calls `kill(trial)` in this one when the journal of `run` holds each of these rounds.

    Nodes can be added by the main thread only.
    """
    with ThreadPoolExecutor(1) as threads:
        summary = threads.submit(explain)
        for trial, number in enumerate(numbers):
            while rounds_of(run) < number and not summary.done():
                time.sleep(0.02)
            if not summary.done():
                kill(trial)
        return summary.result()


def some_worker(fleet: Any, stage: str, but: Sequence[object], rng: Random) -> Any:
    """The actor of a worker of this stage that is at work; waits for the one that replaces those in `but`."""
    while True:
        actors = [actor for (name, _), actor in fleet.hands(0).items() if name == stage and actor not in but]
        if actors:
            return rng.choice(actors)
        time.sleep(0.02)


def start_driver(run: Path, sources: Sequence[Path], settings: Mapping[str, object]) -> subprocess.Popen[bytes]:
    """Explains in a process of its own; what it says goes to the file `run`.err."""
    given = ", ".join(f"Path({str(source)!r})" for source in sources)
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from pathlib import Path; from small_runs import explain; "
    code += f"sys.exit(explain(Path({str(run)!r}), {given}, **{settings!r}).exit_code)"
    with run.with_suffix(".err").open("w") as said:
        return subprocess.Popen([sys.executable, "-c", code], cwd=TESTS.parents[1], stderr=said)


def kill_driver(
    run: Path, sources: Sequence[Path], settings: Mapping[str, object], is_time: Callable[[Path], bool]
) -> None:
    """Kills such a process (signal 9) once `is_time(run)`; fails if it ends before."""
    driver = start_driver(run, sources, settings)
    try:
        while not is_time(run) and driver.poll() is None:
            time.sleep(0.02)
        said = run.with_suffix(".err").read_text()
        assert driver.poll() is None, f"the driver ended before it was killed: {said[-4000:]}"
    finally:
        driver.kill()
        driver.wait()
