"""What is in flight fits into the smallest object store of a cluster that others have made."""

from small_runs import config

from pipeline.bounds import STORE_SLACK, limits_of
from pipeline.engine import Capacity
from pipeline.topology import Share

MIB = 1 << 20


def most_bytes(store_bytes: int | None, num_shares: int = 1) -> int:
    capacity = Capacity(num_cpus=8, is_local=store_bytes is None, store_bytes=store_bytes)
    return limits_of(config(engine__window_bytes=1024 * MIB), capacity, Share(count=num_shares)).max_bytes


def test_the_window_fits_into_the_smallest_store():
    assert most_bytes(120 * MIB) == int(120 * MIB / STORE_SLACK)
    assert most_bytes(1 << 40) == 1024 * MIB
    assert most_bytes(None) == 1024 * MIB


def test_coordinators_share_it():
    assert most_bytes(120 * MIB, 4) == int(120 * MIB / STORE_SLACK) // 4
