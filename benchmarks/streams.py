"""Clips of one video: does the map of the clip before save evaluations, do kernels weighed over all clips help?

    python -m benchmarks.streams                        the demo model on eight fresh videos of six clips each
    python -m benchmarks.streams --half development     the half on which settings may be chosen
    python -m benchmarks.streams --quick                under a minute, nothing is written

Clips overlap by half. Every setting runs along the whole video at every budget; all read prefixes of one bank, whose
scores are asked for once. Told are the insertion of the log-odds map of the video's first answer, and its correlation
with the default's map at LARGE evaluations. First clips have no clip before them and are left out. Clips of a video are
no independent draws: tests compare the means of videos.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from benchmarks.quality import prefix
from benchmarks.subjects import DEVELOPMENT_SEEDS, EVALUATION_SEEDS, plain_clip
from stages.demo.clips import random_clip
from stages.demo.network import DEMO_SPEC
from stages.faithfulness import Curve
from stages.heritage import Heritage
from stages.measure import measure_curves
from stages.models import load_box
from stages.perturb import Perturb, PerturbConfig
from stages.records import Clip, ClipId, Evidence
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.score import Score, ScoreConfig
from stages.single import score_clip
from stages.statistics import bootstrap_interval, paired_p

RESULTS = Path(__file__).with_name("results") / "streams.json"
SETTINGS = {
    "none": RefineConfig(),
    "previous": RefineConfig(prior="previous"),
    "pooled": RefineConfig(pool_kernels=True),
    "both": RefineConfig(prior="previous", pool_kernels=True),
}
BUDGETS = (32, 64, 128)
LARGE = 512
CURVE = Curve(layout="joint", adds=True, steps=16)
METRICS = ("insertion", "correlation")

Key = tuple[str, int]  # setting and budget
Numbers = dict[str, list[list[float]]]  # by metric: a list for every video, a number for every clip but its first


def clips_of(seed: int, num: int) -> Iterator[Clip]:
    """A generated video, cut into clips that overlap by half."""
    length, stride = DEMO_SPEC.clip_len, DEMO_SPEC.clip_len // 2
    frames = random_clip(seed, num_frames=length + stride * (num - 1)).frames.transpose(0, 3, 1, 2)
    for clip_idx, start in enumerate(range(0, stride * num, stride)):
        stop = start + length
        clip = plain_clip(ClipId(f"stream-{seed}", clip_idx), np.ascontiguousarray(frames[start:stop]))
        yield replace(clip, frame_idx=np.arange(start, stop))


def measure(seeds: range, num_clips: int, budgets: tuple[int, ...], large: int) -> dict[Key, Numbers]:
    """All settings and budgets along the videos of these seeds."""
    score = Score(ScoreConfig(device="cpu"), lambda: load_box("demo"))
    score.setup()
    perturb = Perturb(PerturbConfig(budget=large))
    rows: dict[Key, Numbers] = defaultdict(lambda: {metric: [] for metric in METRICS})
    for seed in seeds:
        began = time.monotonic()
        clips = list(clips_of(seed, num_clips))
        banks = [score_clip(clip, perturb, score) for clip in clips]
        target = int(softmax([bank.scores[0].values[0] for bank in banks], axis=1).mean(0).argmax())
        references = [found["none"] for found in along(clips, banks, {"none": SETTINGS["none"]}, target)]
        for budget in budgets:
            for name in SETTINGS:
                for metric in METRICS:
                    rows[name, budget][metric].append([])
            maps = along(clips, [prefix(bank, budget) for bank in banks], SETTINGS, target)
            for clip, found, reference in list(zip(clips, maps, references, strict=True))[1:]:
                for name, values in found.items():
                    inserted = measure_curves(clip, score, target, values, {"insertion": CURVE})["insertion"]
                    rows[name, budget]["insertion"][-1].append(inserted)
                    agreement = float(np.corrcoef(values.ravel(), reference.ravel())[0, 1])
                    rows[name, budget]["correlation"][-1].append(agreement)
        print(f"{seed} {time.monotonic() - began:6.1f} s", flush=True)
    return rows


def along(
    clips: list[Clip], evidence: list[Evidence], settings: Mapping[str, RefineConfig], target: int
) -> Iterator[dict[str, np.ndarray]]:
    """The log-odds maps of a video's clips, one clip after the other, by setting."""
    left: dict[str, Heritage | None] = dict.fromkeys(settings)
    for clip, known in zip(clips, evidence, strict=True):
        maps = {}
        for name, config in settings.items():
            request = RefineRequest(evidence=known, targets=(target,), frame_idx=clip.frame_idx, before=left[name])
            result = Refine(config).process(request)
            left[name] = result.left
            maps[name] = result.maps[0].output("log_odds")[0]
        yield maps


def table(rows: dict[Key, Numbers]) -> str:
    """Means over clips; the difference to the default with its interval and p over videos."""
    lines = [
        "| from the clips before | evaluations | insertion ↑ | difference to none, p | correlation ↑ | difference, p |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (name, budget), found in sorted(rows.items(), key=lambda row: row[0][1]):
        cells = [name, str(budget)]
        for metric in METRICS:
            ours, base = (np.array(numbers[metric]) for numbers in (found, rows["none", budget]))
            gain = bootstrap_interval(ours.mean(1) - base.mean(1))
            p = paired_p(ours.mean(1), base.mean(1))
            cells.append(f"{ours.mean():.3f}")
            cells.append("" if name == "none" else f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}), {p:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("evaluation", "development"), default="evaluation")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--clips", type=int, default=6, help="of each video")
    parser.add_argument("--quick", action="store_true", help="one video, three clips, small budgets, nothing written")
    args = parser.parse_args()
    if args.quick:
        args.half, args.videos, args.clips = "development", 1, 3
    half = EVALUATION_SEEDS if args.half == "evaluation" else DEVELOPMENT_SEEDS
    rows = measure(half[: args.videos], args.clips, (16, 32) if args.quick else BUDGETS, 64 if args.quick else LARGE)
    print(f"\n{args.half}, {args.videos} videos, {args.videos * (args.clips - 1)} clips\n\n{table(rows)}")
    if not args.quick:
        entries = [{"setting": name, "budget": budget, **found} for (name, budget), found in rows.items()]
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        content = {**known, args.half: {"seeds": [half[0], half[args.videos - 1]], "large": LARGE, "rows": entries}}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
