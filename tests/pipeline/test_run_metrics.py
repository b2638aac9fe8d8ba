"""What a run tells Prometheus while it works, and the dashboard that shows it."""

import json
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from pipeline.metrics import EVERY_S, METRICS, Published, metrics_of
from pipeline.progress import NoView
from pipeline.stats import Stats

DASHBOARD = Path(__file__).parents[2] / "docker" / "grafana.json"


def working_stats() -> Stats:
    stats = Stats(began=0.0, evaluations=300, batches=10, capacity=320, clips=3, rows_waiting=64, bytes_in_flight=7)
    stats.bare_rates[0] = 40.0
    return stats


def test_every_metric_has_a_value_once_the_run_works():
    metrics = metrics_of(working_stats(), 10.0)
    assert set(metrics) == set(METRICS)
    assert metrics["evaluations_per_s"] == 30
    assert metrics["efficiency"] == 0.75
    assert metrics["batch_fill"] == 300 / 320
    assert (metrics["rows_waiting"], metrics["bytes_in_flight"], metrics["clips"]) == (64, 7, 3)


def test_what_cannot_be_said_yet_is_left_out():
    assert "efficiency" not in metrics_of(Stats(), 0.0)


def test_figures_are_published_now_and_then_not_with_every_step():
    published = []
    view = Published(NoView(), published.append)
    for step in range(100):
        view.show(working_stats(), 1.0 + step * EVERY_S / 10)
    assert len(published) == 10


def test_the_dashboard_shows_every_metric():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {target["expr"] for panel in panels for target in panel["targets"]}
    assert asked == {f"ray_heatreel_{name}" for name in METRICS}


@pytest.mark.ray
@pytest.mark.slow
def test_ray_exports_them_for_prometheus():
    ray = pytest.importorskip("ray")
    from pipeline.ray_fleet import RayFleet

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 << 20,
        _metrics_export_port=port,
    )
    fleet = RayFleet(address=None, store_bytes=80 << 20, num_cpus=1, num_videos=1)
    try:
        page, deadline = "", time.monotonic() + 90
        while "ray_heatreel_rows_waiting" not in page and time.monotonic() < deadline:
            fleet.publish(metrics_of(working_stats(), 10.0))
            time.sleep(1.0)
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
            except OSError:
                continue
        (line,) = [line for line in page.splitlines() if line.startswith("ray_heatreel_rows_waiting{")]
        assert float(line.split()[-1]) == 64
    finally:
        fleet.close()
        ray.shutdown()
