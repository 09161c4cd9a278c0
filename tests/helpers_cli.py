"""The command line in-process, and one tiny trained run that all its tests share."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from bidaf.cli.app import main
from bidaf.files.reading import sha256_of
from bidaf.files.sealed import SEAL, sealed
from bidaf.inference.exported import INFO, PARTS
from bidaf.runs.folder import Run

CONFIG = """\
data: {train: train.json, dev: dev.json, vectors: vectors.txt, min_word_count: 0, min_char_count: 0}
model: {hidden_size: 4, char_channels: 4, char_embedding_size: 3}
ema: {decay: 0.98}
training: {epochs: 20, batch_size: 6, optimizer: {name: adam, lr: 0.1}, log_every: 10}
evaluation: {every_steps: 20}
"""

Asked = tuple[str, list[str]]

TRAIN: list[tuple[str, list[Asked]]] = [
    ("Anna lives in Oslo. She has two cats.", [("Where does Anna live?", ["Oslo"]), ("How many cats?", ["two"])]),
    ("The red ship sailed to Rome in 1492.", [("Where did it sail?", ["Rome"]), ("When did it sail?", ["1492"])]),
    ("Bob met Carla in the park.", [("Who met Carla?", ["Bob"]), ("Where did Bob meet Carla?", ["park"])]),
]
DEV: list[tuple[str, list[Asked]]] = [
    ("Dora lives in Rome. She has ten dogs.", [("Where does Dora live?", ["Rome", "in Rome"]), ("How many?", ["ten"])]),
    ("In 1815 the blue ship came to Kiel.", [("When did it come?", ["1815"]), ("Where?", ["Kiel", "to Kiel"])]),
    ("Zoë paid 5 € in a café.", [("Who paid?", ["Zoë"]), ("Where did Zoë pay?", ["a café", "café"])]),
]
VECTOR_WORDS = "the a in to anna oslo rome ship sailed cats two where who when how many zebra".split()


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, all of it JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Tiny:
    """A folder with data, config, prepared features and one finished run."""

    folder: Path
    trained: Ran

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "tiny"

    def last_scores(self) -> dict[str, Any]:
        """Of the newest evaluation that the run logged: weight set -> metric -> percent."""
        return next(event["scores"] for event in reversed(Run.open(self.run).events()) if event["event"] == "eval")


def bidaf(*args: object, cwd: Path, stdin: bytes = b"") -> Ran:
    """Run `bidaf ARGS` in a folder, in this process."""
    out, err = io.StringIO(), io.StringIO()
    standard_input = io.TextIOWrapper(io.BytesIO(stdin))
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", ["bidaf", *map(str, args)]),
        mock.patch.object(sys, "stdin", standard_input),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main()
    return Ran(int(end.value.code or 0), out.getvalue(), err.getvalue())


def succeed(*args: object, cwd: Path, stdin: bytes = b"") -> Ran:
    """Run a command that has to end well."""
    ran = bidaf(*args, cwd=cwd, stdin=stdin)
    assert ran.code == 0, ran.err
    return ran


def fail(code: int, *args: object, cwd: Path, stdin: bytes = b"") -> str:
    """Run a command that has to end with this code and one message; return the message."""
    ran = bidaf(*args, cwd=cwd, stdin=stdin)
    assert ran.code == code, ran
    assert ran.out == ""
    assert "Traceback" not in ran.err
    _before, *messages = ("\n" + ran.err).split("\nerror: ")
    assert len(messages) == 1, ran.err
    return messages[0].strip()


def sign_export(folder: Path) -> None:
    """Write the checksums of the files as they are now, as somebody would who means no damage to be noticed."""
    if not (folder / INFO).is_file():  # a link to an endless file, say
        return
    about = json.loads((folder / INFO).read_text(encoding="utf-8"))
    files = {name: sha256_of(folder / name) for name in PARTS["safetensors"] if (folder / name).is_file()}
    write_sealed(folder / INFO, {**about, "files": files})


def write_sealed(path: Path, document: dict[str, Any]) -> None:
    """Write a file with its checksum, in place of the one that it may hold."""
    path.write_text(sealed({name: value for name, value in document.items() if name != SEAL}), encoding="ascii")


def squad(paragraphs: Sequence[tuple[str, list[Asked]]], prefix: str) -> dict[str, Any]:
    """SQuAD JSON of contexts with questions and their answers."""
    entries = [
        {
            "context": context,
            "qas": [
                {
                    "id": f"{prefix}-{number}-{position}",
                    "question": question,
                    "answers": [{"text": text, "answer_start": context.index(text)} for text in answers],
                }
                for position, (question, answers) in enumerate(asked)
            ],
        }
        for number, (context, asked) in enumerate(paragraphs)
    ]
    return {"version": "1.1", "data": [{"title": "Tiny", "paragraphs": entries}]}


def write_tiny(folder: Path) -> None:
    """Data, vectors of width 4 and `tiny.yaml`."""
    (folder / "train.json").write_text(json.dumps(squad(TRAIN, "train")), encoding="utf-8")
    (folder / "dev.json").write_text(json.dumps(squad(DEV, "dev")), encoding="utf-8")
    rows = np.random.default_rng(0).normal(size=(len(VECTOR_WORDS), 4))
    lines = (f"{word} {' '.join(f'{x:.4f}' for x in row)}\n" for word, row in zip(VECTOR_WORDS, rows, strict=True))
    (folder / "vectors.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "tiny.yaml").write_text(CONFIG, encoding="utf-8")


@functools.cache
def train_tiny(base: Path) -> Tiny:
    """The run that the tests of a session, with this base folder, share; they read it and write elsewhere."""
    folder = base / "tiny-run"
    folder.mkdir()
    write_tiny(folder)
    return Tiny(folder, succeed("train", "-c", "tiny.yaml", "--run-dir", "runs/tiny", cwd=folder))
