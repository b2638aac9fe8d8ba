"""The bounds that follow from the configuration: bytes of the object store, credits of a scheduler, processors."""

import os

from pipeline.config import Config
from pipeline.engine import Capacity
from pipeline.topology import Share, are_readers_spread, num_cpus, num_gpus, num_readers
from pipeline.window import Limits

STORE_SHARE = 0.25  # of the machine's memory, for Ray's object store
STORE_SLACK = 1.5  # the store holds the window and what is on its way out
MIN_STORE_BYTES = 128 << 20


def store_bytes(config: Config) -> int:
    """The size of Ray's object store: what the window can hold and some more, within the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(int(min(STORE_SLACK * config.engine.window_bytes, STORE_SHARE * memory)), MIN_STORE_BYTES)


def limits_of(config: Config, capacity: Capacity, share: Share) -> Limits:
    """The bounds of one scheduler. On Ray the window fits into the smallest object store, and several share the bytes.

    Where readers are spread over the machines so are the clips: every machine with a reader counts then.
    """
    settings = config.engine
    fits = settings.window_bytes
    if capacity.store_bytes is not None:
        fits = min(fits, int(capacity.store_bytes / STORE_SLACK))
    stores = min(capacity.num_stores, num_readers(config, capacity, share)) if are_readers_spread(config) else 1
    return Limits(
        max_videos=settings.videos_in_flight,
        max_clips=settings.window_clips,
        max_bytes=max(min(fits, fits * stores // share.count), 1),
        queued={"decode": 2, "score": settings.queued_batches, "refine": 2, "sink": 2},
        deadline_s=settings.batch_deadline_s,
        attempts=settings.retries + 1,
        backoff_s=settings.backoff_s,
        timeout_s={"score": settings.score_timeout_s},
    )


def cpus_asked(config: Config) -> float:
    """What the actors occupy together, by their default counts."""
    settings, spare = config.engine, max(1, min(4, num_cpus() // 4))
    resources = settings.resources
    return (
        resources.coordinator.num_cpus
        + resources.score.num_cpus * (settings.num_scorers or max(num_gpus(), 1))
        + resources.decode.num_cpus * (settings.num_decoders or spare)
        + resources.refine.num_cpus * (settings.num_refiners or spare)
        + resources.sink.num_cpus * (settings.num_sinks or spare)
    )
