"""Questions about maps, answered beside the model: by gradients where the box is a PyTorch module, or on cells.

In: an attribution round (`questions.py`) and a clip on its device. Out: a map on the voxel grid for every question,
with scores. The answer to a question depends on the clip, the seed and the question alone. Lime, Kernel-SHAP and
occlusion only ask the box, so they explain any; Captum perturbs a vector of cells, and every sample becomes a mask that
the score stage renders.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8
from torch import Tensor, nn

from stages.box import BlackBox
from stages.estimators import regression_targets
from stages.gradients import Found, Opened, captum_map, captum_methods, expect_no_reuse, layer_of, opened
from stages.optimised import optimised_mask
from stages.questions import CELLS, MASK_OPTIMISATION, AttributionSpec, Question, captum_method, occlusion_cells
from stages.records import ClipId, MaskBatch, Scores
from stages.regrid import regrid
from stages.seeds import clip_rng

Ask = Callable[[UInt8[np.ndarray, "n gt gh gw"]], Float32[np.ndarray, "n k"]]
Grid = tuple[int, int, int]

SAMPLES_PER_CALL = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A clip on its device, its substrate, and the scores of its masks."""

    frames: Float[Tensor, "t c h w"]
    substrate: Float[Tensor, "t c h w"]
    is_freeze: bool
    ask: Ask


class Attributor:
    """Answers attribution rounds for one box; what it opens of the box is opened once."""

    def __init__(self, box: BlackBox) -> None:
        self._box = box
        self._opened: Opened | None = None
        self._layers: dict[str, nn.Module | None] = {}

    def expect_possible(self, method: str) -> None:
        """Raise ConfigError where this box cannot answer: no module, no such layer, no support, no Captum."""
        if method == MASK_OPTIMISATION:
            self._inside(method)
            return
        captum_methods()
        if captum_method(method).needs_module:
            self._layer(method)

    def answer(self, masks: MaskBatch, subject: Subject) -> Scores:
        """The maps and scores of a round's questions."""
        spec = masks.attribution
        assert spec is not None, "these are masks"
        found = [self._one(masks.clip_id, spec, int(id_), subject) for id_ in masks.ids]
        return Scores(
            clip_id=masks.clip_id,
            round_idx=masks.round_idx,
            ids=masks.ids,
            values=np.stack([scores for _, scores in found]).astype(np.float32),
            maps=np.stack([values for values, _ in found]).astype(np.float32),
        )

    def _one(self, clip_id: ClipId, spec: AttributionSpec, number: int, subject: Subject) -> Found:
        question = spec.questions[number]
        seed = _seed(spec, clip_id, question)
        if spec.method == MASK_OPTIMISATION:
            return optimised_mask(
                self._inside(spec.method),
                subject.frames,
                subject.substrate,
                question,
                spec.grid,
                evaluations=spec.evaluations,
                seed=seed,
                is_freeze=subject.is_freeze,
            )
        method = captum_method(spec.method)
        if method.needs_module:
            inside, layer = self._inside(spec.method), self._layer(spec.method)
            return captum_map(inside, method, layer, subject.frames, question.class_idx, spec.grid)
        whole = subject.ask(np.full((1, *spec.grid), 255, np.uint8))[0]
        budget = spec.evaluations - 1
        values = cell_map(method.name, subject.ask, question.class_idx, spec.grid, budget, seed)
        return values.astype(np.float32), whole

    def _layer(self, method: str) -> nn.Module | None:
        """Where a method looks; a look at a grey clip finds it, once for a box."""
        if method not in self._layers:
            inside = self._inside(method)
            self._layers[method] = layer_of(inside, captum_method(method))
            if captum_method(method).name == "LRP":
                expect_no_reuse(inside)
        return self._layers[method]

    def _inside(self, method: str) -> Opened:
        if self._opened is None:
            what = method if method == MASK_OPTIMISATION else f"prior {method}"
            self._opened = opened(self._box, what)
        return self._opened


def cell_map(name: str, ask: Ask, target: int, grid: Grid, evaluations: int, seed: int) -> Float64[np.ndarray, "..."]:
    """Lime, KernelShap or Occlusion (Captum) on cells, on the log-odds, within a number of evaluations."""
    cells = min(CELLS[0], grid[0]), min(CELLS[1], grid[1]), min(CELLS[2], grid[2])
    settings: dict[str, object] = {"n_samples": evaluations}
    whole = torch.ones(1, int(np.prod(cells)))
    if name == "Occlusion":
        cells = occlusion_cells(grid, evaluations)
        whole, settings = torch.ones(1, *cells), {"sliding_window_shapes": (1, 1, 1)}

    def log_odds(kept: Tensor) -> Tensor:
        grids = (kept.reshape(-1, *cells) * 255).round().to(torch.uint8).numpy()
        return torch.from_numpy(regression_targets(ask(grids).astype(np.float64), target)[:, 2])

    method = getattr(captum_methods(), name)(log_odds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = method.attribute(whole, baselines=0, perturbations_per_eval=SAMPLES_PER_CALL, **settings)
    return regrid(weights.detach().double().numpy().reshape(cells), grid)


def _seed(spec: AttributionSpec, clip_id: ClipId, question: Question) -> int:
    """A seed for each question, whichever round or batch it comes in; methods on cells ask all classes alike."""
    class_idx = 0 if question.kind == "saliency" else question.class_idx
    draws = clip_rng(spec.seed, clip_id, round_idx=class_idx).integers(2**31, size=4)
    return int(draws[("saliency", "support", "f_tc", "f_ntc").index(question.kind)])
