"""A run verifies as it was left; whatever is touched afterwards is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from planted_run import answer, clip_info, sink_spec, write_video

from pipeline.artifacts import merge_tables
from pipeline.journal import Journal
from pipeline.manifest import RunFolder
from pipeline.sink import VideoSink
from pipeline.verify import verify_run
from stages.masks import grids_of
from stages.perturb import Perturb, PerturbConfig
from stages.records import ClipInfo, Evidence, MaskBatch, Scores
from stages.refine import Refine, RefineConfig, RefineRequest


def ask(masks: MaskBatch) -> Scores:
    """A box whose class 1 is how much of the upper left is kept, and class 2 how much of the lower right."""
    keep = grids_of(masks).astype(np.float64) / 255
    _, h, w = keep.shape[1:]
    values = np.zeros((len(masks), 5), np.float32)
    values[:, 1] = 6 * keep[:, :, : h // 2, : w // 2].mean((1, 2, 3))
    values[:, 2] = 3 * keep[:, :, h // 2 :, w // 2 :].mean((1, 2, 3))
    return Scores(clip_id=masks.clip_id, round_idx=0, ids=masks.ids, values=values)


def info_of(clip_idx: int) -> ClipInfo:
    """Clips of four frames that overlap by half."""
    first = clip_info("v", 0)
    frames = first.frame_idx + 2 * clip_idx
    covers = (2 * clip_idx, 2 * clip_idx + 4)
    clip_id = replace(first.id, clip_idx=clip_idx)
    return replace(first, id=clip_id, frame_idx=frames, pts_s=frames / 10, covers=covers)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_with(tmp_path, RefineConfig().model_dump(), RefineConfig())


def run_with(tmp_path: Path, written: dict[str, object], config: RefineConfig) -> RunFolder:
    """A whole run whose manifest says `written`, and whose maps were made with `config`."""
    run = RunFolder.create(tmp_path / "run", {"refine": written})
    spec = sink_spec(run.path, write_video(tmp_path / "v.mp4", num_frames=8))
    run.register(spec.source)
    journal, sink = Journal(run.path / "journal"), VideoSink(spec)
    perturb, refine = Perturb(PerturbConfig(budget=40)), Refine(config)
    for clip_idx in range(3):
        info = info_of(clip_idx)
        masks = perturb.process(info)
        scores = ask(masks)
        journal.append(info, masks, scores)
        evidence = Evidence(clip_id=info.id, masks=(masks,), scores=(scores,))
        sink.add(info, refine.process(RefineRequest(evidence=evidence, targets=(1,))).maps)
    run.complete(sink.close([answer(question) for question in sink.finish(8)]))
    merge_tables(run.path, ["v"])
    run.finish("finished", {})
    run.release()
    return run


def faults(run: RunFolder) -> set[tuple[str, str]]:
    return {(check.what, check.item) for check in verify_run(run).faults}


def test_an_untouched_run_holds_in_every_part(run: RunFolder) -> None:
    result = verify_run(run.path)
    assert result.is_ok, result.faults
    assert {check.what for check in result.checks} == {"input", "output", "journal", "maps"}
    maps = next(check for check in result.checks if check.what == "maps")
    assert "over 8 frames" in maps.fact


def test_a_changed_map_is_found_by_its_hash_and_by_the_journal(run: RunFolder) -> None:
    (name,) = (path for path in run.manifest.outputs if path.endswith(".zarr"))
    mean = zarr.open_group(run.path / name, mode="r+")["mean"]
    values = mean[:]  # type: ignore[index]  # an array, not a group
    values[2, 5, 0, 0] += 1e-3
    mean[:] = values  # type: ignore[index]  # as above
    assert faults(run) == {("output", name), ("maps", name)}


def test_a_damaged_journal_is_named(run: RunFolder) -> None:
    path = next(Journal(run.path / "journal").files())
    path.write_bytes(path.read_bytes()[:-200])
    found = faults(run)
    assert ("journal", path.relative_to(run.path).as_posix()) in found
    assert any(what == "maps" for what, _ in found)


def test_a_changed_or_missing_input_is_named(run: RunFolder, tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(video.read_bytes() + b"x")
    assert faults(run) == {("input", str(video))}
    video.unlink()
    assert [check.fact for check in verify_run(run).faults] == ["is not there any more"]


def test_a_missing_film_is_named(run: RunFolder) -> None:
    film = next(path for path in run.manifest.outputs if path.endswith(".mp4"))
    (run.path / film).unlink()
    assert faults(run) == {("output", film)}


def test_a_run_that_knew_no_second_look_is_verified_without_one(tmp_path: Path) -> None:
    assert verify_run(run_with(tmp_path, {"method": "gp"}, RefineConfig(focus=False))).is_ok
