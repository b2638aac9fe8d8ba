"""What a run tells Prometheus while it works, and the dashboard that shows it."""

import json
from pathlib import Path

from pipeline.metrics import EVERY_S, METRICS, Published, metrics_of
from pipeline.progress import NoView
from pipeline.stats import Stats

DASHBOARD = Path(__file__).parents[2] / "docker" / "grafana.json"


def working_stats() -> Stats:
    stats = Stats(began=0.0, evaluations=300, batches=10, capacity=320, clips=3, rows_waiting=64, bytes_in_flight=7)
    stats.scorer_up(0, 40.0, now=0.0)
    stats.tick(10.0)
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
    ours = {f"ray_heatreel_{name}" for name in METRICS}
    now = {"rate(ray_heatreel_evaluations[1m])", "sum by (Location) (ray_object_store_memory)"}
    assert asked == ours - {"ray_heatreel_evaluations"} | now
