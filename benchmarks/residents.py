"""What processes hold while they run: resident bytes, open files, threads, and what lies in Ray's object store.

Read from /proc and from the metrics that every Ray node offers to Prometheus; nothing of Ray's inside is touched.
"""

import os
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


def resident_bytes(pid: int | str = "self") -> int:
    return _status(pid, "VmRSS") * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a process holds at one moment. `files`: descriptor and what it points to; `threads`: their ids."""

    bytes: int
    shared_bytes: int
    files: frozenset[str]
    threads: frozenset[str]

    def counts(self) -> dict[str, int]:
        sizes = {"bytes": self.bytes, "shared_bytes": self.shared_bytes}
        return {**sizes, "files": len(self.files), "threads": len(self.threads)}

    def lasting(self, later: "Held") -> "Held":
        """The later moment, with only those files and threads that were there before."""
        return Held(
            bytes=later.bytes,
            shared_bytes=later.shared_bytes,
            files=self.files & later.files,
            threads=self.threads & later.threads,
        )


def held_by(pid: int | str = "self") -> Held:
    """Raises OSError or StopIteration for a process that has ended."""
    files = set()
    for link in (PROC / str(pid) / "fd").iterdir():
        with suppress(OSError):  # closed in between
            files.add(f"{link.name} {os.readlink(link)}")
    return Held(
        bytes=resident_bytes(pid),
        shared_bytes=_status(pid, "RssShmem") * 1024,
        files=frozenset(files),
        threads=frozenset(task.name for task in (PROC / str(pid) / "task").iterdir()),
    )


def workers_of(pid: int) -> dict[str, int]:
    """Processes below `pid` that do heatreel's work, by name: this one, and the Ray actors below it."""
    parents: dict[int, int] = {}
    actors: list[int] = []
    for folder in PROC.iterdir():
        with suppress(OSError, ValueError, IndexError):
            number = int(folder.name)
            parents[number] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_bytes().startswith(b"ray::_"):
                actors.append(number)
    found = [actor for actor in actors if pid in _ancestors(actor, parents)]
    return {"driver": pid, **{f"actor-{at}": actor for at, actor in enumerate(sorted(found))}}


def sample(pid: int) -> dict[str, Held]:
    """What a process and its actors hold; those that have just ended are left out."""
    found = {}
    for name, worker in workers_of(pid).items():
        with suppress(OSError, StopIteration):
            found[name] = held_by(worker)
    return found


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid in parents:
        pid = parents[pid]
        yield pid


def _status(pid: int | str, key: str) -> int:
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def store_metrics() -> dict[str, float]:
    """Bytes in the object store and bytes spilled, summed over the nodes, as Ray tells Prometheus; {} without Ray."""
    found: dict[str, float] = {}
    ray = sys.modules.get("ray")  # not imported here: it would count as memory of a run that does without
    if ray is None or not getattr(ray, "is_initialized", bool)():  # it may be half imported
        return found
    for node in ray.nodes():
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("ray_object_store_memory{"):
                    kind = "spilled" if 'Location="SPILLED"' in line else "in_memory"
                    found[kind] = found.get(kind, 0.0) + float(line.rsplit(" ", 1)[1])
    return found


@contextmanager
def every(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Call `look` again and again beside what is done inside, and once more at the end."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(seconds):
            look()

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        look()
