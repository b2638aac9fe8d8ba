"""Sanity checks of one clip's explanation (docs/method.md, 5): does the map follow what it claims to explain?

In: a clip, its box, the settings of a run. Out: findings, one by one. A map that stays when the model's weights are
drawn anew shows the clip and not the model (Adebayo et al. 2018, "Sanity checks for saliency maps"); a box that does
not look must get the verdict "no reliable signal"; what is done to time or to the names of the classes must be done to
the map. Every check explains with the same masks, so a map changes only because the box or the clip did.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from stages.exchange import Explained, Subject, largest, similarity, time_evidence, time_share
from stages.fidelity import MIN_LOG_BAYES
from stages.heritage import PREVIOUS
from stages.masks import grids_of
from stages.models_torch import TorchBox
from stages.records import Clip, ClipId, MaskBatch
from stages.rewired import Deaf, Rewired, constant_answer, layers_by_use, random_answer, randomised

Result = Literal["pass", "fail", "not applicable", "told"]

CASCADE_STEPS = 5
# With all weights drawn anew, no more than this rank correlation, its sign left out, may be left of the map.
MAX_LEFT = 0.6
DRAWS = 3
# Scores that agree to this correlation are the same but for rounding; maps of the same scores agree to this one.
SAME_SCORES, SAME_MAP = 0.9999, 0.98
# Scores that agree less than this are other scores, and a map that agrees more than this has not noticed.
OTHER_SCORES, UNMOVED_MAP = 0.8, 0.95
# Two computations of one map may differ by this share of its largest value: the box answers in float32.
ROUNDING = 1e-3
# Log Bayes factors above this are taken for evidence, as in the verdict.
MAX_TIME_EVIDENCE = MIN_LOG_BAYES
# Substrates that have no direction in time; time is reversed under one of them.
WITHOUT_DIRECTION = ("blur", "mean", "median")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: what a sound explanation does, what this one did. "told" has no right or wrong.

    `similarity`: rank correlation of the net map with that of the untouched model and clip; `time_share`: the share of
    the map's variance that lies along time; `is_reliable`: the verdict on the map.
    """

    check: str
    expected: str
    measured: str
    result: Result
    similarity: float | None = None
    time_share: float | None = None
    is_reliable: bool | None = None


def check_sanity(subject: Subject) -> Iterator[Finding]:
    """All checks that the box, the clip and the settings allow; those they do not are named."""
    base = subject.explain()
    told = f"held-out R² {base.saliency.fidelity['log_odds'].q2:.2f}"
    yield _finding("as it is", "", told, "told", base, base)
    other = subject.explain(seed=subject.perturb.seed + 1)
    yield _finding("other masks", "a map like it", "what chance in the masks changes", "told", other, base)
    yield from check_randomised(subject, base)
    yield check_constant(subject, base)
    yield check_random(subject, base)
    yield check_permuted(subject, base)
    if len(subject.clip.frames) == 1:
        for check in ("frames shuffled", "time reversed", "frozen frame"):
            yield Finding(check=check, expected="", measured="a picture has no time", result="not applicable")
        return
    yield check_shuffled(subject, base)
    yield from check_reversed(subject, base)
    yield from check_frozen(subject, base)


def check_randomised(subject: Subject, base: Explained) -> Iterator[Finding]:
    """Weights drawn anew from the output backwards: the map must go."""
    name = "weights randomised"
    if not isinstance(subject.box, TorchBox):
        fact = f"{subject.box.spec.name} is no torch module; its weights are out of reach"
        yield Finding(check=name, expected="", measured=fact, result="not applicable")
        return
    frames = torch.from_numpy(subject.clip.frames.copy()).float()[None] / 255
    layers = layers_by_use(subject.box, frames.to(subject.box.device))[::-1]
    steps = np.unique(np.round(np.linspace(1, len(layers), min(CASCADE_STEPS, len(layers)))).astype(int))
    seed = subject.perturb.seed
    for count in steps[:-1]:
        found = subject.explain(randomised(subject.box, layers[:count], seed))
        fact = f"{count} of {len(layers)} layers, output to {layers[count - 1]}"
        yield _finding(name, "the map goes", fact, "told", found, base)
    # Smooth maps of nothing in common agree by chance now and then: several draws are looked at together.
    drawn = [subject.explain(randomised(subject.box, layers, seed + draw)) for draw in range(DRAWS)]
    left = float(np.mean([abs(similarity(found, base)) for found in drawn]))
    is_gone = left <= MAX_LEFT or not any(found.is_reliable for found in drawn)
    fact = f"all {len(layers)} layers, {DRAWS} draws: {left:.2f} left"
    expected = f"at most {MAX_LEFT} left, or no reliable signal"
    yield _finding(name, expected, fact, _result(is_gone), drawn[0], base)


def check_constant(subject: Subject, base: Explained) -> Finding:
    """A box that always gives the scores of the untouched clip."""
    found = subject.explain(Deaf(subject.box, constant_answer(base.saliency.reference)))
    fact = f"largest value {largest(found):.1e}"
    return _finding("constant box", "no reliable signal", fact, _result(not found.is_reliable), found, base)


def check_random(subject: Subject, base: Explained) -> Finding:
    """A box whose scores are noise."""
    answer = random_answer(len(base.saliency.reference), subject.perturb.seed)
    found = subject.explain(Deaf(subject.box, answer))
    fact = f"held-out R² {found.saliency.fidelity['log_odds'].q2:.2f}"
    return _finding("random box", "no reliable signal", fact, _result(not found.is_reliable), found, base)


def check_permuted(subject: Subject, base: Explained) -> Finding:
    """The box names its classes in another order: the class has the same maps under its new number."""
    order = np.random.default_rng(subject.perturb.seed).permutation(len(base.saliency.reference))
    order_on_box = torch.from_numpy(order)
    box = Rewired(subject.box, after=lambda scores: scores[:, order_on_box.to(scores.device)])
    found = subject.explain(box, target=int(np.flatnonzero(order == subject.target)[0]))
    return _same_map("classes permuted", "the same maps", found, base, lambda maps: maps)


def check_shuffled(subject: Subject, base: Explained) -> Finding:
    """Frames in another order, masks with them: the map changes as far as the model's scores do, and no more."""
    order = torch.from_numpy(_shuffle(len(subject.clip.frames), subject.perturb.seed))
    box = Rewired(subject.box, before=lambda frames: frames[:, order.to(frames.device)])
    found = subject.explain(box, masks=base.evidence.masks)
    result: Result
    scores, maps = _correlation(found.log_odds, base.log_odds), similarity(found, base)
    if scores >= SAME_SCORES:
        expected, result = "order-blind model: the same map", _result(maps >= SAME_MAP)
    elif scores < OTHER_SCORES:
        expected, result = "other scores: another map", _result(maps < UNMOVED_MAP)
    else:
        expected, result = "(the order matters a little)", "told"
    return _finding("frames shuffled", expected, f"correlation of the scores {scores:.2f}", result, found, base)


def check_reversed(subject: Subject, base: Explained) -> Iterator[Finding]:
    """Clip and masks run backwards: read by a box that turns them round again, the map must be reversed exactly."""
    name = "time reversed"
    has_prior = subject.refine.prior not in ("none", PREVIOUS)  # one clip alone has no predecessor
    if has_prior or subject.refine.asks_inside is not None:
        fact = "a prior has a direction in time" if has_prior else "what is asked inside cannot be run backwards"
        yield Finding(check=name, expected="", measured=fact, result="not applicable")
        return
    substrate: str = subject.score.substrate
    if substrate not in WITHOUT_DIRECTION:
        substrate = WITHOUT_DIRECTION[0]
        base = subject.explain(substrate=substrate)
    clip = _changed(subject.clip, "reversed", subject.clip.frames[::-1])
    masks = tuple(_reversed(masks, clip.id) for masks in base.evidence.masks)
    turned = Rewired(subject.box, before=lambda frames: frames.flip(1))
    found = subject.explain(turned, clip=clip, masks=masks, substrate=substrate)
    yield _same_map(name, f"the map reversed ({substrate})", found, base, lambda maps: maps[:, ::-1])
    plain = subject.explain(clip=clip, masks=masks, substrate=substrate)
    back = replace(plain.saliency, mean=plain.saliency.mean[:, ::-1], var=plain.saliency.var[:, ::-1])
    scores = _correlation(plain.log_odds, base.log_odds)
    told = f"correlation of the scores {scores:.2f}; 1: it cannot tell forwards from backwards"
    plain = Explained(evidence=plain.evidence, saliency=back)
    yield _finding("film backwards", "", told, "told", plain, base)


def check_frozen(subject: Subject, base: Explained) -> Iterator[Finding]:
    """One frame repeated: nothing moves, so hiding motion hides nothing, and no time stands out beyond chance."""
    frames = subject.clip.frames
    clip = _changed(subject.clip, "frozen", np.repeat(frames[len(frames) // 2 : len(frames) // 2 + 1], len(frames), 0))
    found = subject.explain(clip=clip, substrate="freeze")
    is_still = not found.is_reliable and largest(found) <= ROUNDING * max(largest(base), 1e-12)
    fact = f"largest value {largest(found):.1e}"
    yield _finding("frozen frame, motion", "freeze: no evidence at all", fact, _result(is_still), found, base)
    found = subject.explain(clip=clip)
    moving, before = time_evidence(found), time_evidence(base)
    expected = f"log Bayes factor for change in time at most {MAX_TIME_EVIDENCE:g}"
    fact = f"{moving:.1f}; {before:.1f} in the clip"
    # A model may weigh frames by their place in the clip, or take a hidden frame for an event: that is no fault.
    # Where the clip itself shows no change in time, there was none to lose.
    result: Result = "pass" if before > MAX_TIME_EVIDENCE else "not applicable"
    result = result if moving <= MAX_TIME_EVIDENCE else "told"
    yield _finding("frozen frame, times", expected, fact, result, found, base)


def _finding(check: str, expected: str, measured: str, result: Result, found: Explained, base: Explained) -> Finding:
    return Finding(
        check=check,
        expected=expected,
        measured=measured,
        result=result,
        similarity=similarity(found, base),
        time_share=time_share(found.net),
        is_reliable=found.is_reliable,
    )


def _same_map(
    check: str,
    expected: str,
    found: Explained,
    base: Explained,
    change: Callable[[np.ndarray], np.ndarray],
) -> Finding:
    """Whether all outputs of a map are those of the base, changed, but for rounding."""
    difference = float(np.abs(found.saliency.mean - change(base.saliency.mean)).max())
    share = difference / max(float(np.abs(base.saliency.mean).max()), 1e-12)
    back = replace(found.saliency, mean=change(found.saliency.mean), var=change(found.saliency.var))
    shown = Explained(evidence=found.evidence, saliency=back)
    return _finding(check, expected, f"differs by {share:.1e} of its peak", _result(share <= ROUNDING), shown, base)


def _result(is_sound: bool) -> Result:
    return "pass" if is_sound else "fail"


def _correlation(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Pearson's correlation; 1 for two constants, 0 for one."""
    if a.std() < 1e-9 or b.std() < 1e-9:
        return float(a.std() < 1e-9 and b.std() < 1e-9)
    return float(np.corrcoef(a, b)[0, 1])


def _shuffle(num: int, seed: int) -> np.ndarray:
    """An order that is neither the old one nor the reverse, where there is one."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(num) for _ in range(8)]
    # The more neighbours are torn apart, the better.
    return max(orders, key=lambda order: int((np.abs(np.diff(order)) > 1).sum()) + int(order[0] != 0))


def _changed(clip: Clip, what: str, frames: np.ndarray) -> Clip:
    """The clip with other frames, under a name of its own: a scorer remembers clips by their name."""
    return replace(clip, id=ClipId(f"{clip.id.video_id}/{what}", clip.id.clip_idx), frames=np.ascontiguousarray(frames))


def _reversed(masks: MaskBatch, clip_id: ClipId) -> MaskBatch:
    grids = np.ascontiguousarray(grids_of(masks)[:, ::-1])
    return MaskBatch(clip_id=clip_id, round_idx=masks.round_idx, ids=masks.ids, grids=grids)
