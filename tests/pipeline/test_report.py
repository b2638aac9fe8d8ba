"""The report says in words what the tables hold, escapes what comes from outside, and needs no network."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from planted_run import run_sink, sink_spec, summary, target_summary, write_video

from pipeline import report, words
from pipeline.chart import make_profile, profile_svg
from pipeline.manifest import RunFolder
from pipeline.report import write_report
from stages.records import Failure

CONFIG = {"model": {"name": "planted"}, "target": "cat", "budget": 64, "refine": {"method": "gp"}}


def planted_run(tmp_path: Path, *names: str, is_reliable: bool = True) -> RunFolder:
    run = RunFolder.create(tmp_path / "run", CONFIG)
    for name in names:
        spec = sink_spec(run.path, write_video(tmp_path / "v.mp4"), video_id=name)
        run.register(spec.source)
        run.complete(run_sink(spec, is_reliable=is_reliable))
    return run


class Links(HTMLParser):
    """Collects tags, and every src and href of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def test_the_page_tells_effects_and_prediction_in_words(tmp_path: Path) -> None:
    page = write_report(planted_run(tmp_path, "v")).read_text()
    assert "removing it lowers p(target) from .65 to .08; the model then says dog instead of cat" in page
    assert "The model says cat (mean probability .56), and that is what is explained." in page
    assert "Reliable: the map predicts" in page
    assert "no reliable signal" not in page.lower().replace("grey: no reliable signal", "")
    assert "<svg" in page


def test_a_video_without_a_signal_is_called_that(tmp_path: Path) -> None:
    page = write_report(planted_run(tmp_path, "v", is_reliable=False)).read_text()
    assert "No reliable signal: the map does not predict" in page
    assert "lowers p(target)" not in page


def test_names_labels_and_messages_are_escaped(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {**CONFIG, "target": "<i>x</i>"})
    video = write_video(tmp_path / "<script>alert(1)<" / "script>.mp4")
    spec = sink_spec(run.path, video, video_id="<script>alert(1)</script>", targets=(1, 2))
    run.register(spec.source)
    run.complete(run_sink(spec))
    hostile = '"><img src=x onerror=alert(1)>'
    run.fail(Failure(video_id="x", uri=hostile, stage="decode", error="E", reason=hostile, remedy="<b>no</b>"))
    page = write_report(run).read_text()
    links = Links(page)
    assert links.tags.count("script") == 1  # the page's own
    assert "img" not in links.tags
    assert page.count("<b>") == page.count("<b>All evidence found:</b>")
    assert "&lt;b&gt;bird&lt;/b&gt;" in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page


def test_every_link_stays_in_the_run_folder_and_leads_somewhere(tmp_path: Path) -> None:
    index = write_report(planted_run(tmp_path, "v", "w x"))
    links = Links(index.read_text())
    assert any(link.partition("#")[0].endswith(".mp4") for link in links.found)
    anchors = set(re.findall(r'id="([^"]+)"', index.read_text()))
    for link in links.found:
        assert "//" not in link
        assert link[1:] in anchors if link.startswith("#") else (index.parent / link.partition("#")[0]).is_file()


def test_a_run_of_many_videos_gets_a_page_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "INLINE_VIDEOS", 1)
    index = write_report(planted_run(tmp_path, "v", "w"))
    links = [link for link in Links(index.read_text()).found if link.endswith(".html")]
    assert links == ["videos/v.html", "videos/w.html"]
    page = index.parent / "videos" / "v.html"
    film, _, start = next(link for link in Links(page.read_text()).found if ".mp4" in link).partition("#")
    assert (page.parent / film).is_file()
    assert start == "t=0.001"  # or it would be black until it is played
    assert "<video" not in index.read_text()


def test_failures_come_with_reason_and_remedy(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIG)
    failure = Failure(
        video_id="x", uri="/x.mp4", stage="decode", error="E", reason="it is empty", remedy="copy it anew"
    )
    run.fail(failure)
    page = write_report(run).read_text()
    assert "it is empty" in page
    assert "copy it anew" in page
    assert "No video was finished in this run." in page


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0.81, 0.32, "removing it lowers p(target) from .81 to .32"),
        (0.20, 0.55, "removing it raises p(target) from .20 to .55"),
        (0.9999, 0.001, "removing it lowers p(target) from >.99 to <.01"),
        (0.500, 0.504, "removing it hardly changes p(target): .50 to .50 (log-odds +0.25)"),
    ],
)
def test_effects_in_words(before: float, after: float, said: str) -> None:
    row = {"prob_before": before, "prob_after": after, "log_odds_before": 0.0, "log_odds_after": 0.25}
    assert words.effect_words({**row, "top1_before": "a", "top1_after": "a"}) == said
    assert words.effect_words({**row, "top1_before": "a", "top1_after": "b"}).endswith(
        "the model then says b instead of a"
    )


def test_verdicts_in_words() -> None:
    assert words.verdict_words(target_summary(num_reliable_clips=1)).startswith("Reliable in 1 of 2 clips; elsewhere")
    assert words.verdict_words(target_summary(num_reliable_clips=0)).startswith("No reliable signal")
    assert "The model says dog; explained is cat" in words.prediction_words(target_summary(top1_idx=0, top1="dog"))
    assert summary().is_reliable


def test_a_long_profile_is_binned_without_changing_its_mean() -> None:
    num_frames = 5000
    columns = {name: np.ones(num_frames) for name in ("for", "f_tc", "f_ntc", "is_seen", "is_reliable")}
    columns |= {"pts_s": np.arange(num_frames) / 25, "net": np.linspace(-1, 1, num_frames)}
    profile = make_profile(columns)
    assert len(profile.values["net"]) == 360
    assert profile.edges_s[-1] == pytest.approx(num_frames / 25)
    assert np.average(profile.values["net"], weights=np.diff(profile.edges_s)) == pytest.approx(0, abs=1e-9)
    assert len(profile_svg(profile)) < 60_000
