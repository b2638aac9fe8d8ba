"""The report: plain pages that open offline, in RUN/report, about what the run folder holds.

Everything that comes from outside (file names, labels, messages) is escaped by the templates. Runs of many videos get a
page for each, so that no page is too heavy to open.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq

from pipeline import words
from pipeline.artifacts import Table, part_path
from pipeline.chart import make_profile, profile_svg
from pipeline.files import atomic_file, remove, safe_name
from pipeline.manifest import Manifest, RunFolder
from pipeline.report_screening import screening_section
from pipeline.summaries import TargetSummary, VideoSummary
from stages.stores import name_of

if TYPE_CHECKING:
    from jinja2 import Environment

# Up to this many videos are shown on the first page.
INLINE_VIDEOS = 12
# Regions beyond this many stay in regions.parquet.
MAX_REGIONS = 12
MAX_FAILURES = 500

_PROFILE_COLUMNS = ("pts_s", "for", "f_tc", "f_ntc", "net", "is_seen", "is_reliable")


def write_report(run: RunFolder | Path) -> Path:
    """Write report/index.html (and report/videos/) anew from what the run folder holds; returns the first page."""
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    pages = folder.path / "report" / "videos"
    remove(pages)
    manifest, environment = folder.manifest, _environment()
    num_videos = sum(1 for _ in folder.summaries())
    is_inline = num_videos <= INLINE_VIDEOS
    common = {"manifest": manifest, "facts": _facts(manifest), "run_name": folder.path.resolve().name}
    if not is_inline:
        page = environment.get_template("video_page.html")
        for summary in folder.summaries():
            _write(
                pages / f"{safe_name(summary.video_id)}.html",
                page.render(**common, video=_video(folder, summary, "../../")),
            )
    index = folder.path / "report" / "index.html"
    failures = folder.failures()
    _write(
        index,
        environment.get_template("index.html").render(
            **common,
            overview=[_overview(summary, is_inline) for summary in folder.summaries()],
            videos=(_video(folder, summary, "../") for summary in (folder.summaries() if is_inline else ())),
            failures=failures[:MAX_FAILURES],
            num_failures=len(failures),
            screening=screening_section(folder),
        ),
    )
    return index


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("pipeline"), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {
        "number": words.number_words,
        "prob": words.probability_words,
        "time": words.time_words,
        "percent": lambda share: f"{share:.0%}",
    }
    return environment


def _write(path: Path, page: str) -> None:
    with atomic_file(path) as file:
        file.write(page.encode("utf-8", "backslashreplace"))


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    """What was asked, of what, and how fast it was answered: names and values for the head of the page."""
    config, summary = manifest.config, manifest.summary
    facts: list[tuple[str, object]] = [
        ("model", manifest.model.get("name") or _setting(config, "model", "name")),
        ("target", config.get("target")),
        ("evaluations per clip", _setting(config, "perturb", "budget")),
        ("method", _setting(config, "refine", "method")),
        ("what replaces hidden pixels", manifest.substrate or _setting(config, "score", "substrate")),
        ("status", manifest.status),
        ("began", manifest.started_at.replace("T", " ").removesuffix("+00:00")[:19] + " UTC"),
        *((words.setting_words(name), value) for name, value in (manifest.counts | summary).items()),
    ]
    return [(name, words.number_words(v)) for name, v in facts if v is not None and not isinstance(v, dict | list)]


def _setting(config: Mapping[str, Any], section: str, name: str) -> object:
    inner = config.get(section)
    return inner.get(name) if isinstance(inner, Mapping) else None


def _overview(summary: VideoSummary, is_inline: bool) -> dict[str, Any]:
    name = safe_name(summary.video_id)
    return {
        "name": name_of(summary.uri) or summary.video_id,
        "link": f"#{quote(name)}" if is_inline else f"videos/{quote(name)}.html",
        "summary": summary,
    }


def _video(run: RunFolder, summary: VideoSummary, root: str) -> dict[str, Any]:
    """One video for the template; `root` leads from the page to the run folder."""
    return {
        "name": name_of(summary.uri) or summary.video_id,
        "anchor": safe_name(summary.video_id),
        "summary": summary,
        "targets": [_target(run, summary, target, root) for target in summary.targets],
    }


def _target(run: RunFolder, summary: VideoSummary, target: TargetSummary, root: str) -> dict[str, Any]:
    regions = [
        {**row, "kind_words": words.KIND_WORDS[row["kind"]], "effect": words.effect_words(row)}
        for row in _rows(run, "regions", summary.video_id, target.target_idx)
    ]
    regions.sort(key=lambda row: (not row["effect"], -row["mass"]))
    return {
        "summary": target,
        "verdict": words.verdict_words(target),
        "prediction": words.prediction_words(target),
        "product": root + quote(target.product),
        "is_film": summary.kind != "image",
        "profile": _profile(run, summary, target),
        "regions": regions[:MAX_REGIONS],
        "num_regions": len(regions),
    }


def _profile(run: RunFolder, summary: VideoSummary, target: TargetSummary) -> "str | None":
    from markupsafe import Markup

    path = part_path(run.path, "frames", summary.video_id)
    if summary.num_frames < 2 or not path.exists():
        return None
    table = pq.read_table(path, columns=list(_PROFILE_COLUMNS), filters=[("target_idx", "==", target.target_idx)])
    columns = {name: np.asarray(table[name]) for name in _PROFILE_COLUMNS}
    return Markup(profile_svg(make_profile(columns))) if len(table) > 1 else None  # numbers only: nothing to escape


def _rows(run: RunFolder, table: Table, video_id: str, target_idx: int) -> Iterator[dict[str, Any]]:
    path = part_path(run.path, table, video_id)
    if path.exists():
        names = [name for name in pq.read_schema(path).names if name != "boxes"]
        yield from pq.read_table(path, columns=names, filters=[("target_idx", "==", target_idx)]).to_pylist()
