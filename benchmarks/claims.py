"""Four figures: F-TC told from F-NTC, what a prior saves, whether BOREx refines its prior, what refinement costs.

    python -m benchmarks.claims                    planted boxes of noise, the demo model, the time of refinement
    python -m benchmarks.claims --data FOLDER      planted boxes on real footage and SqueezeNet's pictures as well
    python -m benchmarks.claims --minutes 15       as far as that goes; the same command again goes on from there
    python -m benchmarks.claims --only borex       one of planted, prior, borex, time
    python -m benchmarks.claims --quick            a case or two of each, nothing is written

planted: AUC of the F-TC and the F-NTC map for the places of either, at 256 evaluations, on boxes that nothing was
chosen on; support, F-TC and F-NTC lie in places apart, on noise and on footage, additive, with interactions (two places
that count only together), saturated.
prior: insertion AUC of the default with no prior, with a good one (the map of another seed's 512 evaluations, and
Grad-CAM), and with the good one mirrored in time and space, on the evaluation half. borex: 50 queries after a RISE map
of 100 masks, against that map. time: a map at 256 evaluations on 16 x 28 x 28, beside the demo model's scoring.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit

from benchmarks.claims_report import BUDGETS, GOOD_PRIORS, SUMMARIES, Numbers, words
from benchmarks.known_boxes import FORMS, noise_clip, undesirable_box
from benchmarks.planted import auc, scorer
from benchmarks.quality import prefix
from benchmarks.real_subjects import pictures
from benchmarks.refine_time import refinement_time
from benchmarks.subjects import EVALUATION_SEEDS, Half, Subject, demo_subjects
from pipeline.files import safe_name, write_json
from stages.box import BoxSpec
from stages.decode import Decode, DecodeConfig, DecodeRequest
from stages.designs import grid_of, rows_of
from stages.estimators import regression_targets, weighted_mean
from stages.evidence import EvidenceKind, decompose
from stages.faithfulness import Curve
from stages.masks import NUM_ANCHORS
from stages.measure import ask, measure_curves
from stages.perturb import Perturb, PerturbConfig
from stages.questions import AttributionSpec, Question
from stages.records import Clip, Evidence, MaskBatch, SaliencyMap
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.score import Score
from stages.single import explain_evidence, score_clip
from stages.sources import probe

RESULTS = Path(__file__).with_name("results") / "claims.json"
PARTS = Path(__file__).with_name("results") / "parts" / "claims"
BUDGET = 256
PRIOR_BUDGET, PRIOR_SEED = 512, 1
GRAD_CAM = "captum:LayerGradCam"
STEPS = 16
FOOTAGE = ("bikes.mp4", "cows.mp4", "soccer_juggle.mp4", "arm_wrestling.mp4", "carving_ice.mp4", "nasa_13013.mp4")
# Boxes of their own: neither those that settings are chosen on (seeds from 0 on) nor those of the quality benchmark's
# report (from 10,000 on). On footage the places are others than on noise.
FRESH_SEED, FRESH_FOOTAGE_SEED = 20_000, 21_000
PAIRS: tuple[tuple[EvidenceKind, EvidenceKind], ...] = (
    ("support", "support"),
    ("f_tc", "f_tc"),
    ("f_tc", "f_ntc"),
    ("f_ntc", "f_ntc"),
    ("f_ntc", "f_tc"),
)
FOOTAGE_SPEC = BoxSpec(name="planted", clip_len=16, frame_step=2, height=56, width=56, resize="squash")

Case = tuple[str, Callable[[], Numbers]]


def planted_cases(num: int, data: Path | None) -> Iterator[Case]:
    """Every form on `num` clips of noise, and on as many of footage."""
    # Named by the seed: what is kept of one box is never taken for another's.
    for form in FORMS:
        for seed in range(FRESH_SEED, FRESH_SEED + num):
            yield f"{form}, noise {seed}", partial(tell_apart_on_noise, form, seed)
        if data is not None:
            for idx in range(num):
                seed = FRESH_FOOTAGE_SEED + idx
                yield f"{form}, footage {seed}", partial(tell_apart_on_footage, form, seed, idx, data)


def tell_apart_on_noise(form: str, seed: int) -> Numbers:
    """AUC of each map on a small clip of noise that is drawn too."""
    return tell_apart(form, seed, noise_clip(np.random.default_rng([seed]), seed), "mean")


def tell_apart_on_footage(form: str, seed: int, idx: int, data: Path) -> Numbers:
    """AUC of each map on a small clip of real footage: the second of video 0, 1, ..., then the third of video 0, ..."""
    source = probe(str(data / "videos" / FOOTAGE[idx % len(FOOTAGE)]))
    decode = Decode(DecodeConfig(), FOOTAGE_SPEC)
    clip = decode.process(DecodeRequest(source=source, clip_idx=1 + idx // len(FOOTAGE))).clip
    decode.close()
    assert clip is not None
    # The substrate noise differs from footage everywhere: hiding shows wherever it is done.
    return tell_apart(form, seed, clip, "noise")


def tell_apart(form: str, seed: int, clip: Clip, substrate: str) -> Numbers:
    """AUC of each map of evidence against the class for its own places and for the other's."""
    box = undesirable_box(form, seed, clip)
    evidence = score_clip(clip, Perturb(PerturbConfig(budget=BUDGET)), scorer(box, substrate=substrate))
    maps, truths = decompose(explain(evidence, 0)), box.truths(0)
    return {f"{name} map, {place} places": auc(maps[name], truths[place]) for name, place in PAIRS}


def prior_cases(num: int, data: Path | None) -> Iterator[Case]:
    """The demo model's clips, and SqueezeNet on the pictures of the evaluation half, first and second answer."""
    for subject in demo_subjects(EVALUATION_SEEDS, num):
        yield subject.name, partial(with_priors, subject)
    for subject in pictures(data, "evaluation") if data is not None else ():
        yield subject.name, partial(with_priors, subject)


def with_priors(subject: Subject) -> Numbers:
    """Insertion AUC by prior and budget; an empty budget is the prior itself."""
    clip, score = subject.clip, subject.score
    evidence = scored(clip, score, PerturbConfig(budget=max(BUDGETS)))
    other = scored(clip, score, PerturbConfig(budget=PRIOR_BUDGET, seed=PRIOR_SEED))
    good = explain(other, subject.target).output("log_odds")[0], grad_cam(subject, evidence)
    known = dict(zip(GOOD_PRIORS, good, strict=True))
    priors: dict[str, np.ndarray | None] = {"none": None, **known}
    priors |= {f"{name}, mirrored": np.ascontiguousarray(found[::-1, ::-1, ::-1]) for name, found in known.items()}
    numbers = {name: insertion(subject, values) for name, values in priors.items() if values is not None}
    for budget in BUDGETS:
        for name, prior in priors.items():
            found = explain(replace(prefix(evidence, budget), prior=prior), subject.target)
            numbers[f"{name} @ {budget}"] = insertion(subject, found.output("log_odds")[0])
    return numbers


def grad_cam(subject: Subject, evidence: Evidence) -> np.ndarray:
    """Grad-CAM at the last convolution, as a prior map."""
    question = Question(kind="saliency", class_idx=subject.target)
    spec = AttributionSpec(
        method=GRAD_CAM, questions=(question,), grid=grid_of(evidence), evaluations=2, seed=PRIOR_SEED
    )
    masks = MaskBatch(clip_id=subject.clip.id, round_idx=1, ids=np.arange(1), attribution=spec)
    maps = ask(subject.score, subject.clip, [masks])[0].maps
    assert maps is not None
    return np.asarray(maps[0])


def borex_cases(num: int, data: Path | None) -> Iterator[Case]:
    """All pictures, first and second answer."""
    halves: tuple[Half, ...] = ("development", "evaluation")
    for subject in chain.from_iterable(pictures(data, half) for half in halves if data is not None):
        yield subject.name, partial(refined, subject)


def refined(subject: Subject) -> Numbers:
    """Insertion AUC before and after 50 queries of BOREx."""
    clip, score, target = subject.clip, subject.score, subject.target
    refine = Refine(RefineConfig.model_validate({"method": "borex", "prior": "rise"}))
    first = scored(clip, score, PerturbConfig(budget=200 + NUM_ANCHORS), "borex", "rise")
    asked = first.scores[0].ids >= NUM_ANCHORS
    log_odds = regression_targets(first.scores[0].values.astype(np.float64), target)[asked][:, [2]]
    prior = weighted_mean(rows_of(first)[asked], expit(log_odds)).reshape(grid_of(first))
    _, (found,) = explain_evidence(clip, first, score, refine, (target,))
    maps = {"prior": prior, "BOREx": found.output("log_odds")[0]}
    return {name: insertion(subject, values) for name, values in maps.items()}


def time_cases(num: int, data: Path | None) -> Iterator[Case]:
    """One case of `num` repeats."""
    yield "16 x 28 x 28", partial(refinement_time, BUDGET, num)


@lru_cache(maxsize=2)
def scored(clip: Clip, score: Score, config: PerturbConfig, method: str = "gp", prior: str = "none") -> Evidence:
    """The first masks of a clip; both answers of a picture share them."""
    return score_clip(clip, Perturb(config, method, prior), score)


def explain(evidence: Evidence, target: int) -> SaliencyMap:
    """The default's map from this evidence."""
    return Refine(RefineConfig()).process(RefineRequest(evidence=evidence, targets=(target,))).maps[0]


def insertion(subject: Subject, values: np.ndarray) -> float:
    """Insertion AUC of a map."""
    curves = {"insertion": Curve(layout="joint", adds=True, steps=STEPS)}
    return measure_curves(subject.clip, subject.score, subject.target, values, curves)["insertion"]


# Section: its cases, and how many of them (planted: of each form and ground; time: repeats), in full and in --quick.
SECTIONS = {
    "planted": (planted_cases, 24, 1),
    "prior": (prior_cases, 24, 1),
    "borex": (borex_cases, 0, 0),
    "time": (time_cases, 15, 2),
}


def measure(cases: Iterable[Case], parts: Path | None, deadline: float) -> dict[str, Numbers]:
    """The numbers of all cases, or of as many as can be begun before the deadline (of the monotonic clock).

    What a file in `parts` holds is not measured again; new numbers are written there after every case.
    """
    found: dict[str, Numbers] = {}
    for name, case in cases:
        path = None if parts is None else parts / f"{safe_name(name)}.json"
        start = time.monotonic()
        if path is not None and path.exists():
            found[name] = json.loads(path.read_text())
        elif not found or start < deadline:
            found[name] = case()
            print(f"{name:32} {time.monotonic() - start:6.1f} s", flush=True)
            if path is not None:
                write_json(path, found[name])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with real models and footage")
    parser.add_argument("--only", choices=tuple(SECTIONS), action="append", help="repeatable")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for each section; no case is begun later")
    parser.add_argument("--parts", type=Path, default=PARTS, help="where the numbers of every case are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a case or two of each, nothing written")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    results = json.loads(args.out.read_text()) if args.out.exists() and not args.quick else {}
    for name in args.only or SECTIONS:
        cases, full, quick = SECTIONS[name]
        data = None if args.quick else args.data
        parts = None if args.quick else args.parts / name
        found = measure(cases(quick if args.quick else full, data), parts, time.monotonic() + 60 * args.minutes)
        if found:
            results[name] = {"summary": SUMMARIES[name](found), "cases": found}
            print(f"\n{name}\n{words(results[name]['summary'])}\n", flush=True)
    if not args.quick:
        results |= {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        write_json(args.out, results)


if __name__ == "__main__":
    main()
