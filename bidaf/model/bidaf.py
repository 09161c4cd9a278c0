"""BiDAF: from a batch of word types to the log-probabilities of answer starts and ends."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bidaf.config import ModelConfig
from bidaf.model.attention import AttentionFlow, AttentionWeights, length_mask, masked_softmax
from bidaf.model.dropout import Dropout
from bidaf.model.dynamic_attention import AttentiveBiLstm
from bidaf.model.embedding import CharCnn, Highway, WordEmbedding, WordTypeEmbedding
from bidaf.model.encoder import BiLstm, lecun_uniform_

EMBEDDING_TABLES = {"embedding.word.trained": "word table", "embedding.char.embedding": "char table"}
"""Weights that are rows to look up, by name, and what they are called."""


class Batch(NamedTuple):
    """Padded texts. `context` and `question` index into the batch's distinct word types, where 0 is padding."""

    context: Tensor  # [batch, T]
    question: Tensor  # [batch, J]
    context_length: Tensor  # [batch], at least 1
    question_length: Tensor  # [batch], at least 1
    word_rows: Tensor  # [types]
    chars: Tensor  # [types, word_chars]


class SpanScores(NamedTuple):
    """Log-probabilities [batch, T] of the answer's first and last token; padding is -inf. At least fp32.

    They add up to 1 over the tokens, or with "no answer", whose share is in both, over the tokens and that.
    """

    start: Tensor
    end: Tensor
    no_answer: Tensor | None = None
    """Log-probability [batch] that there is no answer: the sum of its shares in `start` and in `end`."""
    log_total: Tensor | None = None
    """Log [batch] of what the two softmaxes divided by: a span's log-probability plus this is its unnormalised score,
    the sum of the two numbers that the output layer gives its ends."""


class SpanScorer(nn.Module):
    """w . [G; rest] (+ b): the score of each token, [batch, T]. G and the rest come unconcatenated."""

    def __init__(self, flow_size: int, rest_size: int, p: float, bias: bool) -> None:
        super().__init__()
        self.flow_weight = nn.Parameter(torch.empty(flow_size))
        self.rest_weight = nn.Parameter(torch.empty(rest_size))
        for weight in (self.flow_weight, self.rest_weight):
            lecun_uniform_(weight, flow_size + rest_size)
        self.bias = nn.Parameter(torch.zeros(1)) if bias else None
        self.dropout = Dropout(p)

    def forward(self, flow: Tensor, rest: Tensor) -> Tensor:
        scores = self.dropout.score(flow, self.flow_weight) + self.dropout.score(rest, self.rest_weight)
        return scores if self.bias is None else scores + self.bias


class Bidaf(nn.Module):
    """The network of Seo et al. (ICLR 2017), section 2, in the variant and sizes of a `ModelConfig`.

    `fixed` [fixed words, word_size] holds the pre-trained vectors: never trained, and not part of the state dict.
    """

    def __init__(self, config: ModelConfig, *, num_trained: int, num_chars: int, fixed: Tensor) -> None:
        super().__init__()
        d, p = config.hidden_size, config.dropout
        has_word, has_char = config.embeddings != "char", config.embeddings != "word"
        joined = has_char * config.char_channels + has_word * fixed.shape[1]
        size = config.projection_size or joined
        self.variant = config.variant
        self.is_dynamic = config.attention == "dynamic"
        self.embedding = WordTypeEmbedding(
            WordEmbedding(num_trained, fixed) if has_word else None,
            CharCnn(num_chars, config.char_embedding_size, config.char_channels, config.char_width, p)
            if has_char
            else None,
            nn.Linear(joined, size, bias=False) if config.projection_size else None,
            Highway(size, config.highway_layers),
        )
        self.phrase = BiLstm(size, d, p)
        self.context_phrase = None if config.share_phrase_lstm else BiLstm(size, d, p)
        self.context_dropout = config.context_dropout
        self.attention: AttentionFlow | AttentiveBiLstm
        if self.is_dynamic:
            self.attention = AttentiveBiLstm(2 * d, d, p)  # the first layer of the modeling LSTM, too
            flow_size, layer_sizes = 2 * d, [2 * d] * (config.modeling_layers - 1)
        else:
            self.attention = AttentionFlow(
                2 * d,
                config.score_bias,
                to_question=config.attention != "query_to_context",
                to_context=config.attention != "context_to_query",
            )
            flow_size = self.attention.output_size
            layer_sizes = [flow_size, *[2 * d] * (config.modeling_layers - 1)]
        self.modeling = nn.ModuleList(BiLstm(layer_size, d, p) for layer_size in layer_sizes)
        self.end_lstm = BiLstm(2 * d if config.variant == "paper" else flow_size + 6 * d, d, p)
        self.start_scorer = SpanScorer(flow_size, 2 * d, p, config.score_bias)
        self.end_scorer = SpanScorer(flow_size, 2 * d, p, config.score_bias)
        # One score for "no answer", joined to those of all starts and of all ends (Levy et al., 2017).
        self.no_answer_bias = nn.Parameter(torch.zeros(1)) if config.no_answer else None

    def forward(self, batch: Batch) -> SpanScores:
        return self.score_and_attend(batch)[0]

    def score_and_attend(self, batch: Batch) -> tuple[SpanScores, AttentionWeights]:
        """`forward`, and the attention weights by which it read the context."""
        context, question = self.encode(batch)
        modeled, attention = self.attention(context, question, batch.context_length, batch.question_length)
        # What the output layer reads next to M: G, and where the modeling LSTM attends there is no G but the context.
        flow = context if self.is_dynamic else modeled
        for layer in self.modeling:
            modeled = layer(modeled, batch.context_length)
        mask = length_mask(batch.context_length, batch.context.shape[1])
        start = self.start_scorer(flow, modeled)
        end_input = modeled
        if self.variant == "released":
            start_weights = masked_softmax(start, mask).to(modeled.dtype)
            summary = (start_weights.unsqueeze(1) @ modeled).expand_as(modeled)
            end_input = torch.cat([flow, modeled, summary, modeled * summary], dim=2)
        end = self.end_scorer(flow, self.end_lstm(end_input, batch.context_length))
        if self.no_answer_bias is None:
            scores = SpanScores(_log_probabilities(start, mask), _log_probabilities(end, mask))
        else:
            bias = self.no_answer_bias.to(start.dtype).expand_as(start[:, :1])
            joined = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            starts = _log_probabilities(torch.cat([start, bias], dim=1), joined)
            ends = _log_probabilities(torch.cat([end, bias], dim=1), joined)
            scores = SpanScores(starts[:, :-1], ends[:, :-1], starts[:, -1] + ends[:, -1])
        log_total = _log_divisor(start, scores.start) + _log_divisor(end, scores.end)
        return scores._replace(log_total=log_total), attention

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Phrase vectors of context [batch, T, 2d] and question [batch, J, 2d]."""
        forms = self.embedding(batch.word_rows, batch.chars)
        lstm = self.phrase if self.context_phrase is None else self.context_phrase
        context = lstm(F.embedding(batch.context, forms), batch.context_length, with_dropout=self.context_dropout)
        question = self.phrase(F.embedding(batch.question, forms), batch.question_length)
        return context, question


def _log_probabilities(scores: Tensor, mask: Tensor) -> Tensor:
    if scores.dtype in (torch.bfloat16, torch.float16):
        scores = scores.float()
    return scores.masked_fill(~mask, float("-inf")).log_softmax(dim=1)


def _log_divisor(scores: Tensor, log_probabilities: Tensor) -> Tensor:
    """Log [batch] of the sum of exponentials that made these probabilities of these scores; any token shows it."""
    return scores[:, 0].detach() - log_probabilities[:, 0].detach()


def span_loss(scores: SpanScores, start: Tensor, end: Tensor) -> Tensor:
    """Mean over the batch of -log p1[start] - log p2[end] (paper, equation 5). `start`, `end` [batch].

    Where they are negative, the question has no answer, and its loss is -log p1[no answer] - log p2[no answer].
    """
    if scores.no_answer is None:
        return F.nll_loss(scores.start, start) + F.nll_loss(scores.end, end)
    first, last = (places.clamp(min=0).unsqueeze(1) for places in (start, end))
    span = (scores.start.gather(1, first) + scores.end.gather(1, last)).squeeze(1)
    return -torch.where(start < 0, scores.no_answer, span).mean()


def count_weights(model: nn.Module) -> dict[str, int]:
    """Trained weights of each part, in the order of the network; embedding tables are separate parts."""
    counts: dict[str, int] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            part = EMBEDDING_TABLES.get(name) or ".".join(name.split(".")[: 2 if name.startswith("embedding") else 1])
            counts[part] = counts.get(part, 0) + weight.numel()
    return counts
