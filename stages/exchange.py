"""A clip explained with its box, its masks or its frames exchanged, and how two such maps are compared.

In: a clip, its box, the settings of a run. Out: maps, the evidence they rest on, and plain numbers. `sanity.py` asks.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from stages.box import BlackBox
from stages.content import content_of
from stages.designs import design_of, grid_of, rows_of
from stages.estimators import regression_targets
from stages.fidelity import MIN_STD
from stages.gp import Design
from stages.masks import NUM_ANCHORS
from stages.perturb import Perturb, PerturbConfig
from stages.records import Clip, Evidence, MaskBatch, SaliencyMap
from stages.refine import Refine, RefineConfig
from stages.score import Score, ScoreConfig, ScoreRequest
from stages.single import explain_evidence, score_clip
from stages.statistics import rank_agreement


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explained:
    """A map and the evidence it rests on."""

    evidence: Evidence
    saliency: SaliencyMap

    @property
    def net(self) -> Float[np.ndarray, "gt gh gw"]:
        """The log-odds map, which all checks look at."""
        return self.saliency.output("log_odds")[0]

    @property
    def is_reliable(self) -> bool:
        """The verdict on the clip's maps."""
        return self.saliency.is_reliable

    @property
    def log_odds(self) -> Float[np.ndarray, " n"]:
        """The target's log-odds under every mask."""
        values = np.concatenate([scores.values for scores in self.evidence.scores]).astype(np.float64)
        return np.asarray(regression_targets(values, self.saliency.target_idx)[:, 2])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A clip, the box that is explained, the class, and how."""

    clip: Clip
    box: BlackBox
    target: int
    perturb: PerturbConfig
    score: ScoreConfig
    refine: RefineConfig

    def explain(
        self,
        box: BlackBox | None = None,
        *,
        clip: Clip | None = None,
        masks: tuple[MaskBatch, ...] | None = None,
        target: int | None = None,
        substrate: str | None = None,
        seed: int | None = None,
    ) -> Explained:
        """Explain with anything exchanged; `masks` are all that is asked, where they are given."""
        perturb = self.perturb if seed is None else self.perturb.model_copy(update={"seed": seed})
        score = self.scorer(box, substrate=substrate, seed=perturb.seed)
        clip = clip or self.clip
        clip = replace(clip, content=content_of(clip.frames, score.config.substrate))
        refine = Refine(self.refine)
        target = self.target if target is None else target
        if masks is None:
            ours = Perturb(perturb, self.refine.method, self.refine.prior, self.refine.parts)
            first = score_clip(clip, ours, score)
            evidence, maps = explain_evidence(clip, first, score, refine, (target,))
        else:
            refine = Refine(self.refine.model_copy(update={"tolerance": 0.0, "adaptive_share": 0.0}))
            # Maps that are asked inside have to be asked anew; the masks behind them are the bank's, as they were.
            masks = masks if self.refine.asks_inside is None else masks[:1]
            answers = score.process(ScoreRequest(batches=masks, clips={clip.id: clip})).scores
            evidence = Evidence(clip_id=clip.id, masks=masks, scores=answers, content=clip.content)
            evidence, maps = explain_evidence(clip, evidence, score, refine, (target,))
        return Explained(evidence=evidence, saliency=maps[0])

    def scorer(self, box: BlackBox | None = None, *, substrate: str | None = None, seed: int | None = None) -> Score:
        """A set-up scorer of the box, or of another, under this substrate or another."""
        config = self.score if substrate is None else self.score.model_copy(update={"substrate": substrate})
        score = Score(config, lambda: box or self.box, seed=self.perturb.seed if seed is None else seed)
        score.setup()
        return score


def similarity(found: Explained, base: Explained) -> float:
    """Spearman's rank correlation of the net maps; 0 where one of them is flat."""
    if largest(found) <= 1e-9 or largest(base) <= 1e-9:
        return 0.0
    value = rank_agreement(found.net, base.net)
    return value if np.isfinite(value) else 0.0


def time_share(maps: Float[np.ndarray, "gt gh gw"]) -> float:
    """The share of a map's variance that lies along time; 0 for a map that stays through the clip, or is flat."""
    total = float(maps.astype(np.float64).var())
    return float((maps - maps.mean(0)).astype(np.float64).var()) / total if total > 1e-18 else 0.0


def time_evidence(found: Explained) -> float:
    """Log Bayes factor of a map that may change in time over one that stays through the clip, on the log-odds.

    Both are fitted to the same scores; the map that stays sees of every mask its mean over time.
    """
    evidence = found.evidence
    asked = np.concatenate([masks.ids for masks in evidence.masks]) >= NUM_ANCHORS
    y = found.log_odds[asked, None]
    if y.std() < MIN_STD:
        return 0.0
    grid = grid_of(evidence)
    rows = rows_of(evidence)[asked]
    still = Design(rows.reshape(len(rows), grid[0], -1).mean(1), (1, *grid[1:]))
    return float((design_of(evidence, asked).posterior(y).log_bayes - still.posterior(y).log_bayes)[0])


def largest(found: Explained) -> float:
    """The largest value of the net map, without its sign."""
    return float(np.abs(found.net).max())
