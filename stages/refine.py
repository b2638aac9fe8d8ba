"""4  Evidence -> SaliencyMap or more masks: what the scores of the masks say about every voxel.

The default is the Gaussian process of docs/method.md, 3; BOREx, RISE, centred RISE, sliding occlusion, LIME,
Kernel-SHAP and masks optimised by gradients go through the same stage: they share journal, stitching and films with it.
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from pydantic import Field, field_validator, model_validator
from scipy.special import expit
from threadpoolctl import ThreadpoolController

from stages.asked_maps import ASKED_ESTIMATORS
from stages.base import Settings
from stages.designs import bank_design, content_design, grid_of, rows_of
from stages.errors import NumericsError
from stages.estimators import (
    ESTIMATORS,
    Estimator,
    gaussian_process,
    regression_targets,
    weighted_mean,
)
from stages.fidelity import fidelity, without_outliers
from stages.heritage import PREVIOUS, Heritage, with_heritage
from stages.kernels import KernelEvidence, added
from stages.masks import KEEP_ALL_ROW, NUM_ANCHORS, REPLACE_ALL_ROW
from stages.parts import WHOLE, Parts
from stages.priors import FORMS, expect_known, file_prior, is_file
from stages.questions import ASKED_METHODS, Question, is_captum
from stages.records import OUTPUTS, Evidence, MaskBatch, SaliencyMap
from stages.rounds import (
    after_the_prior,
    evaluations_left,
    method_questions,
    next_part,
    next_windows,
    prior_questions,
    rest_of_bank,
)

Method = Literal["gp", "rise", "centred-rise", "occlusion", "borex", "lime", "kernel-shap", "mask-optimisation"]

METHODS_WITH_PRIOR = ("gp", "borex")


class RefineConfig(Settings):
    """How scores become maps. `rivals` are class indices that get an output of their own beside LSE_N."""

    method: Method = Field(
        default="gp", description="gp, rise, centred-rise, occlusion, borex, lime, kernel-shap or mask-optimisation"
    )
    rivals: tuple[int, ...] = Field(default=(), description="class indices with an F-NTC map of their own")
    prior: str = Field(default="none", description=f"initial map that is refined: {FORMS}")
    tolerance: float = Field(
        default=0.0,
        ge=0,
        description="a clip is done when its map's variance is below this share of the map's square; 0: at the budget",
    )
    adaptive_share: float = Field(
        default=0.0, ge=0, le=0.5, description="share of the masks that are chosen for each clip from its map so far"
    )
    pool_kernels: bool = Field(
        default=False, description="gp: kernels are weighed by the evidence of all clips of the video so far"
    )
    focus: bool = Field(default=True, description="gp: a second look at places where the first map is large")
    borex_batch: int = Field(default=1, ge=1, description="queries of BOREx between two fits; 1 is as published")

    @field_validator("prior")
    @classmethod
    def _prior_is_known(cls, prior: str) -> str:
        expect_known(prior)
        return prior

    @model_validator(mode="after")
    def _settings_are_used(self) -> "RefineConfig":
        if self.prior != "none" and self.method not in METHODS_WITH_PRIOR:
            raise ValueError(f"{self.method} takes no prior; use {' or '.join(METHODS_WITH_PRIOR)}")
        if self.method != "gp" and self.parts != WHOLE:
            raise ValueError(f"{self.method} has no posterior for tolerance and adaptive_share; use method gp")
        if self.method != "gp" and self.pool_kernels:
            raise ValueError(f"{self.method} has no kernels to pool (pool_kernels); use gp")
        return self

    @property
    def parts(self) -> Parts:
        """How the budget of a clip is cut into rounds."""
        return Parts(tolerance=self.tolerance, adaptive_share=self.adaptive_share)

    @property
    def is_chained(self) -> bool:
        """Whether a clip's map depends on the clip before it in the video."""
        return self.prior == PREVIOUS or self.pool_kernels

    @property
    def asks_inside(self) -> str | None:
        """What must be asked of the model itself: one of Captum's methods, mask optimisation, or nothing."""
        if self.method in ASKED_METHODS:
            return ASKED_METHODS[self.method]
        return self.prior if is_captum(self.prior) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineRequest:
    """A clip's evidence so far and the classes to explain.

    `frame_idx`: the clip's frames, and `before`: what the clip before it left, for settings that look at it.
    """

    evidence: Evidence
    targets: tuple[int, ...]
    frame_idx: Int64[np.ndarray, " t"] | None = None
    before: Heritage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineResult:
    """Either the maps, one for each target, or more masks to ask about. `left` is for the next clip of the video."""

    maps: tuple[SaliencyMap, ...] = ()
    more: MaskBatch | None = None
    left: Heritage | None = None


class Refine:
    """Stateless but for its cache: the factorised design of a bank, shared by all clips."""

    def __init__(self, config: RefineConfig) -> None:
        self.config = config

    def setup(self) -> None:
        """Look at a prior's file; designs are made when the first clip asks for them. Raises ConfigError."""
        if is_file(self.config.prior):
            file_prior(self.config.prior, (1, 1, 1))

    def close(self) -> None:
        """Forget the designs."""
        bank_design.cache_clear()
        content_design.cache_clear()

    def process(self, request: RefineRequest, /) -> RefineResult:
        """One SaliencyMap per target, or more masks. Raises NumericsError when the evidence cannot carry a map."""
        # The matrices are small, and threads that wait for each other beside a busy scorer cost 80 times the work.
        with _blas().limit(limits=1, user_api="blas"):
            evidence, targets = request.evidence, request.targets
            if more := self._more(request):
                return RefineResult(more=more)
            found = {target: self._map(request, target) for target in targets}
            maps = tuple(found[target][0] for target in targets)
            if not self.config.parts.is_enough(maps) and (more := next_part(evidence, targets, self.config.parts)):
                return RefineResult(more=more)
        if not self.config.is_chained or request.frame_idx is None:
            return RefineResult(maps=maps)
        log_evidence = {target: summed for target, (_, summed) in found.items()}
        return RefineResult(maps=maps, left=Heritage.of(maps, request.frame_idx, log_evidence))

    def _more(self, request: RefineRequest) -> MaskBatch | None:
        """The next round: what is asked of the model itself first; with several targets the first asks for masks."""
        evidence, targets = request.evidence, request.targets
        if self.config.method in ASKED_METHODS:
            return method_questions(evidence, self.config.method, targets, self.config.rivals)
        if is_captum(self.config.prior) and (questions := prior_questions(evidence, self.config.prior, targets)):
            return questions
        if self.config.method == "borex":
            y = regression_targets(_scores(evidence)[1], targets[0])
            known, asked = self._with_prior(self._with_heritage(request, targets[0])[0], y, targets[0])
            return next_windows(known, asked, y[asked], num=self.config.borex_batch)
        parts, more = self.config.parts, None
        if is_captum(self.config.prior):
            more = rest_of_bank(evidence, parts)
        elif self.config.prior == "rise":
            more = after_the_prior(evidence, self.config.method, parts)
        return more if more or parts.tolerance else next_part(evidence, targets, parts)

    def _map(self, request: RefineRequest, target: int) -> tuple[SaliencyMap, KernelEvidence]:
        """The map, and what the clips of the video so far say of the kernels."""
        evidence, notes = self._with_heritage(request, target)
        ids, scores = _scores(evidence)
        anchors = {row: scores[ids == row] for row in (KEEP_ALL_ROW, REPLACE_ALL_ROW)}
        if any(len(found) != 1 for found in anchors.values()):
            raise NumericsError(
                str(evidence.clip_id), "the untouched or the replaced clip was not scored", "resume the run"
            )
        names = OUTPUTS + tuple(f"rival:{rival}" for rival in self.config.rivals)
        y = regression_targets(scores, target, self.config.rivals)
        evidence, asked = self._with_prior(evidence, y, target)
        if self.config.method in ASKED_METHODS:
            asker = ASKED_ESTIMATORS[self.config.method]
            estimator: Estimator = partial(asker, target=target, rivals=self.config.rivals)
        elif self.config.method == "gp":
            estimator = partial(gaussian_process, looks_twice=self.config.focus)
        else:
            estimator = ESTIMATORS[self.config.method]
        estimate = estimator(evidence, asked, y[asked])
        shape = (len(names), *estimate.grid)
        found = [fidelity(y[asked][:, o], estimate, o) for o in range(len(names))]
        tamed = without_outliers(y[asked], estimate) if any(one.is_reliable for one in found) else None
        if tamed is not None:
            # A few wild scores can be fitted by chance; a map that is there, is there without them.
            if self.config.method == "gp":  # the verdict is the first look's
                estimator = partial(gaussian_process, looks_twice=False)
            again = estimator(evidence, asked, tamed)
            stands = [fidelity(tamed[:, o], again, o).is_reliable for o in range(len(names))]
            found = [
                replace(one, is_reliable=one.is_reliable and is_so) for one, is_so in zip(found, stands, strict=True)
            ]
        saliency = SaliencyMap(
            clip_id=evidence.clip_id,
            target_idx=target,
            method=self.config.method,
            outputs=names,
            mean=estimate.mean.reshape(shape).astype(np.float32),
            var=estimate.var.reshape(shape).astype(np.float32),
            fidelity=dict(zip(names, found, strict=True)),
            reference=anchors[KEEP_ALL_ROW][0].astype(np.float32),
            replaced=anchors[REPLACE_ALL_ROW][0].astype(np.float32),
            num_evaluations=evidence.num_evaluations,
            stop_reason="tolerance" if self.config.tolerance and evaluations_left(evidence) else "budget",
            details={**estimate.details, **notes},
        )
        return saliency, added(evidence.kernel_evidence, estimate.kernel_evidence)

    def _with_heritage(self, request: RefineRequest, target: int) -> tuple[Evidence, dict[str, str]]:
        """The evidence with what the clip before left, where that is wanted, and what is to be noted of it."""
        return with_heritage(
            request.evidence, target, request.before, request.frame_idx, self.config.prior, self.config.pool_kernels
        )

    def _with_prior(
        self, evidence: Evidence, y: Float64[np.ndarray, "n o"], target: int
    ) -> tuple[Evidence, Bool[np.ndarray, " n"]]:
        """The evidence with its prior, and the masks left to refine it: what made a prior is not counted again."""
        asked = _scores(evidence)[0] >= NUM_ANCHORS
        if is_captum(self.config.prior):
            found = evidence.attributed(Question(kind="saliency", class_idx=target))
            return replace(evidence, prior=None if found is None else found[0]), asked
        if is_file(self.config.prior):
            return replace(evidence, prior=file_prior(self.config.prior, grid_of(evidence))), asked
        if self.config.prior == "rise":
            first = asked & (np.arange(len(asked)) < len(evidence.masks[0]))
            values = y[first][:, [OUTPUTS.index("log_odds")]]
            # BOREx works on the probability of the target.
            prior = weighted_mean(rows_of(evidence)[first], expit(values) if self.config.method == "borex" else values)
            return replace(evidence, prior=prior.reshape(grid_of(evidence)).astype(np.float32)), asked & ~first
        return evidence, asked


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process; looking for them takes longer than some maps."""
    return ThreadpoolController()


def _scores(evidence: Evidence) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n k"]]:
    """Ids and scores of all masks."""
    values = np.concatenate([round_.values for round_ in evidence.scores]).astype(np.float64)
    return np.concatenate([round_.ids for round_ in evidence.scores]), values
