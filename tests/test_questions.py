"""The one reader: formats, ids, answers in every shape, and bad records that are skipped, counted and named."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidaf.data.questions import ReadReport, as_examples, read_questions
from bidaf.data.squad import Example, GoldAnswer
from bidaf.errors import DataError

ONE = {"context": "The cat sat.", "question": "Who sat?"}


def ask(folder: Path, content: str | bytes, name: str = "questions.json", **options: Any) -> list[Example]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_questions(path, **options)


def reported(folder: Path, content: str | bytes, name: str = "questions.json", **options: Any) -> ReadReport:
    reports: list[ReadReport] = []
    examples = ask(folder, content, name, on_report=reports.append, **options)
    [report] = reports
    assert report.read == len(examples) + report.num_skipped
    return report


def failure(folder: Path, content: str | bytes, name: str = "questions.json", **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        ask(folder, content, name, **options)
    assert str(folder / name) in str(caught.value)
    return str(caught.value)


def squad(*questions: Any, context: Any = ONE["context"]) -> str:
    return json.dumps({"data": [{"title": "Pets", "paragraphs": [{"context": context, "qas": questions}]}]})


# Formats


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (json.dumps(ONE), "one.json"),
        ("\n\n" + json.dumps(ONE), "one.json"),
        (json.dumps(ONE, indent=2), "pretty.json"),
        (json.dumps([ONE]), "list.json"),
        (json.dumps(ONE), "lines.jsonl"),
        ("\n" + json.dumps(ONE) + "\n \n", "lines.jsonl"),
        (squad({"question": "Who sat?"}), "squad.json"),
        (json.dumps({"question": ["Who sat?"], "context": ONE["context"]}), "columns.json"),
        (json.dumps({"questions": ["Who sat?"], "passage": ONE["context"]}), "questions.json"),
        ("question,context\r\nWho sat?,The cat sat.\r\n", "table.csv"),
        ("\ufeffquestion\tparagraph\nWho sat?\tThe cat sat.", "table.tsv"),
    ],
)
def test_every_format_gives_the_same_question(tmp_path: Path, content: str, name: str) -> None:
    (example,) = ask(tmp_path, content, name)
    assert (example.id, example.question, example.context) == ("0", "Who sat?", "The cat sat.")
    assert example.answers == ()
    assert not example.impossible


@pytest.mark.parametrize("name", ["questions.jsonl", "questions.ndjson", "questions.txt", "questions.json"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
def test_json_lines_are_known_by_name_or_by_content(tmp_path: Path, name: str, newline: str) -> None:
    lines = [{**ONE, "question": f"Who\u2028sat {n}?"} for n in range(4)]
    examples = ask(tmp_path, newline.join(json.dumps(line, ensure_ascii=False) for line in lines), name)
    assert [(example.id, example.question) for example in examples] == [
        (str(n), f"Who\u2028sat {n}?") for n in range(4)
    ]


@pytest.mark.parametrize("path", [None, "-", Path("-")])
@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, path: Any, packed: Any) -> None:
    content = packed(b"\xef\xbb\xbf" + json.dumps(ONE).encode())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(content))))
    assert read_questions(path)[0].question == "Who sat?"
    with pytest.raises(DataError, match="standard input: is empty"):
        read_questions(path)


def test_a_closed_standard_input_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="standard input: is closed"):
        read_questions(None)


@pytest.mark.parametrize("content", ["", "\n\r\n"])
@pytest.mark.parametrize("name", ["q.json", "q.jsonl", "q.ndjson", "q.csv", "q.tsv", "q"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_without_content_is_empty_in_every_format(tmp_path: Path, content: str, name: str, pack: Any) -> None:
    assert failure(tmp_path, pack(content.encode()), name).endswith(f"{name}: is empty")


def in_zip(content: bytes, *more: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", "")
        archive.writestr("folder/questions.json", content)
        archive.writestr("__MACOSX/._questions.json", "x")
        for name in more:
            archive.writestr(name, content)
    return buffer.getvalue()


PACKINGS = [gzip.compress, bz2.compress, lzma.compress, in_zip]
MANY = "\n".join(json.dumps({**ONE, "id": str(number)}) for number in range(300)).encode()


@pytest.mark.parametrize("pack", PACKINGS)
@pytest.mark.parametrize("name", ["questions.jsonl", "questions.jsonl.gz", "questions"])
def test_packed_files_are_known_by_their_content(tmp_path: Path, pack: Any, name: str) -> None:
    assert len(ask(tmp_path, pack(MANY), name)) == 300


@pytest.mark.parametrize("pack", PACKINGS)
def test_a_cut_or_flipped_packed_file_is_one_message(tmp_path: Path, pack: Any) -> None:
    content = pack(MANY)
    for cut in (12, len(content) // 2, len(content) - 9):
        assert "is cut off or corrupted" in failure(tmp_path, content[:cut], "q.jsonl")
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) * 8 + content[middle + 8 :]
    assert "is cut off or corrupted" in failure(tmp_path, flipped, "q.jsonl")


def test_a_zip_archive_holds_one_file(tmp_path: Path) -> None:
    message = failure(tmp_path, in_zip(MANY, "more.json"), "q.zip")
    assert "is a zip archive of 2 files ('folder/questions.json', 'more.json'); unpack it" in message


WHOLE = json.dumps([ONE])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b'[\n{"context": "a"', "is not JSON at line 2, column 16: Expecting ',' delimiter; it seems cut off"),
        (b"Who sat?", "is not JSON at line 1, column 1"),
        (WHOLE[:-3].encode(), "it seems cut off"),
        (WHOLE.encode("utf-16"), "is not UTF-8; convert it"),
        (WHOLE.encode("utf-16-le"), "is not UTF-8; convert it"),
        (WHOLE.encode("utf-32-be"), "is not UTF-8; convert it"),
        (WHOLE.replace("cat", "cät").encode("latin-1"), "is not UTF-8; convert it"),
        (json.dumps(ONE)[:-2].encode("latin-1") + b"\xe4" + b'"}', "is not UTF-8; convert it"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"data": ' + b"9" * 9999 + b"}", "is not usable JSON, from line 1 on"),
        (b'{"data": [], "data": []}', "one object holds 'data' twice; keep one of the two"),
        (b"[]", "no question can be used, of 0"),
        (b'{"data": []}', "no question can be used, of 0"),
    ],
)
def test_an_unreadable_content_is_one_message(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in failure(tmp_path, content)


@pytest.mark.parametrize(("name", "to"), [("table.csv", ","), ("table.tsv", "\t")])
def test_an_unreadable_table_is_one_message(tmp_path: Path, name: str, to: str) -> None:
    columns = f"question{to}context\n"
    assert "is not UTF-8; convert it" in failure(tmp_path, f"{columns}Who?{to}\xe4".encode("latin-1"), name)
    assert "no question can be used, of 0" in failure(tmp_path, columns, name)
    assert "has no known schema, it holds an object with 'a', 'b'" in failure(tmp_path, f"a{to}b\n1{to}2\n", name)


def test_a_cell_may_be_long_and_hold_lines_and_quotes(tmp_path: Path) -> None:
    context = 'The "cat"\nsat, ' * 50_000
    row = '"' + context.replace('"', '""') + '",Who sat?\n'
    assert ask(tmp_path, "context,question\n" + row, "t.csv")[0].context == context


OPEN = "opens a quote that its cell does not close"


@pytest.mark.parametrize(
    ("later", "line"),
    [
        ("{},Who?,Rome,R", '2,Who?,"Rome,R'),  # open to the end of the file
        ('{},Who?,"Rome",R', '2,Who?,"Rome,R'),  # until the next quote
        ('{},"Who?","Rome\nis old",R', '2,"Who?,Rome,R'),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_open_quote_costs_its_own_row_alone(tmp_path: Path, later: str, line: str, newline: str) -> None:
    rows = ["id,question,context,answers", "1,Who?,Rome,R", line, *(later.format(number) for number in range(3, 900))]
    content = newline.join(rows) + newline
    assert reported(tmp_path, content, "t.csv").skipped == {OPEN: ["row 2"]}
    ids = [example.id for example in ask(tmp_path, content, "t.csv", on_report=lambda report: None)]
    assert ids == ["1", *map(str, range(3, 900))]


def test_quotes_within_a_line_that_are_wrong_but_closed_are_read(tmp_path: Path) -> None:
    content = 'question\tcontext\n"Who" sat?\tThe "cat" sat.\nWho?\t"A" "cat" sat.\n'
    assert [(each.question, each.context) for each in ask(tmp_path, content, "t.tsv")] == [
        ("Who sat?", 'The "cat" sat.'),
        ("Who?", 'A "cat" sat.'),
    ]


def test_many_open_quotes_do_not_read_the_rest_of_the_file_each(tmp_path: Path) -> None:
    content = "question,context\nWho?,Rome\n" + 'z","k\n' * 20_000  # read again for each row: minutes
    assert "many rows open a quote that they do not close" in failure(tmp_path, content, "t.csv")


def test_a_row_with_more_cells_than_columns_is_skipped(tmp_path: Path) -> None:
    content = "question,context,answers\nWho?,Rome,R\nWho?,Rome, the old city,R\nWho?,Rome,R,,\n"
    [(reason, places)] = reported(tmp_path, content, "t.csv").skipped.items()
    assert reason.startswith("has more cells than columns")
    assert places == ["row 2"]


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("question;context", "the first row names one column, and holds semicolons; separate columns with commas"),
        ("question\tcontext", "holds tabs"),
        ('question,"context', f"the first row, which names the columns, {OPEN}"),
        ("question,context,context", "has two columns 'context'; keep one of the two"),
        ("\ufeff", "is empty"),
        (" ", "has no known schema"),
    ],
)
def test_a_table_whose_columns_are_unclear_is_one_message(tmp_path: Path, first: str, message: str) -> None:
    content = "" if first == "\ufeff" else "\nWho?;The cat sat\n" * 3
    assert message in failure(tmp_path, first + content, "t.csv")


def test_blank_rows_before_the_first_are_none(tmp_path: Path) -> None:
    assert ask(tmp_path, "\r\n\r\nquestion,context\r\nWho?,The cat sat.\r\n", "t.csv")[0].question == "Who?"


@pytest.mark.parametrize(
    "cell",
    [
        '{"text": ["cat"], "answer_start": [4]}',
        "{'text': ['cat'], 'answer_start': [4]}",
        "{'text': array(['cat'], dtype=object),\n 'answer_start': array([4], dtype=int32)}",  # what `datasets` writes
        '[{"text": "cat", "answer_start": 4}]',
    ],
)
def test_answers_in_a_cell_are_json_or_python(tmp_path: Path, cell: str) -> None:
    row = 'The cat sat.,Who?,"' + cell.replace('"', '""') + '"\n'
    assert ask(tmp_path, "context,question,answers\n" + row, "t.csv")[0].answers == (GoldAnswer("cat", 4),)
    for text in ("[cat", "[f(1)]"):
        plain = ask(tmp_path, f"context,question,answers\nThe cat sat.,Who?,{text}\n", "t.csv")
        assert plain[0].answers == (GoldAnswer(text, -1),)
    for offsets in ("[4]", "[ 4]"):
        beside = ask(tmp_path, f"context,question,answers,answer_start\nThe cat sat.,Who?,['cat'],{offsets}\n", "t.csv")
        assert beside[0].answers == (GoldAnswer("cat", 4),)
    content = "context,question,answers,answer_start\nThe cat sat on the mat.,Who?,['cat' 'mat'],[ 4 19]\n"
    assert ask(tmp_path, content, "t.csv")[0].answers == (GoldAnswer("cat", 4), GoldAnswer("mat", 19))


@pytest.mark.parametrize("text", ["[5]", '["a"]', "['a', 'b']", "{1}", "[[1, 2]]", "{'text': 'x'}"])
@pytest.mark.parametrize("column", ["answer", "answers", "detected_answers"])
def test_an_answer_in_a_cell_that_stands_in_the_context_is_no_list(tmp_path: Path, text: str, column: str) -> None:
    quoted = text.replace('"', '""')
    rows = f'passage,question,{column}\n"Print {quoted}, then [].",Who?,"{quoted}"\n"Print.",Who?,[5]\n'
    report = reported(tmp_path, rows, "t.csv", need_answers=True)
    assert report.skipped == {"no usable answer is given": ["row 2"]}
    [example] = ask(tmp_path, rows, "t.csv", need_answers=True, on_report=lambda report: None)
    assert example.answers == (GoldAnswer(text, -1),)


def test_an_empty_list_in_a_cell_is_no_answer_whatever_the_context(tmp_path: Path) -> None:
    assert ask(tmp_path, "context,question,answers\nPrint [] twice.,Who?,[]\n", "t.csv")[0].impossible


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("['Rome' 'in Rome']", ["Rome", "in Rome"]),
        ("['Rome'\n \"Rome's\" 'x']", ["Rome", "Rome's", "x"]),
        ("['a, ' 'b\\'c' 'd']", ["a, ", "b'c", "d"]),
        ("[\"it's\", 's']", ["it's", "s"]),
    ],
)
def test_lists_of_numpy_in_a_cell_are_lists(tmp_path: Path, cell: str, texts: list[str]) -> None:
    quoted = cell.replace('"', '""')
    [example] = ask(tmp_path, f'context,question,answers\nRome.,Who?,"{quoted}"\n', "t.csv")
    assert [answer.text for answer in example.answers] == texts


def test_detected_answers_and_several_contexts_in_cells_are_lists(tmp_path: Path) -> None:
    columns = "question,passages,detected_answers,answers\n"
    cells = ('["Rome.", "Kiel."]', '[{"text": "Rome", "char_spans": [[0, 3]]}]', '["Rome", "in Rome"]')
    row = "Who?," + ",".join(f'"{cell}"' for cell in (each.replace('"', '""') for each in cells))
    [example] = ask(tmp_path, columns + row, "t.csv", passages=True)
    assert example.passages == ("Rome.", "Kiel.")
    assert example.answers == (GoldAnswer("Rome", 0), GoldAnswer("in Rome", -1))
    (example,) = ask(tmp_path, 'question,passages,answers\nWho?,"[""Rome""]","[""Rome""]"\n', "t.csv", passages=True)
    assert example.answers == (GoldAnswer("Rome", -1),)  # it stands in the cell, and not in a context


def test_empty_answers_that_datasets_wrote_to_a_cell_are_no_answer(tmp_path: Path) -> None:
    cell = "{'text': array([], dtype=object), 'answer_start': array([], dtype=int32)}"
    (example,) = ask(tmp_path, f'context,question,answers\nThe cat sat.,Who?,"{cell}"\n', "t.csv")
    assert example.impossible


def test_ten_thousand_levels_in_a_key_nobody_reads_do_not_crash(tmp_path: Path) -> None:
    content = '{"extra": ' + "[" * 10_000 + "]" * 10_000 + "," + json.dumps(ONE)[1:]
    with contextlib.suppress(DataError):  # how deep is too deep differs between versions of Python
        assert len(ask(tmp_path, content)) == 1


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "q.json").write_text(WHOLE)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_questions(tmp_path / "q.json")


@pytest.mark.parametrize("name", ["x" * 5000 + ".json", "missing.json"])
def test_a_missing_or_impossible_file_is_a_data_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"no such file|cannot be read"):
        read_questions(tmp_path / name)


def test_a_context_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    context = "cat " * 2_500_000
    assert ask(tmp_path, json.dumps({**ONE, "context": context}))[0].context == context


# Ids


@pytest.mark.parametrize(
    ("given_ids", "ids"),
    [
        ([None, None, None], ["0", "1", "2"]),
        (["a", None, "b"], ["a", "1", "b"]),
        ([7, "x", 2.5], ["7", "x", "2.5"]),
        (["1", None, "1_", None], ["1", "1__", "1_", "3"]),
        (["", " "], ["0", "1"]),
    ],
)
def test_missing_ids_are_positions_that_meet_no_given_id(tmp_path: Path, given_ids: list[Any], ids: list[str]) -> None:
    items = [{**ONE, "id": id} for id in given_ids]
    assert [example.id for example in ask(tmp_path, json.dumps(items))] == ids
    without_null = [{key: value for key, value in item.items() if value is not None} for item in items]
    assert [example.id for example in ask(tmp_path, json.dumps(without_null))] == ids
    assert reported(tmp_path, json.dumps(items)).made_ids == sum(id in (None, "", " ") for id in given_ids)


def test_positions_count_skipped_records_too(tmp_path: Path) -> None:
    items = [ONE, {**ONE, "question": ""}, ONE]
    assert [example.id for example in ask(tmp_path, json.dumps(items), on_report=lambda report: None)] == ["0", "2"]


def test_of_questions_with_one_id_the_first_is_kept(tmp_path: Path) -> None:
    items = [{**ONE, "id": 7}, ONE, {**ONE, "id": "7", "question": "Which?"}]
    report = reported(tmp_path, json.dumps(items))
    assert report.skipped == {"id is already that of another question": ["[2]"]}


# Answers


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"answers": [{"text": "cat", "answer_start": 4}]}, [("cat", 4)]),
        ({"answers": [{"text": "dog", "answer_start": 99}]}, [("dog", 99)]),
        ({"answers": [{"text": "cat", "answer_start": "here"}, {"text": "cat"}]}, [("cat", -1), ("cat", -1)]),
        ({"answers": [{"text": "cat", "answer_start": -7}]}, [("cat", -1)]),
        ({"answers": [{"text": "cat", "answer_start": True}]}, [("cat", -1)]),
        ({"answers": [{"text": "cat", "answer_start": 4.0}]}, [("cat", 4)]),
        ({"answers": [{"text": "cat", "answer_start": "4"}]}, [("cat", 4)]),
        ({"answers": {"text": ["cat", "sat"], "answer_start": [4, 8]}}, [("cat", 4), ("sat", 8)]),
        ({"answers": {"text": ["cat", "sat"], "answer_start": [4]}}, [("cat", -1), ("sat", -1)]),
        ({"answers": {"text": ["cat", "sat"]}}, [("cat", -1), ("sat", -1)]),
        ({"answers": {"text": "cat", "answer_start": 4}}, [("cat", 4)]),
        ({"answers": ["cat", "sat"]}, [("cat", -1), ("sat", -1)]),
        ({"answers": "cat", "answer_start": 4}, [("cat", 4)]),
        ({"answers": ["cat", "sat"], "answer_start": [4, 8]}, [("cat", 4), ("sat", 8)]),
        ({"answers": ["cat", "sat"], "answer_start": [4]}, [("cat", -1), ("sat", -1)]),
        ({"answer": "cat"}, [("cat", -1)]),
        ({"answers": [{"text": 3}, {"text": "cat"}, None]}, [("cat", -1)]),
        ({"answers": None}, []),
        ({"answers": 7}, []),
        (
            {"detected_answers": [{"text": "cat", "char_spans": [[4, 6], [9, 11]]}], "answers": ["cat", "the cat"]},
            [("cat", 4), ("the cat", -1)],
        ),
        ({"detected_answers": [{"text": "cat", "char_spans": [4]}], "answers": []}, [("cat", -1)]),
    ],
)
def test_answers_are_kept_as_given_in_every_shape(tmp_path: Path, fields: Any, kept: list[tuple[str, int]]) -> None:
    (example,) = ask(tmp_path, json.dumps({**ONE, **fields}))
    assert example.answers == tuple(GoldAnswer(*answer) for answer in kept)
    assert not example.impossible


@pytest.mark.parametrize(
    ("fields", "impossible"),
    [
        ({"answers": []}, True),
        ({"answers": {"text": [], "answer_start": []}}, True),
        ({"is_impossible": True, "answers": [{"text": "cat", "answer_start": 4}]}, True),
        ({"is_impossible": "True", "answers": "cat"}, True),
        ({"is_impossible": "0", "answers": "cat"}, False),
        ({"is_impossible": 1.0, "answers": "cat"}, True),
        ({"is_impossible": "0.0", "answers": "cat"}, False),
        ({"is_impossible": None}, False),
        ({"answers": [{}]}, False),
        ({}, False),
    ],
)
def test_a_question_without_an_answer_is_one_that_says_so(tmp_path: Path, fields: Any, impossible: bool) -> None:
    (example,) = ask(tmp_path, json.dumps({**ONE, **fields}))
    assert example.impossible == impossible
    assert not (impossible and example.answers)


def test_whoever_needs_answers_skips_questions_that_say_nothing_of_them(tmp_path: Path) -> None:
    asked = [{**ONE, "answers": "cat"}, {**ONE, "answers": []}, ONE, {**ONE, "answers": [{"text": None}]}]
    report = reported(tmp_path, json.dumps(asked), need_answers=True)
    assert report.skipped == {"no usable answer is given": ["[2]", "[3]"]}


# Bad records


@pytest.mark.parametrize(
    ("bad", "reason", "place"),
    [
        ({**ONE, "question": ""}, "question is missing or empty", "[1]"),
        ({**ONE, "question": " \t"}, "question is empty", "[1]"),
        ({**ONE, "question": 7}, "question is a number, not text", "[1]"),
        ({**ONE, "question": "\ud800"}, "question holds half of a surrogate pair", "[1]"),
        ({**ONE, "context": "\n"}, "context is empty", "[1]"),
        ({**ONE, "context": {"text": "x"}}, "context is an object, not text", "[1]"),
        ({**ONE, "context": []}, "context is missing or empty", "[1]"),
        ({**ONE, "context": ["x", 7]}, "context is a number, not text", "[1]"),
        ({**ONE, "context": ["x", " "]}, "context is empty", "[1]"),
        ({**ONE, "context": ["x", "y"]}, "has several contexts, which only predict and score take", "[1]"),
        ({"question": "Who?"}, "context is missing or empty", "[1]"),
        ({"context": "Who?"}, "question is missing or empty", "[1]"),
        ("Who?", "expected an object, found text", "[1]"),
        (None, "expected an object, found null", "[1]"),
        ({**ONE, "id": ["a"]}, "id is a list, not text", "[1]"),
        ({**ONE, "id": True}, "id is true, not text", "[1]"),
        ({**ONE, "id": "\udfff"}, "id holds half of a surrogate pair", "[1]"),
        ({**ONE, "is_impossible": "no"}, "is_impossible is text, not true or false", "[1]"),
        ({**ONE, "is_impossible": [1]}, "is_impossible is a list, not true or false", "[1]"),
    ],
)
def test_a_bad_record_is_skipped_counted_and_named(tmp_path: Path, bad: Any, reason: str, place: str) -> None:
    content = json.dumps([ONE, bad, ONE])
    report = reported(tmp_path, content)
    [(found, places)] = report.skipped.items()
    assert found.startswith(reason)
    assert places == [place]
    messages = "\n".join(report.messages())
    assert "questions.json: skipped 1 of 3" in messages
    assert f"{found} (1): {place}" in messages
    assert f"1 of 3 can't be used:\n  {found} (1): {place}" in failure(tmp_path, content, strict=True)
    with pytest.warns(UserWarning, match="skipped 1 of 3"):
        assert len(ask(tmp_path, content)) == 2


@pytest.mark.parametrize(
    ("articles", "reason", "place"),
    [
        ([{}], "expected a list of paragraphs, found null", "data[1]"),
        ([3], "expected an object, found a number", "data[1]"),
        ([{"paragraphs": [{"context": "x"}]}], "expected a list of qas, found null", "data[1].paragraphs[0]"),
        ([{"paragraphs": [{"qas": [{"question": "Who?"}]}]}], "context is missing", "data[1].paragraphs[0].qas[0]"),
    ],
)
def test_a_wrong_structure_is_skipped_where_it_breaks_off(
    tmp_path: Path, articles: list[Any], reason: str, place: str
) -> None:
    document = json.loads(squad({"question": "Who?"}))
    document["data"] += articles
    [(found, places)] = reported(tmp_path, json.dumps(document)).skipped.items()
    assert found.startswith(reason)
    assert places == [place]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"context": "a"', "is not JSON"),
        ('{"context": "a"}', "question is missing"),
        ("[]", "expected an object, found a list"),
        ("[" * 100_000, "is not JSON"),
        ('{"context": "a", "context": "b"}', "is not JSON"),
        ('{"context": "caf\xe9", "question": "Where?"}', "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["questions.jsonl", "questions.json"])
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str, reason: str, name: str) -> None:
    content = "\n".join([json.dumps(ONE), "", json.dumps(ONE), line, json.dumps(ONE)])
    [(found, places)] = reported(tmp_path, content.encode("latin-1"), name).skipped.items()
    assert found.startswith(reason)
    assert places == ["line 4"]


def test_the_first_ten_places_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    report = reported(tmp_path, json.dumps([ONE, *([{**ONE, "question": ""}] * 14)]))
    [line] = report.problems()
    assert "(14): [1], [2]" in line
    assert line.endswith("[10] and 4 more")


def test_a_file_whose_first_records_are_bad_is_known_by_the_others(tmp_path: Path) -> None:
    report = reported(tmp_path, json.dumps([3, {"text": "x"}, ONE]))
    assert report.schema == "rows"
    assert report.skipped == {"is of no known schema": ["[0]", "[1]"]}


# What a program holds


def test_records_of_a_program_are_taken_whole_or_refused() -> None:
    assert [example.id for example in as_examples([ONE, {**ONE, "id": 3}])] == ["0", "3"]
    assert as_examples(ONE)[0].question == "Who sat?"
    for wrong in ("text", 7, None, [], [ONE, {**ONE, "question": ""}], [ONE, 3], [{"text": "x"}]):
        with pytest.raises(DataError, match="the questions: "):
            as_examples(wrong)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "paragraphs", "context", "qas", "id", "question", "questions", "answers", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
askable = st.fixed_dictionaries(
    {"context": st.text(min_size=1), "question": st.text(min_size=1)},
    optional={"id": json_values, "answers": json_values, "title": json_values, "is_impossible": json_values},
)


@settings(max_examples=150, deadline=None)
@given(value=json_values | st.lists(askable | json_values, max_size=4), lines=st.booleans())
def test_any_json_either_reads_or_raises_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, value: Any, lines: bool
) -> None:
    content = "\n".join(map(json.dumps, value)) if lines and isinstance(value, list) else json.dumps(value)
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(content, encoding="utf-8")
    reports: list[ReadReport] = []
    try:
        examples = read_questions(path, on_report=reports.append)
    except DataError:  # any other exception fails the test
        return
    assert examples
    assert reports[0].read == len(examples) + reports[0].num_skipped
    assert len({example.id for example in examples}) == len(examples)
    assert all(example.question.strip() and example.context.strip() for example in examples)
