"""Writing an export: a checkpoint's weights, in PyTorch's or in ONNX's form, with all that answering takes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from bidaf.config_file import dump_config
from bidaf.data.prepare import Prepared
from bidaf.data.vocabulary import VECTORS_FILE
from bidaf.errors import BidafError, UsageError
from bidaf.export.model_card import model_card
from bidaf.files.reading import sha256_of
from bidaf.files.writing import write_json, write_text
from bidaf.inference.exported import (
    ABOUT,
    ANSWER,
    CARD,
    CONFIG,
    FORMAT_VERSION,
    MODEL,
    PARTS,
    ExportedModel,
    open_export,
)
from bidaf.inference.loading import assemble
from bidaf.runs.checkpoint import Checkpoint
from bidaf.version import __version__

Form = Literal["safetensors", "onnx"]


def export_model(
    checkpoint: Checkpoint, prepared: Prepared, folder: Path, *, use_ema: bool, form: Form = "safetensors"
) -> ExportedModel:
    """Write an export of a checkpoint. Raises `UsageError` where something stands already, `BidafError` on failure."""
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty; name a new folder")
    if form == "onnx":
        from bidaf.export.onnx import check_can_export

        check_can_export(checkpoint.config.model)
    tensors = checkpoint.weights(use_ema)
    about = _about(checkpoint, prepared, use_ema=use_ema, form=form)
    beside = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        prepared.vocabulary().save(beside, prepared.vectors())
        if form == "onnx":
            about["parity"] = _write_onnx(checkpoint, prepared, tensors, beside)
        else:
            save_file(tensors, beside / MODEL)
        write_text(beside / CONFIG, dump_config(checkpoint.config))
        write_text(beside / CARD, model_card(checkpoint.config, about))
        about["files"] = {name: sha256_of(beside / name) for name in PARTS[form]}
        write_json(beside / ABOUT, about)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    except (OSError, SafetensorError) as error:
        raise BidafError(f"the export {folder} can't be written: {error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return open_export(folder)


def _about(checkpoint: Checkpoint, prepared: Prepared, *, use_ema: bool, form: Form) -> dict[str, Any]:
    weights = "ema" if use_ema else "raw"
    config, state = checkpoint.config, checkpoint.state
    # A checkpoint saved between two evaluations carries the scores of the one before: they are not its own.
    scores = state["scores"] if state["evaluated_step"] == checkpoint.step else None
    return {
        "format": FORMAT_VERSION,
        "form": form,
        "version": __version__,
        "weights": weights,
        "ema": state["ema"] if use_ema else None,
        "step": checkpoint.step,
        "dev_scores": scores[weights] if scores else None,
        "dev_scores_by_weights": scores,
        "dev": list(config.data.dev),
        "dev_questions": prepared.counts["dev"]["kept"],
        "train": list(config.data.train),
        "train_questions": prepared.counts["train"]["kept"],
        "reading": {
            "second_split": config.data.second_split,
            "split_questions": config.data.second_split and config.data.split_questions,
            "max_answer_tokens": config.evaluation.max_answer_tokens,
        },
    }


def _write_onnx(
    checkpoint: Checkpoint, prepared: Prepared, tensors: dict[str, Tensor], folder: Path
) -> list[dict[str, Any]]:
    """The graph, its example, and how near it is to the network; the vectors are in the graph already."""
    from bidaf.export.onnx import write_graph

    vocabulary = prepared.vocabulary()
    device = torch.device("cpu")
    model = assemble(checkpoint.config, vocabulary, prepared.vectors(), tensors, checkpoint.folder, device)
    parity = write_graph(model, folder, word_chars=vocabulary.max_word_chars)
    (folder / VECTORS_FILE).unlink()
    shutil.copyfile(Path(__file__).with_name("onnx_answer.py"), folder / ANSWER)
    return [each._asdict() for each in parity]
