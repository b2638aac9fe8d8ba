"""The quality of a map per evaluation of the box: every method at every budget on the same clips, with paired tests.

    python -m benchmarks.quality                      the demo model on 60 fresh clips, planted boxes
    python -m benchmarks.quality --data FOLDER        real models and footage as well
    python -m benchmarks.quality --only cuts calves   some of the models
    python -m benchmarks.quality --minutes 15         as far as that goes; the same command again goes on from there
    python -m benchmarks.quality --half development   the half on which settings may be chosen
    python -m benchmarks.quality --quick              under a minute, nothing is written

Insertion (16 x 16 cells of every frame) and block deletion rank the log-odds map of the first answer and follow its p;
energy and pointing compare its support map with the true object. The removal gain (URG) is that of the wished class
(the runner-up, or the truth where the model is wrong) while its evidence against, lowest log-odds saliency first, is
removed, beside "lowest support first". Every budget of a method reads a prefix of one bank of masks, whose scores are
asked for once; BOREx and mask optimisation choose their masks themselves and start anew at every budget.
`gp-first-look` is the default without the second look, `gp-plain` without that and the content of the clip. Numbers are
kept clip by clip in --parts; quality.json and the curves are made of what is there.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.known_boxes import planted_subjects
from benchmarks.quality_report import METRICS, Row, table, write_results
from benchmarks.real_subjects import calves, cuts, pictures, sequences
from benchmarks.subjects import DEVELOPMENT_SEEDS, EVALUATION_SEEDS, Half, Subject, demo_subjects
from pipeline.files import finite
from stages.baselines import BASELINES
from stages.evidence import decompose
from stages.faithfulness import CURVES, REMOVAL, Curve
from stages.masks import grid_for
from stages.measure import measure_curves, measure_removal
from stages.metrics import energy_in_mask, points_inside
from stages.perturb import Perturb, PerturbConfig
from stages.questions import MASK_OPTIMISATION
from stages.records import Evidence, SaliencyMap, Scores
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.single import explain_clip, score_clip

RESULTS = Path(__file__).with_name("results") / "quality.json"
PARTS = Path(__file__).with_name("results") / "parts"
BUDGETS = (32, 64, 128, 256, 512, 1024)
# BOREx is fitted again after every query, for every class explained.
BOREX_BUDGETS = (32, 64, 128, 256)
# Some gradient steps on each of the masks of a class: support, F-TC and F-NTC share what is left after its own test.
OPTIMISED_BUDGETS = (128, 512)
FIRST_LOOK, PLAIN = "gp-first-look", "gp-plain"
BANK_METHODS = ("gp", FIRST_LOOK, PLAIN, "centred-rise", "rise", "occlusion")
FREE_METHODS = ("random", "centre", "motion")  # they do not ask the box
CAPTUM_METHODS = ("kernel-shap", "lime")
PRIOR_OF = {"borex": "rise", MASK_OPTIMISATION: "none"}  # methods that choose their masks, and what they start from

MODELS = ("demo", "planted", "pictures", "sequences", "cuts", "calves")
PLANTED = 8  # boxes of each form

Key = tuple[str, int]  # method and budget; 0 for methods that do not ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured: budgets of the methods that read a bank, of Captum's and of those that choose their masks."""

    budgets: tuple[int, ...]
    captum_budgets: tuple[int, ...] = ()
    borex_budgets: tuple[int, ...] = ()
    optimised_budgets: tuple[int, ...] = ()
    steps: int
    removal_steps: int = 10
    seed: int = 0

    def cells(self) -> list[Key]:
        """Every method at every budget."""
        return [
            *((method, 0) for method in FREE_METHODS),
            *((method, budget) for method in BANK_METHODS for budget in self.budgets),
            *((method, budget) for method in CAPTUM_METHODS for budget in self.captum_budgets),
            *(("borex", budget) for budget in self.borex_budgets),
            *((MASK_OPTIMISATION, budget) for budget in self.optimised_budgets),
        ]

    def suiting(self, model: str) -> "Plan":
        """What can be asked of a model: planted boxes have no inside."""
        return replace(self, optimised_budgets=()) if model == "planted" else self

    def settings(self) -> dict[str, int]:
        """What numbers must have been measured with to stand beside each other."""
        return {"steps": self.steps, "removal_steps": self.removal_steps, "seed": self.seed}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Maps:
    """What is measured of a method's answer for one clip, each (t, y, x)."""

    ranked: np.ndarray
    support: np.ndarray
    against: np.ndarray  # for the wished class
    lowest: np.ndarray  # for the wished class


Numbers = dict[Key, dict[str, float]]


def measure(
    subjects: Iterable[Subject], plan: Plan, parts: Path | None = None, deadline: float = float("inf")
) -> list[Row]:
    """All methods on all subjects, or on as many as can be begun before the deadline (of the monotonic clock).

    Numbers that a file in `parts` holds are not measured again; new ones are written there after every clip. The rows
    have an entry for every clip that is complete.
    """
    rows = {(method, budget): Row(method=method, budget=budget) for method, budget in plan.cells()}
    for number, subject in enumerate(subjects):
        start = time.monotonic()
        path = None if parts is None else parts / f"{subject.name}.json"
        known = {} if path is None else read_part(path, plan)
        missing = rows.keys() - known.keys()
        if missing and number and start > deadline:
            continue
        for method, budget, maps in all_maps(subject, plan, missing) if missing else ():
            known[method, budget] = numbers(subject, maps, plan)
        if missing and path is not None:
            write_part(path, plan, known)
        for key, row in rows.items():
            for name in METRICS:
                row.values[name].append(known[key][name])
        print(f"{number + 1:3} {subject.name:20} {time.monotonic() - start:6.1f} s", flush=True)
    return list(rows.values())


def read_part(path: Path, plan: Plan) -> Numbers:
    """The numbers of one clip so far; none where they were measured with other settings."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    if content["settings"] != plan.settings():
        return {}
    return {
        (entry["method"], entry["budget"]): {
            name: float("nan") if value is None else float(value) for name, value in entry["values"].items()
        }
        for entry in content["numbers"]
    }


def write_part(path: Path, plan: Plan, known: Numbers) -> None:
    """Keep the numbers of one clip."""
    entries = [{"method": method, "budget": budget, "values": values} for (method, budget), values in known.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finite({"settings": plan.settings(), "numbers": entries})) + "\n")


def all_maps(subject: Subject, plan: Plan, wanted: Set[Key]) -> Iterator[tuple[str, int, Maps]]:
    """The wanted methods and budgets; the budget of methods that do not ask is 0."""
    clip, score = subject.clip, subject.score
    both = (subject.target, subject.wished)
    banks: dict[str, Evidence] = {}
    for method, budget in (key for key in plan.cells() if key in wanted):
        if method in FREE_METHODS:
            values = BASELINES[method](clip, score, subject.target, 0, plan.seed)
            yield method, budget, Maps(ranked=values, support=values, against=values, lowest=-values)
        elif method in CAPTUM_METHODS:
            found, wished = (BASELINES[method](clip, score, target, budget, plan.seed) for target in both)
            # One output, the log-odds: what lowers them is all that is known to speak against.
            yield method, budget, Maps(ranked=found, support=found, against=-wished, lowest=-wished)
        elif method in PRIOR_OF:
            prior = PRIOR_OF[method]
            config = PerturbConfig(budget=budget, seed=plan.seed)
            refine = Refine(RefineConfig.model_validate({"method": method, "prior": prior}))
            answers = [explain_clip(clip, Perturb(config, method, prior), score, refine, (t,))[0] for t in both]
            yield method, budget, _maps(*answers)
        else:
            name = "gp" if method in (FIRST_LOOK, PLAIN) else method
            perturb = Perturb(PerturbConfig(budget=max(plan.budgets), seed=plan.seed), name)
            family = perturb.config.bank_family(name, grid_for(clip.shape))
            if family not in banks:
                banks[family] = score_clip(clip, perturb, score)
            evidence = prefix(banks[family], budget)
            if method == PLAIN:
                evidence = replace(evidence, content=None)
            refine = Refine(RefineConfig.model_validate({"method": name, "focus": method == "gp"}))
            yield method, budget, _maps(*refine.process(RefineRequest(evidence=evidence, targets=both)).maps)


def prefix(evidence: Evidence, budget: int) -> Evidence:
    """The first `budget` masks of a bank and their scores."""
    masks, scores = evidence.masks[0], evidence.scores[0]
    kept = Scores(clip_id=scores.clip_id, round_idx=0, ids=scores.ids[:budget], values=scores.values[:budget])
    return replace(evidence, masks=(masks.rows(0, budget),), scores=(kept,))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60, help="generated clips for the demo model")
    parser.add_argument("--half", choices=("evaluation", "development"), default="evaluation")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--captum-budgets", type=int, nargs="*", default=list(BUDGETS))
    parser.add_argument("--borex-budgets", type=int, nargs="*", default=list(BOREX_BUDGETS))
    parser.add_argument("--optimised-budgets", type=int, nargs="*", default=list(OPTIMISED_BUDGETS))
    parser.add_argument("--steps", type=int, default=CURVES["insertion"].steps)
    parser.add_argument("--seed", type=int, default=0, help="of the banks; with another one give other --parts")
    parser.add_argument("--data", type=Path, help="a folder with real models and footage")
    parser.add_argument("--only", nargs="+", choices=MODELS, help="some of the models")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for each model; no clip is begun later")
    parser.add_argument("--parts", type=Path, default=PARTS, help="where the numbers of every clip are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="two clips, two budgets, nothing written")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    plan = Plan(
        budgets=tuple(args.budgets),
        captum_budgets=tuple(args.captum_budgets),
        borex_budgets=tuple(args.borex_budgets),
        optimised_budgets=tuple(args.optimised_budgets),
        steps=args.steps,
        seed=args.seed,
    )
    if args.quick:
        plan = Plan(budgets=(16, 32), captum_budgets=(32,), borex_budgets=(16,), optimised_budgets=(48,), steps=8)
    half: Half = args.half
    seeds = EVALUATION_SEEDS if half == "evaluation" else DEVELOPMENT_SEEDS
    subjects = {
        "demo": demo_subjects(seeds, 2 if args.quick else args.clips),
        "planted": planted_subjects(half, 1 if args.quick else PLANTED),
    }
    if args.data is not None:
        subjects |= {
            "pictures": pictures(args.data, half),
            "sequences": sequences(args.data, half),
            "cuts": cuts(args.data),
            "calves": calves(args.data),
        }
    if missing := set(args.only or ()) - set(subjects):
        parser.error(f"{', '.join(sorted(missing))}: measured with --data FOLDER only")
    models = {}
    for model, found in subjects.items():
        if not args.only or model in args.only:
            parts = None if args.quick else args.parts / model
            models[model] = measure(found, plan.suiting(model), parts, time.monotonic() + 60 * args.minutes)
    for model, rows in models.items():
        print(f"\n{model}, {len(rows[0].values['insertion'])} clips\n\n{table(rows)}")
    if not args.quick:
        write_results(args.out, half, plan.settings(), models)


def _maps(found: SaliencyMap, wished: SaliencyMap) -> Maps:
    ours, theirs = decompose(found), decompose(wished)
    return Maps(
        ranked=ours["net"],
        support=ours["support"],
        against=-theirs["net"],
        lowest=-wished.output("z_t")[0],
    )


if __name__ == "__main__":
    main()
