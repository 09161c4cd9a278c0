"""Text and JSON from outside: what is wrong is named by file and place, and nothing without an end is read."""

from __future__ import annotations

import io
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from bidaf.errors import DataError
from bidaf.files import reading
from bidaf.files.reading import (
    QUOTED_CHARACTERS,
    decode,
    parse_json,
    quote,
    read_regular,
    refuse_strange_files,
    stdin_lines,
)


def test_a_line_of_standard_input_is_limited_and_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 6)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"Who?\nWhere\nWhere?\n")))
    lines = stdin_lines()
    assert [next(lines), next(lines)] == ["Who?\n", "Where\n"]
    with pytest.raises(DataError, match="line 3: is longer than 6 bytes"):
        next(lines)


def test_a_regular_file_is_read_and_a_pipe_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    assert read_regular(tmp_path / "file") == b"text"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_regular(tmp_path / "pipe")


@pytest.mark.parametrize(("kind", "said"), [("link", "is a link"), ("pipe", "is no file"), ("folder", "is no file")])
def test_what_is_no_file_of_the_folder_is_refused(tmp_path: Path, kind: str, said: str) -> None:
    (tmp_path / "file").touch()
    refuse_strange_files(tmp_path, ["file"])
    path = tmp_path / kind
    make: dict[str, Callable[[], None]] = {
        "link": lambda: path.symlink_to("file"),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()
    with pytest.raises(DataError, match=said):
        refuse_strange_files(tmp_path, ["file", kind])


def test_a_file_through_a_linked_folder_is_refused(tmp_path: Path) -> None:
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "inside" / "folder").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="no file of this folder"):
        refuse_strange_files(tmp_path / "inside", ["folder/file"])


def test_a_tar_archive_is_known_by_the_place_of_its_name() -> None:
    with pytest.raises(DataError, match="tar archive"):
        decode(b"x" * 257 + b"ustar-and-more", "v")
    for place in (256, 258):
        assert decode(b"x" * place + b"ustar", "v").endswith("ustar")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n"a": 1,\nb}', "line 3, column 1"),
        ('{"a": 1, "b": 2, "b": 3}', "one object holds 'b' twice"),
        ("[" * 100_000, "nested too deeply"),
        (" \n", "is empty"),
        ('["a', "seems cut off"),
    ],
)
def test_what_is_wrong_with_json_is_named(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        parse_json(text, "x.json")


def test_a_long_name_is_cut_and_one_that_fits_is_not() -> None:
    assert quote("x" * QUOTED_CHARACTERS) == repr("x" * QUOTED_CHARACTERS)
    assert quote("x" * (QUOTED_CHARACTERS + 1)) == repr("x" * (QUOTED_CHARACTERS - 1) + "…")
