"""The network as an ONNX graph: padded words in, log-probabilities out, any batch and any length.

    context_words   int64 [batch, context]               rows of the vocabulary; 0 is padding and stands at the end
    context_chars   int64 [batch, context, word_chars]   character ids of each word; 0 beyond its end
    question_words  int64 [batch, question]
    question_chars  int64 [batch, question, word_chars]
    start, end      float32 [batch, context]             log-probability of first and last token; padding is -inf
    no_answer       float32 [batch]                      log-probability of no answer, of a model that knows it

Lengths are the numbers of words that are not 0. The tables of word vectors, fixed ones too, are in the graph.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bidaf.config import ModelConfig
from bidaf.errors import BidafError, UsageError
from bidaf.inference.exported import GRAPH, ShapeParity
from bidaf.model.bidaf import Batch, Bidaf
from bidaf.model.embedding import WordTypeEmbedding
from bidaf.model.encoder import BiLstm

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUTS = ("context_words", "context_chars", "question_words", "question_chars")
OUTPUTS = ("start", "end", "no_answer")
OPSET = 18  # of 2022: every runtime supports it

# Batch, context and question words of what a new graph is compared with the network on.
CHECKED_SHAPES = ((1, 1, 1), (1, 600, 30), (7, 1, 9), (7, 250, 1), (60, 37, 13), (60, 600, 30))
# Rounding makes some 1e-5, more the sharper a network is; an error of the graph far more.
TOLERANCE = 1e-3


def check_packages() -> None:
    """Raise `BidafError` when a package that this needs is not installed."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise BidafError(f"an ONNX export needs {', '.join(missing)}; install: pip install {' '.join(PACKAGES)}")
    if find_spec("torch.onnx.ops") is None:
        raise BidafError(f"an ONNX export needs PyTorch 2.8 or newer; this is {torch.__version__}")


def check_network(config: ModelConfig) -> None:
    """Raise `UsageError` for a network that no graph can hold."""
    if config.attention == "dynamic":
        raise UsageError(
            "a model with model.attention: dynamic has no ONNX graph: its LSTM attends to the question at each step, "
            "and ONNX's LSTM can't; export it with --format safetensors"
        )


def write_graph(model: Bidaf, folder: Path, *, word_chars: int) -> list[ShapeParity]:
    """Write `GRAPH` and its weights next to it, run it, and compare it with the network.

    `model` is on the CPU, in evaluation mode, and of a config that `check_network` accepts. Raises `BidafError` where
    the two differ by more than `TOLERANCE`.
    """
    from onnxruntime import InferenceSession

    sizes = _Sizes(model.embedding, word_chars)
    reader = _Padded(model)
    example = sizes.random_words(2, 7, 5)  # no size is 1: the exporter would treat a 1 as a constant
    axes = [{0: "batch", 1: "context"}] * 2 + [{0: "batch", 1: "question"}] * 2
    with _lstms_of_onnx(model), _quiet(), torch.no_grad():
        program = torch.onnx.export(
            reader,
            tuple(map(torch.from_numpy, example)),
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS[: 2 if model.no_answer_bias is None else 3],
            dynamic_shapes=tuple(axes),
            verbose=False,
        )
        assert program is not None
        program.save(folder / GRAPH, external_data=True)
    session = InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])
    parity = [_compare(reader, sizes, session, *shape) for shape in CHECKED_SHAPES]
    worst = max(parity, key=lambda each: each.difference)
    if not worst.difference <= TOLERANCE:
        raise BidafError(
            f"the ONNX graph differs from the network by {worst.difference:.1e} at batch {worst.batch}, "
            f"{worst.context} context and {worst.question} question words; at most {TOLERANCE:.0e} is allowed"
        )
    return parity


class _Sizes:
    """The range of each input."""

    def __init__(self, embedding: WordTypeEmbedding, word_chars: int) -> None:
        word, char = embedding.word, embedding.char
        # Where the network reads no words or no characters, any number does; rows still tell words from padding.
        self.rows = 2 if word is None else len(word.trained) + len(word.fixed)
        self.chars = 1 if char is None else len(char.embedding)
        self.word_chars = word_chars

    def random_words(self, batch: int, context: int, question: int) -> list[NDArray[np.int64]]:
        """The four inputs, of texts of many lengths, the longest among them."""
        rng = np.random.default_rng([batch, context, question])
        inputs = []
        for width in (context, question):
            lengths = rng.integers(1, width + 1, batch)
            lengths[rng.integers(batch)] = width
            inside = np.arange(width) < lengths[:, None]
            words = np.where(inside, rng.integers(1, self.rows, (batch, width)), 0)
            chars = np.where(inside[:, :, None], rng.integers(0, self.chars, (batch, width, self.word_chars)), 0)
            inputs += [words, chars]
        return inputs


class _Padded(nn.Module):
    """The network, with the inputs of the graph."""

    def __init__(self, model: Bidaf) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, context_words: Tensor, context_chars: Tensor, question_words: Tensor, question_chars: Tensor
    ) -> tuple[Tensor, ...]:
        # Every token counts as a word type of its own: finding the distinct ones pays in training only.
        tokens, others = context_words.numel(), question_words.numel()
        places = torch.arange(tokens + others)
        scores = self.model(
            Batch(
                context=places[:tokens].view_as(context_words),
                question=places[tokens:].view_as(question_words),
                context_length=(context_words != 0).sum(1),
                question_length=(question_words != 0).sum(1),
                word_rows=torch.cat([context_words.flatten(), question_words.flatten()]),
                chars=torch.cat([context_chars.flatten(0, 1), question_chars.flatten(0, 1)]),
            )
        )
        return tuple(part for part in (scores.start, scores.end, scores.no_answer) if part is not None)


class _OnnxLstm(nn.Module):
    """A `BiLstm` as ONNX's own operator, which reverses within each length itself. It can be exported, not run."""

    weight: Tensor
    recurrence: Tensor
    bias: Tensor

    def __init__(self, lstm: BiLstm) -> None:
        super().__init__()
        self.hidden_size = lstm.hidden_size
        self.register_buffer("weight", _gates(lstm.weight_ih))
        self.register_buffer("recurrence", _gates(lstm.weight_hh))
        bias = _gates(lstm.bias)
        self.register_buffer("bias", torch.cat([bias, torch.zeros_like(bias)], dim=1))

    def forward(self, sequence: Tensor, lengths: Tensor, *, with_dropout: bool = True) -> Tensor:
        batch, steps, _ = sequence.shape
        (outputs,) = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (sequence.transpose(0, 1), self.weight, self.recurrence, self.bias, lengths.to(torch.int32)),
            {"direction": "bidirectional", "hidden_size": self.hidden_size},
            dtypes=(sequence.dtype,),
            shapes=((steps, 2, batch, self.hidden_size),),
            version=14,
        )
        return outputs.permute(2, 0, 1, 3).flatten(2)


def _gates(weight: Tensor) -> Tensor:
    """[2, 4d, ...] from PyTorch's order (input, forget, cell, output) to ONNX's (input, output, forget, cell)."""
    into, forget, cell, out = weight.detach().chunk(4, dim=1)
    return torch.cat([into, out, forget, cell], dim=1)


@contextmanager
def _lstms_of_onnx(model: Bidaf) -> Iterator[None]:
    """Within the block every `BiLstm` is an `_OnnxLstm` with the same weights."""
    own = {name: module for name, module in model.named_modules() if isinstance(module, BiLstm)}
    try:
        for name, module in own.items():
            model.set_submodule(name, _OnnxLstm(module))
        yield
    finally:
        for name, module in own.items():
            model.set_submodule(name, module)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages that it would not need and of its own calls of old functions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _compare(reader: _Padded, sizes: _Sizes, session: Any, batch: int, context: int, question: int) -> ShapeParity:
    words = sizes.random_words(batch, context, question)
    with torch.inference_mode():
        ours = [scores.numpy() for scores in reader(*map(torch.from_numpy, words))]
    theirs = session.run(None, dict(zip(INPUTS, words, strict=True)))
    difference = 0.0
    for here, there in zip(ours, theirs, strict=True):
        real = np.isfinite(here)
        # Padding must be padding on both sides, and the difference of two infinities is not a number.
        apart = np.abs(here[real] - there[real]).max() if np.array_equal(real, np.isfinite(there)) else np.inf
        difference = max(difference, float(apart))
    return ShapeParity(batch=batch, context=context, question=question, difference=difference)
