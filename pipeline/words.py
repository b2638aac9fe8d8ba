"""Numbers as sentences, for the report page and the command line."""

from collections.abc import Mapping
from typing import Any

from pipeline.summaries import TargetSummary

# Changes of p(target) smaller than this are not worth a verb.
SMALL_CHANGE = 0.01

KIND_WORDS = {
    "support": "for",
    "f_tc": "against: hinders the target (F-TC)",
    "f_ntc": "against: speaks for others (F-NTC)",
}


def probability_words(prob: float) -> str:
    """Two digits without the leading zero: .81; certainty is never claimed: <.01, >.99."""
    if prob < 0.005:
        return "<.01"
    if prob > 0.995:
        return ">.99"
    return f"{prob:.2f}".removeprefix("0")


def effect_words(region: Mapping[str, Any]) -> str:
    """What happened when a region (a row of regions.parquet) was removed for real; empty when it was not tried."""
    before, after = region["prob_before"], region["prob_after"]
    if before is None or after is None:
        return ""
    numbers = f"{probability_words(before)} to {probability_words(after)}"
    if abs(after - before) < SMALL_CHANGE:
        change = region["log_odds_after"] - region["log_odds_before"]
        said = f"removing it hardly changes p(target): {numbers} (log-odds {change:+.2f})"
    else:
        said = f"removing it {'raises' if after > before else 'lowers'} p(target) from {numbers}"
    if region["top1_before"] != region["top1_after"]:
        said += f"; the model then says {region['top1_after']} instead of {region['top1_before']}"
    return said


def verdict_words(target: TargetSummary) -> str:
    """Whether the map can be trusted, in one sentence."""
    share = f"{target.num_reliable_clips} of {target.num_clips} {_plural('clip', target.num_clips)}"
    numbers = f"held-out R² {target.q2:.2f}, 90 % intervals cover {target.coverage:.0%}"
    if not target.is_reliable:
        return f"No reliable signal: the map does not predict the scores of masks that it has not seen ({numbers})."
    if target.num_reliable_clips < target.num_clips:
        return f"Reliable in {share}; elsewhere there is no reliable signal ({numbers})."
    return f"Reliable: the map predicts the scores of masks that it has not seen ({numbers})."


def prediction_words(target: TargetSummary) -> str:
    """What the model says, and how that stands to the class that is explained."""
    prob = probability_words(target.prob)
    if target.top1_idx == target.target_idx:
        return f"The model says {target.top1} (mean probability {prob}), and that is what is explained."
    return f"The model says {target.top1}; explained is {target.target} (mean probability {prob})."


def coverage_words(figures: Mapping[str, Any]) -> list[str]:
    """What a run with limits explained and what it did not, from the figures in its manifest; else nothing."""
    if (found := figures.get("screening")) is not None:
        return _screening_words(found)
    if (found := figures.get("limits")) is None:
        return []
    said = [f"explained {found['clips_explained']} of about {found['clips_expected']} clips, in order"]
    if found["is_time_over"]:
        said.append("the time was over before all sources were looked at")
    if count := found["sources_of_unknown_length"]:
        said.append(f"{count} {_plural('source', count)} did not say how long they are")
    if count := found["sources_without_explanation"]:
        said.append(f"{count} {_plural('source', count)} without an explanation")
    return said


def _screening_words(found: Mapping[str, Any]) -> list[str]:
    clips, videos = found["clips_screened"], found["videos_screened"]
    said = [
        f"screened {clips} {_plural('clip', clips)} of {videos} {_plural('source', videos)}, "
        f"explained {found['clips_explained']}"
    ]
    if count := found["clips_not_explained"]:
        text = f"not explained: {count} {_plural('clip', count)}, {found['time_not_explained_share']:.0%} of the time"
        if found["longest_gap_s"]:
            where = f"{time_words(found['longest_gap_at_s'])} of {found['longest_gap_video']}"
            text += f"; the longest stretch is {time_words(found['longest_gap_s'])} from {where}"
        said.append(text)
    if count := found["videos_screened_in_part"]:
        said.append(f"{count} {_plural('source', count)} screened in part, until half of the limit was used up")
    if count := found["sources_not_screened"]:
        said.append(f"{count} {_plural('source', count)} not screened")
    if count := found["videos_without_explanation"]:
        said.append(f"{count} {_plural('source', count)} without an explanation")
    return said


def setting_words(name: str) -> str:
    """A key as words: evaluations_per_s becomes evaluations per s."""
    return name.replace("_", " ")


def number_words(value: object) -> str:
    """A number as people read it; text as it is."""
    if value is None:
        return "not known"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def time_words(seconds: float) -> str:
    """Seconds as a clock: 0:07.3, 12:05.0."""
    minutes, rest = divmod(max(seconds, 0.0), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
