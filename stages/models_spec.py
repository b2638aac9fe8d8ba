"""Where a box's spec comes from: YAML files, class lists, and single settings typed on the command line.

In: built-in facts of a model (from its library), `configs/models/SCHEME--NAME.yaml`, a user's spec file, `key=value`
options. Out: one BoxSpec; later sources win over earlier ones. Unknown keys are errors that name the nearest key.
"""

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

import yaml
from pydantic import ValidationError

from stages.box import BoxSpec
from stages.errors import ConfigError

BUILT_IN_SPECS = Path(__file__).resolve().parents[1] / "configs" / "models"

SpecFields = Mapping[str, object]


def nearest(word: str, known: Iterable[str], *, count: int = 1) -> str:
    """The known words most like `word`, as "a or b"."""
    candidates = sorted(known)
    close = get_close_matches(word, candidates, n=count, cutoff=0.5) or get_close_matches(
        word, candidates, n=1, cutoff=0.0
    )
    return " or ".join(close)


def read_fields(path: str | Path) -> dict[str, object]:
    """The settings in one YAML spec file, names checked, values not yet.

    Raises ConfigError when the file is missing, is not YAML, is not a table, or has a key that no spec has.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            str(path), f"the spec file cannot be read ({error.strerror})", "check the path and its permissions"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        fact = f"the spec file is not YAML ({_first_line(error)})"
        raise ConfigError(str(path), fact, "see configs/models/ for examples") from error
    if not isinstance(content, dict):
        raise ConfigError(str(path), "the spec file holds no `key: value` lines", "see configs/models/ for examples")
    return check_keys({str(key): value for key, value in content.items()}, str(path))


def check_keys(fields: SpecFields, item: str) -> dict[str, object]:
    """The same fields; raises ConfigError with the nearest key when one is unknown to BoxSpec."""
    for key in fields:
        if key not in BoxSpec.model_fields:
            raise ConfigError(
                item, f"a box has no setting {key!r}", f"did you mean {nearest(key, BoxSpec.model_fields)}?"
            )
    return dict(fields)


def make_spec(fields: SpecFields, item: str) -> BoxSpec:
    """Validate collected fields; raises ConfigError that names the first wrong or missing one."""
    try:
        return BoxSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "spec"
        fact = "is missing" if first["type"] == "missing" else f"{first['msg']} (got {first['input']!r:.80})"
        raise ConfigError(item, f"{key}: {fact}", f"correct {key} in the box's spec") from error


def read_spec(path: str | Path, base: BoxSpec | None = None) -> BoxSpec:
    """A spec from a YAML file; with `base`, the file may hold only what differs from it.

    Raises ConfigError for an unreadable file, an unknown key (naming the nearest) or a wrong value.
    """
    fields = {} if base is None else base.model_dump()
    fields |= read_fields(path)
    fields.setdefault("name", Path(path).stem)
    return make_spec(fields, str(path))


def built_in_fields(box_name: str) -> dict[str, object]:
    """What `configs/models/` says of a box such as `torchvision:r3d_18`; empty when it says nothing."""
    path = BUILT_IN_SPECS / f"{box_name.replace(':', '--')}.yaml"
    return read_fields(path) if path.is_file() else {}


def override(spec: BoxSpec, options: Mapping[str, str], item: str) -> BoxSpec:
    """The spec with single settings replaced by options, whose values are read as YAML (`8`, `[0, 0, 0]`).

    clip_len above 1 on an image box makes it a video box that averages over frames.
    """
    if not options:
        return spec
    fields = check_keys(options, item)
    parsed = {key: _parse(text) for key, text in options.items()}
    if spec.clip_len == 1 and spec.frames == "clip" and "clip_len" in fields:
        parsed.setdefault("frames", "mean")
    return make_spec(spec.model_dump() | parsed, item)


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Class names, index = line number from 0; a JSON list works too.

    WordNet ids ("n01440764 tench") and running numbers ("1 Archery") are dropped when every line starts with one.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            str(path), f"the class list cannot be read ({_first_line(error)})", "check the path"
        ) from error
    if text.lstrip().startswith("["):
        try:
            lines = [str(entry) for entry in json.loads(text)]
        except json.JSONDecodeError as error:
            raise ConfigError(str(path), f"not a JSON list ({error.msg})", "give one class name a line") from error
    else:
        lines = [line.strip() for line in text.strip().splitlines()]
    if not lines or not all(lines):
        raise ConfigError(str(path), "the class list is empty or has an empty line", "give one class name a line")
    if all(re.match(r"n\d{8}\s+\S", line) for line in lines) or _is_numbered(lines):
        lines = [line.split(maxsplit=1)[1] for line in lines]
    return tuple(lines)


def _is_numbered(lines: list[str]) -> bool:
    numbers = [re.match(r"(\d+)\s+\S", line) for line in lines]
    found = [int(match.group(1)) for match in numbers if match]
    return len(found) == len(lines) and found == list(range(found[0], found[0] + len(lines)))


def _parse(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # pydantic says what is wrong with it


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
