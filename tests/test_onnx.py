"""The ONNX graph: equal to the network at any batch and length, and answered without PyTorch as with it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import onnxruntime
import pytest
import torch
from helpers_cli import DEV, Tiny, fail, succeed
from numpy.typing import NDArray

from bidaf.config import ModelConfig
from bidaf.data.tokenizer import Tokenizer
from bidaf.errors import BidafError
from bidaf.export import onnx
from bidaf.inference.exported import GRAPH, ShapeParity
from bidaf.inference.loading import load_model
from bidaf.model.bidaf import Batch, Bidaf

SHAPES = [(1, 1, 1), (1, 600, 30), (2, 7, 5), (7, 1, 30), (7, 133, 1), (60, 2, 3), (60, 600, 11)]


@pytest.fixture(scope="session")
def folder(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX export of the tiny run's shadow weights."""
    folder = tmp_path_factory.mktemp("onnx") / "model"
    about = succeed("export", "--format", "onnx", "-o", folder, "--json", cwd=tiny.folder).json
    assert (about["type"], about["weights"]) == ("onnx", "ema")
    assert [each["batch"] for each in about["parity"]] == [1, 1, 7, 7, 60, 60]
    return folder


class Exported(NamedTuple):
    model: Bidaf
    graph: Path
    word_chars: int


SMALL: dict[str, Any] = {
    "hidden_size": 3,
    "word_size": 4,
    "char_channels": 4,
    "char_embedding_size": 3,
    "char_width": 3,
}
RANDOM: dict[str, dict[str, Any]] = {
    "released": {
        "variant": "released",
        "projection_size": 7,
        "highway_layers": 1,
        "modeling_layers": 1,
        "share_phrase_lstm": False,
        "score_bias": False,
    },
    "words, context to query, no answer": {"embeddings": "word", "attention": "context_to_query", "no_answer": True},
    "characters, query to context": {"embeddings": "char", "attention": "query_to_context"},
}


@pytest.fixture(
    scope="session", params=["trained", *(pytest.param(settings, marks=pytest.mark.slow) for settings in RANDOM)]
)
def exported(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny run's network and its graph, or those of another variant with random weights."""
    if request.param == "trained":
        folder: Path = request.getfixturevalue("folder")
        with contextlib.chdir(tiny.folder):
            loaded = load_model("tiny", weights="ema", device=torch.device("cpu"))
        return Exported(loaded.model, folder / GRAPH, loaded.vocabulary.max_word_chars)
    torch.manual_seed(3)
    config = ModelConfig(**SMALL, **RANDOM[request.param])
    model = Bidaf(config, num_trained=9, num_chars=12, fixed=torch.zeros(0, 4)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2).add_(0.1 * torch.randn_like(weight))
    folder = tmp_path_factory.mktemp("random")
    parity = onnx.write_graph(model, folder, word_chars=6)
    assert {(each.batch, each.context, each.question) for each in parity} == set(onnx.CHECKED_SHAPES)
    assert max(each.difference for each in parity) < 1e-4
    return Exported(model, folder / GRAPH, 6)


def texts(rng: np.random.Generator, exported: Exported, batch: int, width: int) -> tuple[Any, Any, Any]:
    """Words, characters and lengths: the first text fills the width, the others anything."""
    sizes = onnx._Sizes(exported.model.embedding, exported.word_chars)
    lengths = np.array([width, *rng.integers(1, width + 1, batch - 1)])
    inside = np.arange(width) < lengths[:, None]
    words = rng.integers(1, sizes.rows, (batch, width)) * inside
    chars = rng.integers(0, sizes.chars, (batch, width, exported.word_chars))
    return words, chars * inside[:, :, None], lengths


@pytest.mark.parametrize(("batch", "context", "question"), SHAPES)
def test_the_graph_gives_what_the_network_gives(exported: Exported, batch: int, context: int, question: int) -> None:
    rng = np.random.default_rng(batch + context)
    context_words, context_chars, context_length = texts(rng, exported, batch, context)
    question_words, question_chars, question_length = texts(rng, exported, batch, question)
    # The network's own way to put it: indices into distinct forms, of which 0 is padding.
    words = np.concatenate([[0], context_words.ravel(), question_words.ravel()])
    padding = np.zeros(exported.word_chars, dtype=int)
    chars = np.concatenate([c.reshape(-1, exported.word_chars) for c in (padding, context_chars, question_chars)])
    forms, places = np.unique(np.column_stack([words, chars]), axis=0, return_inverse=True)
    places = places.ravel()[1:]
    tensors = [
        places[: batch * context].reshape(batch, context),
        places[batch * context :].reshape(batch, question),
        context_length,
        question_length,
        forms[:, 0],
        forms[:, 1:],
    ]
    with torch.inference_mode():
        expected = exported.model(Batch(*map(torch.from_numpy, tensors)))
    inputs = dict(zip(onnx.INPUTS, (context_words, context_chars, question_words, question_chars), strict=True))
    found = onnxruntime.InferenceSession(exported.graph).run(None, inputs)
    if expected.no_answer is not None:
        assert np.abs(expected.no_answer.numpy() - found.pop()).max() < 1e-4
    inside = np.arange(context) < context_length[:, None]
    for ours, theirs in zip(expected[:2], found, strict=True):
        assert np.array_equal(inside, np.isfinite(ours.numpy()))
        assert np.array_equal(inside, np.isfinite(theirs))
        assert np.abs(ours.numpy()[inside] - theirs[inside]).max() < 1e-4


def test_a_graph_that_differs_is_noticed(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph, word_chars = exported
    sizes = onnx._Sizes(model.embedding, word_chars)
    session = onnxruntime.InferenceSession(graph)
    assert onnx._compare(onnx._Padded(model), sizes, session, 7, 9, 4).difference < onnx.TOLERANCE
    with torch.no_grad():
        model.phrase.weight_hh.mul_(1.25)
        assert onnx._compare(onnx._Padded(model), sizes, session, 7, 9, 4).difference > onnx.TOLERANCE
        model.phrase.weight_hh.div_(1.25)
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **options: mock.Mock())
    differing = ShapeParity(batch=1, context=1, question=1, difference=math.nan)
    monkeypatch.setattr(onnx, "_compare", lambda *shape: differing)
    with pytest.raises(BidafError, match="differs from the network by nan at batch 1, 1 context and 1 question words"):
        onnx.write_graph(model, graph.parent, word_chars=word_chars)


def test_the_network_is_as_it_was_after_an_export(exported: Exported) -> None:
    names = [type(module).__name__ for module in exported.model.modules()]
    assert names.count("BiLstm") == 4
    assert "_OnnxLstm" not in names


# The export


@pytest.fixture(scope="session")
def answer(folder: Path) -> Any:
    """`answer.py` of the export as a module."""
    spec = importlib.util.spec_from_file_location("answer", folder / "answer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTEXTS = [
    *(context for context, _ in DEV),
    "It's  the O'Neill's well-known “blue\u00a0ship” — didn't it sail\tfrom/to\n\nKiel in 1815?",
    f"A {'x' * 150}-{'y' * 30} was seen; a\u200bb \ufeffc. {'Word-' * 40}",
    "日本語のテキスト 👩‍👩‍👧 ẞ ǅ café nai\u0308ve",
]


def test_without_pytorch_the_answers_are_those_of_predict(folder: Path, tiny: Tiny, answer: Any) -> None:
    records = [
        {"context": context, "question": question, "id": f"{number} {question}"}
        for number, context in enumerate(CONTEXTS)
        for question in ("Where does Dora live?", "WHEN?", "How many zebra's-ships did it’s “crew” see?")
    ]
    expected = succeed(
        "predict", "-", "-m", "tiny", "--n-best", 1, cwd=tiny.folder, stdin=json.dumps(records).encode()
    ).json
    reader = answer.Reader(folder)
    found = []
    for context in CONTEXTS:
        found += reader.answer(context, [record["question"] for record in records if record["context"] is context])
    for ours, theirs in zip(found, expected, strict=True):
        (best,) = theirs["answers"]
        assert (ours.text, ours.start, ours.end) == (best["text"], best["start"], best["end"])
        assert ours.probability == pytest.approx(best["probability"], abs=1e-4)


@pytest.mark.parametrize("split", [True, False])
def test_its_words_are_those_of_training(folder: Path, answer: Any, split: bool) -> None:
    reader, tokenizer = answer.Reader(folder), Tokenizer(second_split=split)
    for context in CONTEXTS:
        assert list(reader.tokens(context, split)) == tokenizer.tokenize(context)


def test_its_best_span_keeps_the_limit_and_the_order_of_equals(answer: Any) -> None:
    def log(*values: float) -> NDArray[np.float32]:
        return np.log(np.array(values, dtype=np.float32))

    start, end = log(0.5, 0.1, 0.3, 0.1), log(0.1, 0.1, 0.1, 0.7)
    assert answer.best_span(start, end, None)[:2] == (0, 3)
    assert answer.best_span(start, end, 4)[:2] == (0, 3)
    assert answer.best_span(start, end, 2)[:2] == (2, 3)
    assert answer.best_span(start, end, 1)[:2] == (3, 3)
    assert answer.best_span(log(0.5, 0.5), log(0.5, 0.5), None)[:2] == (0, 0)


def test_the_example_runs_where_neither_pytorch_nor_bidaf_is(folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "passage.txt").write_text(DEV[0][0], encoding="utf-8")
    block = "import runpy, sys; sys.modules.update(torch=None, bidaf=None); sys.argv = sys.argv[1:]"
    command = [sys.executable, "-I", "-c", f"{block}; runpy.run_path(sys.argv[0], run_name='__main__')"]
    asked = ["--context", "passage.txt", "--question", "Where?", "--question", "How many?"]
    child = subprocess.run(
        [*command, str(folder / "answer.py"), *asked], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr
    printed = [line.split("\t") for line in child.stdout.splitlines()]
    options = ("ask", "-m", "tiny", "-c", tmp_path / "passage.txt", "-q", "Where?", "-q", "How many?")
    asked_here = [line.split("\t") for line in succeed(*options, cwd=tiny.folder).out.splitlines()]
    assert [text for _, text in printed] == [text for _, text in asked_here]
    probabilities = [[float(probability) for probability, _ in lines] for lines in (printed, asked_here)]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=2e-4)
    assert all(0 < probability <= 1 for probability in probabilities[0])


def test_the_folder_holds_what_it_takes_and_its_card_says_how(folder: Path) -> None:
    names = {"model.onnx", "model.onnx.data", "vocabulary.json", "config.yaml", "export.json", "answer.py", "README.md"}
    assert {path.name for path in folder.iterdir()} == names
    card = (folder / "README.md").read_text(encoding="utf-8")
    for name in (*onnx.INPUTS, "answer.py", "no log-probability differed by more than"):
        assert name in card


def test_a_graph_is_not_taken_for_weights(folder: Path, tiny: Tiny) -> None:
    for command in (("eval", "-d", "dev.json"), ("predict", "dev.json")):
        assert "holds an ONNX graph" in fail(3, *command, "-m", folder, cwd=tiny.folder)


def test_dynamic_attention_is_refused_before_any_work(tiny: Tiny, tmp_path: Path) -> None:
    changes = ["model.attention=dynamic", "training.max_steps=1", f"data.prepared_dir={tmp_path / 'prepared'}"]
    sets = [f"--set={change}" for change in changes]
    succeed("train", "-c", "tiny.yaml", "--run-dir", tmp_path / "run", *sets, cwd=tiny.folder)
    message = fail(2, "export", "-m", tmp_path / "run", "-f", "onnx", "-o", tmp_path / "model", cwd=tiny.folder)
    assert "model.attention: dynamic has no ONNX graph" in message
    assert "\n" not in message
    assert not (tmp_path / "model").exists()


def test_a_missing_package_is_named_before_any_work(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    message = fail(1, "export", "-f", "onnx", "-o", tmp_path / "model", cwd=tiny.folder)
    assert message == "an ONNX export needs onnxscript; install: pip install onnx onnxscript onnxruntime"
    assert list(tmp_path.iterdir()) == []
