"""A plain restatement of BiDAF (Seo et al., ICLR 2017, section 2) to hold the fast network against.

Everything the network does cleverly is done naively here: every token goes through the character CNN, the LSTMs
run on packed sequences, attention takes an example at a time with exactly its own tokens, so that no mask is
needed, and the similarity is one product with the whole [T, J, 6d] tensor. There is no dropout. The weights are
the network's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bidaf.model.attention import AttentionFlow
from bidaf.model.bidaf import Bidaf, SpanScorer, SpanScores
from bidaf.model.dynamic_attention import AttentiveBiLstm
from bidaf.model.embedding import WordTypeEmbedding
from bidaf.model.encoder import BiLstm


class PlainBidaf(nn.Module):
    """The same function of the same weights as `model`, from the words and characters of every token."""

    def __init__(self, model: Bidaf) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        context_rows: Tensor,
        context_chars: Tensor,
        context_length: Tensor,
        question_rows: Tensor,
        question_chars: Tensor,
        question_length: Tensor,
    ) -> SpanScores:
        """Rows [batch, tokens], characters [batch, tokens, word_chars], lengths [batch] -> scores [batch, T]."""
        model = self.model
        context_lstm = model.phrase if model.context_phrase is None else model.context_phrase
        context = run_lstm(context_lstm, embed(model.embedding, context_rows, context_chars), context_length)
        question = run_lstm(model.phrase, embed(model.embedding, question_rows, question_chars), question_length)
        attended = [
            attend(model.attention, h[:t], u[:j])
            for h, u, t, j in zip(context, question, context_length, question_length, strict=True)
        ]
        modeled = nn.utils.rnn.pad_sequence(attended, batch_first=True)
        flow = context if isinstance(model.attention, AttentiveBiLstm) else modeled
        for layer in model.modeling:
            assert isinstance(layer, BiLstm)
            modeled = run_lstm(layer, modeled, context_length)
        start, no_start = score(model, model.start_scorer, flow, modeled, context_length)
        end_input = modeled
        if model.variant == "released":
            rows = []
            for g, m, log_p, t in zip(flow, modeled, start, context_length, strict=True):
                summary = sum(log_p[:t].softmax(dim=0)[k] * m[k] for k in range(int(t)))
                assert isinstance(summary, Tensor)
                rows.append(torch.stack([torch.cat([g[k], m[k], summary, m[k] * summary]) for k in range(int(t))]))
            end_input = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        ends = run_lstm(model.end_lstm, end_input, context_length)
        end, no_end = score(model, model.end_scorer, flow, ends, context_length)
        width = context_rows.shape[1] - start.shape[1]
        start, end = (F.pad(scores, (0, width), value=-torch.inf) for scores in (start, end))
        return SpanScores(start, end, None if model.no_answer_bias is None else no_start + no_end)


def embed(layer: WordTypeEmbedding, rows: Tensor, chars: Tensor) -> Tensor:
    """Word row and characters of each token -> its vector [batch, tokens, size]."""
    parts = []
    if layer.char is not None:
        cnn = layer.char
        channels, size = cnn.weight.shape[0], cnn.embedding.shape[1]
        kernel = cnn.weight.view(channels, cnn.width, size).transpose(1, 2)
        embedded = cnn.embedding[chars].flatten(0, 1).transpose(1, 2)
        responses = F.relu(F.conv1d(embedded, kernel, cnn.bias))
        parts.append(responses.max(dim=2).values.view(*rows.shape, channels))
    if layer.word is not None:
        parts.append(torch.cat([layer.word.trained, layer.word.fixed])[rows])
    vectors = torch.cat(parts, dim=2)
    if layer.projection is not None:
        vectors = vectors @ layer.projection.weight.t()
    for transform, gate in zip(layer.highway.transforms, layer.highway.gates, strict=True):
        open_ = torch.sigmoid(gate(vectors))
        vectors = open_ * F.relu(transform(vectors)) + (1 - open_) * vectors
    return vectors


def run_lstm(layer: BiLstm, sequence: Tensor, lengths: Tensor) -> Tensor:
    """PyTorch's own bidirectional LSTM over packed sequences; its second bias is zero."""
    lstm = nn.LSTM(sequence.shape[2], layer.hidden_size, batch_first=True, bidirectional=True)
    weights = {}
    for direction, suffix in enumerate(("", "_reverse")):
        weights[f"weight_ih_l0{suffix}"] = layer.weight_ih[direction]
        weights[f"weight_hh_l0{suffix}"] = layer.weight_hh[direction]
        weights[f"bias_ih_l0{suffix}"] = layer.bias[direction]
        weights[f"bias_hh_l0{suffix}"] = torch.zeros_like(layer.bias[direction])
    packed = pack_padded_sequence(sequence, lengths, batch_first=True, enforce_sorted=False)
    outputs, _ = torch.func.functional_call(lstm, weights, (packed,))
    return pad_packed_sequence(outputs, batch_first=True)[0]


def attend(layer: AttentionFlow | AttentiveBiLstm, context: Tensor, question: Tensor) -> Tensor:
    """One example without padding: [T, 2d] and [J, 2d] -> what the modeling LSTM goes on from."""
    if isinstance(layer, AttentiveBiLstm):
        return attentive_lstm(layer, context, question)
    return attention_flow(layer, context, question)


def attention_flow(layer: AttentionFlow, context: Tensor, question: Tensor) -> Tensor:
    """One example without padding: [T, 2d] and [J, 2d] -> G [T, 8d], or [T, 6d] without question-to-context."""
    similarity = layer.similarity
    h = context[:, None, :].expand(-1, len(question), -1)
    u = question[None, :, :].expand(len(context), -1, -1)
    weight = torch.cat([similarity.context_weight, similarity.question_weight, similarity.product_weight])
    scores = torch.cat([h, u, h * u], dim=2) @ weight
    if similarity.bias is not None:
        scores = scores + similarity.bias
    attended_question = (
        scores.softmax(dim=1) @ question if layer.to_question else question.mean(dim=0).expand_as(context)
    )
    attended_context = (scores.max(dim=1).values.softmax(dim=0) @ context).expand_as(context)
    terms = [context, attended_question, context * attended_question, context * attended_context]
    return torch.cat(terms if layer.to_context else terms[:3], dim=1)


def attentive_lstm(layer: AttentiveBiLstm, context: Tensor, question: Tensor) -> Tensor:
    """One example without padding: [T, 2d] and [J, 2d] -> [T, 2d], one cell and one word of the question at a time."""
    lstm_cell = nn.LSTMCell(4 * context.shape[1], layer.lstm.hidden_size)
    directions = []
    for n, words in enumerate((context, context.flip(0))):
        weights = {"weight_ih": layer.lstm.weight_ih[n], "weight_hh": layer.lstm.weight_hh[n]}
        weights |= {"bias_ih": layer.lstm.bias[n], "bias_hh": torch.zeros_like(layer.lstm.bias[n])}
        state = cell = context.new_zeros(layer.lstm.hidden_size)
        states = []
        for h in words:
            query = layer.context_weight[n] @ h + layer.state_weight[n] @ state + layer.bias[n]
            scores = [layer.score_weight[n] @ torch.tanh(query + layer.question_weight[n] @ u) for u in question]
            attended = torch.stack(scores).softmax(dim=0) @ question
            x = torch.cat([h, attended, h * attended, abs(h - attended)])
            state, cell = torch.func.functional_call(lstm_cell, weights, (x, (state, cell)))
            states.append(state)
        directions.append(torch.stack(states))
    return torch.cat([directions[0], directions[1].flip(0)], dim=1)


def score(model: Bidaf, scorer: SpanScorer, flow: Tensor, rest: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities [batch, T] of each example's own tokens, -inf beyond them; and [batch] of no answer, or 0."""
    scores = torch.cat([flow, rest], dim=2) @ torch.cat([scorer.flow_weight, scorer.rest_weight])
    if scorer.bias is not None:
        scores = scores + scorer.bias
    rows, absent = [], []
    for row, length in zip(scores, lengths, strict=True):
        items = row[:length] if model.no_answer_bias is None else torch.cat([row[:length], model.no_answer_bias])
        log_probabilities = items.log_softmax(dim=0)
        rows.append(log_probabilities[:length])
        absent.append(log_probabilities[length:].sum())
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-torch.inf), torch.stack(absent)
