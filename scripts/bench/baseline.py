"""The baseline: a straightforward BiDAF that ours is compared with, in results and in speed.

The same function of the same weights as `bidaf.model.bidaf.Bidaf`, without any optimization: every token goes through
the character CNN, LSTMs run on packed sequences, the similarity is a loop over the question's words, dropout is
PyTorch's, and the average is a dictionary of tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bidaf.config import Config
from bidaf.data.batches import BatchSource
from bidaf.model.attention import AttentionFlow
from bidaf.model.bidaf import Batch, Bidaf, SpanScores, span_loss
from bidaf.model.encoder import BiLstm
from bidaf.training.optimizer import build_optimizer
from bidaf.training.step import Numbers, Phase


class BaselineLstm(nn.Module):
    """A bidirectional `nn.LSTM` over packed sequences. Its second bias, which adds nothing, is frozen at 0."""

    def __init__(self, layer: BiLstm) -> None:
        super().__init__()
        size, hidden = layer.weight_ih.shape[2], layer.hidden_size
        self.lstm = nn.LSTM(size, hidden, batch_first=True, bidirectional=True, dtype=layer.weight_ih.dtype)
        with torch.no_grad():
            for direction, suffix in enumerate(("", "_reverse")):
                getattr(self.lstm, f"weight_ih_l0{suffix}").copy_(layer.weight_ih[direction])
                getattr(self.lstm, f"weight_hh_l0{suffix}").copy_(layer.weight_hh[direction])
                getattr(self.lstm, f"bias_ih_l0{suffix}").copy_(layer.bias[direction])
                getattr(self.lstm, f"bias_hh_l0{suffix}").zero_().requires_grad_(False)
        self.p = layer.dropout.p

    def forward(self, sequence: Tensor, lengths: Tensor, with_dropout: bool = True) -> Tensor:
        """[batch, steps, in] -> [batch, steps, 2d]."""
        if with_dropout:
            sequence = F.dropout(sequence, self.p, self.training)
        packed = pack_padded_sequence(sequence, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=sequence.shape[1])[0]


class BaselineBidaf(nn.Module):
    """A copy of `model`'s weights; `forward` takes the same batch and gives the same scores."""

    def __init__(self, model: Bidaf) -> None:
        super().__init__()
        word, char = model.embedding.word, model.embedding.char
        assert word is not None
        assert char is not None
        assert isinstance(model.attention, AttentionFlow)
        channels, size = char.weight.shape[0], char.embedding.shape[1]
        self.trained_words = nn.Parameter(word.trained.detach().clone())
        self.fixed_words = nn.Buffer(word.fixed)
        self.chars = nn.Parameter(char.embedding.detach().clone())
        self.conv = nn.Conv1d(size, channels, char.width, dtype=char.weight.dtype)
        with torch.no_grad():
            self.conv.weight.copy_(char.weight.view(channels, char.width, size).transpose(1, 2))
            self.conv.bias.copy_(char.bias)  # type: ignore[union-attr]
        self.projection = _copy(model.embedding.projection) if model.embedding.projection else None
        self.transforms = nn.ModuleList(map(_copy, model.embedding.highway.transforms))
        self.gates = nn.ModuleList(map(_copy, model.embedding.highway.gates))
        self.phrase = BaselineLstm(model.phrase)
        self.context_phrase = BaselineLstm(model.context_phrase) if model.context_phrase else None
        self.context_dropout = model.context_dropout
        similarity = model.attention.similarity
        weights = (similarity.context_weight, similarity.question_weight, similarity.product_weight)
        self.similarity = _linear(torch.cat(weights), similarity.bias)
        self.modeling = nn.ModuleList(BaselineLstm(layer) for layer in model.modeling)  # type: ignore[arg-type]
        self.end_lstm = BaselineLstm(model.end_lstm)
        start, end = model.start_scorer, model.end_scorer
        self.start = _linear(torch.cat([start.flow_weight, start.rest_weight]), start.bias)
        self.end = _linear(torch.cat([end.flow_weight, end.rest_weight]), end.bias)
        self.variant, self.p = model.variant, char.dropout.p
        self.to(word.trained.device)

    def forward(self, batch: Batch) -> SpanScores:
        context_mask = _mask(batch.context_length, batch.context.shape[1])
        question_mask = _mask(batch.question_length, batch.question.shape[1])
        context = self.embed(batch.word_rows[batch.context], batch.chars[batch.context])
        question = self.embed(batch.word_rows[batch.question], batch.chars[batch.question])
        lstm = self.context_phrase or self.phrase
        context = lstm(context, batch.context_length, self.context_dropout)
        question = self.phrase(question, batch.question_length)
        flow = self.attend(context, question, context_mask, question_mask)
        modeled = flow
        for layer in self.modeling:
            modeled = layer(modeled, batch.context_length)
        start = self.score(self.start, flow, modeled).masked_fill(~context_mask, -torch.inf)
        end_input = modeled
        if self.variant == "released":
            summary = (start.softmax(dim=1).unsqueeze(1) @ modeled).expand_as(modeled)
            end_input = torch.cat([flow, modeled, summary, modeled * summary], dim=2)
        end = self.score(self.end, flow, self.end_lstm(end_input, batch.context_length))
        end = end.masked_fill(~context_mask, -torch.inf)
        return SpanScores(start.log_softmax(dim=1), end.log_softmax(dim=1))

    def embed(self, rows: Tensor, chars: Tensor) -> Tensor:
        """Word rows [batch, tokens] and characters [batch, tokens, word_chars] -> [batch, tokens, size]."""
        num_trained = self.trained_words.shape[0]
        words = F.embedding(rows.clamp(max=num_trained - 1), self.trained_words)
        if len(self.fixed_words):
            fixed = F.embedding((rows - num_trained).clamp(min=0), self.fixed_words)
            words = torch.where((rows < num_trained).unsqueeze(2), words, fixed)
        embedded = F.dropout(F.embedding(chars, self.chars), self.p, self.training)
        responses = F.relu(self.conv(embedded.flatten(0, 1).transpose(1, 2)))
        vectors = torch.cat([responses.max(dim=2).values.view(*rows.shape, -1), words], dim=2)
        if self.projection is not None:
            vectors = self.projection(vectors)
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            opened = torch.sigmoid(gate(vectors))
            vectors = opened * F.relu(transform(vectors)) + (1 - opened) * vectors
        return vectors

    def attend(self, context: Tensor, question: Tensor, context_mask: Tensor, question_mask: Tensor) -> Tensor:
        """[batch, T, 2d] and [batch, J, 2d] -> G [batch, T, 8d], one word of the question after the other."""
        columns = []
        for word in question.unbind(dim=1):
            word = word.unsqueeze(1).expand_as(context)
            columns.append(self.similarity(torch.cat([context, word, context * word], dim=2)).squeeze(2))
        scores = torch.stack(columns, dim=2).masked_fill(~question_mask.unsqueeze(1), -torch.inf)
        attended_question = scores.softmax(dim=2) @ question
        weights = scores.max(dim=2).values.masked_fill(~context_mask, -torch.inf).softmax(dim=1)
        attended_context = (weights.unsqueeze(1) @ context).expand_as(context)
        return torch.cat([context, attended_question, context * attended_question, context * attended_context], dim=2)

    def score(self, linear: nn.Linear, flow: Tensor, rest: Tensor) -> Tensor:
        """[batch, T]."""
        joined = F.dropout(torch.cat([flow, rest], dim=2), self.p, self.training)
        scores: Tensor = linear(joined).squeeze(2)
        return scores


class BaselineAverage:
    """The shadow as a dictionary, updated one tensor after the other. `decay_at` gives a step's decay."""

    def __init__(self, model: nn.Module, decay_at: Callable[[int], float]) -> None:
        self.model, self.decay_at, self.steps = model, decay_at, 0
        self.shadow = {name: weight.data.clone() for name, weight in model.named_parameters() if weight.requires_grad}

    def update(self) -> None:
        """shadow = decay * shadow + (1 - decay) * weight."""
        self.steps += 1
        decay = self.decay_at(self.steps)
        for name, weight in self.model.named_parameters():
            if weight.requires_grad:
                self.shadow[name] = decay * self.shadow[name] + (1.0 - decay) * weight.data


class BaselineTraining:
    """Training of the baseline, starting from the weights of `model`; `phase` as for `TrainingStep`.

    `decay_at` is the average's decay at each step, as `ExponentialMovingAverage.decay_at` gives it.
    """

    def __init__(
        self, model: Bidaf, config: Config, decay_at: Callable[[int], float], phase: Phase = lambda name: nullcontext()
    ) -> None:
        self.model = BaselineBidaf(model)
        self.average = BaselineAverage(self.model, decay_at)
        self.optimizer = build_optimizer(self.model, config.training.optimizer)
        self.clip_norm = config.training.clip_norm
        self._phase = phase

    def step(self, source: BatchSource, questions: Numbers, answers: Numbers) -> float:
        """One step on these questions and gold answers; its loss."""
        self.model.train()
        with self._phase("batch"):
            batch = source.gather(questions)
            start, end = source.gold_spans(answers)
        with self._phase("forward"):
            loss = span_loss(self.model(batch), start, end)
        with self._phase("backward"):
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        with self._phase("optimizer"):
            if self.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.optimizer.step()
        with self._phase("ema"):
            self.average.update()
        return loss.item()


def _copy(linear: nn.Module) -> nn.Linear:
    assert isinstance(linear, nn.Linear)
    return _linear(linear.weight, linear.bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    weight = weight.detach().view(-1, weight.shape[-1])
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def _mask(lengths: Tensor, size: int) -> Tensor:
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)
