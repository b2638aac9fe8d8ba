"""What a run was computed on: package versions and hardware, for the manifest."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("heatreel", "torch", "torchvision", "pytorchvideo", "av", "decord", "gpytorch", "numpy", "ray", "zarr")


def package_versions() -> dict[str, str]:
    """Python's version and those of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, memory and, when torch is loaded already, the accelerators of this machine."""
    known: dict[str, Any] = {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        known["gpus"] = [torch.cuda.get_device_name(idx) for idx in range(torch.cuda.device_count())]
    return known


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
