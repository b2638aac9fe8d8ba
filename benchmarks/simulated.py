"""Stages that take time and do nothing: the machinery is measured with them, not the models.

Every stage sleeps for as long as it is told, without using a processor, so that dozens of "GPUs" fit on one machine.
Scheduler, coordinator, casework, journal and engines are the real ones.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.casework import Casework
from pipeline.config import load_config
from pipeline.coordinator import Coordinator
from pipeline.engine import Engine, StagePlan, WorkerUp
from pipeline.journal_writer import BackgroundJournal
from pipeline.orders import Assignment, Feed
from pipeline.scheduler import Scheduler
from pipeline.stats import Stats
from pipeline.summaries import VideoSummary
from pipeline.topology import ScorerReport
from pipeline.window import Limits
from pipeline.work import StageName
from pipeline.writing import SinkRequest, SinkResult
from stages.base import Resources, Stage
from stages.box import BoxSpec
from stages.decode import DecodeRequest, DecodeResult
from stages.records import Clip, ClipId, Failure, Geometry, MaskBatch, Scores, VideoSource
from stages.refine import RefineRequest, RefineResult
from stages.score import ScoreRequest, ScoreResult
from stages.tuning import Tuning

CLIP_SHAPE = (4, 3, 16, 16)
GRID = (8, 28, 28)
STRIDE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is simulated. Times in seconds. `rounds` > 1: refinement asks for `round_rows` masks again and again."""

    scorers: int = 1
    batch_size: int = 32
    batch_s: float = 0.04
    mask_s: float = 0.005
    bank_rows: int = 256
    rounds: int = 1
    round_rows: int = 32
    decode_s: float = 0.02
    refine_s: float = 0.03
    sink_s: float = 0.005
    classes: int = 400
    videos: int = 4
    clips_per_video: int = 8

    @property
    def full_batch_s(self) -> float:
        return self.batch_s + self.mask_s * self.batch_size

    @property
    def bare_rate(self) -> float:
        """Evaluations per second of one scorer that is always given full batches."""
        return self.batch_size / max(self.full_batch_s, 1e-9)

    @property
    def evaluations(self) -> int:
        return self.videos * self.clips_per_video * (self.bank_rows + (self.rounds - 1) * self.round_rows)

    def lasting(self, seconds: float) -> "Load":
        """As many clips as perfect scorers would need `seconds` for."""
        per_clip = self.evaluations / (self.videos * self.clips_per_video)
        clips = seconds * self.bare_rate * self.scorers / per_clip
        return replace(self, clips_per_video=max(2, round(clips / self.videos)))


class SimulatedStage:
    def __init__(self, load: Load) -> None:
        self.load = load

    def setup(self) -> None:
        pass

    def close(self) -> None:
        pass


class SimulatedDecode(SimulatedStage):
    def process(self, request: DecodeRequest, /) -> DecodeResult:
        time.sleep(self.load.decode_s)
        start = STRIDE * request.clip_idx
        side = CLIP_SHAPE[-1]
        clip = Clip(
            id=clip_id(request),
            frames=np.zeros(CLIP_SHAPE, np.uint8),
            frame_idx=np.arange(start, start + CLIP_SHAPE[0]),
            pts_s=np.arange(start, start + CLIP_SHAPE[0]) / 25,
            is_padded=np.zeros(CLIP_SHAPE[0], bool),
            covers=(start, start + CLIP_SHAPE[0]),
            geometry=Geometry(
                source_h_px=side, source_w_px=side, model_h_px=side, model_w_px=side, scale_y=1.0, scale_x=1.0
            ),
        )
        return DecodeResult(clip=clip, is_last=request.clip_idx == self.load.clips_per_video - 1, warnings=())


def clip_id(request: DecodeRequest) -> ClipId:
    return ClipId(request.source.id, request.clip_idx)


class SimulatedScore(SimulatedStage):
    """A device that is busy for a fixed time per batch and a time per mask."""

    def process(self, request: ScoreRequest, /) -> ScoreResult:
        rows = sum(len(batch) for batch in request.batches)
        seconds = self.load.batch_s + self.load.mask_s * rows
        if seconds:
            time.sleep(seconds)
        scores = tuple(
            Scores(
                clip_id=batch.clip_id,
                round_idx=batch.round_idx,
                ids=batch.ids,
                values=np.zeros((len(batch), self.load.classes), np.float32),
            )
            for batch in request.batches
        )
        return ScoreResult(scores=scores, seconds=seconds)


class SimulatedRefine(SimulatedStage):
    """A posterior that is not content before `rounds` rounds."""

    def process(self, request: RefineRequest, /) -> RefineResult:
        time.sleep(self.load.refine_s)
        evidence = request.evidence
        done = len(evidence.masks)
        if done >= self.load.rounds:
            return RefineResult()
        start = sum(len(batch) for batch in evidence.masks)
        grids = np.zeros((self.load.round_rows, *GRID), np.uint8)
        ids = np.arange(start, start + self.load.round_rows)
        return RefineResult(more=MaskBatch(clip_id=evidence.clip_id, round_idx=done, ids=ids, grids=grids))


class SimulatedSink(SimulatedStage):
    def process(self, request: SinkRequest, /) -> SinkResult:
        time.sleep(self.load.sink_s)
        if request.action != "close":
            return SinkResult()
        summary = VideoSummary(
            video_id=request.spec.source.id,
            uri=request.spec.source.uri,
            kind="video",
            num_frames=request.num_frames,
            num_clips=self.load.clips_per_video,
            duration_s=0.0,
            targets=(),
            outputs={},
        )
        return SinkResult(summary=summary)


def sources(load: Load) -> Feed:
    """Videos that do not exist."""
    num_frames = STRIDE * (load.clips_per_video - 1) + CLIP_SHAPE[0]
    made = (
        VideoSource(
            id=f"v{idx:04d}",
            uri=f"simulated/{idx}",
            kind="video",
            sha256="0" * 64,
            height=16,
            width=16,
            fps=25.0,
            num_frames=num_frames,
        )
        for idx in range(load.videos)
    )
    return Feed(waiting=deque(Assignment(source=source) for source in made), has_ended=True)


class Nowhere:
    """A record that keeps counts only."""

    def __init__(self) -> None:
        self.completed_ids: list[str] = []
        self.failures: list[Failure] = []

    def has_targets(self, video_id: str, targets: tuple[int, ...]) -> None:
        pass

    def ended(self, video_id: str) -> None:
        pass

    def completed(self, summary: VideoSummary) -> None:
        self.completed_ids.append(summary.video_id)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)


def plans(load: Load, *, cpus: float = 0.0) -> Sequence[StagePlan]:
    """All stages; readers and refiners in such number that they are never what is waited for."""
    spec = BoxSpec(name="simulated", clip_len=CLIP_SHAPE[0], height=16, width=16, resize="squash")
    report = ScorerReport(
        spec=spec,
        weights_sha256="0" * 64,
        device="none",
        tuning=Tuning(batch_size=load.batch_size, evaluations_per_s=load.bare_rate),
    )
    resources = Resources(num_cpus=cpus)
    clips_per_s = load.scorers * load.bare_rate * load.videos * load.clips_per_video / load.evaluations
    helpers: dict[StageName, tuple[Callable[[Load], Stage[Any, Any]], float]] = {
        "decode": (SimulatedDecode, clips_per_s * load.decode_s),
        "refine": (SimulatedRefine, clips_per_s * load.refine_s * load.rounds),
        "sink": (SimulatedSink, clips_per_s * load.sink_s),
    }
    found = [
        StagePlan(
            name="score",
            build=partial(SimulatedScore, load),
            workers=load.scorers,
            resources=resources,
            report=partial(_same, report),
        )
    ]
    for name, (stage, wanted) in helpers.items():
        workers = min(16, 2 + int(1.5 * wanted))
        found.append(StagePlan(name=name, build=partial(stage, load), workers=workers, resources=resources))
    return found


def _same(report: ScorerReport, stage: object) -> ScorerReport:
    return report


def drive(
    load: Load, engine: Engine, folder: Path, limits: Limits, scheduler_class: type[Scheduler] = Scheduler
) -> tuple[dict[str, float], Nowhere]:
    """Run the whole load through `engine`; returns the figures and the record. The clock starts with all workers up."""
    config = load_config(options={"budget": load.bank_rows, "target": "0", "model.name": "demo"})
    spec = BoxSpec(name="simulated", clip_len=CLIP_SHAPE[0], height=16, width=16, resize="squash")
    stages = plans(load)
    engine.start(stages)
    journal = BackgroundJournal(folder / "journal")
    stats, record = Stats(), Nowhere()
    coordinator = Coordinator(
        Casework(config, spec, journal, str(folder)),
        scheduler_class(limits, clip_bytes=int(np.prod(CLIP_SHAPE)), rows_per_clip=load.bank_rows),
        engine,
        sources(load),
        record,
        stats,
    )
    missing = sum(plan.workers for plan in stages)
    while missing:
        for happening in engine.wait(1.0):
            coordinator.take(happening)
            missing -= isinstance(happening, WorkerUp)
    samples: list[tuple[float, int]] = []
    stats.began = time.monotonic()
    started = time.process_time()
    while not coordinator.step():
        samples.append((time.monotonic(), stats.evaluations))
    ended = time.monotonic()
    journal.close()
    if coordinator.error is not None:
        raise coordinator.error
    figures = stats.summary(ended)
    figures["steady_efficiency"] = steady_rate(samples, load) / (load.bare_rate * load.scorers)
    figures["coordinator_cpu_share"] = (time.process_time() - started) / figures["seconds"]
    figures["batches"] = stats.batches
    return figures, record


def steady_rate(samples: Sequence[tuple[float, int]], load: Load) -> float:
    """Evaluations per second between the first and the last eighth: without filling and draining."""
    times, counts = np.array([now for now, _ in samples]), np.array([count for _, count in samples])
    begin, end = (int(np.searchsorted(counts, share * load.evaluations)) for share in (1 / 8, 7 / 8))
    return float((counts[end] - counts[begin]) / max(times[end] - times[begin], 1e-9))
