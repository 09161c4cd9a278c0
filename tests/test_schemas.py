"""Every schema is read by every command, and gives the same questions."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers_cli import fail, succeed, train_tiny, write_tiny
from hypothesis import HealthCheck, Phase, given, seed, settings
from oracle import asked_in, lost
from strategies_fuzz import QuestionFile, question_files

from bidaf.data.questions import ReadReport, read_questions, stream_questions
from bidaf.data.schemas import SCHEMAS
from bidaf.data.squad import GoldAnswer
from bidaf.errors import DataError

FOLDER = Path(__file__).parent / "fixtures" / "schemas"
FILES = {
    "squad.json": "SQuAD",
    "squad2.json": "SQuAD",
    "articles.jsonl": "SQuAD articles",
    "rows.json": "rows",
    "rows.jsonl": "rows",
    "rows.csv": "rows",
    "rows.tsv": "rows",
    "columns.json": "rows",
    "passage.jsonl": "rows",
    "data_rows.json": "rows in data",
    "mrqa.jsonl": "MRQA",
    "questions.json": "contexts with questions",
}
CONTEXT = "Dora lives in Rome. She has ten dogs."
ASKED = [("a", "Where does Dora live?", "Rome", 14), ("b", "How many dogs does she have?", "ten", 28)]


def zipped(content: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/data.json", content)


PACKINGS: dict[str, Callable[[bytes, Path], object]] = {
    "squad.json.gz": lambda content, path: path.write_bytes(gzip.compress(content)),
    "mrqa.jsonl.gz": lambda content, path: path.write_bytes(gzip.compress(content)),
    "rows.csv.gz": lambda content, path: path.write_bytes(gzip.compress(content)),
    "rows.jsonl.bz2": lambda content, path: path.write_bytes(bz2.compress(content)),
    "squad.json.xz": lambda content, path: path.write_bytes(lzma.compress(content)),
    "squad.json.zip": zipped,
}


def table(folder: Path) -> Any:
    return datasets.Dataset.from_list(json.loads((FOLDER / "rows.json").read_text()))


TABLES: dict[str, Callable[[Path], object]] = {
    "rows.parquet": lambda path: table(path).to_parquet(path),
    "dataset": lambda path: table(path).save_to_disk(path),
}
ALL = [*FILES, *PACKINGS, *TABLES]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers from any folder."""
    folder = tmp_path_factory.mktemp("export") / "model"
    succeed("export", "-m", "tiny", "-o", folder, cwd=train_tiny(tmp_path_factory.getbasetemp()).folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two questions in every schema, format and packing."""
    folder = tmp_path_factory.mktemp("schemas")
    write_tiny(folder)
    for name in FILES:
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    for name, pack in PACKINGS.items():
        pack((FOLDER / name.rpartition(".")[0]).read_bytes(), folder / name)
    for name, write in TABLES.items():
        write(folder / name)
    (folder / "predictions.json").write_text('{"a": "Rome", "b": "ten dogs"}')
    return folder


def test_every_schema_has_a_file() -> None:
    assert set(FILES.values()) == {schema.name for schema in SCHEMAS}
    assert set(FILES) == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("name", ALL)
def test_every_schema_gives_the_same_questions(folder: Path, name: str) -> None:
    examples = [example for example in read_questions(folder / name) if not example.impossible]
    assert [(example.id, example.question, example.context) for example in examples] == [
        (id, question, CONTEXT) for id, question, _, _ in ASKED
    ]
    offsets = [-1, -1] if name in ("questions.json", "passage.jsonl") else [start for *_, start in ASKED]
    assert [example.answers for example in examples] == [
        (GoldAnswer(text, start),) for (_, _, text, _), start in zip(ASKED, offsets, strict=True)
    ]
    assert examples[0].context is examples[1].context or name not in ("squad.json", "mrqa.jsonl")


@pytest.mark.parametrize("name", FILES)
def test_marks_line_ends_and_blank_lines_change_nothing(tmp_path: Path, name: str) -> None:
    content = (FOLDER / name).read_bytes()
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert read_questions(tmp_path / name) == read_questions(FOLDER / name)


@pytest.mark.parametrize("name", ALL)
def test_every_command_reads_every_schema_alike(export: Path, folder: Path, name: str) -> None:
    schema = FILES.get(name) or FILES.get(name.rpartition(".")[0], "rows")
    sources = (f"--set=data.train={name}", f"--set=data.dev={name}", f"--set=data.prepared_dir=prepared-{name}")
    prepared = succeed("prepare", "-c", "tiny.yaml", *sources, "--json", "--strict", cwd=folder)
    evaluated = succeed("eval", "-m", export, "-d", name, "--json", "-p", "answers.json", cwd=folder)
    predicted = succeed("predict", name, "-m", export, cwd=folder)
    scored = succeed("score", name, "predictions.json", "--answerable-only", "--json", cwd=folder)
    for ran in (prepared, evaluated, predicted, scored):
        assert f"{name}: {schema}, questions: " in ran.err
    unanswerable = name == "squad2.json"
    counts = prepared.json["counts"]
    for split in ("train", "dev"):
        assert (counts[split]["kept"], counts[split]["unanswerable"]) == (2, unanswerable)
        assert counts[split]["exact_spans"] == 1.0
    assert evaluated.json["questions"] == scored.json["questions"] == 2
    assert (scored.json["exact_match"], scored.json["unanswerable"]) == (50.0, unanswerable)
    assert ("1 unanswerable questions are left out" in evaluated.err) == unanswerable
    answers = json.loads((folder / "answers.json").read_text())
    assert set(answers) == {"a", "b"}
    assert {id: predicted.json[id] for id in answers} == answers
    assert len(predicted.json) == 2 + unanswerable


def test_training_reads_what_prepare_reads(folder: Path) -> None:
    sources = ("--set=data.train=mrqa.jsonl.gz", "--set=data.dev=rows.csv", "--set=training.max_steps=1")
    ran = succeed("train", "-c", "tiny.yaml", *sources, "--strict", "--run-dir", "trained", cwd=folder)
    assert "mrqa.jsonl.gz: MRQA, questions: 2" in ran.err
    assert "done: 1 steps" in ran.err


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"rows": []}', "an object with 'rows'"),
        ("{}", "an object with no key"),
        ('[["a"]]', "a list"),
        ('"text"', "text"),
        ("3", "a number"),
        ('{"data": [{"text": "x"}]}', "an object with 'data'"),
        ('{"data": {"paragraphs": []}}', "an object with 'data'"),
    ],
)
@pytest.mark.parametrize("command", [("predict",), ("score",), ("eval", "-d")])
def test_an_unknown_schema_is_named_with_what_was_looked_for(
    export: Path, tmp_path: Path, command: tuple[str, ...], content: str, found: str
) -> None:
    (tmp_path / "odd.json").write_text(content)
    (tmp_path / "answers.json").write_text("{}")
    options = ["answers.json"] if command == ("score",) else ["-m", str(export)]
    message = fail(3, *command, "odd.json", *options, cwd=tmp_path)
    assert f"odd.json: has no known schema, it holds {found}" in message
    assert all(f"{schema.name}: {schema.outline}" in message for schema in SCHEMAS)


def ignore(report: ReadReport) -> None:
    pass


def check_nothing_is_lost(folder: Path, file: QuestionFile) -> None:
    path = folder / file.name
    path.write_bytes(file.content)
    reports: list[ReadReport] = []
    try:
        examples = read_questions(path, on_report=reports.append)
    except DataError:  # any other exception fails the test
        return
    [report] = reports
    several = read_questions(path, passages=True, on_report=ignore)
    stream = stream_questions(str(path), on_report=ignore)
    assert list(stream) == several
    assert len(stream) == len(several)
    assert report.read == len(examples) + report.num_skipped
    assert len({example.id for example in examples}) == len(examples)
    answered = [(example.question, example.context) for example in examples]
    assert lost(asked_in(file.name, file.content), answered, report.num_skipped) is None


FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])


@settings(FUZZ, max_examples=400)
@given(file=question_files())
def test_no_record_is_lost(tmp_path_factory: pytest.TempPathFactory, file: QuestionFile) -> None:
    check_nothing_is_lost(tmp_path_factory.getbasetemp(), file)


@pytest.mark.slow
@seed(0)
@settings(FUZZ, max_examples=20_000)
@given(file=question_files())
def test_of_twenty_thousand_files_no_record_is_lost(
    tmp_path_factory: pytest.TempPathFactory, file: QuestionFile
) -> None:
    check_nothing_is_lost(tmp_path_factory.getbasetemp(), file)


def test_the_schemas_are_those_of_the_docs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    for schema in SCHEMAS:
        assert f"| {schema.name} |" in page
    for name in FILES:
        assert f"`{name}`" in page
