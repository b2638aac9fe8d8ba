"""Blocks that a thread frees stay in the process, so that the next forward pass does not page them in again."""

import os
import platform
import subprocess
import sys

import pytest

NUM_PASSES, BLOCK_BYTES = 8, 96 << 20
PASSES = f"""
import resource, threading
from pipeline.memory import keep_freed_memory
keep_freed_memory()
import numpy as np
def work():
    np.empty({BLOCK_BYTES}, np.uint8).fill(1)
    began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({NUM_PASSES}):
        np.empty({BLOCK_BYTES}, np.uint8).fill(1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def page_faults(**environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    told = subprocess.run(
        [sys.executable, "-c", PASSES], capture_output=True, text=True, check=True, env={**clean, **environment}
    )
    return int(told.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_thread_gets_back_the_pages_that_it_freed() -> None:
    assert page_faults() < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_the_user_says_of_malloc_is_left_alone() -> None:
    huge_page_faults = NUM_PASSES * BLOCK_BYTES // (2 << 20)
    assert page_faults(MALLOC_MMAP_THRESHOLD_=str(1 << 20)) >= huge_page_faults
