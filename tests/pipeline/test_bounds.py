"""What is in flight fits into the smallest object store of a cluster that others have made."""

import pytest
from small_runs import config

from pipeline.bounds import STORE_SLACK, limits_of
from pipeline.engine import Capacity
from pipeline.topology import Share

MIB = 1 << 20


def most_bytes(store_bytes: int | None, num_shares: int = 1, num_stores: int = 1, **settings: object) -> int:
    capacity = Capacity(num_cpus=8, is_local=store_bytes is None, store_bytes=store_bytes, num_stores=num_stores)
    options = config(engine__window_bytes=1024 * MIB, **settings)
    return limits_of(options, capacity, Share(count=num_shares)).max_bytes


def test_the_window_fits_into_the_smallest_store():
    assert most_bytes(120 * MIB) == int(120 * MIB / STORE_SLACK)
    assert most_bytes(1 << 40) == 1024 * MIB
    assert most_bytes(None) == 1024 * MIB


def test_coordinators_share_it():
    assert most_bytes(120 * MIB, 4) == int(120 * MIB / STORE_SLACK) // 4


def test_where_clips_are_spread_every_machine_counts():
    fits = int(120 * MIB / STORE_SLACK)
    assert most_bytes(120 * MIB, 4, 2, engine__has_shared_folder=True) == fits * 2 // 4
    assert most_bytes(120 * MIB, 4, 100, engine__has_shared_folder=True) == fits  # one reader lies on one machine
    assert most_bytes(120 * MIB, 4, 2) == fits // 4


@pytest.mark.parametrize("bound", [{"labels": {"disk": "fast"}}, {"custom": {"reader": 1.0}}])
def test_readers_that_are_bound_to_some_machines_count_as_one(bound):
    settings = {"engine__has_shared_folder": True, "engine__resources": {"decode": bound}}
    assert most_bytes(120 * MIB, 4, 100, **settings) == int(120 * MIB / STORE_SLACK) // 4


def test_no_more_machines_count_than_there_are_readers():
    fits = int(120 * MIB / STORE_SLACK)
    settings = {"engine__has_shared_folder": True, "engine__num_decoders": 5}
    assert most_bytes(120 * MIB, 10, 100, **settings) == fits  # every share has one of its own
    assert most_bytes(120 * MIB, 2, 100, **settings) == fits
    assert most_bytes(120 * MIB, 10, 3, **settings) == fits * 3 // 10


def test_a_thousand_gpus_have_room_for_the_clips_that_their_scorers_need():
    clip_bytes, most_clips = 3 * 16 * 224 * 224, 256
    bound = most_bytes(1 << 40, 63, 125, engine__has_shared_folder=True)
    assert bound >= most_clips * clip_bytes
