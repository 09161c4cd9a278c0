"""Writing an export: one weight set, as safetensors or as an ONNX graph, with all that answering takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from bidaf.config_file import dump_config
from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared
from bidaf.data.features import Features
from bidaf.data.vocabulary import VECTORS_FILE
from bidaf.ema.average import trained_weights
from bidaf.errors import BidafError, UsageError
from bidaf.evaluation.evaluator import find_spans
from bidaf.export.model_card import model_card
from bidaf.files.reading import sha256_of
from bidaf.files.sealed import sealed
from bidaf.files.writing import check_folder, claim_folder, put_folder, save_tensors, write_text
from bidaf.inference.exported import (
    ANSWER,
    CARD,
    CONFIG,
    INFO,
    MODEL,
    PARTS,
    ExportedModel,
    ExportInfo,
    ExportType,
    ReadingSettings,
    ShapeParity,
    open_export,
)
from bidaf.inference.loading import LoadedModel
from bidaf.inference.predictor import Predictor
from bidaf.runs.checkpoint import Checkpoint
from bidaf.version import __version__

CHECKED_QUESTIONS = 32


def check_export(folder: Path, type: ExportType) -> None:
    """Raise where `export_model` is bound to fail, before a model is loaded.

    `UsageError` for a folder that can't be made or is not empty, `BidafError` for packages that are not installed.
    """
    if type == "onnx":
        from bidaf.export.onnx import check_packages

        check_packages()
    if check_folder(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty; name a new folder")


def export_model(loaded: LoadedModel, folder: Path, *, type: ExportType = "safetensors") -> ExportedModel:
    """Write the weight set of a run to a new folder.

    Raises `UsageError` for an export in place of a run and for a folder that is not empty, `BidafError` for weights
    that have diverged and for what can't be written.
    """
    check_export(folder, type)
    if isinstance(loaded.source, ExportedModel):
        raise UsageError(f"{loaded.origin} is an export already; copy the folder, or export the run it came from")
    if type == "onnx":
        from bidaf.export.onnx import check_network

        check_network(loaded.config.model)
    try:
        with claim_folder(folder) as unfinished:
            write_parts(loaded, unfinished, type)
            if not put_folder(unfinished, folder):
                raise UsageError(f"{folder} was written by another process in the meantime; name a new folder")
    except (OSError, SafetensorError) as error:
        raise BidafError(f"the export {folder} can't be written: {error}") from None
    return open_export(folder)


def write_parts(loaded: LoadedModel, folder: Path, type: ExportType = "safetensors") -> ExportInfo:
    """Write all files of an export into an existing, empty folder; what was exported before is written again.

    Raises `NonfiniteScores` for the weights of a run that have diverged, `OSError` and `SafetensorError`.
    """
    source, prepared = loaded.source, loaded.prepared
    if isinstance(source, ExportedModel):
        info, vectors = source.info.model_copy(), source.vectors()
    else:
        assert prepared is not None  # a checkpoint is loaded with it
        _check_scores(loaded, prepared.features("dev"))
        info, vectors = _info(loaded, source, prepared, type), prepared.vectors()
    loaded.vocabulary.save(folder, vectors)
    if type == "onnx":
        info.parity = _write_onnx(loaded, folder)
    else:
        save_tensors(dict(trained_weights(loaded.model)), folder / MODEL)
    write_text(folder / CONFIG, dump_config(loaded.config))
    write_text(folder / CARD, model_card(loaded.config, info))
    info.files = {name: sha256_of(folder / name) for name in PARTS[type]}
    write_text(folder / INFO, sealed(info.model_dump()))
    return info


def card_of(loaded: LoadedModel) -> str:
    """The model card of an export; of a run's weight set, the one that its export would have."""
    source = loaded.source
    if isinstance(source, ExportedModel):
        return model_card(source.config, source.info)
    assert loaded.prepared is not None
    return model_card(loaded.config, _info(loaded, source, loaded.prepared, "safetensors"))


def _check_scores(loaded: LoadedModel, dev: Features) -> None:
    """Raise `NonfiniteScores` for weights that answer nothing: they have diverged."""
    source = BatchSource(dev, loaded.model.start_scorer.flow_weight.device)
    questions = np.arange(min(CHECKED_QUESTIONS, len(dev)))
    with torch.inference_mode():
        scores = loaded.model(source.gather(questions))
    limit = loaded.config.evaluation.max_answer_tokens
    find_spans(dev, questions.tolist(), scores, 1, max_answer_tokens=limit, weights=f"the {loaded.description}")


def _info(loaded: LoadedModel, checkpoint: Checkpoint, prepared: Prepared, type: ExportType) -> ExportInfo:
    data = loaded.config.data
    return ExportInfo(
        type=type,
        version=__version__,
        weights=loaded.weights,
        made=loaded.made,
        step=checkpoint.step,
        scores=checkpoint.scores,
        dev=list(data.dev),
        dev_questions=prepared.counts["dev"]["kept"],
        train=list(data.train),
        train_questions=prepared.counts["train"]["kept"],
        reading=ReadingSettings(
            language=data.language,
            second_split=data.second_split,
            split_questions=data.second_split and data.split_questions,
            max_answer_tokens=loaded.config.evaluation.max_answer_tokens,
            no_answer_threshold=Predictor(loaded).no_answer_threshold,
        ),
    )


def _write_onnx(loaded: LoadedModel, folder: Path) -> list[ShapeParity]:
    """The graph, its example, and how near it is to the network; the vectors are in the graph already."""
    from bidaf.export.onnx import write_graph

    parity = write_graph(loaded.model, folder, word_chars=loaded.vocabulary.max_word_chars)
    (folder / VECTORS_FILE).unlink()
    shutil.copyfile(Path(__file__).with_name("onnx_answer.py"), folder / ANSWER)
    return parity
