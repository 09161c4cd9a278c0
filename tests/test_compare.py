"""`bidaf compare`: what can be compared, where the answers come from, and what is printed and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_cli import Tiny, fail, succeed
from test_imports import imported

from bidaf.errors import UsageError
from bidaf.inference.loading import LoadedModel, load_model
from bidaf.inference.systems import pair_names

CONTEXT = "Anna lives in Oslo with two cats."


def write_dev(path: Path, articles: int = 8, each: int = 5, context: str = CONTEXT) -> list[str]:
    """SQuAD JSON in which every answer is Oslo; the ids."""
    data = [
        {
            "title": f"Article {article}",
            "paragraphs": [
                {
                    "context": context,
                    "qas": [
                        {
                            "id": f"{article}-{number}",
                            "question": "Where does Anna live?",
                            "answers": [{"text": "Oslo", "answer_start": context.index("Oslo")}],
                        }
                        for number in range(each)
                    ],
                }
            ],
        }
        for article in range(articles)
    ]
    path.write_text(json.dumps({"version": "1.1", "data": data}))
    return [f"{article}-{number}" for article in range(articles) for number in range(each)]


def write_answers(path: Path, ids: list[str], every: int) -> None:
    """A prediction file that is right on each question of this multiple."""
    path.write_text(json.dumps({id: "Oslo" if number % every == 0 else "two" for number, id in enumerate(ids)}))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """dev.json, worse.json and better.json."""
    ids = write_dev(tmp_path / "dev.json")
    write_answers(tmp_path / "worse.json", ids, 5)
    write_answers(tmp_path / "better.json", ids, 2)
    return tmp_path


def test_two_prediction_files_get_a_verdict(files: Path) -> None:
    ran = succeed("compare", "worse.json", "better.json", "-d", "dev.json", cwd=files)
    assert ran.out.splitlines()[-1].startswith("B is better (F1 +30.00, 95 % interval +")
    for shown in ("A: worse.json", "B: better.json", "40 questions on 8 articles", "A alone 4, B alone 16", "20.00"):
        assert shown in ran.out
    for kind in ("question word", "answer length", "context length", "answer position"):
        assert f"F1 by {kind}" in ran.out
    found = succeed("compare", "better.json", "worse.json", "-d", "dev.json", "--json", cwd=files).json
    assert found["verdict"] == "A is better"
    assert found["metrics"]["f1"]["difference"]["value"] == pytest.approx(-30)


def test_the_name_of_a_file_commands_no_terminal(files: Path) -> None:
    (files / "worse.json").rename(files / "\x1b[31mworse.json")
    ran = succeed("compare", "\x1b[31mworse.json", "better.json", "-d", "dev.json", cwd=files)
    assert "\x1b" not in ran.out
    assert r"A: \x1b[31mworse.json" in ran.out


def test_seeds_are_named_with_options_and_shown_apart(files: Path) -> None:
    names = ("--a", "worse.json", "--a", "worse.json", "--b", "better.json", "--b", "worse.json")
    ran = succeed("compare", *names, "-d", "dev.json", cwd=files)
    assert "seeds' part" in ran.out
    assert "in pair 2: A alone 0, B alone 0" in ran.out
    found = succeed("compare", *names, "-d", "dev.json", "--json", cwd=files).json
    assert found["seeds"] == 2
    assert found["metrics"]["f1"]["difference"]["seeds"]["standard_error"] == pytest.approx(15)


def test_few_articles_give_no_interval_and_say_why(files: Path) -> None:
    ids = write_dev(files / "few.json", articles=3)
    for name in ("a.json", "b.json"):
        write_answers(files / name, ids, 2)
    ran = succeed("compare", "a.json", "b.json", "-d", "few.json", cwd=files)
    assert "no verdict: the questions are on 3 articles, fewer than 6" in ran.out.splitlines()[-1]
    found = succeed("compare", "a.json", "b.json", "-d", "few.json", "--json", cwd=files).json
    assert found["metrics"]["f1"]["difference"]["interval"] is None
    assert "fewer than 6" in found["no_interval"]


def test_what_cannot_be_compared_is_one_message(files: Path, tiny: Tiny) -> None:
    write_answers(files / "part.json", ["0-0", "0-1", "x"], 1)
    data = ("-d", "dev.json")
    refused = fail(3, "compare", "worse.json", "part.json", *data, cwd=files)
    assert "different questions: 38 ('0-2', " in refused
    assert "1 ('x')" in refused
    assert "--data" in fail(2, "compare", "worse.json", "better.json", cwd=files)
    assert "no such file" in fail(3, "compare", "worse.json", "bettr.json", *data, cwd=files)
    assert "no run bettr" in fail(3, "compare", "worse.json", "bettr", *data, cwd=files)
    assert "has no weight sets" in fail(2, "compare", "worse.json", "better.json", *data, "--weights", "raw", cwd=files)
    assert "nothing to be compared with" in fail(2, "compare", "runs/tiny", "--weights", "raw", cwd=tiny.folder)
    assert "not both" in fail(2, "compare", "worse.json", "--b", "better.json", *data, cwd=files)
    assert "as many --a" in fail(2, "compare", "--b", "better.json", *data, cwd=files)
    assert "in pairs" in fail(2, "compare", "--a", "worse.json", "--b", "x.json", "--b", "y.json", *data, cwd=files)
    assert ".html, .png, .svg" in fail(2, "compare", "worse.json", "better.json", *data, "-o", "page.pdf", cwd=files)
    assert "no folder" in fail(2, "compare", "worse.json", "better.json", *data, "-o", "none/page.html", cwd=files)


@pytest.mark.parametrize(
    ("names", "weights", "expected"),
    [
        (([], []), [], ((None,), (None,), "raw", "ema")),
        ((["r"], []), ["decay:0.9", "ema"], (("r",), ("r",), "decay:0.9", "ema")),
        ((["r"], ["s"]), [], (("r",), ("s",), None, None)),
        ((["r"], ["s"]), ["raw"], (("r",), ("s",), "raw", "raw")),
        ((["r", "q"], ["s", "t"]), ["raw", "ema"], (("r", "q"), ("s", "t"), "raw", "ema")),
    ],
)
def test_one_weight_set_is_for_both_and_two_are_a_and_b(
    names: tuple[list[str], list[str]], weights: list[str], expected: tuple[object, ...]
) -> None:
    assert tuple(vars(pair_names(*names, weights)).values()) == expected


def test_more_than_two_weight_sets_are_refused() -> None:
    with pytest.raises(UsageError, match="found 3"):
        pair_names(["r"], [], ["raw", "ema", "raw"])


@pytest.mark.parametrize("suffix", [".html", ".png", ".svg", ".SVG"])
def test_a_page_or_a_plot_is_written_where_it_is_asked_for(files: Path, suffix: str) -> None:
    page = files / f"compared{suffix}"
    ran = succeed("compare", "worse.json", "better.json", "-d", "dev.json", "-o", page, "--json", cwd=files)
    assert str(page) in ran.err
    content = page.read_bytes()
    if suffix == ".png":
        assert content.startswith(b"\x89PNG")
        return
    text = content.decode()
    assert "<svg" in text
    assert "where" in text
    if suffix == ".html":
        assert "B is better (F1 +30.00" in text
        assert text.count('<svg class="chart"') == 5
        assert "script-src" in text


# Models


def test_a_run_is_compared_by_the_answers_its_evaluation_stored(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bidaf.inference.stored.load_named", lambda *args, **kwargs: pytest.fail("a model was loaded"))
    found = succeed("compare", "--json", cwd=tiny.folder).json
    scores = tiny.last_scores()
    for side, weights in (("a", "raw"), ("b", "ema")):
        for metric in ("exact_match", "f1"):
            assert found["metrics"][metric][side]["value"] == pytest.approx(scores[weights][metric])
        assert found[side].startswith(f"{weights} of ")
    again = succeed(
        "compare", "tiny", "runs/tiny/checkpoints/step-000020", "--weights", "ema", "--json", cwd=tiny.folder
    )
    assert again.json["metrics"]["f1"]["difference"]["value"] == 0


def test_an_export_and_changed_questions_are_answered_now(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed("export", "-o", tmp_path / "export", cwd=tiny.folder)
    found = succeed("compare", "tiny", tmp_path / "export", "--json", cwd=tiny.folder).json
    assert found["metrics"]["f1"]["difference"]["value"] == 0
    assert found["mcnemar"] == [{"only_a": 0, "only_b": 0, "p_value": 1.0}]
    # The same ids on other contexts: what is stored answers other questions.
    dev = json.loads((tiny.folder / "dev.json").read_text())
    for paragraph in dev["data"][0]["paragraphs"]:
        paragraph["context"] += " No answer stands here."
    (tmp_path / "changed.json").write_text(json.dumps(dev))
    loaded: list[str] = []

    def load(name: str, **options: Any) -> LoadedModel:
        loaded.append(name)
        return load_model(name, **options)

    monkeypatch.setattr("bidaf.inference.stored.load_named", load)
    succeed("compare", "tiny", "--data", tmp_path / "changed.json", "--json", cwd=tiny.folder)
    assert len(loaded) == 2
    succeed("compare", "tiny", "--data", "dev.json", "--json", cwd=tiny.folder)
    assert len(loaded) == 2


def test_a_run_and_a_prediction_file_are_compared_on_the_run_s_questions(tiny: Tiny, tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    succeed("predict", "dev.json", "-o", answers, cwd=tiny.folder)
    found = succeed("compare", answers, "tiny", "--json", cwd=tiny.folder).json
    assert found["metrics"]["exact_match"]["difference"]["value"] == 0
    assert found["questions"] == 6
    for sides in ((answers, "tiny"), ("tiny", answers)):
        ran = succeed("compare", *sides, "--weights", "raw", "--json", cwd=tiny.folder)
        assert [ran.json[side].startswith("raw of ") for side in "ab"] == [each == "tiny" for each in sides]
    twice = ("--weights", "raw", "--weights", "ema")
    assert "has no weight sets" in fail(2, "compare", answers, "tiny", *twice, cwd=tiny.folder)
    assert "name a second one" in fail(2, "compare", answers, cwd=tiny.folder)
    assert "name a second one" in fail(2, "compare", answers, *twice, cwd=tiny.folder)


def test_an_average_is_compared_by_its_name(tiny: Tiny) -> None:
    names = ("compare", "tiny", "--weights", "ema", "--weights", "half-life:5")
    assert "predicted error" in fail(2, *names, cwd=tiny.folder)
    ran = succeed(*names, "--allow-error", "--json", cwd=tiny.folder)
    assert ran.json["b"].startswith("half-life:5 of ")
    assert "predicted error" in ran.err


# Cost


def test_two_files_of_10570_questions_take_under_two_seconds_and_no_torch(tmp_path: Path) -> None:
    context = " ".join(["word"] * 110) + " Oslo" + " word" * 9
    ids = write_dev(tmp_path / "dev.json", articles=70, each=151, context=context)
    assert len(ids) == 10_570
    write_answers(tmp_path / "a.json", ids, 3)
    write_answers(tmp_path / "b.json", ids, 2)
    seconds, heavy = imported(tmp_path, "compare", "a.json", "b.json", "-d", "dev.json")
    assert heavy == set()
    assert seconds < 2
