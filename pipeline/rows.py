"""Records as rows of the tables (columns and units: `SCHEMAS` in artifacts.py)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32

from stages.estimators import regression_targets
from stages.evidence import EvidenceMaps, decompose
from stages.records import ClipInfo, FrameMap, Geometry, Region, SaliencyMap

LabelOf = Callable[[int], str]


def clip_row(info: ClipInfo, saliency: SaliencyMap, label_of: LabelOf, seconds: float | None) -> dict[str, Any]:
    """One clip and target: what the box says of it, how much evidence there is, how far it can be trusted."""
    scores = np.stack([saliency.reference, saliency.replaced]).astype(np.float64)
    outputs = regression_targets(scores, saliency.target_idx)
    prob, prob_replaced = probability(outputs[:, 2])
    totals = decompose(saliency).totals()
    fidelity = saliency.fidelity["log_odds"]
    top1 = int(saliency.reference.argmax())
    rivals = [(label_of(int(name.split(":")[1])), saliency.mean[row]) for row, name in _rivals(saliency)]
    return {
        "video_id": info.id.video_id,
        "target_idx": saliency.target_idx,
        "target": label_of(saliency.target_idx),
        "clip_idx": info.id.clip_idx,
        "frame_start": info.covers[0],
        "frame_stop": info.covers[1],
        "start_s": float(info.pts_s[0]),
        "end_s": float(info.pts_s[-1]),
        "top1_idx": top1,
        "top1": label_of(top1),
        "prob": float(prob),
        "prob_replaced": float(prob_replaced),
        **{name: float(outputs[0, column]) for column, name in enumerate(("z_t", "lse_n", "log_odds"))},
        **{f"{name}_replaced": float(outputs[1, column]) for column, name in enumerate(("z_t", "lse_n", "log_odds"))},
        "for": totals["support"],
        **{kind: totals[kind] for kind in ("f_tc", "f_ntc", "net")},
        "rivals": [(label, float(np.maximum(mean, 0).sum(dtype=np.float64))) for label, mean in rivals],
        "q2": fidelity.q2,
        "coverage": fidelity.coverage,
        "q2_z_t": saliency.fidelity["z_t"].q2,
        "q2_lse_n": saliency.fidelity["lse_n"].q2,
        "is_reliable": saliency.is_reliable,
        "method": saliency.method,
        "evaluations": saliency.num_evaluations,
        "stop_reason": saliency.stop_reason,
        "seconds": seconds,
        **_prior(saliency),
    }


def frame_row(
    frame: FrameMap, maps: EvidenceMaps, *, pts_s: float, target: str, geometry: Geometry, voxels_per_clip: int
) -> dict[str, Any]:
    """One frame and target: means over the frame, in log-odds per 1 % of the clip; the peak is that of |net|."""
    unit = voxels_per_clip / 100
    std = np.sqrt(frame.var[frame.outputs.index("log_odds")])
    peak_y_px, peak_x_px = peak_of(np.abs(maps["net"]), geometry) if frame.is_seen else (None, None)
    return {
        "video_id": frame.video_id,
        "target_idx": frame.target_idx,
        "target": target,
        "frame_idx": frame.frame_idx,
        "pts_s": pts_s,
        "for": float(maps["support"].mean()) * unit,
        **{kind: float(maps[kind].mean()) * unit for kind in ("f_tc", "f_ntc", "net")},
        "uncertainty": float(std.mean()) * unit,
        "peak_y_px": peak_y_px,
        "peak_x_px": peak_x_px,
        "is_seen": frame.is_seen,
        "is_reliable": frame.is_reliable,
    }


def region_row(region: Region, label_of: LabelOf) -> dict[str, Any]:
    """One region, with its verified effect where it was removed for real (else empty)."""
    effect = region.effect
    return {
        "video_id": region.video_id,
        "target_idx": region.target_idx,
        "target": label_of(region.target_idx),
        "region_idx": region.region_idx,
        "kind": region.kind,
        "frame_start": region.frames[0],
        "frame_stop": region.frames[1],
        "start_s": region.span_s[0],
        "end_s": region.span_s[1],
        "mass": region.mass,
        "z_score": region.z_score,
        "peak_frame": region.peak[0],
        "peak_y_px": region.peak[1],
        "peak_x_px": region.peak[2],
        "boxes": region.boxes.tolist(),
        "effect_clip_idx": effect and effect.clip_idx,
        "prob_before": effect and effect.prob_before,
        "prob_after": effect and effect.prob_after,
        "log_odds_before": effect and effect.log_odds_before,
        "log_odds_after": effect and effect.log_odds_after,
        "top1_before": effect and label_of(effect.top1_before),
        "top1_after": effect and label_of(effect.top1_after),
    }


def probability(log_odds: np.ndarray) -> np.ndarray:
    """The probability behind log-odds (docs/method.md, eq. 1), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -log_odds)))


def peak_of(values: Float32[np.ndarray, "gh gw"], geometry: Geometry) -> tuple[float, float]:
    """The centre (y, x) of the largest cell, in source pixels."""
    gh, gw = values.shape
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    cell_y, cell_x = geometry.model_h_px / gh, geometry.model_w_px / gw
    y0, x0, y1, x1 = geometry.box_to_source(y * cell_y, x * cell_x, (y + 1) * cell_y, (x + 1) * cell_x)
    return (y0 + y1) / 2, (x0 + x1) / 2


def _prior(saliency: SaliencyMap) -> dict[str, Any]:
    weight, beta = (saliency.details.get(name) for name in ("prior_weight", "prior_beta"))
    return {
        "prior_weight": weight,
        "prior_beta": beta,
        "is_prior_refused": None if weight is None else float(weight) < 0.5,
        "no_prior": saliency.details.get("no_prior"),
    }


def _rivals(saliency: SaliencyMap) -> list[tuple[int, str]]:
    return [(row, name) for row, name in enumerate(saliency.outputs) if name.startswith("rival:")]
