"""Which engine carries out a run, and the bounds that follow from the configuration."""

import math
import os

from pipeline.config import Config
from pipeline.engine import Engine
from pipeline.feed import SourceFeed
from pipeline.local import LocalEngine
from pipeline.topology import num_cpus, num_gpus
from pipeline.window import Limits

STORE_SHARE = 0.25  # of the machine's memory, for Ray's object store
STORE_SLACK = 1.5  # the store holds the window and what is on its way out


def make_engine(config: Config, feed: SourceFeed) -> tuple[Engine, bool]:
    """The engine that the configuration asks for, and whether it is the local one.

    "auto": Ray for a cluster's address, more than one GPU, or more video than `engine.auto_ray_s`; else threads.
    """
    settings = config.engine
    kind = settings.kind
    if kind == "auto":
        is_big = settings.address is not None or num_gpus() > 1 or feed.is_long(settings.auto_ray_s)
        kind = "ray" if is_big else "local"
    if kind == "local":
        return LocalEngine(), True
    from pipeline.actors import RayEngine

    cpus = max(num_cpus(), math.ceil(_cpus_asked(config)))
    return RayEngine(address=settings.address, store_bytes=store_bytes(config), num_cpus=cpus), False


def store_bytes(config: Config) -> int:
    """The size of Ray's object store: what the window can hold and some more, within the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(STORE_SLACK * config.engine.window_bytes, STORE_SHARE * memory))


def limits_of(config: Config, *, is_local: bool) -> Limits:
    """The scheduler's bounds."""
    settings = config.engine
    fits = settings.window_bytes if is_local else min(settings.window_bytes, int(store_bytes(config) / STORE_SLACK))
    return Limits(
        max_videos=settings.videos_in_flight,
        max_clips=settings.window_clips,
        max_bytes=fits,
        queued={"decode": 2, "score": settings.queued_batches, "refine": 2, "sink": 2},
        deadline_s=settings.batch_deadline_s,
        attempts=settings.retries + 1,
        backoff_s=settings.backoff_s,
        timeout_s={"score": settings.score_timeout_s},
    )


def _cpus_asked(config: Config) -> float:
    """What the actors occupy together, by their default counts."""
    settings, spare = config.engine, max(1, min(4, num_cpus() // 4))
    resources = settings.resources
    return (
        resources.score.num_cpus * (settings.num_scorers or max(num_gpus(), 1))
        + resources.decode.num_cpus * (settings.num_decoders or spare)
        + resources.refine.num_cpus * (settings.num_refiners or spare)
        + resources.sink.num_cpus * (settings.num_sinks or spare)
    )
