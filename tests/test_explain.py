"""Explanations: the weights that answered, of the words that were asked about, as a page and as a picture."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_cli import DEV, Tiny, fail, succeed
from matplotlib.figure import Figure
from PIL import Image

from bidaf.data.batches import BatchSource
from bidaf.data.squad import Example
from bidaf.device import choose_device
from bidaf.evaluation.evaluator import predict_spans
from bidaf.inference.explain import dev_examples, explain
from bidaf.inference.loading import LoadedModel, load_weight_sets
from bidaf.model.attention import AttentionFlow, AttentionWeights
from bidaf.reporting import attention_image as picture
from bidaf.reporting.attention_image import attention_image
from bidaf.reporting.attention_page import attention_page


@pytest.fixture
def models(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> list[LoadedModel]:
    monkeypatch.chdir(tiny.folder)
    return load_weight_sets("tiny", None, choose_device("cpu"))


def page_data(page: Path) -> Any:
    text = page.read_text(encoding="utf-8")
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)[0])


def test_the_weights_shown_are_those_that_the_answer_was_made_with(
    models: list[LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[AttentionWeights] = []
    attend = AttentionFlow.attend

    def spy(self: AttentionFlow, *arguments: torch.Tensor) -> AttentionWeights:
        used.append(attend(self, *arguments))
        return used[-1]

    monkeypatch.setattr(AttentionFlow, "attend", spy)
    features = models[0].dev_features()
    assert features is not None
    (explained,) = explain(models, dev_examples(features, ["dev-2-1"]))
    assert [reading.weights for reading in explained.explanations] == ["raw", "ema"]
    assert len(used) == 2  # one forward pass per weight set
    for attention, reading in zip(used, explained.explanations, strict=True):
        assert attention.to_question is not None
        assert attention.to_context is not None
        np.testing.assert_array_equal(reading.to_question, attention.to_question[0].numpy())
        np.testing.assert_array_equal(reading.to_context, attention.to_context[0].numpy())
        for total in (reading.to_question.sum(1), reading.to_context.sum(), reading.start.sum(), reading.end.sum()):
            assert total == pytest.approx(1, abs=1e-5)
        assert reading.to_question.shape == (len(explained.context_words), len(explained.question_words))
        best = reading.answers[0]
        words = explained.context_words
        first = next(i for i, (start, _) in enumerate(words) if start == best.start)
        last = next(i for i, (_, end) in enumerate(words) if end == best.end)
        assert reading.start[first] * reading.end[last] == pytest.approx(best.probability, rel=1e-4)
    assert not np.array_equal(explained.explanations[0].to_question, explained.explanations[1].to_question)


@pytest.mark.parametrize(
    ("attention", "lack"),
    [
        ("context_to_query", "no question-to-context attention"),
        ("query_to_context", "no context-to-question attention"),
        ("dynamic", "no question-to-context attention"),
    ],
)
def test_a_variant_says_which_attention_it_lacks(tiny: Tiny, tmp_path: Path, attention: str, lack: str) -> None:
    run, page, image = tmp_path / "run", tmp_path / "page.html", tmp_path / "image.png"
    sets = [f"--set=model.attention={attention}", "--set=training.max_steps=1"]
    succeed("train", "-c", "tiny.yaml", "--run-dir", run, *sets, cwd=tiny.folder)
    succeed("explain", "dev-2-1", "-m", run, "-o", page, "--png", image, cwd=tiny.folder)
    (shown,) = page_data(page)
    assert lack in shown["lacks"]
    assert image.stat().st_size > 0
    for explanation in shown["explanations"]:
        assert all(weight == 0 for weight in explanation["toContext"]) is (attention != "query_to_context")
        weights = np.frombuffer(base64.b64decode(explanation["toQuestion"]), dtype="<u2")
        assert (len(set(weights.tolist())) == 1) is (attention == "query_to_context")


def test_the_first_of_the_n_best_is_the_answer(models: list[LoadedModel]) -> None:
    features = models[0].dev_features()
    assert features is not None
    source = BatchSource(features, choose_device("cpu"))
    for model in models:
        best = predict_spans(model.model, source, 3, batch_tokens=20, max_answer_tokens=None)
        one = predict_spans(model.model, source, batch_tokens=20, max_answer_tokens=None)
        assert {id: answers[:1] for id, answers in best.items()} == one


def test_questions_of_the_dev_set_are_those_of_the_file(tiny: Tiny, tmp_path: Path) -> None:
    for name, source in (("run.html", ()), ("file.html", ("--data", "dev.json"))):
        succeed("explain", "dev-0-0", "dev-2-0", *source, "-o", tmp_path / name, cwd=tiny.folder)
    assert page_data(tmp_path / "run.html") == page_data(tmp_path / "file.html")
    first, second = page_data(tmp_path / "run.html")
    assert (first["question"], first["gold"]) == ("Where does Dora live?", ["Rome", "in Rome"])
    assert [first["words"][word] for word in first["isGold"]] == ["in", "Rome"]
    assert (
        second["gaps"][0] + "".join(w + g for w, g in zip(second["words"], second["gaps"][1:], strict=True))
        == DEV[2][0]
    )
    predicted = {
        weights: json.loads((tiny.run / "predictions" / f"step-000020.{weights}.json").read_text())["dev-0-0"]
        for weights in ("raw", "ema")
    }
    assert {each["weights"]: each["answers"][0][0] for each in first["explanations"]} == {
        "raw": predicted["raw"], "ema": predicted["ema"]
    }  # fmt: skip


def test_a_text_of_one_s_own_comes_from_a_file_or_a_pipe(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(DEV[0][0], encoding="utf-8")
    asked = ("-q", "Where does Dora live?", "-m", "tiny")
    succeed("explain", "-c", tmp_path / "text.txt", *asked, "-o", tmp_path / "file.html", cwd=tiny.folder)
    ran = succeed(
        "explain", "-c", "-", *asked, "-o", tmp_path / "pipe.html", "--json", cwd=tiny.folder, stdin=DEV[0][0].encode()
    )
    assert ran.json == {"page": str(tmp_path / "pipe.html"), "png": None}
    assert page_data(tmp_path / "file.html") == page_data(tmp_path / "pipe.html")
    assert page_data(tmp_path / "file.html")[0]["explanations"][0]["exact"] is None


def test_an_export_has_one_reading(tiny: Tiny, tmp_path: Path) -> None:
    succeed("export", "--no-use-ema", "-o", tmp_path / "model", cwd=tiny.folder)
    asked = ("dev-0-0", "-m", tmp_path / "model", "-o", tmp_path / "page.html")
    succeed("explain", *asked, "--data", "dev.json", cwd=tiny.folder)
    (only,) = page_data(tmp_path / "page.html")
    assert [reading["weights"] for reading in only["explanations"]] == ["raw"]
    assert "The raw weights answer" in only["verdict"]
    assert "is an export and has no dev set" in fail(3, "explain", *asked, cwd=tiny.folder)


def test_a_run_without_a_shadow_is_explained_by_its_raw_weights(tiny: Tiny, tmp_path: Path) -> None:
    off = ("-s", "ema.enabled=false", "-s", "training.max_steps=1", "--run-dir", tmp_path / "raw")
    succeed("train", "-c", "tiny.yaml", *off, cwd=tiny.folder)
    succeed("explain", "dev-0-0", "-m", tmp_path / "raw", "-o", tmp_path / "page.html", cwd=tiny.folder)
    assert len(page_data(tmp_path / "page.html")[0]["explanations"]) == 1
    assert "keeps no average" in (tmp_path / "raw" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [1, 41, 900])
def test_the_picture_holds_a_context_of_any_length(
    models: list[LoadedModel], monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    monkeypatch.setattr(picture, "MAX_WORDS", 60)
    context = " ".join(["$Dora$"] * words)
    (explained,) = explain(models, [Example("1", "Where is $x^{?", context, ())])
    with Image.open(io.BytesIO(attention_image(explained))) as image:
        assert image.format == "PNG"
        assert image.height < 900
        colours = image.convert("RGB").getcolors(1 << 20)
        assert colours is not None
        assert len(colours) > 20


def test_the_picture_explains_its_marks(models: list[LoadedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: Any, **options: Any) -> None:
        drawn.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    (explained,) = explain(models, [Example("1", "Where does Dora live?", DEV[0][0], ())])
    attention_image(explained)
    (figure,) = drawn
    text = " ".join(" ".join(each.get_text() for each in figure.texts).split())
    for mark in ("Shade:", "Outlined:", "Bold:", "Bars:"):
        assert mark in text
    for each in figure.texts:
        box = each.get_window_extent()
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1


def test_a_page_stays_small_for_a_long_context(models: list[LoadedModel]) -> None:
    context, question = " ".join(["Dora"] * 400), " ".join(["where"] * 30)
    page = attention_page(list(explain(models, [Example("1", question, context, ())])), "a run")
    assert len(page) < 150_000


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (2, (), "name ids of a dev set, or give --context FILE with --question"),
        (2, ("dev-0-0", "-c", "dev.json", "-q", "Who?"), "(and not both)"),
        (2, ("-q", "Who?"), "--context and --question go together"),
        (2, ("dev-0-0", "-c", "dev.json"), "--context and --question go together"),
        (2, ("-q", "Who?", "-c", "dev.json", "-d", "dev.json"), "--data goes with ids"),
        (2, ("dev-0-0", "dev-0-1", "--png", "x.png"), "--png draws one question"),
        (3, ("dev-0-9",), "the dev set has no question with the id 'dev-0-9'; did you mean 'dev-0-"),
        (3, ("zzz", "-d", "dev.json"), "dev.json has no question with the id 'zzz'; one of them is 'dev-0-0'"),
        (3, ("-c", "nope.txt", "-q", "Who?"), "nope.txt: no such file"),
        (3, ("-c", "empty.txt", "-q", "Who?"), "the context is empty"),
        (3, ("-c", "dev.json", "-q", " "), "--question is empty"),
        (2, ("dev-0-0", "-o", "no/page.html"), "no/page.html can't be written"),
        (2, ("dev-0-0", "-o", "page.html", "--png", "no/x.png"), "no/x.png can't be written"),
        (2, ("dev-0-0", "--both", "--use-ema"), "contradict each other"),
        (2, ("dev-0-0", "-w", "raw", "-w", "rwa"), "'rwa' names no average"),
    ],
)
def test_what_is_wrong_is_one_message(
    tiny: Tiny, tmp_path: Path, code: int, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    for name in ("dev.json", "runs", "prepared"):
        (tmp_path / name).symlink_to(tiny.folder / name)
    with contextlib.chdir(tmp_path):
        message = fail(code, "explain", *arguments, "-m", "tiny", cwd=tmp_path)
    assert said in message.replace('"', "'")
