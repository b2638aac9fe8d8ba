"""Names stay inside the folder; a crash leaves the old file or the new one, never half of it."""

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.files import (
    SoleWriter,
    append_line,
    atomic_file,
    hash_file,
    read_lines,
    safe_name,
    target_name,
    write_json,
)
from stages.errors import ResourceError


@given(st.text())
def test_a_safe_name_is_one_plain_path_component(name: str) -> None:
    safe = safe_name(name)
    assert safe not in {"", ".", ".."}
    assert not set(safe) & set('/\\\0:<>"|?*& \n')
    assert not safe.startswith(".")
    assert len(safe) <= 96


@given(st.sets(st.text(max_size=12), min_size=2, max_size=8))
def test_different_ids_never_share_a_name(names: set[str]) -> None:
    assert len({safe_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "", "a/b", "<script>", "con", "x" * 300])
def test_hostile_names_are_hashed(name: str) -> None:
    assert safe_name(name) != name
    assert safe_name(safe_name(name)) != safe_name(name)  # a plain name cannot pass for a hashed one


def test_plain_names_stay_legible() -> None:
    assert safe_name("people_corridor_139s") == "people_corridor_139s"
    assert safe_name("a b.c").startswith("a_b.c-")
    assert target_name("tiger cat", 282) == "tiger_cat-282"
    assert target_name("goldfish, Carassius auratus", 1) == "goldfish-1"
    assert target_name("../..", 3) == "class-3"


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.json"
    write_json(path, {"a": 1})

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"a": 2})
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.json"]


def test_a_half_written_file_never_shows(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with atomic_file(tmp_path / "x") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "not_a_folder").write_text("")
    with pytest.raises(ResourceError, match=r"not_a_folder/x: cannot be written \(.*\); check"):
        write_json(tmp_path / "not_a_folder" / "x", {})


def test_a_line_cut_off_by_a_crash_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": 2, "tex')
    append_line(path, {"n": 3})
    assert [row["n"] for row in read_lines(path)] == [1, 3]


def test_numbers_unknown_to_json_become_null(tmp_path: Path) -> None:
    write_json(tmp_path / "x", {"a": [float("nan"), 1.5, {"b": float("inf")}]})
    assert json.loads((tmp_path / "x").read_text()) == {"a": [None, 1.5, {"b": None}]}


def test_a_folder_hash_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("1")
    before = hash_file(tmp_path / "a")
    (tmp_path / "a" / "b" / "c").rename(tmp_path / "a" / "b" / "d")
    renamed = hash_file(tmp_path / "a")
    (tmp_path / "a" / "b" / "d").write_text("2")
    assert len({before, renamed, hash_file(tmp_path / "a")}) == 3


def test_one_writer_at_a_time_and_the_next_one_waits_for_it(tmp_path):
    first = SoleWriter(tmp_path, "v")
    with pytest.raises(ResourceError, match="another process is writing"):
        SoleWriter(tmp_path, "v", timeout_s=0.1)
    SoleWriter(tmp_path, "another video", timeout_s=0.1).give_back()
    threading.Timer(0.2, first.give_back).start()
    SoleWriter(tmp_path, "v", timeout_s=30).give_back()
