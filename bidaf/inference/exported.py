"""An export: one folder with all that answering takes, and nothing that needs the run it came from.

config.yaml  vocabulary.json
export.json         which weight set and how it was made, scores, how text is read; checksums of itself, the files above
                    and below but README.md
README.md           the same for people
model.safetensors   the weight set under its plain names, and
vectors.safetensors the fixed word vectors; or
model.onnx  model.onnx.data   the graph with both, and
answer.py           an example of how to use it without PyTorch
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bidaf.config import Config
from bidaf.config_file import load_config
from bidaf.data.vocabulary import OLD_VECTORS_FILE, VECTORS_FILE, VOCABULARY_FILE, Vocabulary, load_vectors_matrix
from bidaf.errors import DataError, UsageError
from bidaf.files.reading import parse_json, read_regular, refuse_strange_files, sha256_of
from bidaf.files.sealed import is_intact
from bidaf.runs.weight_sets import Count, Name, WeightSet

FORMAT_VERSION: Literal[2] = 2
MODEL, CONFIG, INFO, CARD = "model.safetensors", "config.yaml", "export.json", "README.md"
GRAPH, GRAPH_DATA, ANSWER = "model.onnx", "model.onnx.data", "answer.py"
OLD_NAMES = {VECTORS_FILE: OLD_VECTORS_FILE}  # in exports of format 1
ExportType = Literal["safetensors", "onnx"]
# The files that each type of export can't be without, besides `INFO`, which has their checksums.
PARTS: dict[ExportType, tuple[str, ...]] = {
    "safetensors": (CONFIG, VOCABULARY_FILE, MODEL, VECTORS_FILE),
    "onnx": (CONFIG, VOCABULARY_FILE, GRAPH, GRAPH_DATA, ANSWER),
}


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class ReadingSettings(_Part):
    """How text becomes words, and which spans count: what a program needs that uses the graph."""

    language: str = "en"
    second_split: bool
    split_questions: bool
    max_answer_tokens: Count | None
    no_answer_threshold: float | None = None
    """Of a model that knows "no answer": the probability above which that is the answer."""


class ShapeParity(_Part):
    """How far the graph is from the network on one shape of input; a log-probability."""

    batch: Count
    context: Count
    question: Count
    difference: float


class ExportInfo(_Part):
    """The whole of export.json."""

    format: Literal[2] = FORMAT_VERSION
    type: ExportType
    version: str
    """Of the program that wrote it."""
    weights: Name
    made: WeightSet
    """How the weight set was made."""
    step: Count
    scores: dict[Name, dict[str, float]] | None
    """Weight set -> metric -> percent, of all sets of the checkpoint; None where it was not scored at its step."""
    dev: list[str]
    dev_questions: Count
    train: list[str]
    train_questions: Count
    reading: ReadingSettings
    parity: list[ShapeParity] = Field(default_factory=list)
    """Of an ONNX graph."""
    files: dict[str, str] = Field(default_factory=dict)
    """Name -> SHA-256."""


@dataclass(frozen=True)
class ExportedModel:
    """An export folder that was opened."""

    folder: Path
    config: Config
    info: ExportInfo

    @property
    def step(self) -> int:
        """The run's step when the weights were saved."""
        return self.info.step

    @property
    def weight_sets(self) -> dict[str, WeightSet]:
        """How the one weight set it holds was made, by name."""
        return {self.info.weights: self.info.made}

    def no_answer_threshold(self, name: str) -> float | None:
        """The probability of no answer above which that is the answer of this weight set; None where it has none."""
        return self.info.reading.no_answer_threshold

    def weights(self, name: str) -> dict[str, Tensor]:
        """The weights by name. Raises `DataError` for another set, and for an ONNX export, which holds a graph."""
        if name != self.info.weights:
            raise DataError(
                f"{self.folder} holds the weight set {self.info.weights} only, not {name}; leave out --weights, or "
                f"export the run again with --weights {name}"
            )
        if self.info.type == "onnx":
            raise DataError(
                f"{self.folder} holds an ONNX graph, which {self.folder / ANSWER} runs; name a run or a safetensors "
                "export here"
            )
        try:
            return load_file(self.folder / MODEL)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self.folder / MODEL} can't be read: {error}") from None

    def vocabulary(self) -> Vocabulary:
        """Word rows and character ids."""
        return Vocabulary.load(self.folder)

    def vectors(self) -> NDArray[np.float32]:
        """Pre-trained rows, [fixed words, word_size]."""
        return load_vectors_matrix(self.folder)


def is_export(folder: Path) -> bool:
    """Whether this folder is meant to be an export; `open_export` says whether it is a valid one."""
    return os.path.lexists(folder / INFO)  # a link, too, whatever it leads to


def open_export(folder: Path) -> ExportedModel:
    """Check every byte of an export and read its settings.

    Raises `DataError` for a folder that is corrupted, of another format, or contains links in place of its own files.
    """
    try:
        refuse_strange_files(folder, [INFO])
        text = read_regular(folder / INFO).decode()
        info = _read_info(text, parse_json(text, str(folder / INFO)), folder)
        parts = [name if (folder / name).exists() else OLD_NAMES.get(name, name) for name in PARTS[info.type]]
        refuse_strange_files(folder, parts)
        if corrupted := [name for name in parts if sha256_of(folder / name) != info.files.get(name)]:
            raise DataError(
                f"{folder} is corrupted: {', '.join(corrupted)} changed since it was written; copy it again"
            )
        return ExportedModel(folder, load_config(folder / CONFIG, of_a_run=True), info)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise DataError(f"{folder} can't be read as an export: {INFO}: {place}: {first['msg'].lower()}") from None
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise DataError(f"{folder} can't be read as an export: {error}") from None


def _read_info(text: str, found: Any, folder: Path) -> ExportInfo:
    version = found["format"]
    if version == 1:
        found = _translate_format1(found)
    elif version != FORMAT_VERSION:
        raise DataError(f"{folder} has export format {version!r}; this version reads 1 and {FORMAT_VERSION}")
    elif not is_intact(text, found):
        raise DataError(f"{folder} is corrupted: {INFO} changed since it was written; copy it again")
    return ExportInfo.model_validate(found)


def _translate_format1(found: dict[str, Any]) -> dict[str, Any]:
    """Format 1 held one of two weight sets, and called the type a form."""
    average = found["ema"]
    made = {"kind": "raw"}
    if average is not None:
        made = {"kind": "ema", **{name: average[name] for name in ("decay", "warmup", "steps")}}
    renamed = {"format": FORMAT_VERSION, "type": found["form"], "made": made, "scores": found["dev_scores_by_weights"]}
    return {**found, **renamed}
