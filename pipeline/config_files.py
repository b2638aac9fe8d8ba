"""Generated files: configs/default.yaml (every key, with its description) and configs/schema.json.

`python -m pipeline.config_files FOLDER` (or `make files`) writes them; a test compares them with the code.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml
from pydantic import BaseModel

from pipeline.config import Config

_HEADER = """\
# Every setting with its default. Copy what you change into a file of your own and give it with --config, or use
# --set section.key=value. Written by `make files` from the descriptions in the code; configs/schema.json: JSON schema.
"""
_WIDTH = 118


def schema_json() -> str:
    """The JSON schema of the configuration, for editors and for other programs."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    return json.dumps({**schema, "title": "heatreel configuration"}, indent=2, ensure_ascii=False) + "\n"


def default_yaml() -> str:
    """Every key with its default, commented with its description."""
    return _HEADER + "\n".join(_section_lines(Config(), 0)) + "\n"


def write_files(folder: Path) -> None:
    """Write both files into `folder`."""
    (folder / "schema.json").write_text(schema_json(), encoding="utf-8")
    (folder / "default.yaml").write_text(default_yaml(), encoding="utf-8")


def _section_lines(section: BaseModel, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            if depth == 0:
                yield ""
                yield from (f"# {line}" for line in wrap(_first_sentence(type(value)), _WIDTH))
            yield f"{indent}{name}:"
            yield from _section_lines(value, depth + 1)
            continue
        line = f"{indent}{name}: {_scalar(section.model_dump(mode='json')[name])}"
        comment = field.description or ""
        if len(line) + len(comment) + 4 > _WIDTH:
            yield from (f"{indent}# {part}" for part in wrap(comment, _WIDTH - len(indent)))
            comment = ""
        yield f"{line}  # {comment}" if comment else line


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _first_sentence(model: type[BaseModel]) -> str:
    return (model.__doc__ or model.__name__).strip().split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    write_files(Path(sys.argv[1] if len(sys.argv) > 1 else "configs"))
