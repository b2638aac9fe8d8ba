"""A source beside its model in this process: what commands that look at a few clips, and make no run, start from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.topology import build_score
from stages.decode import Decode, DecodeRequest
from stages.exchange import Subject
from stages.faithfulness import untouched
from stages.measure import ask
from stages.records import Clip, VideoSource
from stages.score import Score
from stages.sources import find_sources, probe
from stages.targets import mean_probabilities, resolve_targets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """A source, and a scorer that is set up."""

    config: Config
    source: VideoSource
    score: Score

    def clips(self, wanted: Sequence[int]) -> list[Clip]:
        """Those of the wanted clips that are there."""
        decode = Decode(self.config.decode, self.score.box.spec)
        decode.setup()
        try:
            found = [decode.process(DecodeRequest(source=self.source, clip_idx=idx)).clip for idx in wanted]
        finally:
            decode.close()
        return [clip for clip in found if clip is not None]

    def subjects(self, clips: Sequence[Clip]) -> list[Subject]:
        """What is explained of each clip: one class, to which words such as top1 refer over all of the clips."""
        config, score = self.config, self.score
        answers = [ask(score, clip, [untouched(clip.id)])[0].values for clip in clips]
        target = resolve_targets(config.target, mean_probabilities(np.concatenate(answers)), score.box.spec)[0]
        batch_size = config.score.batch_size or score.tune().batch_size
        return [
            Subject(
                clip=clip,
                box=score.box,
                target=target,
                perturb=config.perturb,
                score=config.score.model_copy(update={"batch_size": batch_size}),
                refine=config.refine,
            )
            for clip in clips
        ]

    def facts(self, target: int) -> dict[str, Any]:
        """What was explained and how, for JSON."""
        return {
            "uri": self.source.uri,
            "model": self.score.box.spec.name,
            "target_idx": target,
            "target": self.score.box.spec.label(target),
            "method": self.config.refine.method,
            "budget": self.config.budget,
        }


@contextmanager
def opened(config: Config, uri: str) -> Iterator[Opened]:
    """The first source that `uri` names. Raises what reading the source and building the model raise."""
    source = probe(next(iter(find_sources([uri]))))
    score = build_score(config)
    score.setup()
    try:
        yield Opened(config=config, source=source, score=score)
    finally:
        score.close()
