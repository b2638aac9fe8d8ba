"""The memory of a process: its peak, and what the C library does with what is freed."""

import ctypes
import os
import resource
import sys
from pathlib import Path

# Of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT_BYTES = 1 << 30
MOST_OF_OLD_GLIBC = 32 << 20


def peak_memory() -> int:
    """Peak resident bytes of this process."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_freed_memory() -> None:
    """Have glibc keep large blocks that are freed: given back, their pages come anew in every forward pass.

    A network on a processor spends up to two fifths of its time on that. Arenas of threads give blocks back whatever is
    said, so there is to be one arena only: that is heeded where no thread has begun, which is why the entry points call
    this first. Other C libraries are left as they are, and so is what the environment sets (`MALLOC_...`).
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_ARENA_MAX, 1)
    if not mallopt(M_MMAP_THRESHOLD, KEPT_BYTES):
        mallopt(M_MMAP_THRESHOLD, MOST_OF_OLD_GLIBC)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
