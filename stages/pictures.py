"""Pictures, animated pictures and folders of frames, through Pillow: upright, 8-bit RGB.

EXIF orientation is obeyed. Transparent pixels are shown on white, as browsers show them on an empty page.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.errors import DecodeError

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
PICTURE_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM")
PICTURE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
ANIMATED_FORMATS = {"GIF", "WEBP", "PNG"}  # the second picture of an MPO photograph is not a second frame
BACKGROUND = (255, 255, 255)
DEFAULT_DELAY_S = 0.1  # of an animation frame that states none; browsers do the same

Warn = Callable[[str], None]


class Damage(str):
    """A warning that footage is lost: the file is broken from here on, and what comes before it is kept."""

    __slots__ = ()


Picture = UInt8[np.ndarray, "h w c"]


def is_picture(path: Path) -> bool:
    """Whether the content, not the name, is a picture format."""
    with path.open("rb") as file:
        head = file.read(16)
    return head.startswith(PICTURE_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def open_image(path: Path) -> Image.Image:
    """The picture with its header read. Raises DecodeError."""
    try:
        return Image.open(path, formats=PICTURE_FORMATS)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise _broken(path, error) from None


def is_animated(image: Image.Image) -> bool:
    """Whether the picture has more than one frame of its own."""
    return image.format in ANIMATED_FORMATS and getattr(image, "n_frames", 1) > 1


def has_alpha(image: Image.Image) -> bool:
    """Whether some pixels may be transparent."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def size_of(path: Path) -> tuple[int, int]:
    """Height and width when upright, from the header alone."""
    with open_image(path) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


def to_rgb(image: Image.Image) -> Picture:
    """Upright 8-bit RGB pixels of the current frame; loads them. 16-bit greys are scaled, not clipped."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = np.clip(np.asarray(image, np.float64) / 257 + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if has_alpha(image):
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, (*BACKGROUND, 255)), above)
    return np.array(image.convert("RGB"))


def read_picture(path: Path) -> Picture:
    """All pixels of one picture. Raises DecodeError when it is damaged."""
    with open_image(path) as image:
        try:
            return to_rgb(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise _broken(path, error) from None


def read_animation(path: Path, warn: Warn) -> Iterator[tuple[float, Picture]]:
    """(time in seconds, pixels) of every frame; damage ends it with a warning."""
    with open_image(path) as image:
        time_s = 0.0
        for frame_idx in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(frame_idx)
                rgb = to_rgb(image)
            except (OSError, EOFError, ValueError, SyntaxError) as error:
                warn(f"reading stops at frame {frame_idx}: {error}; what comes before it is kept")
                return
            yield time_s, rgb
            delay_ms = image.info.get("duration", 0)
            time_s += delay_ms / 1000 if delay_ms else DEFAULT_DELAY_S


def frame_number(path: PurePath) -> int | None:
    """The number at the end of a picture's name, or None."""
    digits = re.search(r"(\d+)$", path.stem)
    return int(digits[1]) if digits else None


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder of frames, by number; empty when the folder is something else.

    A folder of frames holds two pictures or more, each numbered once, under one common name and with one suffix.
    """
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and path.name[0] != "."]
    return sorted(pictures, key=lambda path: frame_number(path) or 0) if is_numbered(pictures) else []


def is_numbered(pictures: Sequence[PurePath]) -> bool:
    """Whether the names of pictures are those of a folder of frames."""
    numbers = [frame_number(path) for path in pictures]
    names = {(re.sub(r"\d+$", "", path.stem), path.suffix.lower()) for path in pictures}
    return len(pictures) >= 2 and len(names) == 1 and None not in numbers and len(set(numbers)) == len(numbers)


def sha256_of(path: Path) -> str:
    """Hash of a file's content, or of names and contents of a folder of frames."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in frame_files(path):
            digest.update(f"{sha256_of(file)}  {file.name}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_folder(folder: Path, start_idx: int, warn: Warn) -> Iterator[Picture]:
    """The frames of a folder from `start_idx` on. A good neighbour stands in for a damaged picture."""
    files = frame_files(folder)
    for frame_idx in range(start_idx, len(files)):
        try:
            rgb = read_picture(files[frame_idx])
        except DecodeError as error:
            warn(f"{files[frame_idx].name} {error.fact}; a neighbour stands in for it")
            rgb = _stand_in(folder, files, frame_idx)
        yield rgb


def _stand_in(folder: Path, files: list[Path], frame_idx: int) -> Picture:
    for path in [*reversed(files[:frame_idx]), *files[frame_idx + 1 :]]:
        try:
            return read_picture(path)
        except DecodeError:
            continue
    raise DecodeError(str(folder), "none of its pictures can be read", "copy them again from their origin")


def _broken(path: Path, error: Exception) -> DecodeError:
    if not path.exists():
        return DecodeError(str(path), "there is no such file", "check the path")
    if isinstance(error, Image.DecompressionBombError):
        return DecodeError(str(path), "the picture is larger than 178 million pixels", "scale it down")
    return DecodeError(str(path), f"the picture is damaged ({error})", "copy it again from its origin")
