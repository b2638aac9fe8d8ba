"""The figures of a run while it works, for Prometheus: Ray exports them as `ray_heatreel_...`.

`docker/grafana.json` is a dashboard of them. `make files` does not write it; a test holds the two together.
"""

from collections.abc import Callable, Mapping

from pipeline.progress import ProgressView
from pipeline.stats import Stats

EVERY_S = 1.0

METRICS: Mapping[str, str] = {
    "clips": "clips that are written",
    "videos": "videos that are finished",
    "failures": "inputs that could not be explained",
    "evaluations": "evaluations of the box so far",
    "evaluations_per_s": "evaluations of the box per second, since the first scorer was ready",
    "efficiency": "evaluations per second over those of the bare box on the same scorers",
    "scorer_busy_share": "share of the time in which scorers worked",
    "batch_fill": "share of the places in scoring batches that held a mask",
    "refine_share": "seconds of refinement per second",
    "rows_waiting": "masks that wait for a scorer",
    "clips_in_flight": "clips between reading and writing",
    "bytes_in_flight": "bytes of decoded clips in flight",
    "retries": "requests that were tried again",
    "lost_workers": "workers that died or hung",
}


def metrics_of(stats: Stats, now: float) -> dict[str, float]:
    """The value of every metric; those that cannot be said yet are left out."""
    figures = stats.summary(now)
    figures |= {name: getattr(stats, name) for name in METRICS if name not in figures}
    return {name: float(figures[name]) for name in METRICS if figures[name] is not None}


class Published:
    """A view that also publishes: `publish` gets the metrics now and then."""

    def __init__(self, view: ProgressView, publish: Callable[[Mapping[str, float]], None]) -> None:
        self._view = view
        self._publish = publish
        self._next = 0.0

    def show(self, stats: Stats, now: float) -> None:
        """Show the state, and publish when it is time again."""
        self._view.show(stats, now)
        if now >= self._next and stats.began is not None:
            self._next = now + EVERY_S
            self._publish(metrics_of(stats, now))
