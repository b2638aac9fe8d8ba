"""Which engine carries out a run: threads in this process, or actors on Ray."""

import math

from pipeline.bounds import cpus_asked, store_bytes
from pipeline.config import Config
from pipeline.feed import SourceFeed
from pipeline.fleet import Fleet, LocalFleet
from pipeline.topology import num_cpus, num_gpus

MOST_SHARDS = 64  # further videos are not looked at before the number of coordinators is fixed


def make_fleet(config: Config, feed: SourceFeed) -> Fleet:
    """The coordinators that the configuration asks for, with their workers in this process or on Ray.

    "auto": Ray for a cluster's address, more than one GPU, or more video than `engine.auto_ray_s`; else threads.
    """
    settings = config.engine
    kind = settings.kind
    if kind == "auto":
        is_big = settings.address is not None or num_gpus() > 1 or feed.is_long(settings.auto_ray_s)
        kind = "ray" if is_big else "local"
    if kind == "local":
        return LocalFleet()
    from pipeline.ray_fleet import RayFleet

    cpus = max(num_cpus(), math.ceil(cpus_asked(config)))
    most = config.engine.num_coordinators or MOST_SHARDS
    return RayFleet(
        address=settings.address,
        store_bytes=store_bytes(config),
        num_cpus=cpus,
        num_videos=feed.num_at_least(most),
        patience_s=settings.startup_s,
    )
