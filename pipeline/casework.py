"""Requests and answers of the stages for one group of videos: what is in the tasks that the scheduler hands out.

Hands every scored round to the journal before anything is made of it, and reads journalled rounds back instead of
asking the box again. Pixels are never touched here, only passed on.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.cases import ClipCase, VideoCase
from pipeline.config import Config
from pipeline.engine import Read
from pipeline.journal import Journal
from pipeline.orders import Order
from pipeline.screened import ScreenedStore
from pipeline.sink import SinkSpec
from pipeline.summaries import VideoSummary
from pipeline.work import DecodeTask, JobStarted, Piece, RefineTask, ScoreTask, SinkTask, Task
from pipeline.writing import FinishedClip, SinkRequest, SinkResult
from stages.box import BoxSpec
from stages.decode import DecodeRequest, estimate_clips
from stages.perturb import Perturb
from stages.pictures import Damage
from stages.records import ClipId, ClipInfo, MaskBatch, VideoSource
from stages.refine import RefineRequest, RefineResult
from stages.score import ScoreRequest, ScoreResult
from stages.score_kinds import score_warnings


class Casework:
    """Everything the scheduler does not know.

    `run` is the run folder's path, as sinks are told; `decided` hears of the targets of a video when they are chosen.
    """

    def __init__(
        self,
        config: Config,
        spec: BoxSpec,
        journal: Journal,
        run: str,
        decided: Callable[[str, tuple[int, ...]], None] = lambda video_id, targets: None,
    ) -> None:
        self.config = config
        self.spec = spec
        self.journal = journal
        self.videos: dict[str, VideoCase] = {}
        self.clips: dict[int, ClipCase] = {}
        self.screened = ScreenedStore(Path(run))
        self._run = run
        self._decided = decided
        self._perturb = Perturb(config.perturb, config.refine.method, config.refine.prior, config.refine.parts)
        self._sent: dict[int, list[Piece]] = {}  # what a score task really asked

    def open_video(
        self, source: VideoSource, order: Order, targets: tuple[int, ...] | None
    ) -> tuple[list[int], list[int]]:
        """Make a place for a video's data; returns the clips to look at first, and those that are done already.

        `targets`: what an earlier session has chosen.
        """
        count = estimate_clips(source, self.spec, self.config.decode) or 0
        expected = count if order.only is None else len(order.only)
        video = VideoCase(source, order.targets or targets, expected_clips=expected, num_frames=order.num_frames)
        self.videos[source.id] = video
        if order.is_screening:
            seen = self.screened.read(source.id)
            return [], [] if seen is None else seen.clip_idx.tolist()
        return video.clips_to_look_at(self.config.target), [clip.clip_idx for clip in self.journal.clips(source.id)]

    def close_video(self, video_id: str) -> VideoCase:
        """Forget a video's data; returns it once more."""
        self.screened.flush(video_id)
        return self.videos.pop(video_id)

    def open_clip(self, event: JobStarted) -> None:
        """Make a place for a job's data."""
        is_look = event.purpose == "peek"
        self.videos[event.video].is_begun |= not is_look
        self.clips[event.job] = ClipCase(ClipId(event.video, event.clip_idx), event.purpose, is_look=is_look)

    def close_clip(self, job: int) -> ClipCase:
        """Forget a job's data; returns it once more."""
        return self.clips.pop(job)

    # --- requests; None: there is nothing to ask any more ---

    def request(self, task: Task) -> object | None:
        """What to tell the worker. Raises ConfigError when the target turns out to be no class of the box."""
        if isinstance(task, DecodeTask):
            return self.decode_request(task)
        if isinstance(task, ScoreTask):
            return self.score_request(task)
        if isinstance(task, RefineTask):
            return self.refine_request(task)
        assert isinstance(task, SinkTask)
        return self.sink_request(task)

    def decode_request(self, task: DecodeTask) -> DecodeRequest | None:
        """Read one clip."""
        case = self.clips.get(task.job)
        if case is None:
            return None
        return DecodeRequest(source=self.videos[case.id.video_id].source, clip_idx=case.id.clip_idx)

    def score_request(self, task: ScoreTask) -> ScoreRequest | None:
        """The masks of a batch and where their clips are."""
        pieces = [piece for piece in task.pieces if piece.job in self.clips]
        if not pieces:
            return None
        self._sent[task.seq] = pieces
        cases = [self.clips[piece.job] for piece in pieces]
        clips = {case.id: case.frames for case in cases if case.frames is not None}
        batches = tuple(case.piece(piece) for case, piece in zip(cases, pieces, strict=True))
        return ScoreRequest(batches=batches, clips=clips)

    def refine_request(self, task: RefineTask) -> RefineRequest | None:
        """The evidence of a clip; a replayed one takes it from the journal, and gives None when it is not there."""
        case = self.clips.get(task.job)
        if case is not None and case.purpose == "replay" and not case.rounds:
            case.info, case.rounds = self.journal.info(case.id), self.journal.rounds(case.id)
        if case is None or case.info is None or not case.rounds:
            return None
        before = self.videos[case.id.video_id].left.get(case.id.clip_idx - 1)
        return case.refine_request(self.targets_of(case), before)

    def sink_request(self, task: SinkTask) -> SinkRequest:
        """What is to be written, with all that a new worker would have to know."""
        video = self.videos[task.video]
        clips = []
        for job in task.jobs:
            case = self.clips[job]
            assert case.info is not None
            clips.append(FinishedClip(info=case.info, maps=case.maps, seconds=case.seconds))
            video.num_frames = max(video.num_frames, case.info.covers[1])
            video.goes_to_sink(case.id.clip_idx)
        is_first, video.epoch = video.epoch != task.epoch, task.epoch
        assert video.targets is not None
        return SinkRequest(
            spec=SinkSpec(
                run=self._run,
                source=video.source,
                targets=video.targets,
                labels=self.spec.labels,
                model=self.spec.name,
                aggregate=self.config.aggregate,
                render=self.config.render,
                backend=self.config.decode.backend,
            ),
            epoch=task.epoch,
            action=task.action,
            is_first=is_first,
            clips=tuple(clips),
            num_frames=video.num_frames,
            answers=tuple(video.answers.values()) if task.action == "close" else (),
        )

    # --- answers ---

    def take_read(self, task: DecodeTask, read: Read) -> tuple[int, bool]:
        """Keep the clip; returns how many masks are asked first, and whether a peek turned out to be all there is."""
        case = self.clips.get(task.job)
        if case is None or read.info is None:
            return 0, False
        video = self.videos[case.id.video_id]
        video.warnings += [warning for warning in read.warnings if warning not in video.warnings]
        case.info, case.frames, case.is_last = read.info, read.frames, read.is_last
        is_only = case.purpose == "peek" and read.is_last and case.id.clip_idx == 0
        is_all = is_only and not self.journal.clips(case.id.video_id)  # what is in the journal is replayed
        if is_all:
            case.purpose = "stream"
        if case.masks is None:
            case.ask(self._first_round(case, read.info))
        assert case.masks is not None
        return len(case.masks), is_all

    def new_damage(self, task: DecodeTask, read: Read) -> list[tuple[VideoSource, Damage]]:
        """Lost footage that this read is the first to report."""
        case = self.clips.get(task.job)
        if case is None:
            return []
        video = self.videos[case.id.video_id]
        found = [warning for warning in read.warnings if isinstance(warning, Damage)]
        return [(video.source, damage) for damage in found if damage not in video.warnings]

    def take_scores(self, task: ScoreTask, result: ScoreResult) -> int:
        """Keep the scores of a batch; its seconds are shared out by evaluations, whose number is returned."""
        pieces = self._sent.pop(task.seq, [])
        cases = [self.clips.get(piece.job) for piece in pieces]
        costs = [
            len(piece) if case is None else case.piece(piece).num_evaluations
            for piece, case in zip(pieces, cases, strict=True)
        ]
        for piece, case, cost, scores in zip(pieces, cases, costs, result.scores, strict=True):
            if case is not None:
                case.answer(piece, scores)
                case.seconds += result.seconds * cost / sum(costs)
        return sum(costs)

    def forget(self, task: Task) -> None:
        """This task came to nothing."""
        self._sent.pop(task.seq, None)

    def end_round(self, job: int) -> None:
        """All rows are scored: to the journal, and to those who wait for it."""
        case = self.clips[job]
        masks, scores = case.end_round()
        assert case.info is not None
        video = self.videos[case.id.video_id]
        if case.purpose == "verify":
            self.journal.append(case.info, masks, scores, kind="effect")
            video.answers[case.id.clip_idx] = scores
            return
        if case.purpose == "screen":
            self.screened.append(case.info, case.untouched(), is_last=case.is_last)
            return
        if len(case.rounds) == 1 and case.is_look:
            video.looks[case.id.clip_idx] = case.untouched()
        if case.purpose != "peek":
            self.journal.append(case.info, masks, scores)

    def take_refined(self, task: RefineTask, result: RefineResult) -> tuple[int, int]:
        """Keep the maps, or begin another round; returns its number of masks and its index."""
        case = self.clips.get(task.job)
        if case is None or result.more is None:
            if case is not None:
                case.maps = result.maps
                self.videos[case.id.video_id].hand_on(result.left)
                self._note_what_scores_hide(case)
            return 0, 0
        case.ask(result.more)
        return len(result.more), result.more.round_idx

    def take_sunk(self, task: SinkTask, result: SinkResult) -> tuple[list[int], VideoSummary | None]:
        """The clips to ask again about their regions (those in the journal are not), and what a closed video left."""
        video = self.videos.get(task.video)
        if video is None:
            return [], None
        if task.action == "finish":
            video.questions = {question.clip_id.clip_idx: question for question in result.questions}
            video.answers = {}
            for clip_idx, question in video.questions.items():
                self._recall_answer(video, clip_idx, question)
            return [clip_idx for clip_idx in video.questions if clip_idx not in video.answers], None
        if task.action == "close":
            self.journal.flush()  # a finished video's rounds are on the disk
        summary = result.summary
        if summary is not None and video.warnings:
            summary = replace(summary, warnings=tuple(dict.fromkeys((*summary.warnings, *video.warnings))))
        return [], summary

    def drop_frames(self, job: int) -> None:
        """Let go of a clip's pixels."""
        if case := self.clips.get(job):
            case.frames = None

    def targets_of(self, case: ClipCase) -> tuple[int, ...]:
        """The classes to explain in this clip's video; if nothing has decided that yet, this clip does."""
        video = self.videos[case.id.video_id]
        if video.targets is None:
            video.looks = video.looks or {case.id.clip_idx: case.untouched()}
            self._choose(video)
        assert video.targets is not None
        return video.targets

    def peeks_done(self, video_id: str) -> None:
        """Nothing more will be seen before the targets are chosen. Raises ConfigError as `request` does."""
        video = self.videos[video_id]
        if video.looks:
            self._choose(video)

    def _choose(self, video: VideoCase) -> None:
        self._decided(video.source.id, video.choose_targets(self.config.target, self.spec))

    def _note_what_scores_hide(self, case: ClipCase) -> None:
        """Probabilities and top-k answers leave something open; the video's page says what, once."""
        video = self.videos[case.id.video_id]
        for saliency in case.maps:
            for _, scores in case.rounds:
                found = score_warnings(scores.values, saliency.target_idx, self.spec, saliency.method)
                video.warnings += [warning for warning in found if warning not in video.warnings]

    def _first_round(self, case: ClipCase, info: ClipInfo) -> MaskBatch:
        if case.purpose == "verify":
            return self.videos[case.id.video_id].questions[case.id.clip_idx]
        masks = self._perturb.process(info)
        return masks.rows(0, 1) if case.purpose in ("peek", "screen") else masks

    def _recall_answer(self, video: VideoCase, clip_idx: int, question: MaskBatch) -> None:
        found = self.journal.effects(question.clip_id).get(question.round_idx)
        if found is None:
            return
        masks, scores = found
        if masks.grids is not None and question.grids is not None and np.array_equal(masks.grids, question.grids):
            video.answers[clip_idx] = scores
