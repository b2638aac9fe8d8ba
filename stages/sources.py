"""Finding inputs: what the user names on the command line becomes, lazily, one source after the other.

In: files, folders, globs, list files, or URIs of them. Out: URIs, then by `probe` a VideoSource each. Video or picture
is found out from the content. Nothing that is wrong with one input stops the list: `probe` says what it is.
"""

import glob
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
from PIL import Image

from stages.containers import open_container, open_stream, rotation_deg, turn_of, video_streams
from stages.errors import DecodeError
from stages.pictures import (
    PICTURE_SUFFIXES,
    frame_files,
    frame_number,
    has_alpha,
    is_animated,
    is_picture,
    open_image,
    read_animation,
    read_picture,
    sha256_of,
    size_of,
)
from stages.records import VideoSource
from stages.remote import newest
from stages.remote_sources import list_store, read_list
from stages.stores import is_remote, local_name, name_of

VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".asf"),
    *(".flv", ".ogv", ".3gp", ".mxf", ".vob", ".mjpeg", ".h264", ".h265", ".hevc", ".ivf", ".y4m"),
}
LIST_SUFFIX = ".txt"
FOLDER_FPS = 25.0  # a folder of frames states no rate
HDR_TRANSFERS = (16, 18)  # PQ, HLG


def find_sources(args: Sequence[str]) -> Iterator[str]:
    """The URIs that `args` stand for, in order, each once; folders are walked while the caller works.

    A folder whose media are numbered pictures only is one source; other folders give their media files, recursively.
    What does not exist, or holds no media, is handed on as it is, so that `probe` can say so.
    """
    seen: set[str] = set()
    for arg in args:
        for uri in _expand(arg, frozenset()):
            if uri not in seen:
                seen.add(uri)
                yield uri


def _expand(arg: str, lists: frozenset[str]) -> Iterator[str]:
    arg = local_name(arg)
    path = Path(arg).expanduser()
    if is_remote(arg):
        yield from _expand_remote(arg, lists)
    elif path.is_dir():
        found = False
        for uri in _walk(path):
            found = True
            yield uri
        if not found:
            yield str(path)
    elif path.suffix.lower() == LIST_SUFFIX and path.is_file():
        if str(path.resolve()) not in lists:
            yield from _read_list(path, lists | {str(path.resolve())})
    elif not path.exists() and glob.has_magic(str(path)):
        matches = sorted(glob.glob(str(path), recursive=True))
        for match in matches or [arg]:
            if matches:
                yield from _expand(match, lists) if match != arg else [match]
            else:
                yield arg
    else:
        yield str(path)


def _expand_remote(uri: str, lists: frozenset[str]) -> Iterator[str]:
    if not name_of(uri).lower().endswith(LIST_SUFFIX):
        yield from list_store(uri, frozenset(PICTURE_SUFFIXES | VIDEO_SUFFIXES))
    elif uri not in lists:
        try:
            entries = read_list(uri)
        except DecodeError:
            entries = []
        for entry in entries:
            yield from _expand(entry, lists | {uri})
        if not entries:
            yield uri


def _read_list(path: Path, lists: frozenset[str]) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            entry = line.strip().removeprefix("\ufeff")
            if not entry or entry.startswith("#"):
                continue
            beside = path.parent / entry
            yield from _expand(entry if "://" in entry or Path(entry).is_absolute() else str(beside), lists)


def _walk(folder: Path) -> Iterator[str]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX")))
    folders = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
    media = [
        entry for entry in entries if entry.suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES and entry.is_file()
    ]
    if media and all(path.suffix.lower() in PICTURE_SUFFIXES for path in media) and frame_files(folder):
        yield str(folder)
    else:
        yield from map(str, media)
    for entry in folders:
        yield from _walk(entry)


def unique_id(uri: str, taken: set[str]) -> str:
    """A file-name-safe name for a source that no earlier one has; it is added to `taken`.

    The stem of the file, or parent_folder for a folder; on a collision a short hash of the URI follows. Names that
    differ in case alone count as equal, because file systems may think so.
    """
    path = Path(name_of(uri)) if is_remote(uri) else Path(uri)
    stem = "_".join(path.parts[-2:]) if path.is_dir() else path.stem
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:80] or "source"
    digest = hashlib.sha256(uri.encode(errors="surrogateescape")).hexdigest()
    candidates = [name, *(f"{name}-{digest[:length]}" for length in (8, 16, 64))]
    candidates += [f"{name}-{digest[:8]}-{number}" for number in range(2, len(taken) + 3)]  # the same URI twice
    chosen = next(candidate for candidate in candidates if candidate.casefold() not in taken)
    taken.add(chosen.casefold())
    return chosen


def probe(uri: str, video_id: str | None = None) -> VideoSource:
    """What the source is, from its content; reads the file once for its hash and decodes one frame.

    Raises DecodeError for whatever cannot be explained: missing, empty, text, audio only, a folder without media.
    """
    name = video_id or unique_id(uri, set())
    if is_remote(uri):
        with newest(uri) as copy:
            return replace(probe(str(copy), name), uri=uri)
    path = Path(local_name(uri))
    if not path.exists():
        is_pattern = glob.has_magic(uri)
        fact = "no file matches the pattern" if is_pattern else "there is no such file or folder"
        raise DecodeError(uri, fact, "check the path" if not is_pattern else "check the pattern and quote it")
    if path.is_dir():
        return _probe_folder(path, name)
    try:
        if path.stat().st_size == 0:
            raise DecodeError(uri, "the file is empty", "copy it again from its origin")
        return _probe_picture(path, name) if is_picture(path) else _probe_video(path, name)
    except PermissionError:
        raise DecodeError(uri, "reading it is not permitted", "change its permissions or the user") from None


def current_sha256(uri: str) -> str | None:
    """Hash of what a source is now, or None when it is not there. Raises DecodeError when its store does not say."""
    if is_remote(uri):
        with newest(uri) as copy:
            return sha256_of(copy)
    path = Path(uri)
    return sha256_of(path) if path.exists() else None


def _probe_folder(path: Path, name: str) -> VideoSource:
    files = frame_files(path)
    if not files:
        raise DecodeError(str(path), "the folder holds no video and no picture", "give a folder with media files")
    height, width = size_of(files[0])
    for file in files:
        if size_of(file) != (height, width):
            raise DecodeError(
                str(path),
                f"{file.name} has another size than {files[0].name}",
                "scale the frames to one size, or give the pictures one by one as a glob",
            )
    numbers = [frame_number(file) or 0 for file in files]
    warnings = [f"a folder of frames states no rate; {FOLDER_FPS:g} frames per second are assumed"]
    if (missing := numbers[-1] - numbers[0] + 1 - len(numbers)) > 0:
        warnings.append(f"{missing} numbers are missing between {files[0].name} and {files[-1].name}")
    return VideoSource(
        id=name,
        uri=str(path),
        kind="frames",
        sha256=sha256_of(path),
        height=height,
        width=width,
        fps=FOLDER_FPS,
        num_frames=len(files),
        duration_s=len(files) / FOLDER_FPS,
        codec=files[0].suffix.lower().lstrip("."),
        warnings=tuple(warnings),
    )


def _probe_picture(path: Path, name: str) -> VideoSource:
    with open_image(path) as image:
        codec = (image.format or "").lower()
        warnings = ["transparent pixels are shown on white"] if has_alpha(image) else []
        if is_animated(image):
            return _probe_animation(path, name, image, tuple(warnings))
    height, width, _ = read_picture(path).shape
    return VideoSource(
        id=name,
        uri=str(path),
        kind="image",
        sha256=sha256_of(path),
        height=height,
        width=width,
        num_frames=1,
        codec=codec,
        warnings=tuple(warnings),
    )


def _probe_animation(path: Path, name: str, image: Image.Image, warnings: tuple[str, ...]) -> VideoSource:
    faults: list[str] = []
    times = [time_s for time_s, _ in read_animation(path, faults.append)]
    if not times:
        raise DecodeError(str(path), "no frame can be decoded", "copy it again from its origin")
    step_s = times[-1] / (len(times) - 1) if len(times) > 1 else 0.0
    return VideoSource(
        id=name,
        uri=str(path),
        kind="video",
        sha256=sha256_of(path),
        height=image.height,
        width=image.width,
        fps=1 / step_s if step_s > 0 else None,
        num_frames=len(times),
        duration_s=times[-1] + step_s,
        codec=(image.format or "").lower(),
        warnings=(*warnings, *faults),
    )


def _probe_video(path: Path, name: str) -> VideoSource:
    uri = str(path)
    with open_container(uri) as container:
        stream = open_stream(container, uri)
        stream.codec_context.thread_count = 1  # one frame is wanted: threads would only add delay
        try:
            frame = next(container.decode(stream), None)
        except av.FFmpegError:
            frame = None
        if frame is None:
            raise DecodeError(uri, "no frame can be decoded", "play it in a video player; copy it again if that fails")
        turn = turn_of(frame)
        height, width = (frame.width, frame.height) if turn[0] else (frame.height, frame.width)
        rate = stream.average_rate or stream.guessed_rate
        duration_s: float | None = None
        if stream.duration and stream.time_base:
            duration_s = float(stream.duration * stream.time_base)
        elif container.duration:
            duration_s = container.duration / av.time_base
        warnings = []
        if len(container.streams.video) > (real := len(video_streams(container))):
            warnings.append("an attached picture is ignored")
        if real > 1:
            warnings.append(f"{real} video streams: the first one is used")
        if frame.color_trc in HDR_TRANSFERS:
            warnings.append("high dynamic range: colours are not tone-mapped")
        return VideoSource(
            id=name,
            uri=uri,
            kind="video",
            sha256=sha256_of(path),
            height=height,
            width=width,
            fps=float(rate) if rate and 0 < rate <= 1000 else None,
            num_frames=stream.frames or None,
            duration_s=duration_s,
            has_audio=bool(container.streams.audio),
            rotation_deg=rotation_deg(turn),
            codec=stream.codec_context.name,
            warnings=tuple(warnings),
        )
