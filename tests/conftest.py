"""A corpus small enough to train on in a blink, its prepared features, and settings for runs on it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from helpers_browser import Browser, chromium
from helpers_cli import Tiny, train_tiny
from torch import Tensor

from bidaf.config import Config
from bidaf.data.cache import Prepared
from bidaf.data.prepare import prepare
from bidaf.runs.state import weights_file
from bidaf.runs.weight_sets import EMA, RAW

if TYPE_CHECKING:  # the server's packages are loaded by its own tests alone
    from helpers_serve import Running

    from bidaf.serve.service import Service

RAW_FILE, EMA_FILE = weights_file(RAW), weights_file(EMA)  # in a checkpoint
CPU = torch.device("cpu")

PLACES = {
    "Arvik": ("1204", "salt", "Mara Lind", "river Sol"),
    "Belmora": ("1388", "wool", "Otto Brandt", "lake Ine"),
    "Corvel": ("1571", "copper", "Anna Reyes", "Tarn hills"),
    "Dunmere": ("1699", "glass", "Pieter Vos", "bay of Orr"),
    "Elstow": ("1740", "barley", "Ruth Adeyemi", "Grey moor"),
    "Fenwick": ("1833", "slate", "Ivo Marek", "island of Ness"),
}
OTHER_PLACES = {
    "Gorse": ("1571", "wool", "Mara Vos", "Grey moor"),
    "Hallin": ("1204", "barley", "Otto Lind", "bay of Orr"),
    "Isk": ("1902", "glass", "Ruth Reyes", "lake Ine"),
}
WORDS = ("the", "town", "was", "founded", "in", "trades", "mayor", "of", "by", "which")


def page(name: str, year: str, good: str, mayor: str, site: str) -> dict[str, Any]:
    """A paragraph of SQuAD JSON with four questions, the second of which has two gold answers."""
    context = (
        f"The town of {name} was founded in {year}. It trades in {good}, and its mayor is {mayor}. "
        f"The town lies by the {site}."
    )
    asked = {
        f"When was {name} founded?": [year],
        f"In which good does the town of {name} trade?": [good, f"in {good}"],
        f"Who is the mayor of {name}?": [mayor],
        f"By what does {name} lie?": [f"the {site}"],
    }
    questions = [
        {
            "id": f"{name.lower()}-{number}",
            "question": question,
            "answers": [{"text": text, "answer_start": context.index(text)} for text in answers],
        }
        for number, (question, answers) in enumerate(asked.items())
    ]
    return {"context": context, "qas": questions}


@pytest.fixture(autouse=True)
def _denormals_as_before() -> Iterator[None]:
    """Training sets the processor to flush denormals; hypothesis, for one, can't draw floats then."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests that open pages."""
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A finished run of the smallest model; tests read it and write elsewhere."""
    return train_tiny(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def service(tiny: Tiny) -> Service:
    """What `bidaf serve` answers with, on that run."""
    from helpers_serve import load_service

    return load_service(tiny.folder)


@pytest.fixture(scope="module")
def server(service: Service) -> Iterator[Running]:
    """That service, listening."""
    from helpers_serve import running

    with running(service) as started:
        yield started


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.json (24 questions), dev.json (12 of other towns) and vectors.txt (10 words, 4 wide)."""
    folder = tmp_path_factory.mktemp("corpus")
    for split, places in (("train", PLACES), ("dev", OTHER_PLACES)):
        pages = [page(name, *facts) for name, facts in places.items()]
        document = {"version": "1.1", "data": [{"title": split, "paragraphs": pages}]}
        (folder / f"{split}.json").write_text(json.dumps(document), encoding="utf-8")
    rows = np.random.default_rng(0).normal(size=(len(WORDS), 4))
    lines = [" ".join([word, *(f"{value:.5f}" for value in row)]) for word, row in zip(WORDS, rows, strict=True)]
    (folder / "vectors.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


Configure = Callable[..., Config]


@pytest.fixture(scope="session")
def configure(corpus: Path) -> Configure:
    """Makes a `Config` on the corpus: six batches an epoch, two epochs. Keywords `section={...}` change settings."""
    defaults: dict[str, dict[str, Any]] = {
        "data": {
            "train": str(corpus / "train.json"),
            "dev": str(corpus / "dev.json"),
            "vectors": str(corpus / "vectors.txt"),
            "prepared_dir": str(corpus / "prepared"),
            "min_word_count": 1,
            "min_char_count": 1,
            "max_word_chars": 8,
        },
        "model": {"hidden_size": 4, "char_channels": 8, "char_embedding_size": 3, "dropout": 0.1},
        "ema": {"warmup": "ramp"},
        "training": {
            "epochs": 2,
            "batch_size": 4,
            "log_every": 1,
            "keep_last": 9,
            "optimizer": {"name": "adam", "lr": 0.05},
        },
        # Some questions a batch, so that there is an inside of an evaluation to be interrupted in.
        "evaluation": {"batch_tokens": 120},
    }

    def make(**sections: dict[str, Any]) -> Config:
        return Config.model_validate({name: {**values, **sections.get(name, {})} for name, values in defaults.items()})

    return make


@pytest.fixture(scope="session")
def prepared(configure: Configure) -> Prepared:
    """The corpus as features."""
    return prepare(configure().data)


def events(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, strictly parsed, all or those of a kind."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line, parse_constant=refuse) for line in lines]
    return [event for event in found if kind in (None, event["event"])]


def checkpoint_steps(run: Path) -> list[int]:
    """Steps of the checkpoint folders of a run, half-written ones excluded."""
    names = [re.fullmatch(r"step-(\d+)", path.name) for path in (run / "checkpoints").iterdir()]
    return sorted(int(match[1]) for match in names if match)


# A softmax does not change when a number is added to all its inputs: the gradient of these is nothing but rounding.
SCORE_BIASES = ("attention.similarity.bias", "start_scorer.bias", "end_scorer.bias")


def without_score_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights or optimizer state by name, for comparisons between computations that round differently."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(SCORE_BIASES)}


def to_bytes(tensors: Any) -> dict[str, bytes]:
    """Tensors by name as bytes, for comparisons that NaN and -0.0 do not escape."""
    return {name: tensor.detach().contiguous().numpy().tobytes() for name, tensor in dict(tensors).items()}
