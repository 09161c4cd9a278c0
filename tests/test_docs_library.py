"""What docs/library.md and docs/export.md say is so."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers_cli import Tiny, succeed

import bidaf
from bidaf.errors import BidafError, DataError
from bidaf.export import onnx

ROOT = Path(__file__).parents[1]
LIBRARY, EXPORT = ROOT / "docs" / "library.md", ROOT / "docs" / "export.md"


@pytest.fixture
def here(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds `model/`, as the pages begin."""
    succeed("export", "-m", tiny.run, "-o", tmp_path / "model", cwd=tiny.folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_run_in_their_order(here: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", LIBRARY.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) == 6
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, LIBRARY.name, "exec"), names)
    assert len(names["answers"]) == 3


def test_the_numbers_come_out_as_shown() -> None:
    found = doctest.testfile(str(LIBRARY), module_relative=False)
    assert found.attempted > 3
    assert found.failed == 0


def test_the_page_has_every_name_of_the_top_level() -> None:
    named = set(re.findall(r"\| `bidaf\.(\w+)", LIBRARY.read_text(encoding="utf-8")))
    assert named | {"__version__"} == set(bidaf.__all__)
    assert all(hasattr(bidaf, name) for name in bidaf.__all__)
    assert dir(bidaf) == bidaf.__all__
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        _ = bidaf.laod


def test_a_list_and_a_file_are_predicted_alike(here: Path) -> None:
    questions = [{"context": "Dora lives in Rome.", "question": "Where?"}, {"context": "One.", "question": "Two?"}]
    (here / "questions.json").write_text(json.dumps(questions))
    model = bidaf.load("model")
    assert bidaf.predict(model, questions) == bidaf.predict(model, "questions.json")
    ticks: list[int] = []
    bidaf.predict(model, here / "questions.json", on_progress=ticks.append)
    assert sum(ticks) == 2
    assert [answer.text for answer in model.ask("Two?", "One.")] == [bidaf.predict(model, questions)["1"]]


def test_a_question_alone_and_a_data_frame_are_predicted_as_a_list(here: Path) -> None:
    questions = [{"context": "Dora lives in Rome.", "question": "Where?"}, {"context": "One.", "question": "Two?"}]
    model = bidaf.load("model")
    expected = bidaf.predict(model, questions)
    assert bidaf.predict(model, questions[1]) == {"0": expected["1"]}
    assert bidaf.predict(model, iter(questions)) == expected
    frame = pd.DataFrame(questions).assign(answers=[np.array(["Rome"]), None], id=[7, 8])
    assert bidaf.predict(model, frame) == {"7": expected["0"], "8": expected["1"]}
    frame["answers"] = [{"text": np.array(["Rome"]), "answer_start": np.array([14])}, {"text": np.array([])}]
    frame["id"] = ["a", None]
    assert bidaf.predict(model, frame) == {"a": expected["0"], "1": expected["1"]}


WRONG: Any = bidaf  # untyped: these calls are what a type checker would refuse


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: WRONG.predict("model", [{"context": "a", "question": "b"}]), "load one first: bidaf.load"),
        (lambda m: WRONG.evaluate("model"), "load one first: bidaf.load"),
        (lambda m: WRONG.explain(None, "Who?", "Anna."), "load one first: bidaf.load"),
        (lambda m: WRONG.predict(m, None), "found NoneType"),
        (lambda m: WRONG.predict(m, 3), "found int"),
        (lambda m: WRONG.predict(m, ["Who?"]), "it holds text"),
        (
            lambda m: WRONG.predict(m, pd.DataFrame({"context": ["a", None], "question": ["b", "c"]})),
            r"context is missing or empty \(1\): \[1\]",
        ),
        (lambda m: WRONG.predict(m, pd.Series(["a"])), "it holds text"),
        (lambda m: WRONG.predict(m, {"context": "a", "question": "b"}, n_best=0), "n_best must be from 1"),
        (lambda m: WRONG.predict(m, {"context": "a", "question": "b"}, n_best=10**6), "n_best must be from 1"),
        (lambda m: m.ask("Who?", None), "the context must be text, found NoneType"),
        (lambda m: m.ask(b"Who?", "Anna."), "the question must be text, found bytes"),
        (lambda m: m.ask("Who?", " "), "the context is empty"),
        (lambda m: WRONG.explain(m, "Who?", ""), "the context is empty"),
        (lambda m: WRONG.score({"a": "Rome"}, {"a": "Rome"}), "gold answers to 'a'"),
        (lambda m: WRONG.score({"a": [3]}, {"a": "Rome"}), "gold answers to 'a'"),
        (lambda m: WRONG.score([], {"a": "Rome"}), "found a list"),
        (lambda m: WRONG.score({"a": ["Rome"]}, {"a": None}), "answer to 'a' must be text, found null"),
        (lambda m: WRONG.score({"a": ["Rome"]}, ["Rome"]), "found a list"),
    ],
)
def test_a_wrong_argument_is_one_of_our_errors(here: Path, call: Callable[[Any], object], said: str) -> None:
    with pytest.raises(BidafError, match=said):
        call(bidaf.load("model"))


def test_a_run_is_evaluated_and_explained_from_python(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.folder)
    model = bidaf.load("tiny", weights="raw", at=20)
    evaluation = bidaf.evaluate(model)
    assert evaluation.scores == tiny.last_scores()["raw"]
    assert bidaf.evaluate(model, "dev.json").predictions == evaluation.predictions
    explained = bidaf.explain(model, "Where does Dora live?", "Dora lives in Rome.", n_best=2)
    (explanation,) = explained.explanations
    assert explanation.weights == "raw"
    assert explanation.answers == model.ask("Where does Dora live?", "Dora lives in Rome.", 2)


def test_an_export_of_raw_weights_loads_as_what_it_is(tiny: Tiny, tmp_path: Path) -> None:
    succeed("export", "-m", tiny.run, "-o", tmp_path / "raw", "--no-use-ema", cwd=tiny.folder)
    assert bidaf.load(tmp_path / "raw").loaded.weights == "raw"
    with pytest.raises(DataError, match="holds the weight set raw only"):
        bidaf.load(tmp_path / "raw", weights="ema")


@pytest.mark.parametrize("questions", [[], [{"context": "a"}], [{"context": "a", "question": " "}], "nowhere.json"])
def test_what_is_no_question_is_refused(here: Path, questions: Any) -> None:
    with pytest.raises(DataError):
        bidaf.predict(bidaf.load("model"), questions)


def test_files_are_scored_as_what_they_hold(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text('{"dev-0-0": "Rome"}')
    of_files = bidaf.score(tiny.folder / "dev.json", str(tmp_path / "answers.json"))
    assert of_files == bidaf.score(tiny.folder / "dev.json", {"dev-0-0": "Rome"})
    assert of_files.exact_match == pytest.approx(100 / 6)


def test_the_page_on_exports_names_what_the_graph_takes_and_was_compared_at() -> None:
    page = EXPORT.read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| int64", page, flags=re.MULTILINE) == list(onnx.INPUTS)
    (row,) = re.findall(r"^\| model \| batch (.*) \|$", page, flags=re.MULTILINE)
    shapes = [tuple(map(int, re.findall(r"\d+", cell))) for cell in row.split("|")]
    assert shapes == list(onnx.CHECKED_SHAPES)
    assert f"opset is {onnx.OPSET}" in page
    assert f"pip install {' '.join(onnx.PACKAGES)}" in page
