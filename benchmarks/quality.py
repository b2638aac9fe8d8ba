"""The quality of a map per evaluation of the box: every method at every budget on the same clips, with paired tests.

    python -m benchmarks.quality                      the demo model on fresh clips, and benchmarks/results/quality.json
    python -m benchmarks.quality --data FOLDER        real models and footage as well
    python -m benchmarks.quality --half development   the half on which settings may be chosen
    python -m benchmarks.quality --quick              under a minute, nothing is written

Insertion (16 x 16 cells of every frame) and block deletion rank the log-odds map of the first answer and follow its p;
energy and pointing compare its support map with the true object. The removal gain (URG) is that of the wished class
(the runner-up, or the truth where the model is wrong) while its evidence against (F-TC + F-NTC) is removed, beside
"lowest support first". Every budget of a method reads a prefix of one bank of masks, whose scores are asked for once.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.subjects import DEVELOPMENT_SEEDS, EVALUATION_SEEDS, Subject, data_subjects, demo_subjects
from pipeline.files import finite
from stages.baselines import BASELINES
from stages.evidence import decompose
from stages.faithfulness import CURVES, REMOVAL, Curve
from stages.measure import measure_curves, measure_removal
from stages.metrics import energy_in_mask, points_inside
from stages.perturb import Perturb, PerturbConfig
from stages.records import Evidence, SaliencyMap, Scores
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import score_clip
from stages.statistics import bootstrap_interval, paired_p

RESULTS = Path(__file__).with_name("results") / "quality.json"
BUDGETS = (32, 64, 128, 256, 512, 1024)
BANK_METHODS = ("gp", "centred-rise", "rise", "occlusion")
FREE_METHODS = ("random", "centre", "motion")  # they do not ask the box
CAPTUM_METHODS = ("kernel-shap", "lime")
METRICS = (
    "insertion",
    "block_deletion",
    "urg_log_odds",
    "urg_prob",
    "urg_lowest_support",
    "flip",
    "energy",
    "pointing",
)
OURS = "gp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured: budgets of the methods that read a bank and of Captum's, and the steps of the curves."""

    budgets: tuple[int, ...]
    captum_budgets: tuple[int, ...]
    steps: int
    removal_steps: int = 10
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The numbers of one method at one budget, an entry per clip; NaN where a clip cannot say."""

    method: str
    budget: int
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in METRICS})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Maps:
    """What is measured of a method's answer for one clip, each (t, y, x)."""

    ranked: np.ndarray
    support: np.ndarray
    against: np.ndarray  # for the wished class
    lowest: np.ndarray  # for the wished class


def measure(subjects: Iterable[Subject], plan: Plan, deadline: float = float("inf")) -> list[Row]:
    """All methods on all subjects, or on as many as can be begun before the deadline (of the monotonic clock)."""
    rows: dict[tuple[str, int], Row] = {}
    for number, subject in enumerate(subjects):
        start = time.monotonic()
        if number and start > deadline:
            break
        for method, budget, maps in all_maps(subject, plan):
            row = rows.setdefault((method, budget), Row(method=method, budget=budget))
            for name, value in numbers(subject, maps, plan).items():
                row.values[name].append(value)
        print(f"{number + 1:3} {subject.name:20} {time.monotonic() - start:6.1f} s", flush=True)
    return list(rows.values())


def all_maps(subject: Subject, plan: Plan) -> Iterator[tuple[str, int, Maps]]:
    """Every method at every budget; the budget of those that do not ask is 0."""
    clip, score = subject.clip, subject.score
    for name in FREE_METHODS:
        values = BASELINES[name](clip, score, subject.target, 0, plan.seed)
        yield name, 0, Maps(ranked=values, support=values, against=values, lowest=-values)
    banks: dict[str, Evidence] = {}
    for method in BANK_METHODS:
        perturb = Perturb(PerturbConfig(budget=max(plan.budgets), seed=plan.seed), method)
        family = perturb.config.bank_family(method)
        if family not in banks:
            banks[family] = score_clip(clip, perturb, score)
        refine = Refine(RefineConfig.model_validate({"method": method}))
        for budget in plan.budgets:
            request = RefineRequest(evidence=prefix(banks[family], budget), targets=(subject.target, subject.wished))
            yield method, budget, _maps(*refine.process(request).maps)
    for method in CAPTUM_METHODS:
        for budget in plan.captum_budgets:
            found, wished = (
                BASELINES[method](clip, score, target, budget, plan.seed) for target in (subject.target, subject.wished)
            )
            # One output, the log-odds: what lowers them is all that is known to speak against.
            yield method, budget, Maps(ranked=found, support=found, against=-wished, lowest=-wished)


def prefix(evidence: Evidence, budget: int) -> Evidence:
    """The first `budget` masks of a bank and their scores."""
    masks, scores = evidence.masks[0], evidence.scores[0]
    kept = Scores(clip_id=scores.clip_id, round_idx=0, ids=scores.ids[:budget], values=scores.values[:budget])
    return Evidence(clip_id=evidence.clip_id, masks=(masks.rows(0, budget),), scores=(kept,))


def numbers(subject: Subject, maps: Maps, plan: Plan) -> dict[str, float]:
    """The metrics of one answer for one clip."""
    clip, score = subject.clip, subject.score
    curves = {
        name: Curve(layout=CURVES[name].layout, adds=CURVES[name].adds, steps=plan.steps)
        for name in ("insertion", "block_deletion")
    }
    removal = Curve(layout=REMOVAL.layout, adds=False, steps=plan.removal_steps, reach=REMOVAL.reach)
    gain = measure_removal(clip, score, subject.wished, maps.against, removal)
    lowest = gain if maps.lowest is maps.against else None
    truth = subject.truth
    return {
        **measure_curves(clip, score, subject.target, maps.ranked, curves),
        "urg_log_odds": gain.log_odds,
        "urg_prob": gain.prob,
        "urg_lowest_support": (lowest or measure_removal(clip, score, subject.wished, maps.lowest, removal)).log_odds,
        "flip": float("nan") if gain.flips is None else float(gain.flips),
        "energy": float("nan") if truth is None else energy_in_mask(maps.support, truth).ratio,
        "pointing": float("nan") if truth is None else float(points_inside(maps.support, truth)),
    }


def comparisons(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Our method at each budget against every other at the same budget, and against RISE at 16 times as many."""
    found: list[dict[str, object]] = []
    by_key = {(row.method, row.budget): row for row in rows}
    for ours in (row for row in rows if row.method == OURS):
        others = [row for row in rows if row.method != OURS and row.budget in (0, ours.budget)]
        others += [by_key[key] for m in ("rise", "centred-rise") if (key := (m, 16 * ours.budget)) in by_key]
        for other in others:
            for name in ("insertion", "block_deletion", "urg_log_odds", "energy"):
                a, b = np.array(ours.values[name]), np.array(other.values[name])
                found.append(
                    {
                        "metric": name,
                        "ours": f"{OURS}@{ours.budget}",
                        "other": f"{other.method}@{other.budget}",
                        "difference": asdict(bootstrap_interval(a - b)),
                        "p": paired_p(a, b),
                    }
                )
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown: means over clips with the half-width of the 95 % interval of insertion."""
    shown = ("insertion", "block_deletion", "urg_log_odds", "urg_lowest_support", "energy", "pointing")
    lines = [
        "| method | evaluations | insertion ↑ | block deletion ↓ | URG, log-odds ↑ | lowest support first | "
        "energy in mask / area ↑ | pointing ↑ |",
        "| --- | ---: |" + " ---: |" * len(shown),
    ]
    for row in sorted(rows, key=lambda row: (row.budget, row.method != OURS, row.method)):
        cells = []
        for name in shown:
            values = np.array(row.values[name])
            found = bootstrap_interval(values)
            spread = f" ± {(found.high - found.low) / 2:.3f}" if name == "insertion" else ""
            cells.append(f"{found.mean:.3f}{spread}" if found.num else "")
        lines.append(f"| {row.method} | {row.budget or 'none'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60, help="generated clips for the demo model")
    parser.add_argument("--half", choices=("evaluation", "development"), default="evaluation")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--captum-budgets", type=int, nargs="*", default=list(BUDGETS))
    parser.add_argument("--steps", type=int, default=CURVES["insertion"].steps)
    parser.add_argument("--data", type=Path, help="a folder with real models and footage")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for each model; no clip is begun later")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="two clips, two budgets, nothing written")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    budgets, captum = ((16, 32), (32,)) if args.quick else (tuple(args.budgets), tuple(args.captum_budgets))
    plan = Plan(budgets=budgets, captum_budgets=captum, steps=8 if args.quick else args.steps)
    seeds = EVALUATION_SEEDS if args.half == "evaluation" else DEVELOPMENT_SEEDS
    start = time.monotonic()
    subjects = {"demo": demo_subjects(seeds, 2 if args.quick else args.clips)}
    if args.data is not None:
        subjects["squeezenet"] = data_subjects(args.data)
    models = {model: measure(found, plan, time.monotonic() + 60 * args.minutes) for model, found in subjects.items()}
    for model, rows in models.items():
        print(f"\n{model}, {len(rows[0].values['insertion'])} clips\n\n{table(rows)}")
    if args.quick:
        return
    content = {
        "half": args.half,
        "plan": asdict(plan),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - start, 1),
        "models": {
            model: {"rows": [asdict(row) for row in rows], "comparisons": comparisons(rows)}
            for model, rows in models.items()
        },
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(finite(content), indent=1) + "\n")


def _maps(found: SaliencyMap, wished: SaliencyMap) -> Maps:
    ours, theirs = decompose(found), decompose(wished)
    return Maps(
        ranked=ours["net"],
        support=ours["support"],
        against=theirs["f_tc"] + theirs["f_ntc"],
        lowest=-wished.output("z_t")[0],
    )


if __name__ == "__main__":
    main()
