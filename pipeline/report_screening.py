"""The part of the report that says what was and what was not explained: sentences, and a timeline for each source."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import words
from pipeline.chart import screening_svg
from pipeline.manifest import RunFolder
from pipeline.plan import Plan, stretches

# Sources beyond this many have no timeline on the page.
MAX_TIMELINES = 40


def screening_section(run: RunFolder) -> dict[str, Any] | None:
    """What the template shows; None for a run without limits."""
    sentences = words.coverage_words(run.manifest.summary)
    plan = Plan.read(run.path)
    if plan is None:
        return {"sentences": sentences, "videos": [], "num_left_out": 0} if sentences else None
    videos, inputs = plan.videos(), run.inputs()
    labels = dict(zip(plan.table["target_idx"].to_pylist(), plan.table["target"].to_pylist(), strict=True))
    top = max((float(rows["priority"].max()) for rows in videos.values()), default=1.0)
    shown = [
        {"name": Path(inputs[video_id].uri).name or video_id, **_video(rows, labels, top)}
        for video_id, rows in list(videos.items())[:MAX_TIMELINES]
    ]
    return {"sentences": sentences, "videos": shown, "num_left_out": len(videos) - len(shown)}


def _video(rows: dict[str, np.ndarray], labels: dict[int, str], top: float) -> dict[str, Any]:
    from markupsafe import Markup

    parts = stretches(rows)
    begin_s, end_s = parts[0][0], parts[-1][1]
    gap_s, gap_at_s = max(((b - a, a) for a, b, has_map in parts if not has_map), default=(0.0, 0.0))
    marked = [(a - begin_s, b - begin_s) for a, b, has_map in parts if has_map]
    timeline = None
    if end_s > begin_s:
        starts_s = rows["start_s"] - begin_s
        timeline = Markup(screening_svg(starts_s, rows["priority"], marked, end_s=end_s - begin_s, top=top))
    (most, _), *_ = Counter(rows["target_idx"].tolist()).most_common(1)
    return {
        "target": labels[most],
        "num_clips": len(rows["clip_idx"]),
        "num_explained": int(rows["is_explained"].sum()),
        "best_rank": int(rows["rank"].min()) + 1,
        "gap_s": gap_s,
        "gap_at_s": gap_at_s - begin_s,
        "timeline": timeline,
    }
