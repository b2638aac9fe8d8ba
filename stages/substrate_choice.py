"""Which substrate suits a model (docs/method.md, 3 and 6): clips explained under each, and one recommended.

In: some clips of a source with their box. Out: what each substrate's maps are worth, how they agree, a recommendation
with its reason, warnings. All substrates are asked with the same masks, so that only the filling of what is hidden
differs. A substrate suits when hiding everything takes the target away, and when *where* a mask hides explains the
score: a filling that is an event of its own, as a mean colour is for a detector of cuts, makes scores that no map
explains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Float64
from scipy.special import softmax

from stages.exchange import Explained, Subject, similarity
from stages.faithfulness import Curve
from stages.measure import measure_curves
from stages.perturb import MIXTURE
from stages.substrates import SUBSTRATES

# The median and the first frame of a picture are the picture: they hide nothing.
OF_TIME = ("median", "freeze")
STEPS = 16
# With everything hidden, no more than this share of the target's p may be left.
MAX_LEFT = 0.5
# Skills that differ by less than this are the same: of such, the substrate that stands first (blur before all) is kept.
SAME_SKILL = 0.05
# Reliable maps of two substrates that agree less than this by rank are different explanations.
MIN_AGREEMENT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """One clip under one substrate; `insertion`: AUC of its map, by the substrate that it was measured under."""

    substrate: str
    explained: Explained
    insertion: Mapping[str, float]

    @property
    def p_shown(self) -> float:
        """The target's p on the untouched clip."""
        return _probability(self.explained.saliency.reference, self.explained.saliency.target_idx)

    @property
    def p_left(self) -> float:
        """The target's p when everything is hidden."""
        return _probability(self.explained.saliency.replaced, self.explained.saliency.target_idx)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A substrate over all clips, means. `skill`: share of the held-out squared error of the log-odds explained beyond
    the keep-fraction; `log_bayes`: evidence for a map over none; `own`, `others`: insertion AUC of its maps under
    itself, and under the other substrates; `p_shown`, `p_left`: the target's p untouched, and with everything hidden.
    """

    substrate: str
    skill: float
    log_bayes: float
    num_reliable: int
    own: float
    others: float
    p_shown: float
    p_left: float

    @property
    def hides(self) -> bool:
        """Whether hiding everything takes the target away."""
        return self.p_left <= MAX_LEFT * self.p_shown


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """Rows and mean rank correlation of their maps, in the order of the rows; None: nothing can be recommended."""

    num_clips: int
    rows: tuple[Row, ...]
    agreement: Float64[np.ndarray, "s s"]
    recommended: str | None
    reason: str
    warnings: tuple[str, ...]


def candidates(num_frames: int) -> tuple[str, ...]:
    """The substrates that mean something for clips of this length."""
    return tuple(name for name in SUBSTRATES if num_frames > 1 or name not in OF_TIME)


def choose_substrate(subjects: Sequence[Subject], steps: int = STEPS) -> Choice:
    """Try every substrate on every clip and recommend one; clips x substrates x (budget + substrates x steps)."""
    return compare([try_substrates(subject, steps) for subject in subjects])


def try_substrates(subject: Subject, steps: int = STEPS) -> list[Trial]:
    """One clip under every substrate, with the masks of the first.

    The default method without a prior asks with the mixture here, whose masks keep little as well as much and whole
    frames: they show best what a substrate does besides hiding, and the rule was chosen with them (docs/benchmarks.md).
    """
    if subject.refine.method == "gp" and subject.perturb.family == "auto":
        subject = replace(subject, perturb=subject.perturb.model_copy(update={"family": MIXTURE}))
    names = candidates(len(subject.clip.frames))
    first = subject.explain(substrate=names[0])
    found = {name: subject.explain(substrate=name, masks=first.evidence.masks) for name in names[1:]}
    found = {names[0]: first, **found}
    curves = {"insertion": Curve(layout="joint", adds=True, steps=steps)}
    scorers = {name: subject.scorer(substrate=name) for name in names}
    return [
        Trial(
            substrate=name,
            explained=explained,
            insertion={
                under: measure_curves(subject.clip, score, subject.target, explained.net, curves)["insertion"]
                for under, score in scorers.items()
            },
        )
        for name, explained in found.items()
    ]


def compare(trials: Sequence[Sequence[Trial]]) -> Choice:
    """What the trials of some clips, one entry a clip, say together."""
    rows = tuple(_row(column) for column in zip(*trials, strict=True))
    agreement = np.mean(
        [[[similarity(a.explained, b.explained) for b in clip] for a in clip] for clip in trials], axis=0
    )
    recommended, reason = recommend(rows, len(trials))
    return Choice(
        num_clips=len(trials),
        rows=rows,
        agreement=agreement,
        recommended=recommended,
        reason=reason,
        warnings=tuple(disagreements(rows, agreement, len(trials))),
    )


def recommend(rows: Sequence[Row], num_clips: int) -> tuple[str | None, str]:
    """Of the substrates that hide the target and are reliable on most clips, the one whose maps explain most.

    The first of the rows that comes within SAME_SKILL of the best; with the reason.
    """
    reliable = [row for row in rows if 2 * row.num_reliable > num_clips]
    if not reliable:
        return None, "no substrate gives reliable maps on most clips: choose clips that show the target, or ask more"
    hiding = [row for row in reliable if row.hides]
    if not hiding:
        least = min(reliable, key=lambda row: row.p_left)
        fact = f"p {least.p_left:.2f} of {least.p_shown:.2f} is left under {least.substrate}"
        return None, f"no substrate takes the target away: {fact}"
    most = max(row.skill for row in hiding)
    best = next(row for row in hiding if row.skill >= most - SAME_SKILL)
    others = ", ".join(f"{row.substrate} {row.skill:.2f}" for row in hiding if row is not best)
    reason = f"no other that hides the target explains clearly more: skill {best.skill:.2f}"
    reason += f" ({others})" if others else ""
    return best.substrate, f"{reason}; with everything hidden p falls from {best.p_shown:.2f} to {best.p_left:.2f}"


def disagreements(rows: Sequence[Row], agreement: Float64[np.ndarray, "s s"], num_clips: int) -> list[str]:
    """A warning for each pair of substrates whose maps are reliable on most clips and yet differ."""
    known = [number for number, row in enumerate(rows) if 2 * row.num_reliable > num_clips]
    return [
        f"{rows[a].substrate} and {rows[b].substrate} disagree: rank correlation {agreement[a, b]:.2f} of their maps; "
        "what they show depends on how voxels are hidden"
        for a, b in combinations(known, 2)
        if agreement[a, b] < MIN_AGREEMENT
    ]


def _row(trials: Sequence[Trial]) -> Row:
    name = trials[0].substrate
    fidelity = [trial.explained.saliency.fidelity["log_odds"] for trial in trials]
    others = [value for trial in trials for under, value in trial.insertion.items() if under != name]
    return Row(
        substrate=name,
        skill=float(np.mean([found.skill for found in fidelity])),
        log_bayes=float(np.mean([found.log_bayes for found in fidelity])),
        num_reliable=sum(trial.explained.is_reliable for trial in trials),
        own=float(np.mean([trial.insertion[name] for trial in trials])),
        others=float(np.mean(others)),
        p_shown=float(np.mean([trial.p_shown for trial in trials])),
        p_left=float(np.mean([trial.p_left for trial in trials])),
    )


def _probability(scores: np.ndarray, target: int) -> float:
    return float(softmax(scores.astype(np.float64))[target])
