"""One clip through perturb, score and refine in this process: what tests, benchmarks and notebooks call directly."""

from dataclasses import replace

from stages.perturb import Perturb
from stages.records import Clip, Evidence, SaliencyMap
from stages.refine import Refine, RefineRequest
from stages.score import Score, ScoreRequest


def score_clip(clip: Clip, perturb: Perturb, score: Score) -> Evidence:
    """Ask the (set-up) scorer about all of a clip's masks."""
    masks = perturb.process(clip.info)
    result = score.process(ScoreRequest(batches=(masks,), clips={clip.id: clip}))
    return Evidence(clip_id=clip.id, masks=(masks,), scores=result.scores, content=clip.content)


def explain_clip(
    clip: Clip, perturb: Perturb, score: Score, refine: Refine, targets: tuple[int, ...] | None = None
) -> tuple[SaliencyMap, ...]:
    """The maps of one clip, for the given classes or for the top-1 of the untouched clip."""
    evidence = score_clip(clip, perturb, score)
    if targets is None:
        targets = (int(evidence.scores[0].values[0].argmax()),)
    while (result := refine.process(RefineRequest(evidence=evidence, targets=targets))).more is not None:
        answer = score.process(ScoreRequest(batches=(result.more,), clips={clip.id: clip}))
        evidence = replace(evidence, masks=(*evidence.masks, result.more), scores=(*evidence.scores, *answer.scores))
    return result.maps
