"""An export: one folder with all that answering takes, and nothing that needs the run it came from.

model.safetensors   the chosen weights under their plain names
config.yaml  vocabulary.json  vectors.npy
export.json         which weights, decay, updates, scores; the checksum of each file above
README.md           the same for people
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bidaf import __version__
from bidaf.config import Config
from bidaf.config_file import dump_config, load_config
from bidaf.data.files import read_json, refuse_strange_files, sha256_of
from bidaf.data.prepare import Prepared
from bidaf.data.vocabulary import VECTORS_FILE, VOCABULARY_FILE, Vocabulary, load_vectors_matrix
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.training.checkpoint import Checkpoint
from bidaf.training.files import write_json, write_text

FORMAT_VERSION = 1
MODEL, CONFIG, ABOUT, CARD = "model.safetensors", "config.yaml", "export.json", "README.md"
PARTS = (MODEL, CONFIG, VOCABULARY_FILE, VECTORS_FILE)


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
        """The weights by name."""
        try:
            return load_file(self.folder / MODEL)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self.folder / MODEL} can't be read: {error}") from None


def is_export(folder: Path) -> bool:
    """Whether this folder is an export."""
    return (folder / ABOUT).is_file()


def open_export(folder: Path) -> ExportedModel:
    """Raises `DataError` for a folder that is damaged, of another format, or holds anything but files of its own."""
    try:
        refuse_strange_files(folder, (ABOUT, *PARTS))
        about = read_json(folder / ABOUT)
        if about["format"] != FORMAT_VERSION:
            raise DataError(f"{folder} has export format {about['format']!r}; this version reads {FORMAT_VERSION}")
        if about["weights"] not in ("ema", "raw"):
            raise DataError(f"{folder / ABOUT}: weights must be ema or raw, found {about['weights']!r}")
        if damaged := [name for name in PARTS if sha256_of(folder / name) != about["files"][name]]:
            raise DataError(f"{folder} is damaged: {', '.join(damaged)} changed since it was written; copy it again")
        return ExportedModel(folder, load_config(folder / CONFIG), about)
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise DataError(f"{folder} can't be read as an export: {error}") from None


def export_model(checkpoint: Checkpoint, prepared: Prepared, folder: Path, *, use_ema: bool) -> ExportedModel:
    """Write an export of a checkpoint. Raises `UsageError` where something stands already, `BidafError` on failure."""
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty; name a new folder")
    tensors = checkpoint.weights(use_ema)
    weights = "ema" if use_ema else "raw"
    state = checkpoint.state
    about = {
        "format": FORMAT_VERSION,
        "version": __version__,
        "weights": weights,
        "ema": state["ema"] if use_ema else None,
        "step": checkpoint.step,
        # A checkpoint saved between two evaluations carries the scores of the one before: they are not its own.
        "dev_scores": state["scores"][weights] if state["evaluated_step"] == checkpoint.step else None,
        "dev": list(checkpoint.config.data.dev),
        "train": list(checkpoint.config.data.train),
        "train_questions": prepared.counts["train"]["kept"],
    }
    beside = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_file(tensors, beside / MODEL)
        prepared.vocabulary().save(beside, prepared.vectors())
        write_text(beside / CONFIG, dump_config(checkpoint.config))
        write_text(beside / CARD, model_card(checkpoint.config, about))
        about["files"] = {name: sha256_of(beside / name) for name in PARTS}
        write_json(beside / ABOUT, about)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    except (OSError, SafetensorError) as error:
        raise BidafError(f"the export {folder} can't be written: {error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return open_export(folder)


def model_card(config: Config, about: dict[str, Any]) -> str:
    """What the folder holds, in Markdown."""
    if about["weights"] == "ema":
        average = about["ema"]
        weights = (
            f"the shadow weights: an exponential moving average (decay {average['decay']}, "
            f"warm-up {average['warmup']}, {average['steps']:,} updates)"
        )
    else:
        weights = "the raw weights, as the optimizer left them (no average)"
    scores = about["dev_scores"]
    dev = ", ".join(Path(source).name for source in about["dev"])
    score = (
        f"EM {scores['exact_match']:.2f}, F1 {scores['f1']:.2f} on {dev} (official SQuAD v1.1 evaluation)"
        if scores
        else "not scored at this step"
    )
    train = ", ".join(Path(source).name for source in about["train"])
    return f"""# BiDAF ({config.model.form} form)

Answers a question with a span of the context it is asked on (Seo et al., "Bidirectional Attention Flow for Machine
Comprehension", ICLR 2017).

| | |
|---|---|
| weights | {weights} |
| step | {about["step"]:,} |
| score | {score} |
| trained on | {train} ({about["train_questions"]:,} questions) |
| made by | bidaf {about["version"]} |

    bidaf predict questions.json --model THIS_FOLDER{"" if about["weights"] == "ema" else " --no-use-ema"}

`model.safetensors` holds the weights under their plain names, `config.yaml` all settings, `vocabulary.json` words and
characters, `vectors.npy` the fixed word vectors. The licences of the training data and of the word vectors apply to
what is derived from them.
"""
