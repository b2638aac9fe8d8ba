"""Maps that are asked of the box itself instead of scores: what is asked, and what it is charged with.

An attribution round holds questions; each is answered by a map on the voxel grid, computed beside the model
(`attributions.py`) and kept in the journal like scores. A pass through the model counts as one evaluation, forward or
backward alike, so that methods which look into a model have the budget of those which only ask it.
"""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["saliency", "support", "f_tc", "f_ntc"]
Grid = tuple[int, int, int]

MASK_OPTIMISATION = "mask-optimisation"
CAPTUM_PREFIX = "captum:"
# Methods of a run whose maps are asked for, and what is asked: AttributionSpec.method.
ASKED_METHODS = {
    MASK_OPTIMISATION: MASK_OPTIMISATION,
    "lime": CAPTUM_PREFIX + "Lime",
    "kernel-shap": CAPTUM_PREFIX + "KernelShap",
}
# Passes of the methods that look into a module; those that only ask are charged with their samples.
PASSES = {"LayerGradCam": 2, "GuidedGradCam": 4, "LRP": 3}
SAMPLED = ("Lime", "KernelShap", "Occlusion")
WITH_LAYER = ("LayerGradCam", "GuidedGradCam")

MAX_SAMPLES = 100  # as many as a RISE prior has masks
MAX_STEPS = 300
CELLS = (4, 7, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One map: the signed saliency of a class's score, or the mask whose removal lowers that score most (support),
    raises it most (f_tc), or lowers the log-sum-exp of all other scores most (f_ntc)."""

    kind: Kind
    class_idx: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionSpec:
    """Questions of one round. `evaluations`: what each is charged with; ids of a MaskBatch number the questions."""

    method: str  # captum:NAME, captum:NAME@LAYER or mask-optimisation
    questions: tuple[Question, ...]
    grid: Grid
    evaluations: int
    seed: int


@dataclass(frozen=True, slots=True)
class CaptumMethod:
    """One of Captum's methods, and the layer it looks at (None: the last convolution)."""

    name: str
    layer: str | None = None

    @property
    def needs_module(self) -> bool:
        """Whether it must see inside the box."""
        return self.name in PASSES

    def charge(self, grid: Grid, most: int) -> int:
        """Evaluations for one map when at most `most` can be paid; may be more than that where it is tiny.

        Methods that sample look at the untouched clip once for its scores; occlusion once more, by itself.
        """
        if self.needs_module:
            return PASSES[self.name]
        if self.name == "Occlusion":
            return math.prod(occlusion_cells(grid, min(most, MAX_SAMPLES) - 1)) + 2
        return max(min(most, MAX_SAMPLES), 3)


def captum_method(text: str) -> CaptumMethod:
    """The method in "captum:NAME" or "captum:NAME@LAYER". Raises ValueError, naming the nearest."""
    from stages.models_spec import nearest

    name, _, layer = text.removeprefix(CAPTUM_PREFIX).partition("@")
    known = (*PASSES, *SAMPLED)
    if name not in known:
        raise ValueError(f"{text!r} is no prior; did you mean captum:{nearest(name, known)}? known: {', '.join(known)}")
    if layer and name not in WITH_LAYER:
        raise ValueError(f"{text!r}: {name} looks at no layer; write captum:{name}")
    return CaptumMethod(name, layer or None)


def is_captum(prior: str) -> bool:
    """Whether a prior is one of Captum's methods."""
    return prior.startswith(CAPTUM_PREFIX)


def saliencies(targets: tuple[int, ...]) -> tuple[Question, ...]:
    """One signed map for every target: what Captum's methods are asked for."""
    return tuple(Question(kind="saliency", class_idx=target) for target in targets)


def optimised_kinds(
    targets: tuple[int, ...], rivals: tuple[int, ...], kinds: tuple[Kind, ...] = ("support", "f_tc", "f_ntc")
) -> tuple[Question, ...]:
    """The masks to optimise: three for every target, and for every named rival the one that its score lives on."""
    asked = [Question(kind=kind, class_idx=target) for target in targets for kind in kinds]
    asked += [Question(kind="support", class_idx=rival) for rival in rivals]
    return tuple(dict.fromkeys(asked))


def occlusion_cells(grid: Grid, most: int) -> Grid:
    """The finest cells, at most 4 x 7 x 7 (pictures 10 x 10), of which `most` - 1 evaluations can hide each once."""
    side = min(10 if grid[0] == 1 else CELLS[1], grid[1], grid[2])
    for times in (min(CELLS[0], grid[0]), min(2, grid[0])):
        room = math.isqrt((most - 1) // times)
        if room >= min(side, 5):
            return times, min(side, room), min(side, room)
    room = max(min(side, math.isqrt(max(most - 1, 1))), 1)
    return 1, room, room
