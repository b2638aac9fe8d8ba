"""One clip through perturb, score and refine in this process: what tests, benchmarks and notebooks call directly."""

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
    return explain_evidence(clip, score_clip(clip, perturb, score), score, refine, targets)[1]


def explain_evidence(
    clip: Clip, evidence: Evidence, score: Score, refine: Refine, targets: tuple[int, ...] | None = None
) -> tuple[Evidence, tuple[SaliencyMap, ...]]:
    """The maps of one clip from its first round on, and all the evidence that they rest on."""
    if targets is None:
        targets = (int(evidence.scores[0].values[0].argmax()),)
    rounds = [*zip(evidence.masks, evidence.scores, strict=True)]
    while (result := refine.process(RefineRequest(evidence=evidence, targets=targets))).more is not None:
        answer = score.process(ScoreRequest(batches=(result.more,), clips={clip.id: clip}))
        rounds.append((result.more, answer.scores[0]))
        evidence = Evidence.of(clip.id, rounds, content=evidence.content)
    return evidence, result.maps
