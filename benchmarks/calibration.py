"""Are the error bars right, and is the verdict? Coverage on fresh masks, and verdicts on boxes that are known.

    python -m benchmarks.calibration                 demo model and planted boxes; benchmarks/results/calibration.json
    python -m benchmarks.calibration --data FOLDER   SqueezeNet and the shot-boundary detector as well
    python -m benchmarks.calibration --quick         a few of each, nothing is written

Coverage: a clip is fitted with the first masks of one bank; the 90 % intervals are those of masks of another bank of
the same kind, which the fit has never seen. Verdict: a box that is constant or noise (Gaussian, heavy-tailed, with a
trend in the keep-fraction) must get "no reliable signal", one with planted evidence must not. All seeds are from
700,000 on; those that the thresholds of `stages/refine.py` were set on are not among them.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm

from benchmarks.known_boxes import FIRST_SEED, KINDS, SHAPE, draw_box, noise_clip, noise_scores
from benchmarks.planted import scorer
from benchmarks.predictive import predict
from benchmarks.real_subjects import cuts, pictures, sequences
from benchmarks.subjects import EVALUATION_SEEDS, demo_subjects
from pipeline.files import finite
from stages.designs import clip_design, rows_of
from stages.estimators import regression_targets
from stages.fidelity import INTERVAL, MIN_STD
from stages.masks import NUM_ANCHORS, grid_for
from stages.perturb import MaskFamily, Perturb, PerturbConfig
from stages.records import OUTPUTS, Clip, Evidence, Scores
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.score import Score
from stages.single import score_clip

RESULTS = Path(__file__).with_name("results") / "calibration.json"
BUDGETS = (64, 128, 256)
FRESH = 200
# A picture network is slow here: fewer masks of a fit, fewer fresh ones, one sequence.
SLOW_BUDGETS, SLOW_FRESH = (64, 128), 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A clip with the scores of its fit and of fresh masks, from two banks."""

    model: str
    fit: Evidence
    fresh: Evidence
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Of one clip at one budget, by output: share of fresh scores inside the 90 % interval, and what may explain it."""

    model: str
    budget: int
    covered: dict[str, float]
    left_out: dict[str, float]  # the same, of the masks of the fit, each left out once
    r2: float  # of the log-odds of fresh masks
    width: float  # of the standardised errors of the log-odds: 1 where the variance is right
    covered_by_keep: list[float]  # log-odds, by thirds of the keep-fraction


def cover(case: Case, budget: int) -> Coverage:
    evidence = prefix(case.fit, budget)
    asked = evidence.scores[0].ids >= NUM_ANCHORS
    rows, fresh = rows_of(evidence)[asked], rows_of(case.fresh)[NUM_ANCHORS:]
    y = regression_targets(evidence.scores[0].values.astype(np.float64), case.target)[asked]
    truth = regression_targets(case.fresh.scores[0].values.astype(np.float64), case.target)[NUM_ANCHORS:]
    design = clip_design(evidence, asked)
    posterior = design.posterior(y)
    mean, var = predict(rows, y, fresh, design.grid, posterior.kernel_weights, evidence.content)
    half = norm.ppf(0.5 + INTERVAL / 2)
    inside = np.abs(truth - mean) <= half * np.sqrt(var)
    left_out = np.abs(y - posterior.loo_mean) <= half * np.sqrt(posterior.loo_var)
    net = OUTPUTS.index("log_odds")
    error = truth[:, net] - mean[:, net]
    thirds = np.array_split(np.argsort(fresh.mean(1), kind="stable"), 3)
    return Coverage(
        model=case.model,
        budget=budget,
        # What never moves has nothing to be covered: no rival, no noise, hence a constant LSE_N.
        covered={
            name: float(inside[:, o].mean()) if truth[:, o].std() > MIN_STD else math.nan
            for o, name in enumerate(OUTPUTS)
        },
        left_out={name: float(left_out[:, o].mean()) for o, name in enumerate(OUTPUTS)},
        r2=float(1 - (error**2).sum() / max(((truth[:, net] - truth[:, net].mean()) ** 2).sum(), 1e-300)),
        width=float((error / np.sqrt(var[:, net])).std()),
        covered_by_keep=[float(inside[third, net].mean()) for third in thirds],
    )


def prefix(evidence: Evidence, budget: int) -> Evidence:
    masks, scores = evidence.masks[0].rows(0, budget), evidence.scores[0]
    cut = Scores(clip_id=scores.clip_id, round_idx=0, ids=scores.ids[:budget], values=scores.values[:budget])
    return Evidence(clip_id=evidence.clip_id, masks=(masks,), scores=(cut,), content=evidence.content)


def ask(
    model: str, clip: Clip, score: Score, target: int, bank: int, budget: int = max(BUDGETS), num_fresh: int = FRESH
) -> Case:
    """Every case has two banks of its own: few clips under one bank would tell of that bank."""
    fit = score_clip(clip, Perturb(PerturbConfig(budget=budget, seed=FIRST_SEED + bank)), score)
    return Case(model=model, fit=fit, fresh=fresh_masks(clip, score, bank, num_fresh, "auto"), target=target)


def of_another_kind(case: Case, clip: Clip, score: Score, bank: int) -> Case:
    """The same fit; fresh masks of the mixture, which keep little and much, as no mask of a designed bank does."""
    fresh = fresh_masks(clip, score, bank, FRESH, "mixture")
    return Case(model=f"{case.model}, mixture", fit=case.fit, fresh=fresh, target=case.target)


def fresh_masks(clip: Clip, score: Score, bank: int, num: int, family: MaskFamily) -> Evidence:
    config = PerturbConfig(budget=NUM_ANCHORS + num, seed=FIRST_SEED + 100_000 + bank, family=family)
    return score_clip(clip, Perturb(config), score)


def cases(num: int, data: Path | None) -> Iterator[Case]:
    for idx in range(num):
        planted = draw_box(FIRST_SEED + idx)
        case = ask("planted", planted.clip, scorer(planted), 0, idx)
        yield from (case, of_another_kind(case, planted.clip, scorer(planted), idx))
    for idx, subject in enumerate(demo_subjects(EVALUATION_SEEDS, num)):
        case = ask("demo", subject.clip, subject.score, subject.target, idx)
        yield from (case, of_another_kind(case, subject.clip, subject.score, idx))
    if data is None:
        return
    for substrate in ("blur", "freeze"):
        for idx, subject in enumerate(cuts(data, substrate)):
            yield ask(f"shot boundary, {substrate}", subject.clip, subject.score, subject.target, idx)
    slow = {
        "squeezenet, picture": pictures(data, "evaluation"),
        "squeezenet, frames": islice(sequences(data, "evaluation"), 1),
    }
    for name, subjects in slow.items():
        for idx, subject in enumerate(subjects):
            yield ask(name, subject.clip, subject.score, subject.target, idx, max(SLOW_BUDGETS), SLOW_FRESH)


def verdict(evidence: Evidence, target: int) -> bool:
    request = RefineRequest(evidence=evidence, targets=(target,))
    return Refine(RefineConfig()).process(request).maps[0].is_reliable


def noise_verdicts(num: int) -> dict[str, dict[str, list[int]]]:
    """By kind and budget: how many of how many were called reliable."""
    found = {kind: {str(budget): [0, 0] for budget in BUDGETS} for kind in KINDS}
    info = noise_clip(np.random.default_rng(0), 0).info
    for bank in range(2):
        for budget in BUDGETS:
            masks = Perturb(PerturbConfig(budget=budget, seed=FIRST_SEED + bank)).process(info)
            empty = np.zeros((budget, 3), np.float32)
            blank = Scores(clip_id=info.id, round_idx=0, ids=masks.ids, values=empty)
            keep = rows_of(Evidence(clip_id=info.id, masks=(masks,), scores=(blank,))).mean(1)
            for kind in KINDS:
                for seed in range(bank * num // 2, (bank + 1) * num // 2):
                    values = noise_scores(kind, keep, seed)
                    scores = Scores(clip_id=info.id, round_idx=0, ids=masks.ids, values=values)
                    evidence = Evidence(clip_id=info.id, masks=(masks,), scores=(scores,), content=info.content)
                    found[kind][str(budget)][0] += verdict(evidence, 0)
                    found[kind][str(budget)][1] += 1
    return found


def planted_verdicts(num: int) -> dict[str, list[int]]:
    """By budget: how many of how many planted boxes were called reliable."""
    found = {str(budget): [0, 0] for budget in BUDGETS}
    for idx in range(num):
        planted = draw_box(FIRST_SEED + 10_000 + idx)
        perturb = Perturb(PerturbConfig(budget=max(BUDGETS), seed=FIRST_SEED + idx))
        evidence = score_clip(planted.clip, perturb, scorer(planted))
        for budget in BUDGETS:
            found[str(budget)][0] += verdict(prefix(evidence, budget), 0)
            found[str(budget)][1] += 1
    return found


def print_coverage(rows: list[Coverage]) -> None:
    titles = ("log-odds", "z_t", "lse_n", "left out", "k low", "k mid", "k high", "R2", "width")
    print(
        "share of fresh scores in the 90 % interval\n" + f"{'':24} masks clips " + " ".join(f"{t:>8}" for t in titles)
    )
    for model, budget in dict.fromkeys((row.model, row.budget) for row in rows):
        chosen = [row for row in rows if (row.model, row.budget) == (model, budget)]
        columns = [
            [
                *(row.covered[name] for name in ("log_odds", "z_t", "lse_n")),
                row.left_out["log_odds"],
                *row.covered_by_keep,
                row.r2,
                row.width,
            ]
            for row in chosen
        ]
        means = " ".join(f"{value:8.3f}" for value in np.nanmean(columns, axis=0))
        print(f"{model:26} {budget:5} {len(chosen):5} {means}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of real models and footage")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    rows = [
        cover(case, budget)
        for case in cases(2 if args.quick else 16, args.data)
        for budget in BUDGETS
        if budget <= len(case.fit.masks[0])
    ]
    print_coverage(rows)
    noise = noise_verdicts(4 if args.quick else 40)
    planted = planted_verdicts(4 if args.quick else 200)
    for kind, by_budget in noise.items():
        print(f"{kind:22} called reliable: " + ", ".join(f"{a} of {b} at {n}" for n, (a, b) in by_budget.items()))
    print(f"{'planted':22} called reliable: " + ", ".join(f"{a} of {b} at {n}" for n, (a, b) in planted.items()))
    print(f"{time.monotonic() - start:.0f} s")
    if not args.quick:
        content = {"interval": INTERVAL, "fresh_masks": FRESH, "coverage": [asdict(row) for row in rows]}
        content |= {"noise_called_reliable": noise, "planted_called_reliable": planted, "grid": grid_for(SHAPE)}
        args.out.write_text(json.dumps(finite(content), indent=1) + "\n")


if __name__ == "__main__":
    main()
