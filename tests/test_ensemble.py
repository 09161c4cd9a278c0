"""Ensembles: the rules, the score by number of members, members of every kind, and the folder that is one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_cli import Tiny, fail, sign_export, succeed

import bidaf
from bidaf.data.squad import Example
from bidaf.ema.average import trained_weights
from bidaf.errors import DataError, UsageError
from bidaf.evaluation.ensemble import RULES, Rule, combine, number_of_ensembles, score_sizes, some_ensembles
from bidaf.evaluation.evaluator import Prediction
from bidaf.evaluation.n_best import read_n_best
from bidaf.evaluation.questions import GoldQuestion
from bidaf.evaluation.statistics import estimate
from bidaf.inference.ensemble import Ensemble, load_named
from bidaf.inference.ensemble_folder import ENSEMBLE
from bidaf.inference.ensemble_predictor import EnsemblePredictor
from bidaf.inference.explain import explain
from bidaf.inference.loading import load_model
from bidaf.inference.predictor import Predictor
from bidaf.inference.score_ensemble import mean_weights
from bidaf.runs.folder import Run

CPU = torch.device("cpu")
CONTEXT = "Dora lives in Rome. She has ten dogs."


def answers(*found: tuple[str, int, float]) -> list[Prediction]:
    """Text, start, probability."""
    return [Prediction(text, start, start + len(text), p) for text, start, p in found]


def ranked(members: Sequence[list[Prediction]], rule: Rule) -> list[tuple[str, int, float]]:
    return [(each.text, each.start, round(each.probability, 6)) for each in combine(members, rule)]


# Rules


def test_sum_adds_the_confidences_in_a_text() -> None:
    # "Rome" stands twice: a member's confidence in it is that in its better span.
    first = answers(("Rome", 0, 0.4), ("Oslo", 20, 0.35), ("Rome", 10, 0.2))
    second = answers(("Kiel", 30, 0.5), ("Oslo", 20, 0.3))
    third = answers(("Rome", 10, 0.45), ("", 0, 0.1))
    assert ranked([first, second, third], "sum") == [
        ("Rome", 10, round(0.85 / 3, 6)),  # the most confident member says where
        ("Oslo", 20, round(0.65 / 3, 6)),
        ("Kiel", 30, round(0.5 / 3, 6)),
        ("", 0, round(0.1 / 3, 6)),
    ]


def test_product_multiplies_the_probabilities_of_a_span() -> None:
    first = answers(("Rome", 0, 0.4), ("Oslo", 20, 0.3), ("", 0, 0.001))
    second = answers(("Oslo", 20, 0.5), ("Kiel", 30, 0.1), ("", 0, 0.4))
    assert ranked([first, second], "product") == [
        ("Oslo", 20, round((0.3 * 0.5) ** 0.5, 6)),
        ("Rome", 0, round((0.4 * 0.1) ** 0.5, 6)),  # the second member's smallest span; "no answer" is none
        ("Kiel", 30, round((0.3 * 0.1) ** 0.5, 6)),
        ("", 0, round((0.001 * 0.4) ** 0.5, 6)),
    ]


def test_the_product_of_many_small_probabilities_is_not_zero() -> None:
    unsure = answers(("Rome", 0, 3e-4), ("Oslo", 20, 5e-4))
    assert ranked([unsure] * 100, "product") == [("Oslo", 20, 0.0005), ("Rome", 0, 0.0003)]


@pytest.mark.parametrize("rule", RULES)
def test_no_answer_is_an_answer_like_any_other(rule: Rule) -> None:
    says_nothing = answers(("", 0, 0.6), ("Rome", 3, 0.2))
    assert combine([says_nothing, says_nothing, answers(("Rome", 3, 0.9), ("", 0, 0.3))], rule)[0].text == ""


@pytest.mark.parametrize("rule", RULES)
def test_an_ensemble_of_one_answers_as_that_member(rule: Rule) -> None:
    member = answers(("a", 0, 0.3), ("b", 2, 0.3), ("c", 9, 0.2), ("", 0, 0.1))
    assert combine([member], rule) == member


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_members_changes_nothing(rule: Rule) -> None:
    draw = np.random.default_rng(0)
    probabilities = draw.random((5, 4)).tolist()
    members = [answers(*zip("abcd", range(4), row, strict=True)) for row in probabilities]
    expected = combine(members, rule)
    for _ in range(5):
        assert combine([members[number] for number in draw.permutation(5)], rule) == expected


# Scores


@pytest.mark.parametrize("members", [2, 3, 7])
def test_every_member_is_in_equally_many_ensembles(members: int) -> None:
    for size in range(1, members + 1):
        chosen = some_ensembles(members, size)
        assert len({frozenset(each) for each in chosen}) == len(chosen) == (1 if size == members else members)
        assert len({sum(number in each for each in chosen) for number in range(members)}) == 1
    assert number_of_ensembles(members) == members * (members - 1) + 1


def questions_on(articles: int, each: int) -> list[GoldQuestion]:
    return [
        GoldQuestion(f"{article}-{number}", f"Article {article}", "Where?", CONTEXT, ("Rome",), 14)
        for article in range(articles)
        for number in range(each)
    ]


def test_the_gain_is_that_of_the_ensemble_over_its_members_by_article() -> None:
    questions = questions_on(8, 3)
    draw = np.random.default_rng(1)
    right = draw.random((3, len(questions))) < 0.6  # of each member
    members = {
        str(number): {
            question.id: answers(("Rome", 14, 0.5)) if is_right else answers(("ten", 28, 0.4))
            for question, is_right in zip(questions, row, strict=True)
        }
        for number, row in enumerate(right)
    }
    score = score_sizes(questions, members, "sum", "none")
    assert [row.members for row in score.sizes] == [1, 2, 3]
    assert score.sizes[0].scores["exact_match"] == pytest.approx(list(100 * right.mean(1)))
    single, all_three = 100 * right.mean(0), 100.0 * (right.sum(0) >= 2)
    assert score.scores["f1"] == pytest.approx(all_three.mean())
    # Of two that disagree, the more confident one is right.
    assert score.sizes[1].scores["f1"][0] == pytest.approx(100 * (right[0] | right[1]).mean())
    expected = estimate([list(all_three - single)], [question.article for question in questions])
    found = score.sizes[-1].metrics["f1"].difference
    assert found.value == pytest.approx(expected.value)
    assert found.interval == pytest.approx(expected.interval)
    assert (score.questions, score.articles, score.no_mean) == (24, 8, "none")
    with pytest.raises(DataError, match="no question"):
        score_sizes([], members, "sum", "none")


def test_only_some_answers_with_no_answer_are_refused() -> None:
    questions = questions_on(1, 2)
    with_it, without = answers(("Rome", 14, 0.5), ("", 0, 0.3)), answers(("Rome", 14, 0.5))
    all_of, some, none = ([with_it, with_it], [with_it, without], [without, without])
    for members, words in (
        ([some, some], '0 gives some questions a probability of "no answer"'),
        ([all_of, some], "1 gives some questions"),
        ([none, all_of], "1 gives each question .* and 0 does not"),
    ):
        found = {str(number): dict(zip(("0-0", "0-1"), each, strict=True)) for number, each in enumerate(members)}
        with pytest.raises(DataError, match=words):
            score_sizes(questions, found, "sum", "none")


# N-best files


def record(id: str = "0-0", **changes: Any) -> dict[str, Any]:
    answer = {"text": "Rome", "start": 14, "end": 18, "probability": 0.5}
    return {"id": id, "question": "Where?", "answers": [answer], **changes}


def test_an_n_best_file_gives_its_answers_and_the_probability_of_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record(no_answer=0.3)) + "\n" + json.dumps(record("other")))
    found = read_n_best(tmp_path / "a.jsonl").candidates(questions_on(1, 1))
    assert found == {"0-0": answers(("Rome", 14, 0.5), ("", 0, 0.3))}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"0-0": "Rome"}, "n-best"),
        ([record(), record()], "already answered"),
        ([record(answers=[])], r"\[0\].*answers"),
        ([record(answers=[{"text": "", "start": 0, "end": 0, "probability": 0.9}])], r"\[0\].*--n-best 2"),
        ([record(answers=[{"text": "Rome", "start": 14, "end": 18}])], "probability"),
        ([record(answers=[{"text": "Rome", "start": 14, "end": 18, "probability": 1.5}])], "probability"),
        ([record("other")], "other questions: 1 of 1"),
        ([record(question="When?")], "asks something else"),
        ([record(answers=[{"text": "Rome", "start": 3, "end": 7, "probability": 0.5}])], "at its offsets"),
    ],
)
def test_a_file_that_answers_something_else_is_refused(tmp_path: Path, content: Any, problem: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=problem):
        read_n_best(tmp_path / "a.json").candidates(questions_on(1, 1))


# Models

SETTINGS = {
    "seed1": ["training.seed=1", "training.max_steps=6"],
    "words": ["training.seed=2", "training.max_steps=6", "data.min_word_count=1"],
}


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dev.json, the runs tiny, seed1 and words (another vocabulary), and plain, which splits less."""
    folder = tmp_path_factory.mktemp("ensemble")
    shutil.copytree(tiny.run, folder / "tiny", symlinks=True)
    shutil.copy(tiny.folder / "dev.json", folder)
    for name, settings in SETTINGS.items():
        sets = [f"--set={setting}" for setting in settings]
        succeed("train", "-c", "tiny.yaml", "--run-dir", folder / name, *sets, cwd=tiny.folder)
    succeed("export", "-m", "tiny", "-o", "plain", cwd=folder)
    config = (folder / "plain/config.yaml").read_text()
    assert "second_split: true" in config
    (folder / "plain/config.yaml").write_text(config.replace("second_split: true", "second_split: false"))
    sign_export(folder / "plain")
    return folder


@pytest.fixture(scope="module")
def exported(runs: Path) -> Path:
    """The ensemble of three runs with two vocabularies, exported, and what the command printed."""
    ran = succeed(
        *("ensemble", "tiny", "seed1", "words", "--export", "all", "-p", "all.json", "--plot", "all.svg", "--json"),
        cwd=runs,
    )
    (runs / "printed.json").write_text(ran.out)
    return runs / "all"


def test_members_of_other_vocabularies_read_the_questions_in_their_own_rows(runs: Path) -> None:
    loaded = load_named([str(runs / name) for name in ("tiny", "words")], device=CPU)
    assert isinstance(loaded, Ensemble)
    own = load_model(str(runs / "words"), device=CPU)
    assert own.vocabulary != load_model(str(runs / "tiny"), device=CPU).vocabulary
    dev, expected = loaded.dev_features(), own.dev_features()
    assert dev is not None
    assert expected is not None
    _, other = EnsemblePredictor(loaded).members(dev)
    for name in ("word_rows", "chars", "context_types", "question_types"):
        np.testing.assert_array_equal(getattr(other.features, name), getattr(expected, name))
    assert other.predictor.answer(other.features, 5) == Predictor(own).answer(expected, 5)


def test_n_best_files_score_as_the_models_that_wrote_them(runs: Path) -> None:
    files = []
    for name in ("tiny", "seed1", "words"):
        files.append(f"{name}.n_best.json")
        succeed("predict", "dev.json", "-m", name, "--n-best", 20, "-o", files[-1], cwd=runs)
    for rule in RULES:
        models = succeed("ensemble", "tiny", "seed1", "words", "--rule", rule, "--json", cwd=runs).json
        told = succeed("ensemble", *files, "--rule", rule, "-d", "dev.json", "--json", cwd=runs).json
        mixed = succeed("ensemble", "tiny", *files[1:], "--rule", rule, "--json", cwd=runs).json
        assert models["sizes"] == told["sizes"] == mixed["sizes"]
        assert [each["name"] for each in models["members"]] == ["tiny", "seed1", "words"]
        assert told["no_mean"] == "n-best files have no weights"


def test_the_command_shows_members_sizes_and_the_mean_of_the_weights(runs: Path) -> None:
    shown = succeed("ensemble", "tiny", "seed1", "-w", "raw", "-o", "two.json", "--n-best", 3, cwd=runs).out
    for expected in (
        "members on ",
        "tiny",
        "sum rule",
        "95 % interval",
        "mean of the weights",
        "6 questions on 1",
    ):
        assert expected in shown
    records = json.loads((runs / "two.json").read_text())
    assert [list(each) for each in records] == [["id", "question", "answers"]] * 6
    both = [load_model(str(runs / name), weights="raw", device=CPU) for name in ("tiny", "seed1")]
    mean = mean_weights(both)
    assert not isinstance(mean, str)
    first, second, joined = ([*trained_weights(each.model)] for each in (*both, mean))
    for (_, a), (_, b), (_, c) in zip(first, second, joined, strict=True):
        torch.testing.assert_close(c, (a + b) / 2)
    assert "vocabularies" in str(mean_weights([both[0], load_model(str(runs / "words"), device=CPU)]))


def test_a_folder_of_an_experiment_or_an_ensemble_stands_for_its_models(runs: Path, exported: Path) -> None:
    experiment = runs / "experiment"
    experiment.mkdir()
    (experiment / "experiment.yaml").write_text("seeds: [0, 1]\n")
    assert "no run yet" in fail(3, "ensemble", "experiment", cwd=runs)
    for name in ("tiny", "seed1"):
        (experiment / name).symlink_to(runs / name)
        shutil.copytree(runs / name, experiment / f"base-{name}", symlinks=True)
    Run(experiment / "base-seed1").log_end("interrupted", 6, "interrupted and saved")
    ran = succeed("ensemble", "experiment", "--json", cwd=runs)
    assert [each["name"] for each in ran.json["members"]] == ["base-seed1", "base-tiny"]
    assert "base-seed1 is a member, and not finished (interrupted at step 6)" in ran.err
    assert "base-tiny is not" not in ran.err
    found = succeed("ensemble", "all", "-d", "dev.json", "--json", cwd=runs).json
    assert found["sizes"][-1]["scores"] == json.loads((runs / "printed.json").read_text())["sizes"][-1]["scores"]


def test_an_exported_ensemble_is_used_like_a_model(runs: Path, exported: Path, tmp_path: Path) -> None:
    printed = json.loads((runs / "printed.json").read_text())
    written = json.loads((runs / "all.json").read_text())
    moved = tmp_path / "moved"
    exported.rename(moved)  # it needs nothing of the runs
    try:
        scored = succeed("eval", "-m", moved, "-d", runs / "dev.json", "--json", cwd=tmp_path).json
        predicted = succeed("predict", runs / "dev.json", "-m", moved, cwd=tmp_path).json
        records = succeed("predict", runs / "dev.json", "-m", moved, "--n-best", 2, cwd=tmp_path).json
        asked = succeed("ask", "-m", moved, "-c", "-", "-q", "Where?", cwd=tmp_path, stdin=CONTEXT.encode())
        compared = succeed("compare", moved, moved, "-d", runs / "dev.json", "--json", cwd=tmp_path).json
        model = bidaf.load(moved)
        assert bidaf.evaluate(model, runs / "dev.json").predictions == written
        assert "member" in fail(2, "export", "-m", moved, "-f", "onnx", "-o", "graph", cwd=tmp_path)
        assert "leave out" in fail(2, "eval", "-m", moved, "-w", "raw", cwd=tmp_path)
    finally:
        moved.rename(exported)
    for metric in ("exact_match", "f1"):
        assert scored[metric] == pytest.approx(printed[metric])
    assert predicted == written == {each["id"]: each["answers"][0]["text"] for each in records}
    assert "ensemble" in asked.err
    assert asked.out.count("\t") == 1
    assert compared["metrics"]["f1"]["difference"]["value"] == 0
    listed = bidaf.load([runs / "tiny", runs / "seed1", runs / "words"])
    assert listed.ask("Where?", CONTEXT, 3) == model.ask("Where?", CONTEXT, 3)
    assert "3 models (sum rule)" in listed.loaded.description


def test_explain_shows_the_members_and_their_common_answer(runs: Path, exported: Path, tmp_path: Path) -> None:
    page, image = tmp_path / "page.html", tmp_path / "image.png"
    succeed("explain", "dev-0-0", "-m", exported, "-d", "dev.json", "-o", page, "--png", image, cwd=runs)
    text = page.read_text()
    for shown in ("The ensemble answers", '"label":"tiny"', '"label":"seed1"', '"label":"words"'):
        assert shown in text.replace('": "', '":"')
    assert image.read_bytes().startswith(b"\x89PNG")
    explained = bidaf.explain(bidaf.load(exported), "Where?", CONTEXT)
    alone = bidaf.explain(bidaf.load(runs / "words"), "Where?", CONTEXT)
    assert [each.weights for each in explained.explanations] == ["tiny", "seed1", "words"]
    np.testing.assert_array_equal(explained.explanations[2].to_question, alone.explanations[0].to_question)
    assert explained.ensemble is not None
    assert alone.ensemble is None


def test_explain_says_which_member_lacks_which_attention(exported: Path) -> None:
    loaded = load_named(str(exported), device=CPU)
    assert isinstance(loaded, Ensemble)
    first, second, third = loaded.members
    config = second.config.model_copy(
        update={"model": second.config.model.model_copy(update={"attention": "context_to_query"})}
    )
    second = replace(second, source=replace(second.source, config=config))
    (explained,) = explain([replace(loaded, members=(first, second, third))], [Example("", "Where?", CONTEXT, ())])
    assert explained.lacks.startswith("seed1: This variant has no question-to-context attention")


def test_equal_files_of_members_take_their_space_once(exported: Path) -> None:
    vectors = [exported / "members" / str(number) / "vectors.safetensors" for number in (1, 2)]
    assert vectors[0].samefile(vectors[1])
    loaded = load_named(str(exported), device=CPU)
    assert isinstance(loaded, Ensemble)
    first, second, _ = loaded.members
    fixed = [dict(each.model.named_buffers())["embedding.word.fixed"] for each in (first, second)]
    assert fixed[0] is fixed[1]


def test_the_plot_shows_the_score_over_the_members(runs: Path, exported: Path) -> None:
    assert "members (sum rule)" in (runs / "all.svg").read_text()


def test_what_is_no_ensemble_is_one_message(runs: Path, tmp_path: Path) -> None:
    tiny, seed1, plain = runs / "tiny", runs / "seed1", runs / "plain"
    shutil.copy(runs / "dev.json", tmp_path)
    for name in ("other.json", "other2.json"):
        (tmp_path / name).write_text(json.dumps([record("elsewhere")]))
    succeed("predict", "dev.json", "-m", tiny, "--n-best", 1, "-o", "n_best.json", cwd=tmp_path)
    data = ("-d", "dev.json")
    for code, expected, args in (
        (3, "data.second_split (True and False)", (tiny, plain)),
        (2, "two members or more", (tiny,)),
        (2, "member twice", (tiny, tiny / "checkpoints/step-000020", "-w", "raw")),
        (2, "member twice", ("other.json", "./other.json", *data)),
        (2, "one for each: 2, not 3", (tiny, seed1, "-w", "raw", "-w", "ema", "-w", "raw")),
        (2, "no weight sets", ("other.json", "other2.json", "-w", "raw", *data)),
        (3, "other questions: 6 of 6", (tiny, "other.json")),
        (3, "no run nowhere", (tiny, "nowhere")),
        (3, "no such file", (tiny, "nowhere.json")),
        (2, "--data", ("other.json", "other2.json")),
        (2, "n-best file", (tiny, "n_best.json", "--export", "folder")),
        (2, ".png, .svg", (tiny, seed1, "--plot", "plot.pdf")),
        (2, "--predictions", (tiny, seed1, "--n-best", 3)),
        (2, "not empty", (tiny, seed1, "--export", ".")),
    ):
        assert expected in fail(code, "ensemble", *args, cwd=tmp_path)
    assert not (tmp_path / "folder").exists()
    with pytest.raises(UsageError, match="a rule joins several"):
        bidaf.load(tiny, rule="sum")
    with pytest.raises(UsageError, match="sum or product"):
        bidaf.load([tiny, seed1], rule="vote")  # type: ignore[arg-type]


def test_a_changed_ensemble_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    info = json.loads((exported / ENSEMBLE).read_text())
    members = info["members"]
    for change in ({"rule": "vote"}, {"format": 2}, {"members": members[:1]}, {"members": members[::-1]}):
        shutil.copytree(exported, folder)
        (folder / ENSEMBLE).write_text(json.dumps({**info, **change}))
        assert str(folder) in fail(3, "eval", "-m", folder, cwd=tmp_path)
        shutil.rmtree(folder)
    shutil.copytree(exported, folder)
    shutil.rmtree(folder / "members/2")
    (folder / "members/2").symlink_to(exported / "members/2")
    assert "no file of this folder" in fail(3, "eval", "-m", folder, cwd=tmp_path)
