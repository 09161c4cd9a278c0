"""A file of lines that is continued after its writer was killed: no line is lost, none is there twice."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from bidaf.errors import BidafError, DataError, UsageError
from bidaf.files.growing import growing_file

ORIGIN = {"input": "1", "model": "2"}


def write(path: Path, *pieces: bytes, resume: bool = False, origin: dict[str, Any] = ORIGIN, end: bool = True) -> int:
    """Append the pieces; the number of lines that were there before."""
    with growing_file(path, resume=resume) as file:
        file.begin(origin)
        before = file.num_lines
        for piece in pieces:
            file.append(piece, piece.count(b"\n"))
        if end:
            file.complete()
    return before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.fixture
def partial(path: Path) -> Path:
    """Three lines, and the beginning of a fourth that a kill left."""
    write(path, b"1\n2\n", b"3\n", end=False)
    partial = path.with_name("answers.jsonl.partial")
    with partial.open("ab") as file:
        file.write(b'{"cut o')
    return partial


def test_the_file_gets_its_name_when_it_is_complete(path: Path) -> None:
    path.write_bytes(b"old")
    path.chmod(0o640)
    write(path, b"1\n", end=False)
    assert path.read_bytes() == b"old"
    assert write(path, b"2\n3\n", resume=True) == 1
    assert path.read_bytes() == b"1\n2\n3\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(path.parent) == [path.name]


def test_a_line_that_a_kill_cut_is_written_again(path: Path, partial: Path) -> None:
    assert write(path, b"4\n", resume=True) == 3
    assert path.read_bytes() == b"1\n2\n3\n4\n"


def test_lines_are_not_lost_for_want_of_an_option(path: Path, partial: Path) -> None:
    with pytest.raises(UsageError, match=r"partial holds 3 answers .* --resume"):
        write(path, b"1\n")
    partial.unlink()
    assert write(path, b"1\n") == 0
    assert path.read_bytes() == b"1\n"


@pytest.mark.parametrize(
    ("origin", "names"),
    [({**ORIGIN, "model": "3"}, "model"), ({"input": "0", "model": "3"}, "input and model")],
)
def test_lines_that_were_made_from_other_things_are_not_continued(
    path: Path, partial: Path, origin: dict[str, str], names: str
) -> None:
    with pytest.raises(UsageError, match=f"made with other {names}:"):
        write(path, b"4\n", resume=True, origin=origin)
    assert write(path, b"4\n", resume=True) == 3


def test_what_never_got_a_line_leaves_nothing(path: Path) -> None:
    assert write(path, end=False) == 0
    assert os.listdir(path.parent) == []


def test_two_processes_do_not_write_the_same_lines(path: Path, partial: Path) -> None:
    with growing_file(path, resume=True):
        with pytest.raises(UsageError, match="being written by another process"):
            write(path, resume=True)
    assert write(path, b"4\n", resume=True) == 3


def test_a_file_that_lost_lines_is_refused(path: Path, partial: Path) -> None:
    partial.write_bytes(b"1\n2\n")
    with pytest.raises(DataError, match="lost its end"):
        write(path, b"4\n", resume=True)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"origin": {}, "lines": -1}', b'{"origin": {}, "rows": 1}'])
def test_a_corrupted_sidecar_is_one_message(path: Path, partial: Path, content: bytes) -> None:
    Path(f"{partial}.json").write_bytes(content)
    with pytest.raises(DataError, match=r"partial\.json is corrupted"):
        write(path, resume=True)


def test_files_of_others_are_left_alone(path: Path) -> None:
    partial = path.with_name("answers.jsonl.partial")
    partial.write_bytes(b"mine")
    with pytest.raises(UsageError, match="rename or delete it"):
        write(path, b"1\n", resume=True)
    assert partial.read_bytes() == b"mine"


def test_lines_go_to_a_regular_file(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(UsageError, match="no regular file"):
        write(path, b"1\n")


def test_a_full_disk_is_one_message_and_keeps_the_lines(
    path: Path, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with growing_file(path, resume=True) as file:
        file.begin(ORIGIN)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BidafError, match=re.escape(f"{path} can't be written: No space left")):
        write(path, b"4\n", resume=True)
    monkeypatch.undo()
    assert write(path, b"4\n", resume=True) == 3
    assert path.read_bytes() == b"1\n2\n3\n4\n"
