"""JSON lines in and out: answered chunk by chunk, by one process or several, and continued after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_cli import DEV, TRAIN, Tiny, bidaf, fail, succeed
from small_chunks import FEW_CHARACTERS
from test_distributed import in_group
from test_processes import launch

from bidaf.config import Config
from bidaf.data.features import Features
from bidaf.data.questions import read_questions, stream_questions
from bidaf.device import choose_device
from bidaf.errors import DataError
from bidaf.files.growing import GrowingFile
from bidaf.inference import stream
from bidaf.inference.ensemble import Ensemble
from bidaf.inference.loading import load_model
from bidaf.inference.predictor import Predictor
from bidaf.inference.records import Record
from bidaf.inference.stream import stream_records
from bidaf.runs.checkpoint import Checkpoint

ASKED = [(context, question) for context, asked in [*TRAIN, *DEV] for question, _ in asked]
RECORDS = [
    {"id": f"q{number}-{round}", "context": context, "question": question}
    for round in range(2)
    for number, (context, question) in enumerate(ASKED)
]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


@pytest.fixture(autouse=True)
def _small_chunks_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stream, "CHUNK_CHARACTERS", FEW_CHARACTERS)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the questions."""
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return tmp_path


Predict = Callable[..., Any]


@pytest.fixture
def command(tiny: Tiny) -> list[object]:
    return ["predict", "questions.jsonl", "-m", tiny.run, "--device", "cpu"]


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_hold_what_the_json_holds(folder: Path, command: list[object]) -> None:
    answers = succeed(*command, cwd=folder).json
    assert succeed(*command, "-o", "answers.jsonl", cwd=folder).out == ""
    expected = [{"id": id, "prediction_text": text} for id, text in answers.items()]
    assert lines_of(folder / "answers.jsonl") == expected
    assert sorted(os.listdir(folder)) == ["answers.jsonl", "questions.jsonl"]


def test_lines_of_several_answers_hold_what_the_json_holds(folder: Path, command: list[object]) -> None:
    records = succeed(*command, "--n-best", 3, cwd=folder).json
    succeed(*command, "--n-best", 3, "-o", "answers.ndjson", cwd=folder)
    lines = lines_of(folder / "answers.ndjson")
    assert [line["id"] for line in lines] == [record["id"] for record in RECORDS]
    for line, record in zip(lines, records, strict=True):  # other batches round otherwise
        assert line == {**record, "answers": [pytest.approx(answer) for answer in record["answers"]]}


def test_lines_are_scored(folder: Path, command: list[object]) -> None:
    gold = [{**record, "answers": record["context"][:3]} for record in RECORDS]
    (folder / "gold.json").write_text(json.dumps(gold))
    succeed(*command, "-o", "answers.jsonl", cwd=folder)
    score = succeed("score", "gold.json", "answers.jsonl", "--json", cwd=folder).json
    assert (score["questions"], score["missing"]) == (len(RECORDS), [])


# ---- The questions


def test_a_stream_gives_the_questions_of_the_list_as_often_as_asked(tmp_path: Path) -> None:
    given = ["2", "a", None, "2", "a", None, "5", None, ""]
    records = [{"context": "c d", "question": f"{number}?", "id": id} for number, id in enumerate(given)]
    lines = [json.dumps(record) for record in records]
    (tmp_path / "q.jsonl").write_text("\n".join(["{", *lines, '{"question": "no context"}']))
    reports: list[Any] = []
    examples = read_questions(tmp_path / "q.jsonl", on_report=reports.append)
    questions = stream_questions(str(tmp_path / "q.jsonl"), on_report=reports.append)
    assert [example.id for example in examples] == ["2", "a", "3", "6", "5", "8", "9"]
    assert list(questions) == list(questions) == examples
    assert len(questions) == questions.num_passages == 7
    assert reports[0] == reports[1]


def test_the_memory_of_a_stream_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        for number in range(5_000):
            file.write(json.dumps({"id": f"id {number}", "context": f"context {number}", "question": "Who?"}) + "\n")
    questions = stream_questions(str(path))
    tracemalloc.start()
    assert sum(1 for _ in questions) == 5_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000  # the ids alone would take more


def test_chunks_follow_from_the_questions_alone(folder: Path) -> None:
    questions = stream_questions(str(folder / "questions.jsonl"))
    chunks = list(stream._chunks(questions))
    assert len(chunks) > 5
    assert [example for chunk in chunks for example in chunk] == list(questions)
    assert list(stream._chunks(list(questions)[len(chunks[0]) :])) == chunks[1:]


# ---- Resuming


def stopped(*command: object, cwd: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command, to be interrupted when that many chunks are on the disk."""
    append, calls = GrowingFile.append, iter(range(after))

    def interrupted(self: GrowingFile, content: bytes, lines: int) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        append(self, content, lines)

    with monkeypatch.context() as patch:
        patch.setattr(GrowingFile, "append", interrupted)
        return bidaf(*command, cwd=cwd)


def test_a_stopped_prediction_is_continued_to_the_same_file(
    folder: Path, command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed(*command, "--n-best", 2, "-o", "whole.jsonl", cwd=folder)
    command += ["--n-best", 2, "-o", "answers.jsonl"]
    ran = stopped(*command, cwd=folder, after=2, monkeypatch=monkeypatch)
    assert ran.code == 130
    kept = lines_of(folder / "answers.jsonl.partial")
    assert f"{len(kept)} answers are kept; continue with --resume" in ran.err
    assert "--resume" in fail(2, *command, cwd=folder)
    answered: list[int] = []
    rank = Predictor.rank

    def noting(self: Predictor, features: Features, *given: Any) -> Any:
        answered.append(len(features))
        return rank(self, features, *given)

    monkeypatch.setattr(Predictor, "rank", noting)
    succeed(*command, "--resume", cwd=folder)
    assert sum(answered) == len(RECORDS) - len(kept)
    assert (folder / "answers.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    assert sorted(os.listdir(folder)) == ["answers.jsonl", "questions.jsonl", "whole.jsonl"]


def test_resume_begins_where_nothing_was_begun(folder: Path, command: list[object]) -> None:
    succeed(*command, "-o", "answers.jsonl", "--resume", cwd=folder)
    assert len(lines_of(folder / "answers.jsonl")) == len(RECORDS)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (("--n-best", 3), "options"),
        (("--max-answer-tokens", 1), "options"),
        (("--weights", "raw"), "weights"),
        (None, "input"),
    ],
)
def test_another_prediction_is_not_continued(
    folder: Path,
    command: list[object],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[object, ...] | None,
    changed: str,
) -> None:
    command += ["-o", "answers.jsonl"]
    stopped(*command, cwd=folder, after=1, monkeypatch=monkeypatch)
    if options is None:
        questions = folder / "questions.jsonl"
        questions.write_text(questions.read_text().replace("Oslo", "Bonn"))
    message = fail(2, *command, *(options or ()), "--resume", cwd=folder)
    assert f"was made with other {changed}:" in message


def test_a_file_that_changes_meanwhile_is_one_message(
    folder: Path, command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = GrowingFile.begin

    def growing(self: GrowingFile, origin: Any) -> None:
        with (folder / "questions.jsonl").open("a") as file:
            file.write(json.dumps({**RECORDS[0], "id": "late"}) + "\n")
        begin(self, origin)

    monkeypatch.setattr(GrowingFile, "begin", growing)
    assert "changed while it was read" in fail(3, *command, "-o", "answers.jsonl", cwd=folder)


def test_a_pipe_is_not_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="read twice"):
        stream_questions(str(tmp_path / "pipe.jsonl"))


def test_the_origin_of_answers_is_what_the_model_computes_with(tiny: Tiny) -> None:
    def origin(weights: str) -> dict[str, str]:
        return stream.origin_of(load_model(str(tiny.run), weights=weights, device=choose_device("cpu")))

    raw, ema = origin("raw"), origin("ema")
    assert raw["model"] == ema["model"]
    assert raw["weights"] != ema["weights"]
    assert origin("ema") == ema


def test_the_origin_of_an_ensemble_s_answers_is_every_member_s(tiny: Tiny) -> None:
    members = [load_model(str(tiny.run), weights=weights, device=choose_device("cpu")) for weights in ("raw", "ema")]
    assert isinstance(members[1].source, Checkpoint)
    config = Config.model_validate({**members[1].config.to_dict(), "evaluation": {"max_answer_tokens": 1}})
    short = replace(members[1], source=replace(members[1].source, config=config))
    before, after = (
        stream.origin_of(Ensemble((members[0], second), ("a", "b"), "sum")) for second in (members[1], short)
    )
    assert before["model"] != after["model"]
    assert before["weights"] == after["weights"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("questions.jsonl", "--resume"), "name the output *.jsonl"),
        (("questions.jsonl", "--resume", "-o", "answers.json"), "name the output *.jsonl"),
        (("-", "-o", "answers.jsonl"), "name a file"),
    ],
)
def test_what_is_no_stream_is_one_message(folder: Path, tiny: Tiny, arguments: tuple[str, ...], message: str) -> None:
    assert message in fail(2, "predict", *arguments, "-m", tiny.run, cwd=folder)


# ---- Several processes


@pytest.mark.parametrize("size", [2, 4, 12])
@pytest.mark.parametrize("start", [0, 5])
def test_processes_share_the_chunks_and_have_the_answers_of_one(
    folder: Path, tiny: Tiny, size: int, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = stream_questions(str(folder / "questions.jsonl"))
    loaded = load_model(str(tiny.run), device=choose_device("cpu"))
    expected = list(stream_records(Predictor(loaded), questions, 2, start=start))
    assert sum(map(len, expected)) == len(RECORDS) - start

    def work(group: Any) -> tuple[list[list[Record]], int]:
        done: list[int] = []
        found = stream_records(Predictor(loaded), questions, 2, start=start, group=group, on_progress=done.append)
        return list(found), sum(done)

    results = in_group(size, work)
    assert results[0][0] == expected
    assert all(found == [] for found, _ in results[1:])
    assert all(done == len(RECORDS) for _, done in results)


@pytest.mark.slow
def test_killed_processes_resume_to_the_file_of_one(folder: Path, command: list[object], tiny: Tiny) -> None:
    large = [{**record, "id": f"{round}-{record['id']}"} for round in range(60) for record in RECORDS]
    (folder / "questions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in large))
    arguments = ["small_chunks", *map(str, command), "--n-best", "2"]
    [alone] = launch(1, *arguments, "-o", "whole.jsonl", cwd=folder)
    output, _ = alone.communicate(timeout=300)
    assert alone.returncode == 0, output
    processes = launch(2, *arguments, "-o", "answers.jsonl", cwd=folder)
    sidecar = folder / "answers.jsonl.partial.json"
    while not sidecar.exists() or json.loads(sidecar.read_bytes())["lines"] < 100:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (folder / "answers.jsonl").exists()
    launcher = subprocess.run(
        [*TORCHRUN, "--nproc-per-node=3", "-m", *arguments, "-o", "answers.jsonl", "--resume"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert launcher.returncode == 0, launcher.stderr
    assert launcher.stderr.count("answering with the") == 1
    assert (folder / "answers.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
