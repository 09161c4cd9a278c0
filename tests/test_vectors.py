"""GloVe text in every wrapping, and every way it can be wrong."""

from __future__ import annotations

import gzip
import io
import urllib.request
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bidaf.data import vectors
from bidaf.data.vectors import Archive, Vectors, find_vectors, read_vectors
from bidaf.errors import DataError
from bidaf.files import archives as unpack
from bidaf.files.reading import sha256_of

TEXT = "the 0.5 -1 2e-1\n, 1 2 3\n. . . 4 5 6\nein\u00a0\u0085haus 7 8 9\n"
WORDS = ["the", ",", ". . .", "ein\u00a0\u0085haus"]
NAME = "glove.6B.100d"


def read(name: str) -> Vectors:
    return read_vectors(find_vectors(name))


def zipped(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(f"{name}.txt", text)
    return path


def in_text(folder: Path) -> str:
    (folder / "v.txt").write_text(TEXT, encoding="utf-8")
    return str(folder / "v.txt")


def in_gzip(folder: Path) -> str:
    (folder / "v.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    return str(folder / "v.txt.gz")


def in_zip(folder: Path) -> str:
    return str(zipped(folder / "v.zip", only=TEXT))


def in_member(folder: Path) -> str:
    return f"{zipped(folder / 'v.zip', other='a 1', wanted=TEXT)}/wanted.txt"


def with_header(folder: Path) -> str:
    (folder / "v.vec").write_text("4 3\n" + TEXT.replace("\n", " \r\n"), encoding="utf-8")
    return str(folder / "v.vec")


@pytest.mark.parametrize("wrap", [in_text, in_gzip, in_zip, in_member, with_header])
def test_the_same_vectors_come_out_of_every_wrapping(tmp_path: Path, wrap: Callable[[Path], str]) -> None:
    found = read(wrap(tmp_path))
    assert found.words == WORDS
    assert found.matrix.dtype == np.float32
    assert np.array_equal(found.matrix, np.array([[0.5, -1, 0.2], [1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32))


@pytest.mark.parametrize("chunk", [1, 20, 1 << 20])
def test_the_first_of_equal_words_wins_across_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(unpack, "CHUNK_BYTES", chunk)
    (tmp_path / "v.txt").write_text("a 1 2\nb 3 4\na 5 6\n\nb 7 8\na 9 9\nc 0 1")
    found = read(str(tmp_path / "v.txt"))
    assert found.words == ["a", "b", "c"]
    assert found.matrix.tolist() == [[1, 2], [3, 4], [0, 1]]


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"b 1", "expected a word and 2 numbers, found 2 fields"),
        (b"b", "found 1 fields"),
        (b"b 1 2 3", "found more numbers"),
        (b"b 1 x", "a field is not a number"),
        (b"b 1 2x", "a field is not a number"),
        (b"b 1  2", "expected a word and 2 numbers"),
        (b"b nan 1", "a number is not finite"),
        (b"b 1 -inf", "a number is not finite"),
        (b"b 1 1e99", "a number is not finite"),
        (b"\xff 1 2", "the word is not UTF-8 text"),
    ],
)
def test_a_bad_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, line: bytes, problem: str
) -> None:
    monkeypatch.setattr(unpack, "CHUNK_BYTES", chunk)
    path = tmp_path / "v.txt"
    path.write_bytes(b"3 2\na 1 2\n\n" + line + b"\nc 3 4\n")
    with pytest.raises(DataError) as caught:
        read(str(path))
    assert f"{path}, line 4: " in str(caught.value)
    assert problem in str(caught.value)


def test_two_bad_lines_that_cancel_out_are_still_found(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("a 1 2\nb 3 4 5\nc 6\n")
    with pytest.raises(DataError, match="line 2"):
        read(str(tmp_path / "v.txt"))


def test_what_unpacks_beyond_its_bound_is_refused_and_no_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a 1\n" * 5000
    (tmp_path / "v.gz").write_bytes(gzip.compress(text.encode()))
    assert read(str(tmp_path / "v.gz")).words == ["a"]
    monkeypatch.setattr(unpack, "MAX_RATIO", 1)
    monkeypatch.setattr(unpack, "SPARE_BYTES", len(text))
    assert read(str(tmp_path / "v.gz")).words == ["a"]
    monkeypatch.setattr(unpack, "SPARE_BYTES", len(text) - 1)
    with pytest.raises(DataError, match="unpacks to more than 1 times"):
        read(str(tmp_path / "v.gz"))


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v.txt").write_text("a 1\nb 0." + "2" * 92)
    monkeypatch.setattr(unpack, "LINE_BYTES", 96)
    assert read(str(tmp_path / "v.txt")).words == ["a", "b"]
    monkeypatch.setattr(unpack, "LINE_BYTES", 95)
    with pytest.raises(DataError, match="a line of more than 95 bytes"):
        read(str(tmp_path / "v.txt"))


def test_an_archive_within_a_gzip_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.txt.gz").write_bytes(gzip.compress(b"x" * 257 + b"ustar"))
    with pytest.raises(DataError, match="tar archive"):
        read(str(tmp_path / "v.txt.gz"))


def not_there(folder: Path) -> str:
    return str(folder / "none.txt")


def empty(folder: Path) -> str:
    (folder / "v.txt").touch()
    return str(folder / "v.txt")


def header_alone(folder: Path) -> str:
    (folder / "v.txt").write_text("0 50\n")
    return str(folder / "v.txt")


def one_word(folder: Path) -> str:
    (folder / "v.txt").write_text("word\n")
    return str(folder / "v.txt")


def several_members(folder: Path) -> str:
    return str(zipped(folder / "v.zip", one=TEXT, two=TEXT))


def no_such_member(folder: Path) -> str:
    return f"{zipped(folder / 'v.zip', one=TEXT)}/two.txt"


def cut_gzip(folder: Path) -> str:
    (folder / "v.gz").write_bytes(gzip.compress(TEXT.encode())[:-9])
    return str(folder / "v.gz")


def no_gzip(folder: Path) -> str:
    (folder / "v.gz").write_text(TEXT, encoding="utf-8")
    return str(folder / "v.gz")


def flipped_zip(folder: Path) -> str:
    data = zipped(folder / "v.zip", one=TEXT).read_bytes()
    (folder / "v.zip").write_bytes(data.replace(b"0.5", b"0.6"))
    return str(folder / "v.zip")


def no_zip(folder: Path) -> str:
    (folder / "v.zip").write_text(TEXT, encoding="utf-8")
    return str(folder / "v.zip")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (not_there, r"none\.txt: no such file .*data\.vectors takes"),
        (empty, "holds no word vectors"),
        (header_alone, "says 0 words of 50 numbers, and it holds 0 of 0"),
        (one_word, "line 1: expected a word and its numbers"),
        (several_members, r"holds one\.txt, two\.txt; name one as data\.vectors: .*v\.zip/one\.txt"),
        (no_such_member, r"holds one\.txt; name one"),
        (cut_gzip, "is cut off or corrupted"),
        (no_gzip, "is cut off or corrupted"),
        (flipped_zip, "is cut off or corrupted"),
        (no_zip, "is cut off or corrupted"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_message(tmp_path: Path, make: Callable[[Path], str], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read(make(tmp_path))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIDAF_CACHE", str(tmp_path / "cache"))
    archive = zipped(tmp_path / "published.zip", **{NAME: TEXT})
    digest = sha256_of(archive)
    named = Archive("https://nlp.stanford.edu/data/glove.6B.zip", digest, words=4, max_bytes=10_000)
    monkeypatch.setitem(vectors.NAMED, NAME, named)
    return tmp_path / "cache"


def serve(monkeypatch: pytest.MonkeyPatch, body: bytes | Exception, length: int | None = None) -> list[str]:
    asked: list[str] = []

    class Answer(io.BytesIO):
        headers = Message()

    def urlopen(url: str, timeout: float) -> Any:
        asked.append(url)
        if isinstance(body, Exception):
            raise body
        answer = Answer(body)
        answer.headers = Message()
        answer.headers["Content-Length"] = str(len(body) if length is None else length)
        return answer

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


@pytest.mark.parametrize("form", ["text", "gzip", "zip"])
def test_a_name_is_found_in_the_cache_folder(cache: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    asked = serve(monkeypatch, OSError("no network"))
    cache.mkdir()
    if form == "text":
        (cache / f"{NAME}.txt").write_text(TEXT, encoding="utf-8")
    elif form == "gzip":
        (cache / f"{NAME}.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    else:
        zipped(cache / "glove.6B.zip", **{NAME: TEXT, "glove.6B.50d": "a 1"})
    assert read(NAME).words == WORDS
    assert asked == []


def test_a_name_that_is_not_there_is_fetched_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, (tmp_path / "published.zip").read_bytes())
    with pytest.raises(DataError, match="is not in"):
        find_vectors(NAME, fetch=False)
    assert read(NAME).words == read(NAME).words == WORDS
    assert asked == ["https://nlp.stanford.edu/data/glove.6B.zip"]
    assert [path.name for path in cache.iterdir()] == ["glove.6B.zip"]
    assert find_vectors(NAME, fetch=False).identity


@pytest.mark.parametrize(
    ("body", "length", "problem"),
    [
        (OSError("no network"), None, "no network"),
        (b"half", 8, "broke off"),
        (b"another archive", None, "not the published archive: its SHA-256 is another"),
        (b"x" * 10_001, None, "larger than 10,000 bytes"),
    ],
)
def test_a_failed_fetch_says_what_to_put_where_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, body: bytes | Exception, length: int | None, problem: str
) -> None:
    serve(monkeypatch, body, length)
    with pytest.raises(DataError) as caught:
        read(NAME)
    for part in (problem, "https://nlp.stanford.edu/data/glove.6B.zip", str(cache / "glove.6B.zip"), "data.vectors"):
        assert part in str(caught.value)
    assert list(cache.iterdir()) == []


def test_named_vectors_that_are_cut_short_are_refused(cache: Path) -> None:
    cache.mkdir()
    (cache / f"{NAME}.txt").write_text("a 1 2\nb 3 4\n")
    with pytest.raises(DataError, match=r"holds 2 words where glove\.6B\.100d has 4"):
        read(NAME)


def test_identity_follows_content_not_name(tmp_path: Path) -> None:
    for name, text in (("a.txt", TEXT), ("b.txt", TEXT), ("c.txt", TEXT + "z 1 2 3\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    one, same, other = (find_vectors(str(tmp_path / name)).identity for name in ("a.txt", "b.txt", "c.txt"))
    assert one == same != other
    archives = [zipped(tmp_path / f"{name}.zip", v=(tmp_path / f"{name}.txt").read_text("utf-8")) for name in "abc"]
    one, same, other = (find_vectors(f"{path}/v.txt").identity for path in archives)
    assert one == same != other
