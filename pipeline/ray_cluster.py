"""How a Ray cluster is joined, what it offers, and what an actor asks of it."""

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.engine import Capacity
from stages.base import Resources
from stages.errors import ResourceError

REACH_S = 30.0
PROBE_S = 5.0
CLIENT_TRIES = 3
CLIENT_PAUSE_S = 2.0


def join(address: str, *, patience_s: float = REACH_S) -> None:
    """Connect this process to the cluster at `address`: `auto`, `host:port` or `ray://host:port`.

    A head that is still starting is waited for, one that is too busy to serve another client is asked again. Raises
    ResourceError for one that cannot be reached or refuses.
    """
    _reach(address, patience_s)
    step = "give the --address of a running head (auto, HOST:PORT or ray://HOST:PORT) with the Ray and Python of here"
    _init(f"the Ray cluster at {address}", step, address=address)


def begin(*, num_cpus: float, store_bytes: int) -> None:
    """Start a cluster on this machine that ends with this process. Raises ResourceError when Ray does not come up."""
    own = {"address": "local", "num_cpus": num_cpus, "object_store_memory": store_bytes, "include_dashboard": False}
    _init("a Ray cluster on this machine", "see /tmp/ray/session_latest/logs, or use --engine local", **own)


def _init(item: str, next_step: str, **where: Any) -> None:
    import ray

    for left in reversed(range(CLIENT_TRIES)):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        except Exception as error:  # Ray raises plain ones too when a node does not come up
            ray.shutdown()
            # A head starts a process for every client; on a busy machine that process may not come up.
            if left and isinstance(error, ConnectionAbortedError):
                time.sleep(CLIENT_PAUSE_S)
                continue
            raise ResourceError(item, reason(error), next_step) from error
        return


def _reach(address: str, patience_s: float) -> None:
    """Ray asks a silent port for minutes and then ends the process: so it is asked for here first."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    host, _, port = address.removeprefix("ray://").partition("/")[0].rpartition(":")
    if not (host and port.isdecimal()):
        return  # Ray looks for `auto` on this machine, and refuses the rest at once
    until = time.monotonic() + patience_s
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()
        except (OSError, OverflowError, ValueError) as error:
            if time.monotonic() < until:
                time.sleep(1.0)
                continue
            step = "start its head (`ray start --head`), or name another: `heatreel resume RUN --address HOST:PORT`"
            raise ResourceError(f"the Ray cluster at {address}", f"nothing answers there ({error})", step) from error
        return


def reason(error: Exception) -> str:
    """The last line of what Ray tells at length."""
    told = str(error).strip().splitlines()
    return told[-1].strip().rstrip(".") if told else type(error).__name__


def cluster_capacity() -> Capacity:
    """What the nodes of the cluster offer together, to whomever."""
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    custom = {name: amount for name, amount in found.items() if name not in ("CPU", "GPU", "memory")}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    stores = [int(node["object_store_memory"]) for node in nodes if node.get("CPU") and "object_store_memory" in node]
    return Capacity(
        num_cpus=found.get("CPU", 0.0),
        num_gpus=found.get("GPU", 0.0),
        custom=custom,
        store_bytes=min(stores, default=None),
        num_stores=max(len(stores), 1),
    )


def needs_of(resources: Resources) -> dict[str, float]:
    """What an actor occupies, in Ray's names."""
    own = {"CPU": resources.num_cpus, "GPU": resources.num_gpus, **resources.custom}
    return {name: amount for name, amount in own.items() if amount}


def shortage(resources: Resources, stages: Iterable[Resources]) -> str | None:
    """Why there can be no place for such an actor while the cluster is what it is; None when it only has to wait.

    `stages`: what one worker of each stage of this run occupies; this process (a coordinator) comes on top.
    """
    import ray

    if not _has_node(resources):
        return f"no node offers {_told(needs_of(resources))}"
    context = ray.get_runtime_context()
    own: dict[str, float] = {}
    if context.get_actor_id() is not None:  # a driver occupies nothing, and may not ask
        own = context.get_assigned_resources()  # type: ignore[no-untyped-call]
    taken = Counter(own)
    for each in stages:
        taken.update(needs_of(each))
    offered: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    short = {name: amount for name, amount in taken.items() if amount > offered.get(name, 0.0)}
    if not short:
        return None
    there = {name: offered.get(name, 0.0) for name in short}
    return f"all nodes offer {_told(there)}, and one worker for every stage with a coordinator takes {_told(short)}"


def _told(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())


def _has_node(resources: Resources) -> bool:
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return any(
        all(node["Resources"].get(name, 0.0) >= amount for name, amount in needs_of(resources).items())
        and all(node.get("Labels", {}).get(key) == value for key, value in resources.labels.items())
        for node in alive
    )


def actor_options(resources: Resources, *, is_at_home: bool = False, is_spread: bool = False) -> dict[str, Any]:
    """Ray's options for an actor that occupies this.

    `is_at_home`: on the node of this process if it fits there; `is_spread`: on another node than the ones before it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options: dict[str, Any] = {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "resources": dict(resources.custom) or None,
    }
    if resources.labels:
        options["label_selector"] = dict(resources.labels)
    elif is_at_home and not ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        node = ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id=node, soft=True)
    elif is_spread:
        options["scheduling_strategy"] = "SPREAD"
    return options
