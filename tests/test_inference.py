"""Answers of a trained model: the forms of the questions, what an answer is, and exports that stand alone."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CPU
from helpers_cli import Tiny, fail, sign_export, succeed, write_sealed, write_tiny
from safetensors.numpy import load_file, save

from bidaf.data.squad import Example
from bidaf.data.vocabulary import Vocabulary, load_vectors_matrix
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.evaluation.evaluator import default_batch_tokens
from bidaf.files.sealed import SEAL
from bidaf.inference import predictor
from bidaf.inference.exported import INFO, PARTS, open_export
from bidaf.inference.loading import load_model
from bidaf.inference.predictor import MOST_ANSWERS, NUMBERS_PER_TOKEN, Predictor

CONTEXT = "Erik lives in Rome. The zebra sailed to Kiel in 1815."
ASKED = [("b", "Where does Erik live?"), ("a", "When did the zebra sail?"), ("c", "Who?")]
RECORDS = [{"id": id, "context": CONTEXT, "question": question} for id, question in ASKED]
UNICODE = [
    "I 👩‍👩‍👧 love 🍕 and 🏳️‍🌈!",
    "עברית נכתבת מימין לשמאל",
    "cafe\u0301 nai\u0308ve Zo\u00eb",
    "日本語のテキスト",
    "a\u00a0b\u2003c\u200bd\ttab\nline",
    "ﬁne ǅ İstanbul ẞ",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈",
]


@pytest.fixture(scope="session")
def export(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the shadow weights, far from the run."""
    folder = tmp_path_factory.mktemp("export") / "model"
    succeed("export", "-m", tiny.run, "-o", folder, cwd=tiny.folder)
    return folder


Predict = Callable[..., Any]


@pytest.fixture
def predict(export: Path, tmp_path: Path) -> Predict:
    """Answers the export gives to questions, from an empty folder; options go on to the command."""

    def predict(questions: Any, *options: object, model: Path = export) -> Any:
        path = tmp_path / "questions.json"
        path.write_text(json.dumps(questions), encoding="utf-8")
        return succeed("predict", path, "-m", model, *options, cwd=tmp_path).json

    return predict


def as_squad(answers: list[dict[str, Any]] | None) -> dict[str, Any]:
    questions = [{"id": id, "question": question} for id, question in ASKED]
    if answers is not None:
        questions = [{**question, "answers": answers} for question in questions]  # type: ignore[dict-item]
    return {"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": questions}]}]}


# Answering


@pytest.mark.parametrize(
    "questions",
    [
        as_squad(None),
        as_squad([]),
        as_squad([{"text": "Rome", "answer_start": 14}]),
        as_squad([{"text": "not there", "answer_start": 999}]),
    ],
)
def test_answers_come_in_the_order_of_the_questions_whatever_the_form(predict: Predict, questions: Any) -> None:
    answers = predict(RECORDS)
    assert list(answers) == ["b", "a", "c"]
    assert all(answer and answer in CONTEXT for answer in answers.values())
    assert list(predict(questions).items()) == list(answers.items())


def test_one_question_alone_json_lines_and_standard_input_give_the_same_answers(
    predict: Predict, export: Path, tmp_path: Path
) -> None:
    answers = predict(RECORDS)
    assert predict(RECORDS[0]) == {"b": answers["b"]}
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    (tmp_path / "questions.jsonl").write_text(lines)
    options = ("-m", export)
    for_lines = succeed("predict", "questions.jsonl", *options, "-o", "answers.json", cwd=tmp_path)
    assert for_lines.out == ""
    assert json.loads((tmp_path / "answers.json").read_text()) == answers
    assert succeed("predict", "-", *options, stdin=lines.encode(), cwd=tmp_path).json == answers
    unnamed = [{"context": CONTEXT, "question": record["question"]} for record in RECORDS]
    assert list(predict(unnamed).values()) == list(answers.values())
    assert list(predict(unnamed)) == ["0", "1", "2"]


def test_n_best_answers_are_distinct_spans_most_probable_first(predict: Predict) -> None:
    answers, records = predict(RECORDS), predict(RECORDS, "--n-best", 5)
    assert [(record["id"], record["question"]) for record in records] == ASKED
    for record in records:
        best = record["answers"]
        assert len({(answer["start"], answer["end"]) for answer in best}) == len(best) == 5
        assert all(answer["text"] == CONTEXT[answer["start"] : answer["end"]] for answer in best)
        probabilities = [answer["probability"] for answer in best]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < probabilities[-1] <= probabilities[0] <= 1
        assert best[0]["text"] == answers[record["id"]]


def test_of_all_spans_the_probabilities_are_those_of_the_ends_multiplied(predict: Predict) -> None:
    (record,) = predict({"context": "one two", "question": "How many?"}, "--n-best", 99)
    assert sorted(answer["text"] for answer in record["answers"]) == ["one", "one two", "two"]
    by_text = {answer["text"]: answer["probability"] for answer in record["answers"]}
    # The one span that is left is the one that ends before it starts.
    assert 0 < sum(by_text.values()) < 1


def test_a_context_of_one_word_and_a_question_of_one_word_have_that_answer(predict: Predict) -> None:
    assert predict({"id": 7, "context": "  Kiel\n", "question": "Where"}) == {"7": "Kiel"}


def test_a_context_of_thousands_of_tokens_is_read_to_its_end(predict: Predict) -> None:
    endings = [
        predict({"context": f"{'word ' * 3000}{ending}", "question": "Where?"}, "--n-best", 1)
        for ending in ("Rome", "a")
    ]
    probabilities = [record["answers"][0]["probability"] for (record,) in endings]
    assert probabilities[0] != probabilities[1]
    assert all(0 < probability < 1 for probability in probabilities)


def test_an_answer_does_not_depend_on_the_other_questions(predict: Predict) -> None:
    others = [{"id": f"o{number}", "context": "long " * 60 * number, "question": "Why?"} for number in (1, 2)]
    alone, together = (predict(questions, "--n-best", 2) for questions in (RECORDS, [*others, *RECORDS]))
    for ours, theirs in zip(alone, together[2:], strict=True):
        assert [(best["start"], best["end"]) for best in ours["answers"]] == [
            (best["start"], best["end"]) for best in theirs["answers"]
        ]
        assert [best["probability"] for best in ours["answers"]] == pytest.approx(
            [best["probability"] for best in theirs["answers"]], rel=1e-4
        )


@pytest.mark.parametrize("context", UNICODE)
def test_answers_in_any_script_are_cut_from_the_context_as_it_stands(predict: Predict, context: str) -> None:
    (record,) = predict({"context": context, "question": "🙂 ¿qué?"}, "--n-best", 9)
    assert record["question"] == "🙂 ¿qué?"
    assert record["answers"]
    for answer in record["answers"]:
        assert answer["text"] == context[answer["start"] : answer["end"]] != ""


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (rb'{"context": "a \ud800 b", "question": "Who?"}', "surrogate"),
        (rb'{"context": "a b", "question": "Who \udfff?"}', "surrogate"),
        (b'{"context": "a b", "question": ""}', "question"),
        (b'{"context": "a b", "question": " \\t"}', "question"),
        (b'{"context": "", "question": "Who?"}', "context"),
        (b'{"context": "a b"}', "question"),
        (b'{"context": 3, "question": "Who?"}', "context"),
        (b"[]", "no question can be used"),
        (b'{"data": []}', "no question can be used"),
        (b"", "is empty"),
        (b'{"context": "a b", "quest', "is not JSON at line 1"),
        (b"\xff\xfe\xfd", "is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'"text"', "has no known schema, it holds text"),
    ],
)
def test_a_question_that_is_none_is_one_message(export: Path, tmp_path: Path, content: bytes, problem: str) -> None:
    message = fail(3, "predict", "-", "-m", export, stdin=content, cwd=tmp_path)
    assert message.startswith("standard input")
    assert problem in message


def test_a_word_first_met_in_a_question_file_is_read_by_its_vector(
    predict: Predict, export: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(export, other)
    words = Vocabulary.load(other).fixed_words
    assert "zebra" in words
    vectors = load_vectors_matrix(other)
    vectors[words.index("zebra")] += 3
    Vocabulary.load(other).save(other, vectors)
    sign_export(other)
    with_word = {"context": CONTEXT, "question": "Where?"}
    without_word = {"context": "Erik lives in Rome.", "question": "Where?"}
    assert predict(with_word, "--n-best", 1) != predict(with_word, "--n-best", 1, model=other)
    assert predict(without_word, "--n-best", 1) == predict(without_word, "--n-best", 1, model=other)


# Exports


def test_an_export_alone_answers_as_its_run_does(tiny: Tiny, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(tiny.folder, home, symlinks=True)
    (home / "questions.json").write_text(json.dumps(RECORDS))
    (tmp_path / "away").mkdir()
    for flag in ("--use-ema", "--no-use-ema"):
        options = ("--n-best", 3, flag)
        of_run = succeed("predict", "questions.json", "-m", "tiny", *options, cwd=home).json
        succeed("export", "-m", "tiny", "-o", f"../away/{flag}", flag, cwd=home)
        shutil.copytree(tmp_path / "away" / flag, tmp_path / "moved" / flag)
    questions = (home / "questions.json").rename(tmp_path / "questions.json")
    shutil.rmtree(home)
    shutil.rmtree(tmp_path / "away")
    of_exports = [
        succeed("predict", questions, "-m", f"./{flag}", "--n-best", 3, flag, cwd=tmp_path / "moved").json
        for flag in ("--use-ema", "--no-use-ema")
    ]
    assert of_exports[1] == of_run
    assert of_exports[0] != of_exports[1]


def test_an_export_holds_the_weights_it_names_and_its_card_says_so(tiny: Tiny, tmp_path: Path) -> None:
    scores = tiny.last_scores()
    for weights, flag in (("ema", "--use-ema"), ("raw", "--no-use-ema")):
        ran = succeed("export", "-m", tiny.run, "-o", tmp_path / weights, flag, "--json", cwd=tiny.folder).json
        folder = tmp_path / weights
        assert ran["folder"] == str(folder)
        about = json.loads((folder / "export.json").read_text())
        assert {**about, "folder": str(folder)} == {**ran, SEAL: about[SEAL]}
        assert (about["weights"], about["step"]) == (weights, 20)
        assert about["scores"] == scores
        exported = load_file(folder / "model.safetensors")
        saved = load_file(tiny.run / "best" / "weights" / f"{weights}.safetensors")
        assert exported.keys() == saved.keys()
        assert all(np.array_equal(exported[name], saved[name]) for name in saved)
        card = (folder / "README.md").read_text()
        assert "on dev.json (6 questions)" in card
        for each in ("raw", "ema"):
            row = f"| {each}{' (these)' if each == weights else ''} | {scores[each]['exact_match']:.2f} | "
            assert f"{row}{scores[each]['f1']:.2f} |" in card
        assert ("decay 0.98, warm-up none, 20 updates" in card) == (weights == "ema")
        assert ("the raw weights" in card) == (weights == "raw")
        assert "tiny" not in card  # nothing of where it was trained
        assert "20 steps of 6 questions, adam (learning rate 0.1, constant)" in card
        assert "trained on | train.json (6 questions)" in card


def test_a_checkpoint_is_exported_with_its_own_step_and_score(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tiny.run / "checkpoints" / "step-000020"
    ran = succeed("export", "-m", checkpoint, "-o", tmp_path / "model", cwd=tiny.folder)
    assert ran.out == f"ema weights of step 20 in {tmp_path / 'model'}\n"


def test_an_export_goes_into_a_new_or_empty_folder_alone(tiny: Tiny, export: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in ("full", "file"):
        message = fail(2, "export", "-m", tiny.run, "-o", tmp_path / taken, cwd=tiny.folder)
        assert message == f"{tmp_path / taken} exists and is not empty; name a new folder"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    succeed("export", "-m", tiny.run, "-o", tmp_path / "empty", cwd=tiny.folder)
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == sorted(
        path.name for path in export.iterdir()
    )
    assert "is an export already" in fail(2, "export", "-m", export, "-o", tmp_path / "again", cwd=tiny.folder)


@pytest.mark.parametrize(
    ("asked", "held", "flags"),
    [
        ("raw", "ema", ("--no-use-ema", "--use-ema")),
        ("ema", "raw", ("--use-ema", "--no-use-ema")),
        ("tail:25%", "raw", ("--weights=tail:25%", "--weights=raw")),
    ],
)
def test_weights_that_an_export_does_not_hold_are_refused_with_what_to_do(
    tiny: Tiny, tmp_path: Path, asked: str, held: str, flags: tuple[str, str]
) -> None:
    wrong, right = flags
    succeed("export", "-m", tiny.run, "-o", tmp_path / "model", right, cwd=tiny.folder)
    message = fail(3, "eval", "-m", tmp_path / "model", "-d", "dev.json", wrong, cwd=tiny.folder)
    assert f"holds the weight set {held} only, not {asked}" in message
    assert f"export the run again with --weights {asked}" in message
    for flag in ((), (right,)):  # what it holds needs no option
        ran = succeed("eval", "-m", tmp_path / "model", "-d", "dev.json", *flag, "--json", cwd=tiny.folder)
        assert ran.json["weights"] == held


def test_a_run_without_an_average_answers_with_its_raw_weights(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    succeed("train", "-c", "tiny.yaml", "-s", "ema.enabled=false", "-s", "training.max_steps=1", cwd=tmp_path)
    for command in (("export", "-o", "model"), ("eval",), ("predict", "dev.json")):
        assert "holds no ema weights, only raw" in fail(3, *command, "--use-ema", cwd=tmp_path)
    assert not (tmp_path / "model").exists()
    assert succeed("export", "-o", "model", cwd=tmp_path).out.startswith("raw weights of step 1")
    assert succeed("eval", "--json", cwd=tmp_path).json["weights"] == "raw"
    assert "raw weights of runs/" in succeed("predict", "dev.json", cwd=tmp_path).err


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def remove(path: Path) -> None:
    path.unlink()


def replace_with(text: str) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.write_text(text)

    return replace


def about_with(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        write_sealed(path, {**json.loads(path.read_text()), **changes})

    return change


def reshaped(cut: Callable[[Any], Any]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(save({"vectors": np.ascontiguousarray(cut(load_file(path)["vectors"]))}))

    return change


narrow, shorten, flatten = reshaped(lambda m: m[:, :2]), reshaped(lambda m: m[:3]), reshaped(np.ravel)


@pytest.mark.parametrize(
    ("name", "tamper"),
    [
        ("export.json", cut),
        ("export.json", replace_with("")),
        ("export.json", replace_with("[]")),
        ("export.json", replace_with("{}")),
        ("export.json", about_with(format=99)),
        ("export.json", about_with(weights="../best")),
        ("export.json", about_with(weights=[])),
        ("export.json", about_with(made={"kind": "luck"})),
        ("export.json", about_with(made=None)),
        ("export.json", about_with(type="pickle")),
        ("export.json", about_with(step=-1)),
        ("export.json", about_with(files={})),
        ("config.yaml", remove),
        ("config.yaml", replace_with("data: 3")),
        ("vocabulary.json", remove),
        ("vocabulary.json", cut),
        ("vocabulary.json", replace_with('{"words": []}')),
        ("vectors.safetensors", remove),
        ("vectors.safetensors", cut),
        ("vectors.safetensors", narrow),
        ("vectors.safetensors", shorten),
        ("vectors.safetensors", flatten),
        ("model.safetensors", remove),
        ("model.safetensors", cut),
        ("model.safetensors", replace_with("")),
    ],
)
@pytest.mark.parametrize("signed", [False, True], ids=["damaged", "made so"])
def test_a_damaged_export_is_one_message(
    export: Path, tmp_path: Path, name: str, tamper: Callable[[Path], None], signed: bool
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(export, folder)
    tamper(folder / name)
    if signed and name != "export.json":
        sign_export(folder)
    message = fail(3, "predict", "-", "-m", folder, stdin=json.dumps(RECORDS).encode(), cwd=tmp_path)
    assert str(folder) in message


def test_a_context_that_the_memory_cannot_hold_is_refused_with_its_question(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Predictor(load_model(str(export), device=CPU))
    examples = [Example("short", "Who?", "Erik.", ()), Example("long", "Who?", CONTEXT, ())]
    tokens = len(model.tokenizer.tokenize(CONTEXT))
    needed = 4 * NUMBERS_PER_TOKEN["paper"] * model.loaded.config.model.hidden_size * tokens
    monkeypatch.setattr(predictor, "free_memory", lambda device: needed)
    assert model.features(examples).ids == ["short", "long"]
    monkeypatch.setattr(predictor, "free_memory", lambda device: needed - 1)
    with pytest.raises(BidafError, match=f"question 'long': its context has {tokens} tokens.*ask on parts"):
        model.features(examples)


def test_a_batch_is_what_the_config_asks_for_or_half_the_free_memory(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Predictor(load_model(str(export), device=CPU))
    features = model.features([Example("q", "Who?", CONTEXT, ())])
    per_token = 4 * NUMBERS_PER_TOKEN["paper"] * model.loaded.config.model.hidden_size
    seen: list[int] = []

    def noting(*_: object, batch_tokens: int, **options: object) -> dict[str, list[Any]]:
        seen.append(batch_tokens)
        return {}

    monkeypatch.setattr(predictor, "predict_spans", noting)
    for free in (None, 10**15, 14 * per_token, 0):
        monkeypatch.setattr(predictor, "free_memory", lambda device, free=free: free)
        model.predict(features)
    asked = model.loaded.config.evaluation.batch_tokens or default_batch_tokens(CPU)
    assert seen == [asked, asked, 7, 1]


def test_a_text_without_a_word_is_refused_by_its_name(export: Path) -> None:
    model = Predictor(load_model(str(export), device=CPU))
    assert model.ask("Who lives in Rome?", CONTEXT)
    for question, context, name in ((" ", CONTEXT, "question"), ("Who?", "\n", "context")):
        with pytest.raises(DataError, match=f"the {name} is empty"):
            model.ask(question, context)
    for number in (0, MOST_ANSWERS + 1):
        with pytest.raises(UsageError, match="n_best must be from 1"):
            model.ask("Who?", CONTEXT, number)


def test_every_changed_byte_of_an_export_is_found(export: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    folder = tmp_path / "model"
    shutil.copytree(export, folder)
    for name in (INFO, *PARTS["safetensors"]):
        intact = (folder / name).read_bytes()
        changed = [intact.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + intact] if name.endswith(("json", "yaml")) else []
        for _ in range(40):
            flipped = bytearray(intact)
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            changed.append(bytes(flipped))
        for content in filter(lambda content: content != intact, changed):
            (folder / name).write_bytes(content)
            with pytest.raises(DataError):
                open_export(folder)
        (folder / name).write_bytes(intact)
    open_export(folder)


def test_without_its_marker_a_folder_is_no_export(export: Path, tmp_path: Path) -> None:
    shutil.copytree(export, tmp_path / "model")
    (tmp_path / "model" / "export.json").unlink()
    assert str(tmp_path / "model") in fail(
        3, "predict", "-", "-m", tmp_path / "model", stdin=json.dumps(RECORDS).encode(), cwd=tmp_path
    )
