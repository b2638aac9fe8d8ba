"""The run folder: what a run was asked, on what, with what, and how it ended.

manifest.json is small and written atomically; videos.jsonl and failures.jsonl grow by one synced line at a time, so
that a killed run has lost nothing. What a run knows of its videos is folded into the manifest when it ends.
"""

import fcntl
import platform
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from pipeline.environment import hardware, package_versions
from pipeline.files import (
    append_line,
    hash_file,
    hash_json,
    read_lines,
    remove,
    safe_name,
    target_name,
    write_json,
)
from pipeline.summaries import TargetSummary, VideoSummary
from stages.base import Settings
from stages.errors import ConfigError, ManifestError
from stages.records import Failure, VideoSource

__all__ = ["Manifest", "RunFolder", "TargetSummary", "VideoSummary"]

SCHEMA_VERSION: Literal[1] = 1
Status = Literal["running", "finished", "stopped", "failed"]

# All that a run writes; nothing else is ever deleted from the folder.
RUN_CONTENTS = (
    *("clips.parquet", "frames.parquet", "regions.parquet", "screening.parquet"),
    *("parts", "maps", "films", "pictures", "journal", "screened"),
    *("videos.jsonl", "failures.jsonl", "log.jsonl", "report", "evaluation.json", "manifest.json"),
)


class Manifest(Settings):
    """manifest.json. `outputs` maps paths in the run folder to hashes; `inputs` are the records of the sources."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: Literal["heatreel-run"] = "heatreel-run"
    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    status: Status = "running"
    started_at: str
    ended_at: str | None = None
    command: tuple[str, ...] = ()
    config: dict[str, Any]
    config_sha256: str
    model: dict[str, Any] = Field(default_factory=dict)  # spec, weights_sha256, labels
    targets: dict[str, str] = Field(default_factory=dict)  # class index -> label
    seeds: dict[str, int] = Field(default_factory=dict)
    decoder: str | None = None
    substrate: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    hardware: dict[str, Any] = Field(default_factory=dict)
    inputs: tuple[dict[str, Any], ...] = ()
    outputs: dict[str, str] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    summary: dict[str, Any] = Field(default_factory=dict)


class RunFolder:
    """One run on disk. Made by `create` or `open`; one writing process at a time (the lock dies with the process)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(
        cls,
        out: str | Path,
        config: Mapping[str, Any],
        *,
        overwrite: bool = False,
        fingerprint: str | None = None,
        command: tuple[str, ...] = (),
    ) -> "RunFolder":
        """Start a run in `out`. Raises ManifestError for a folder that holds a run or somebody's files.

        `fingerprint` hashes what can change a number of the result (`Config.fingerprint`); by default the whole config.
        """
        run = cls(Path(out))
        run._refuse_what_is_there(overwrite)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run._take_lock()
            for name in RUN_CONTENTS:
                if name != "manifest.json":  # last: until then the folder is still known as a run
                    remove(run.path / name)
            for name in ("maps", "journal", "parts"):
                (run.path / name).mkdir()
        except OSError as error:
            reason = f"the output folder cannot be written ({error.strerror or error})"
            raise ManifestError(str(run.path), reason, "choose another folder with --out") from error
        run._write(
            Manifest(
                run_id=uuid.uuid4().hex[:12],
                started_at=_now(),
                command=command,
                config=dict(config),
                config_sha256=fingerprint or hash_json(config),
                versions=package_versions(),
                hardware=hardware(),
            )
        )
        return run

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> "RunFolder":
        """An existing run, to read or (`write`) to go on with. Raises ManifestError where there is none."""
        run = cls(Path(path))
        _ = run.manifest
        if write:
            run._take_lock()
        return run

    def expect_here(self) -> None:
        """Raises ConfigError where this machine does not see the run: what is written here would be lost."""
        try:
            (self.path / "manifest.json").stat()
        except OSError:
            pass
        else:
            return
        fact = f"{platform.node()}, where this run is to be written, does not see {self.path}"
        remedy = "give an --out (for a URI: HEATREEL_WORK_DIR) on storage that every node sees, or leave processors "
        remedy += "free on the node that has it"
        raise ConfigError("engine.has_shared_folder", fact, remedy)

    @property
    def manifest(self) -> Manifest:
        """manifest.json as it is on disk."""
        path = self.path / "manifest.json"
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ManifestError(str(self.path), "there is no heatreel run here", "give the folder of a run") from error
        except ValidationError as error:
            fact = f"manifest.json is damaged or of another heatreel's version ({_first(error)})"
            raise ManifestError(str(self.path), fact, "restore it, or start the run again with --overwrite") from error

    def update(self, **changes: Any) -> Manifest:
        """Write the manifest with some of its fields replaced."""
        manifest = Manifest.model_validate({**self.manifest.model_dump(), **changes})
        self._write(manifest)
        return manifest

    def register(self, source: VideoSource) -> None:
        """Write down an input before any work on it."""
        append_line(self.path / "videos.jsonl", {"event": "input", **asdict(source)})

    def complete(self, summary: VideoSummary) -> None:
        """Write down that a video is finished: resume will not touch it again."""
        append_line(self.path / "videos.jsonl", {"event": "done", **asdict(summary)})

    def inputs(self) -> dict[str, VideoSource]:
        """The registered inputs by video id, in order."""
        rows = (row for row in read_lines(self.path / "videos.jsonl") if row.pop("event", "") == "input")
        return {row["id"]: VideoSource(**{**row, "warnings": tuple(row["warnings"])}) for row in rows}

    def summaries(self) -> Iterator[VideoSummary]:
        """The finished videos, in the order in which they were finished; the last word on each counts."""
        last: dict[str, int] = {}
        path = self.path / "videos.jsonl"
        for number, row in enumerate(read_lines(path)):
            if row.get("event") == "done":
                last[row["video_id"]] = number
        for number, row in enumerate(read_lines(path)):
            if row.get("event") == "done" and last[row["video_id"]] == number:
                yield VideoSummary.from_row(row)

    def fail(self, failure: Failure) -> None:
        """Write down a failure; the run goes on."""
        append_line(self.path / "failures.jsonl", {"at": _now(), **asdict(failure)})

    def failures(self) -> list[Failure]:
        """All failures so far."""
        names = {field.name for field in fields(Failure)}
        rows = read_lines(self.path / "failures.jsonl")
        return [Failure(**{key: value for key, value in row.items() if key in names}) for row in rows]

    def finish(self, status: Status, summary: Mapping[str, Any], counts: Mapping[str, int] | None = None) -> Manifest:
        """End the run: fold inputs, hashes of all outputs and counts into the manifest."""
        outputs: dict[str, str] = {}
        num_videos = num_clips = num_frames = 0
        for video in self.summaries():
            outputs.update(video.outputs)
            num_videos, num_clips = num_videos + 1, num_clips + video.num_clips
            num_frames += video.num_frames
        for name in ("clips.parquet", "frames.parquet", "regions.parquet", "screening.parquet", "failures.jsonl"):
            if (self.path / name).exists():
                outputs[name] = hash_file(self.path / name)
        inputs = tuple(asdict(source) for source in self.inputs().values())
        own = {"inputs": len(inputs), "videos": num_videos, "clips": num_clips, "frames": num_frames}
        own["failures"] = len(self.failures())
        return self.update(
            status=status,
            ended_at=_now(),
            inputs=inputs,
            outputs=outputs,
            counts={**own, **(counts or {})},
            summary=dict(summary),
        )

    def expect_same(self, what: str, recorded: str | None, found: str) -> None:
        """Refuse to resume with something else than the run began with (an input, the weights, the config)."""
        if recorded is not None and recorded != found:
            fact = f"{what} changed since the run began ({recorded[:12]} then, {found[:12]} now)"
            raise ManifestError(str(self.path), fact, "put the old one back, or start a new run with another --out")

    def release(self) -> None:
        """Let another process write here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def film_path(self, video_id: str, target_idx: int, label: str) -> Path:
        """films/VIDEO.TARGET.mp4."""
        return self._product("films", video_id, target_idx, label, "mp4")

    def picture_path(self, video_id: str, target_idx: int, label: str) -> Path:
        """pictures/VIDEO.TARGET.png."""
        return self._product("pictures", video_id, target_idx, label, "png")

    def maps_path(self, video_id: str, target_idx: int, label: str) -> Path:
        """maps/VIDEO.TARGET.zarr."""
        return self._product("maps", video_id, target_idx, label, "zarr")

    def _product(self, folder: str, video_id: str, target_idx: int, label: str, suffix: str) -> Path:
        return self.path / folder / f"{safe_name(video_id)}.{target_name(label, target_idx)}.{suffix}"

    def _write(self, manifest: Manifest) -> None:
        write_json(self.path / "manifest.json", manifest.model_dump(mode="json"))

    def _refuse_what_is_there(self, overwrite: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ManifestError(str(self.path), "this is a file, not a folder", "choose another place with --out")
        if (self.path / "manifest.json").exists():
            if not overwrite:
                remedy = f"go on with it by `heatreel resume {self.path}`, or replace it with --overwrite"
                raise ManifestError(str(self.path), "there is a run in this folder already", remedy)
            self._expect_a_run()
        elif self.path.is_dir() and any(entry.name != ".lock" for entry in self.path.iterdir()):
            raise ManifestError(
                str(self.path), "the folder is not empty and holds no heatreel run", "choose an empty one with --out"
            )

    def _expect_a_run(self) -> None:
        if b'"heatreel-run"' not in (self.path / "manifest.json").read_bytes()[:4096]:
            raise ManifestError(
                str(self.path), "its manifest.json is not one of heatreel's", "choose another folder with --out"
            )

    def _take_lock(self) -> None:
        lock = (self.path / ".lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            remedy = "wait for it, stop it, or choose another folder with --out"
            raise ManifestError(str(self.path), "another heatreel process is writing here", remedy) from error
        self._lock = lock


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _first(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
