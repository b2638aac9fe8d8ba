"""A box for runs in tests: class k scores the brightness of quadrant k. Faults can be ordered through its options."""

import os
import re
import resource
import signal
import time
from pathlib import Path

import torch

from stages.box import BoxSpec

CLIP_LEN, SIZE = 4, 24
ROOM_BYTES, SWOLLEN_S = 512 << 20, 0.5
LABELS = ("upper left", "upper right", "lower left", "lower right")


class Quadrants:
    def __init__(
        self,
        fault: str = "",
        marker: str = "",
        every: str = "3",
        sleep_s: str = "0",
    ) -> None:
        self.fault, self.marker, self.every, self.sleep_s = fault, Path(marker) / "happened", int(every), float(sleep_s)
        self.calls = 0

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        if (frames[..., 1:] - frames[..., :-1]).abs().mean() < 0.3:  # not the noise on which the box is timed
            self.calls += 1
            self.misbehave(frames)
        half = SIZE // 2
        parts = [frames[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        return torch.stack([8 * part.mean((1, 2, 3, 4)) for part in parts], 1)

    def misbehave(self, frames: torch.Tensor) -> None:
        time.sleep(self.sleep_s)
        if self.fault == "now and then" and self.calls % self.every == 0:
            raise RuntimeError("out of sorts")
        if self.fault == "out of memory" and len(frames) > self.every:
            raise torch.OutOfMemoryError("the device is full")
        if self.fault == "no memory" and self.calls == 1:  # from here on this process gets ROOM more than it has
            used_kib = re.search(r"VmData:\s*(\d+)", Path("/proc/self/status").read_text())
            assert used_kib is not None
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, ((int(used_kib[1]) << 10) + ROOM_BYTES, hard))
        if self.fault in ("no memory", "swell"):
            swollen = torch.ones(len(frames), self.every << 20, dtype=torch.uint8)
            time.sleep(SWOLLEN_S * (self.fault == "swell"))
            del swollen
        if self.fault == "black" and bool((frames.amax((2, 3, 4)) < 0.02).any()):
            raise RuntimeError("will not look at black frames")
        if self.fault in ("hang", "die", "interrupt") and self.calls > self.every and not self.marker.exists():
            self.marker.touch()
            if self.fault == "hang":
                time.sleep(20)
            elif self.fault == "die":
                os._exit(1)
            else:
                os.kill(os.getpid(), signal.SIGINT)


def make(**options: str) -> tuple[Quadrants, BoxSpec]:
    spec = BoxSpec(
        name="quadrants", clip_len=CLIP_LEN, height=SIZE, width=SIZE, resize="squash", batch_size=8, labels=LABELS
    )
    return Quadrants(**options), spec
