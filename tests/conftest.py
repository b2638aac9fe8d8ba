"""Shared fixtures: where the real models and clips lie, and quiet, bounded torch."""

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(min(2, os.cpu_count() or 1))

DATA_VARIABLE = "HEATREEL_TEST_DATA"
DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


OWN_THREADS = re.compile("names|sources|journal|mirror|(decode|perturb|score|refine|sink)-[0-9]+")


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test() -> Iterator[None]:
    """A thread of ours that is left over would work on beside other tests, and into the end of the process."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 30  # a box that hangs in a test does so for 20 s
    while left := [t for t in set(threading.enumerate()) - before if OWN_THREADS.fullmatch(t.name)]:
        assert time.monotonic() < until, f"left over: {[thread.name for thread in left]}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models, clips, pictures and masks; tests that need it skip where it is missing."""
    folder = Path(os.environ.get(DATA_VARIABLE, DEFAULT_DATA))
    if not (folder / "README.md").is_file():
        pytest.skip(f"no real models and clips in {folder}; set {DATA_VARIABLE} to the folder that holds them")
    return folder


@pytest.fixture
def store_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, and no waiting between attempts."""
    monkeypatch.setenv("HEATREEL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("HEATREEL_WORK_DIR", raising=False)
    monkeypatch.delenv("HEATREEL_CACHE_GB", raising=False)
    monkeypatch.setattr("stages.stores.BACKOFF_S", 0.001)
    return tmp_path / "cache"
