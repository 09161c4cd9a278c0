"""Bad input ends in one message with its exit code; good input loses nothing without a word.

A short form of `scripts/fuzz.py`, and the cases that generated input would take long to meet.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers_cli import bidaf, fail, succeed
from helpers_fuzz import TARGETS, Home, Target, make_home
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bidaf.files import archives as unpack
from bidaf.files import reading as files

INPUTS = 12
"""A target; each is a whole command."""

CONTEXT = "Anna lives in Oslo. She has two cats."


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_generated_input_is_taken_whole_or_refused_in_one_message(home: Home, target: Target) -> None:
    # Finding a smaller example takes hundreds of commands; `scripts/fuzz.py` shows what it finds as it is.
    phases = [Phase.explicit, Phase.reuse, Phase.generate]

    @settings(max_examples=INPUTS, deadline=None, suppress_health_check=list(HealthCheck), phases=phases)
    @given(value=target.strategy)
    def check(value: Any) -> None:
        outcome = target.judge(home, value)
        assert not outcome.problem, outcome.detail

    check()


# Texts: what a context, a question or an id may hold

TEXTS = {
    "NUL": "Anna\0lives in\0Oslo",
    "combining marks": "Zoe\u0308 ate cre\u0300me bru\u0302le\u0301e\u0323",
    "right to left": "אנה גרה באוסלו \u202e1492\u202c",
    "emoji": "👩‍👩‍👧 live in 🏳️‍🌈 with 🍕",
    "blanks of other kinds": "Anna\u00a0lives\u2003in\u200bOslo\u2060now\ufefffor\u3000good",
    "terminal codes": "\x1b[31mAnna\x1b[0m lives \x07in Oslo",
    "no word at all": "\u200b\u200b",
    "a word of a megabyte": "Anna " + "x" * 1_000_000 + " lives",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_any_text_is_answered_out_of_itself(home: Home, tmp_path: Path, text: str) -> None:
    asked = [{"id": text[:99], "context": text, "question": text}, {"context": CONTEXT, "question": text[:99]}]
    (tmp_path / "ask.json").write_text(json.dumps(asked), encoding="utf-8")
    answers = succeed("predict", "ask.json", "-m", home.export, cwd=tmp_path).json
    assert list(answers) == [text[:99], "1"]
    assert answers[text[:99]] in text
    assert answers["1"] in CONTEXT


# Files: (what is wrong, bytes, what the message says, or None where it is read all the same)

ONE = {"context": CONTEXT, "question": "Where?"}
PLAIN = json.dumps(ONE).encode()


def squad_with(**changes: Any) -> bytes:
    question = {"id": "a", "question": "Where?", "answers": [{"text": "Oslo", "answer_start": 14}], **changes}
    context = question.pop("context", CONTEXT)
    return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": [question]}]}]}).encode()


def answer(text: Any, start: Any) -> bytes:
    return squad_with(answers=[{"text": text, "answer_start": start}])


FILES: list[tuple[str, bytes, str | None]] = [
    ("byte order mark", b"\xef\xbb\xbf" + PLAIN, None),
    ("CRLF", PLAIN.replace(b", ", b",\r\n"), None),
    ("CRLF lines", PLAIN + b"\r\n" + PLAIN + b"\r\n", None),
    ("UTF-16", PLAIN.decode().encode("utf-16"), "is not UTF-8"),
    ("UTF-16 without a mark", PLAIN.decode().encode("utf-16-le"), "is not UTF-8"),
    ("UTF-32", PLAIN.decode().encode("utf-32"), "is not UTF-8"),
    ("half a surrogate pair, escaped", b'{"context": "a \\ud83d b", "question": "q"}', "half of a surrogate pair"),
    ("a surrogate pair, escaped", b'{"context": "a \\ud83d\\ude00 b", "question": "q"}', None),
    ("surrogate in UTF-8", b'{"context": "a \xed\xa0\x80", "question": "q"}', "is not UTF-8"),
    ("raw NUL", b'{"context": "a\0b", "question": "q"}', "is not JSON"),
    ("id a number", json.dumps({**ONE, "id": 7}).encode(), None),
    ("id NaN", b'{"context": "a b", "question": "q", "id": NaN}', "id is a number, not text"),
    ("id infinite", b'{"context": "a b", "question": "q", "id": 1e999}', "id is a number, not text"),
    ("id of 400 digits", b'{"context": "a b", "question": "q", "id": ' + b"9" * 400 + b"}", None),
    ("id of 5,000 digits", b'{"context": "a b", "question": "q", "id": ' + b"9" * 5_000 + b"}", "is not usable JSON"),
    ("id true", json.dumps({**ONE, "id": True}).encode(), "id is true, not text"),
    ("NaN where nobody looks", b'{"context": "a b", "question": "q", "score": NaN}', None),
    ("10,000 deep", b"[" * 10_000 + b"]" * 10_000, "is nested too deeply"),
    (
        "10,000 deep where nobody looks",
        PLAIN[:-1] + b', "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        "nested too deeply",
    ),
    ("a key twice", b'{"context": "a", "context": "b", "question": "q"}', "twice"),
    ("key missing", b'{"context": "a"}', "no known schema, it holds an object with 'context'"),
    ("key null", b'{"context": null, "question": "q"}', "context is missing"),
    ("blank", b'{"context": "a", "question": "\\u00a0"}', "question is empty"),
    ("cut off", PLAIN[:-9], "it seems cut off"),
    ("a pickle", b"\x80\x04]\x94.", "is not UTF-8"),
    ("empty", b"", "is empty"),
]


@pytest.mark.parametrize(("content", "message"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_a_question_file_is_answered_or_refused(
    home: Home, tmp_path: Path, content: bytes, message: str | None
) -> None:
    (tmp_path / "ask.json").write_bytes(content)
    if message is None:
        answers = succeed("predict", "ask.json", "-m", home.export, cwd=tmp_path).json
        assert len(answers) == 1 + content.strip().count(b"\n{")
    else:
        assert message in fail(3, "predict", "ask.json", "-m", home.export, cwd=tmp_path)


SQUAD: list[tuple[str, bytes, str | None]] = [
    ("offset negative", answer("Oslo", -1), None),
    ("offset past the end", answer("Oslo", 10**6), None),
    ("offset of 400 digits", answer("Oslo", 10**400), None),
    ("offset beyond 64 bits", answer("Oslo", 2**70), None),
    ("offset a fraction", answer("Oslo", 1.5), None),
    ("offset NaN", answer("Oslo", float("nan")), None),
    ("offset true", answer("Oslo", True), None),
    (
        "offset inside a surrogate pair",
        squad_with(context="😀 Oslo 😀", answers=[{"text": "Oslo", "answer_start": 3}]),
        None,
    ),
    ("answer elsewhere", answer("Rome", 14), "answer not in context: 1"),
    ("answer twice", answer("s", -1), "more than once in context: 1"),
    ("id a number", squad_with(id=7), None),
    ("answers null", squad_with(answers=None), "no usable answer is given"),
]


@pytest.mark.parametrize(("content", "message"), [case[1:] for case in SQUAD], ids=[case[0] for case in SQUAD])
def test_training_data_is_counted_or_refused(home: Home, tmp_path: Path, content: bytes, message: str | None) -> None:
    (tmp_path / "train.json").write_bytes(content)
    options = (f"--set=data.train={tmp_path / 'train.json'}", f"--set=data.prepared_dir={tmp_path / 'prepared'}")
    ran = bidaf("prepare", "-c", "tiny.yaml", "--json", *options, cwd=home.folder)
    assert "Traceback" not in ran.err
    if message is None:
        assert ran.json["counts"]["train"]["kept"] == ran.json["counts"]["train"]["read"] == 1
    else:
        assert ran.code == 3
        assert message in ran.err


@pytest.mark.slow
def test_a_hundred_thousand_questions_on_one_context_are_all_there(home: Home, tmp_path: Path) -> None:
    many = [{"id": f"q{number}", "question": f"Where is {number}?"} for number in range(100_000)]
    content = json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": many}]}]})
    (tmp_path / "many.json").write_text(content, encoding="utf-8")
    answers = succeed("predict", "many.json", "-m", home.export, cwd=tmp_path).json
    assert list(answers) == [question["id"] for question in many]


# Word vectors

GLOVE: list[tuple[str, bytes, int | str]] = [
    ("a byte order mark", b"\xef\xbb\xbfthe 1 2 3 4\nto 1 2 3 4\n", 2),
    ("words with spaces", b"a b 1 2 3 4\nthe 1 2 3 4\n", "line 1: a field is not a number"),
    ("later words with spaces", b"the 1 2 3 4\n. . . 1 2 3 4\n", 2),
    ("duplicates", b"the 1 2 3 4\nto 1 2 3 4\nthe 9 9 9 9\n", 2),
    ("a row too short", b"the 1 2 3 4\nto 1 2 3\n", "line 2: expected a word and 4 numbers"),
    ("a row too long", b"the 1 2 3 4\nto 1 2 3 4 5\n", "line 2: expected a word and 4 numbers, found more"),
    ("NaN", b"the 1 2 3 nan\n", "line 1: a number is not finite"),
    ("a decimal comma", b"the 1 2 3 4,5\n", "line 1: a field is not a number"),
    ("UTF-16", "the 1 2 3 4\n".encode("utf-16"), "line 1"),
    ("a header that says more", b"3 4\nthe 1 2 3 4\nto 1 2 3 4\n", "says 3 words of 4 numbers, and it holds 2 of 4"),
    ("a header of another width", b"2 5\nthe 1 2 3 4\nto 1 2 3 4\n", "says 2 words of 5 numbers, and it holds 2 of 4"),
    ("numbers alone, one wide", b"5 3\n6 4\n", "says 5 words of 3 numbers"),
    ("one endless line", b"the " + b"1 " * 3_000_000, "has a line of more than"),
    ("blank lines alone", b"\n\n", "line 1: expected a word"),
    ("a pickle", b"\x80\x04]\x94.", "line 1"),
]


@pytest.mark.parametrize(("content", "expected"), [case[1:] for case in GLOVE], ids=[case[0] for case in GLOVE])
def test_word_vectors_are_read_whole_or_refused(
    home: Home, tmp_path: Path, content: bytes, expected: int | str
) -> None:
    (tmp_path / "v.txt").write_bytes(content)
    options = (f"--set=data.vectors={tmp_path / 'v.txt'}", f"--set=data.prepared_dir={tmp_path / 'prepared'}")
    if isinstance(expected, int):
        counts = succeed("prepare", "-c", "tiny.yaml", "--json", *options, cwd=home.folder).json["counts"]
        assert counts["vocabulary"]["fixed_words"] == expected
    else:
        assert expected in fail(3, "prepare", "-c", "tiny.yaml", *options, cwd=home.folder)


@pytest.mark.parametrize("path", ["~nobody-of-this-name/v.txt", "v" * 300, "nowhere.zip/v.txt"])
def test_vectors_that_are_nowhere_are_one_message(home: Home, path: str) -> None:
    assert "v" in fail(3, "prepare", "-c", "tiny.yaml", f"--set=data.vectors={path}", cwd=home.folder)


def gzip_bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(b"the 1 2 3 4\n" * 400_000))


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("v.txt", b"the 1 2 3 4\n" * 400_000)


def encrypted(path: Path) -> None:
    zip_bomb(path)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in both places where a zip file keeps it
    content[content.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("v.gz", gzip_bomb, "unpacks to more than 50 times its size"),
        ("v.zip", zip_bomb, "unpacks to more than 50 times its size"),
        ("v.zip", encrypted, "can't be unpacked here"),
    ],
)
def test_an_archive_that_unpacks_without_bound_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], None], message: str
) -> None:
    monkeypatch.setattr(unpack, "SPARE_BYTES", 1 << 20)
    make(tmp_path / name)
    assert message in fail(3, "prepare", "-c", "tiny.yaml", f"--set=data.vectors={tmp_path / name}", cwd=home.folder)


@pytest.mark.parametrize("zipped", [True, False])
def test_text_without_bound_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 20)
    content = b"[" + b" " * (1 << 22) + b"]"
    (tmp_path / "ask.json").write_bytes(gzip.compress(content) if zipped else content)
    message = fail(3, "predict", "ask.json", "-m", home.export, cwd=tmp_path)
    assert "holds more than 1,048,576 bytes of text" in message


# Settings

BASE = "data: {train: a.json, dev: b.json}\n"
LEVELS = "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40))
YAML: list[tuple[str, str, str]] = [
    ("anchors that multiply", f"a0: &a0 [x, x]\n{LEVELS}", "found an anchor, alias or tag"),
    ("an anchor in itself", "a: &a [*a]", "found an anchor, alias or tag"),
    ("a tag that runs code", "a: !!python/object/apply:os.mkdir [unpickled]", "found an anchor, alias or tag"),
    ("a merge key", BASE + "<<: {model: 3}", "should be a section"),
    ("a number of 5,000 digits", BASE + "training: {seed: " + "9" * 5_000 + "}", "is not a YAML config"),
    ("5,000 hexadecimal digits", BASE + "training: {seed: 0x" + "f" * 5_000 + "}", "training.seed"),
    ("sexagesimal without end", BASE + "training: {seed: 1" + ":59" * 20_000 + "}", "training.seed"),
    ("a size with a zero too many", BASE + "model: {hidden_size: 1000000}", "less than or equal to 65536"),
    ("layers without end", BASE + "model: {highway_layers: 1000000000}", "less than or equal to 64"),
    ("NaN", BASE + "training: {optimizer: {lr: .nan}}", "should be a finite number"),
    ("10,000 deep", "[" * 10_000, "found more than 20 levels"),
    ("300 levels, one a line", "\n".join(" " * n + "a:" for n in range(300)), "found more than 20 levels"),
    ("a megabyte", "# " + "x" * 1_000_000, "is too large for a config"),
    ("half a surrogate pair", BASE + 'model: {variant: "\\ud800"}', "model.variant"),
]


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in YAML], ids=[case[0] for case in YAML])
def test_a_config_that_does_not_hold_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    assert message in fail(2, "config", "show", "c.yaml", cwd=tmp_path)
    assert not (tmp_path / "unpickled").exists()


@given(text=st.text(st.characters(), max_size=40))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_message_quotes_a_terminal_only_shows(tmp_path: Path, text: str) -> None:
    message = fail(2, "config", "show", f"no{text.replace(chr(0), '')}.yaml".replace("/", ""), cwd=tmp_path)
    assert all(char.isprintable() or char in "\n\t" for char in message)
