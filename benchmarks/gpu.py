"""How much of the bare model's speed is left when it is asked about masks? Scorer and refinement, no Ray, no video.

    python -m benchmarks.gpu                    on CUDA: the table, and benchmarks/results/gpu.json
    python -m benchmarks.gpu --quick            small sizes, some seconds (also what a machine without CUDA gets)

Bare: the module alone, given one ready batch again and again, at the batch size where that is fastest. Ours: the score
stage at the size that it finds for itself, new clips all the time, every batch filled from two of them, scores of all
classes back in host memory; the refine stage turns each clip into maps beside it, in a thread, as in a run. Rounds of
the two alternate; the efficiency is the median of their ratios. Shares come from a pass of its own, in which every step
waits for the device before the next begins and refinement for the scores; that pass is slower, its shares are not.
"""

import argparse
import json
import logging
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.bare import SHARES, Bare, Work, our_rate, shares
from stages.models import load_box
from stages.models_torch import TorchBox
from stages.score import Score, ScoreConfig, pick_device
from stages.tuning import BATCH_SIZES

RESULTS = Path(__file__).with_name("results") / "gpu.json"
VIDEO = {"clip_len": "16", "height": "224", "width": "224", "short_side": "224"}
FRAMES = {"clip_len": "16", "frames": "mean"}
TINY = {"clip_len": "2", "height": "16", "width": "16", "short_side": "16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured. `seconds`: of the bare model in one round."""

    models: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {
            "torchvision:r3d_18": VIDEO,
            "pytorchvideo:x3d_m": VIDEO,
            "torchvision:mvit_v2_s": VIDEO,
            "torchvision:resnet50": FRAMES,
        }
    )
    precisions: tuple[str, ...] = ("fp32", "bf16")
    budget: int = 256
    rounds: int = 5
    seconds: float = 3.0
    trial_s: float = 0.25
    batch_sizes: tuple[int, ...] = BATCH_SIZES


QUICK = Plan(
    models={"torchvision:r3d_18": TINY, "torchvision:resnet50": {**TINY, "frames": "mean"}},
    budget=8,
    rounds=1,
    seconds=0.05,
    trial_s=0.01,
    batch_sizes=(1, 2, 4),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model at one precision. Rates are evaluations per second, medians over the rounds; shares are of the time."""

    model: str
    precision: str
    shape: tuple[int, int, int]
    classes: int
    bare_batch: int
    bare_rate: float
    our_batch: int
    our_rate: float
    efficiency: float
    efficiencies: list[float]
    shares: dict[str, float]


def measure(name: str, box: TorchBox, precision: str, plan: Plan) -> Row:
    """Both rates of one model, in turn, and the shares."""
    config = ScoreConfig.model_validate({"device": str(box.device), "precision": precision})
    if max(plan.batch_sizes) < max(BATCH_SIZES):
        config = config.model_copy(update={"batch_size": max(plan.batch_sizes)})
    score = Score(config, lambda: box)
    score.setup()
    size = score.tune().batch_size
    bare, work = Bare(box, precision), Work(box, plan.budget)
    bare_size = bare.best_size(plan.batch_sizes, plan.trial_s)
    per_pair = 2 * plan.budget
    num_pairs = max(1, round(bare.rate(bare_size, plan.trial_s) * plan.seconds / per_pair))
    our_rate(score, work, 1, size)  # the bank, its factorisation and the device's first use of every kernel
    pairs = []
    for _ in range(plan.rounds):
        before = bare.rate(bare_size, plan.seconds / 2)
        ours = our_rate(score, work, num_pairs, size)
        after = bare.rate(bare_size, plan.seconds / 2)
        pairs.append((ours, (before + after) / 2))
    spec = box.spec
    return Row(
        model=name,
        precision=precision,
        shape=(spec.clip_len, spec.height, spec.width),
        classes=len(spec.labels),
        bare_batch=bare_size,
        bare_rate=round(median(bare for _, bare in pairs), 2),
        our_batch=size,
        our_rate=round(median(ours for ours, _ in pairs), 2),
        efficiency=round(median(ours / bare for ours, bare in pairs), 4),
        efficiencies=[round(ours / bare, 4) for ours, bare in pairs],
        shares={part: round(share, 4) for part, share in shares(box, config, work, num_pairs, size).items()},
    )


def measure_all(plan: Plan, device: torch.device, say: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """Every model at every precision."""
    rows = []
    for name, options in plan.models.items():
        box = load_box(name, options=options, device=device)
        assert isinstance(box, TorchBox)
        for precision in plan.precisions:
            rows.append(measure(name, box, precision, plan))
            say(rows[-1])
    return rows


def table(rows: list[Row], where: str) -> Table:
    found = Table("model", "precision", "clip", title=f"scorer and refinement against the bare model, {where}")
    for head in ("bare /s", "(batch)", "ours /s", "(batch)", "efficiency", *SHARES):
        found.add_column(head, justify="right")
    for row in rows:
        rates = (f"{row.bare_rate:,.1f}", str(row.bare_batch), f"{row.our_rate:,.1f}", str(row.our_batch))
        parts = [f"{row.shares[name]:.1%}" for name in SHARES]
        clip = "x".join(map(str, row.shape))
        found.add_row(row.model, row.precision, clip, *rates, f"{row.efficiency:.3f}", *parts)
    return found


def machine(device: torch.device) -> dict[str, object]:
    """The card, its driver and the switches of torch that decide how fast and how exact it is."""
    found: dict[str, object] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "day": time.strftime("%F"),
    }
    if device.type == "cuda":
        found |= {
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        }
    return found


def _driver() -> str:
    """The driver's version as its own tool tells it; torch knows only which CUDA it supports."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return said.stdout.split("\n")[0].strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, some seconds; nothing written without --out")
    parser.add_argument("--device", default="auto", help="a torch device; auto: CUDA where there is one")
    parser.add_argument("--out", type=Path, help=f"where to write JSON (default on CUDA: {RESULTS.name})")
    args = parser.parse_args()
    logging.getLogger("stages").setLevel(logging.ERROR)  # that the weights are random is the plan
    device = pick_device(args.device)
    plan = QUICK if args.quick or device.type == "cpu" else Plan()
    about = machine(device)
    rows = measure_all(plan, device, lambda row: print(row.model, row.precision, row.efficiency, flush=True))
    Console(width=160).print(table(rows, f"{about['device']}, torch {about['torch']}"))
    out = args.out or (None if plan is QUICK else RESULTS)
    if out is not None:
        content = {"machine": about, "plan": asdict(plan), "rows": [asdict(row) for row in rows]}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
