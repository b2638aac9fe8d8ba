"""Verify a run: hash its inputs and outputs again, and compute its maps again from the journal, without the model."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.files import hash_file
from pipeline.journal import Journal
from pipeline.manifest import RunFolder
from pipeline.screened import FOLDER, ScreenedStore
from pipeline.summaries import VideoSummary
from stages.aggregate import Stitcher
from stages.errors import ExplainError
from stages.heritage import Heritage
from stages.records import ClipInfo, Evidence, FrameMap, SaliencyMap
from stages.refine import Refine, RefineConfig, RefineRequest
from stages.sources import current_sha256

TOLERANCE = 1e-6
FRAMES_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. `what`: input, output, journal or maps."""

    what: str
    item: str
    is_ok: bool
    fact: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Every check of a run, in order."""

    checks: tuple[Check, ...]

    @property
    def is_ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.is_ok for check in self.checks)

    @property
    def faults(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        return tuple(check for check in self.checks if not check.is_ok)


def verify_run(run: RunFolder | Path) -> Verification:
    """Look at all that a run has written. Raises ManifestError where there is no run."""
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    checks = [*_inputs(folder), *_outputs(folder), *_journal(folder)]
    config = folder.manifest.config.get("refine", {})
    if config:
        config = {"focus": False, **config}  # runs that know nothing of a second look had none
    refine = Refine(RefineConfig.model_validate(config))
    refine.setup()
    try:
        for summary in folder.summaries():
            checks.extend(recompute(folder, summary, refine))
    finally:
        refine.close()
    return Verification(checks=tuple(checks))


def recompute(run: RunFolder, summary: VideoSummary, refine: Refine) -> Iterator[Check]:
    """Replay a video's journal through refinement and stitching; compare with its map stores, frame by frame."""
    journal = Journal(run.path / "journal")
    targets = tuple(target.target_idx for target in summary.targets)
    stitchers = [Stitcher(summary.video_id, target_idx) for target_idx in targets]
    stores = [_Store(run.path / target.maps) for target in summary.targets]
    num_clips = 0
    for info, maps in replay(journal, summary.video_id, targets, refine):
        num_clips += 1
        for stitcher, store, saliency in zip(stitchers, stores, maps, strict=True):
            store.compare(stitcher.add(info, saliency))
    for stitcher, store, target in zip(stitchers, stores, summary.targets, strict=True):
        if num_clips:
            store.compare(stitcher.finish(summary.num_frames))
        is_whole = num_clips == summary.num_clips and store.num_frames == summary.num_frames
        fact = f"largest difference {store.difference:.1e} over {store.num_frames} frames"
        if not is_whole:
            fact = f"the journal holds {num_clips} of {summary.num_clips} clips; {fact}"
        yield Check(
            what="maps",
            item=target.maps,
            is_ok=is_whole and store.fault == "" and store.is_close,
            fact=store.fault or fact,
        )


def replay(
    journal: Journal, video_id: str, targets: tuple[int, ...], refine: Refine
) -> Iterator[tuple[ClipInfo, tuple[SaliencyMap, ...]]]:
    """The clips of a video with their maps, computed from what the box once answered; damaged clips are left out."""
    before: Heritage | None = None
    for clip_id in journal.clips(video_id):
        info, rounds = journal.info(clip_id), journal.rounds(clip_id)
        if info is None or not rounds:
            continue
        try:
            evidence = Evidence.of(clip_id, rounds, content=info.content)
            if before is not None and before.clip_id.clip_idx != clip_id.clip_idx - 1:
                before = None
            found = refine.process(
                RefineRequest(evidence=evidence, targets=targets, frame_idx=info.frame_idx, before=before)
            )
        except ExplainError:  # what could not be computed then is not there now
            continue
        before = found.left
        if found.maps:
            yield info, found.maps


class _Store:
    """A map store that is compared with frames as they come."""

    def __init__(self, path: Path) -> None:
        self.difference = 0.0
        self.is_close = True
        self.num_frames = 0
        self.fault = ""
        self._arrays: dict[str, Any] = {}
        try:
            group = zarr.open_group(path, mode="r")
            self._arrays = {name: group[name] for name in ("mean", "var")}
        except (OSError, KeyError, ValueError) as error:
            self.fault = f"the maps cannot be read ({error})"

    def compare(self, frames: Iterable[FrameMap]) -> None:
        """Differences are relative to the largest value of the frame, so that units do not matter."""
        every = list(frames)
        for begin in range(0, len(every), FRAMES_AT_ONCE):
            if not self.fault:
                self._compare(every[begin : begin + FRAMES_AT_ONCE])

    def _compare(self, found: list[FrameMap]) -> None:
        start, stop = found[0].frame_idx, found[-1].frame_idx + 1
        for name, computed in (("mean", [f.mean for f in found]), ("var", [f.var for f in found])):
            stored = np.asarray(self._arrays[name][:, start:stop])
            wanted = np.stack(computed, axis=1)
            if stored.shape != wanted.shape:
                self.fault = f"{name} has {self._arrays[name].shape[1]} frames, fewer than the journal gives"
                return
            self.difference = max(self.difference, float(np.abs(stored - wanted).max()))
            self.is_close &= bool(
                np.allclose(stored, wanted, rtol=1e-5, atol=TOLERANCE * max(1.0, np.abs(wanted).max()))
            )
        self.num_frames = stop


def _inputs(run: RunFolder) -> Iterator[Check]:
    for source in run.inputs().values():
        try:
            yield _compare_hash("input", source.uri, current_sha256(source.uri), source.sha256)
        except ExplainError as error:
            yield Check(what="input", item=source.uri, is_ok=False, fact=error.fact)


def _outputs(run: RunFolder) -> Iterator[Check]:
    recorded: Mapping[str, str] = run.manifest.outputs
    if not recorded:  # the run did not end: what its videos wrote down must still hold
        recorded = {path: digest for summary in run.summaries() for path, digest in summary.outputs.items()}
    for name, digest in recorded.items():
        path = run.path / name
        yield _compare_hash("output", name, hash_file(path) if path.exists() else None, digest)


def _compare_hash(what: str, item: str, found: str | None, digest: str) -> Check:
    if found is None:
        return Check(what=what, item=item, is_ok=False, fact="is not there any more")
    is_same = found == digest
    return Check(what=what, item=item, is_ok=is_same, fact="unchanged" if is_same else "has changed since the run")


def _journal(run: RunFolder) -> Iterator[Check]:
    journal = Journal(run.path / "journal")
    num_files = sum(1 for _ in journal.files())
    damaged = journal.damaged()
    if num_lost := ScreenedStore(run.path).num_damaged():
        yield Check(what="journal", item=FOLDER, is_ok=False, fact=f"{num_lost} records of screening do not hold")
    for path in damaged:
        name = path.relative_to(run.path).as_posix()
        yield Check(what="journal", item=name, is_ok=False, fact="the checksum does not hold")
    yield Check(
        what="journal",
        item="journal",
        is_ok=not damaged,
        fact=f"{num_files - len(damaged)} of {num_files} records hold",
    )
