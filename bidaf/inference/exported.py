"""An export: one folder with all that answering takes, and nothing that needs the run it came from.

config.yaml  vocabulary.json
export.json         which weights, decay, updates, scores, how text is read; the checksum of each file below
README.md           the same for people
model.safetensors   the chosen weights under their plain names, and
vectors.safetensors the fixed word vectors; or
model.onnx  model.onnx.data   the graph with both, and
answer.py           how to ask it without PyTorch
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bidaf.config import Config
from bidaf.config_file import load_config
from bidaf.data.vocabulary import OLD_VECTORS_FILE, VECTORS_FILE, VOCABULARY_FILE, Vocabulary, load_vectors_matrix
from bidaf.errors import DataError, UsageError
from bidaf.files.reading import read_json, refuse_strange_files, sha256_of

FORMAT_VERSION, READABLE_FORMATS = 2, (1, 2)  # format 1 has the vectors in `OLD_VECTORS_FILE`
MODEL, CONFIG, ABOUT, CARD = "model.safetensors", "config.yaml", "export.json", "README.md"
GRAPH, GRAPH_DATA, ANSWER = "model.onnx", "model.onnx.data", "answer.py"
# What each form of an export can't be without, besides `ABOUT`, which has their checksums.
PARTS = {
    "safetensors": (CONFIG, VOCABULARY_FILE, MODEL, VECTORS_FILE),
    "onnx": (CONFIG, VOCABULARY_FILE, GRAPH, GRAPH_DATA, ANSWER),
}


@dataclass(frozen=True)
class ExportedModel:
    """An export folder that was opened."""

    folder: Path
    config: Config
    about: dict[str, Any]

    @property
    def weights(self) -> str:
        """`ema` or `raw`: the only weights an export has."""
        return str(self.about["weights"])

    def check_weights(self, use_ema: bool) -> None:
        """Raise `DataError` when the other weights are asked for."""
        if use_ema != (self.weights == "ema"):
            asked, flag = ("averaged", "--no-use-ema") if use_ema else ("raw", "--use-ema")
            raise DataError(
                f"{self.folder} holds {self.weights} weights alone, not the {asked} ones; ask with {flag}, or export "
                "the run again"
            )

    def vocabulary(self) -> Vocabulary:
        """Word rows and character ids."""
        return Vocabulary.load(self.folder)

    def vectors(self) -> NDArray[np.float32]:
        """Pre-trained rows, [fixed words, word_size]."""
        return load_vectors_matrix(self.folder)

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name. Raises `DataError` for an ONNX export: its weights are those of the graph."""
        if self.about["form"] == "onnx":
            raise DataError(
                f"{self.folder} holds an ONNX graph, which {self.folder / 'answer.py'} asks; this takes a run or a "
                "safetensors export"
            )
        try:
            return load_file(self.folder / MODEL)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self.folder / MODEL} can't be read: {error}") from None


def is_export(folder: Path) -> bool:
    """Whether this folder means to be an export; `open_export` says whether it is one."""
    return os.path.lexists(folder / ABOUT)  # a link, too, whatever it leads to


def open_export(folder: Path) -> ExportedModel:
    """Raises `DataError` for a folder that is damaged, of another format, or holds anything but files of its own."""
    try:
        refuse_strange_files(folder, [ABOUT])
        about = read_json(folder / ABOUT)
        if about["format"] not in READABLE_FORMATS:
            raise DataError(f"{folder} has export format {about['format']!r}; this version reads {READABLE_FORMATS}")
        if about["weights"] not in ("ema", "raw"):
            raise DataError(f"{folder / ABOUT}: weights must be ema or raw, found {about['weights']!r}")
        old = {VECTORS_FILE: OLD_VECTORS_FILE} if about["format"] == 1 else {}
        parts = [old.get(name, name) for name in PARTS[about["form"]]]
        refuse_strange_files(folder, parts)
        if damaged := [name for name in parts if sha256_of(folder / name) != about["files"][name]]:
            raise DataError(f"{folder} is damaged: {', '.join(damaged)} changed since it was written; copy it again")
        return ExportedModel(folder, load_config(folder / CONFIG), about)
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise DataError(f"{folder} can't be read as an export: {error}") from None
