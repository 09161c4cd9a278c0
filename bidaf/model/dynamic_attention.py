"""The paper's ablation "dynamic attention": the modeling LSTM attends to the question at each of its own steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bidaf.model.attention import AttentionWeights, length_mask, masked_softmax
from bidaf.model.encoder import BiLstm, lecun_uniform_, reverse_within_length


class AttentiveBiLstm(nn.Module):
    """A BiLSTM over [h_t; u~_t; h_t * u~_t; |h_t - u~_t|], where u~_t depends on its own previous state s_(t-1).

    u~_t is the mean of the question's vectors u_j by softmax_j(v . tanh(W h_t + V s_(t-1) + U u_j + b)): additive
    attention, as in the work that the paper follows here (Bahdanau et al., 2015; Wang and Jiang, 2016). The input of
    the LSTM is that of the released code. Each direction has weights of its own.

    Both directions run together, step after step: the attention of a step must wait for the state before it.
    """

    def __init__(self, size: int, hidden_size: int, p: float) -> None:
        super().__init__()
        self.lstm = BiLstm(4 * size, hidden_size, p)
        self.context_weight = nn.Parameter(torch.empty(2, hidden_size, size))
        self.question_weight = nn.Parameter(torch.empty(2, hidden_size, size))
        self.state_weight = nn.Parameter(torch.empty(2, hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(2, hidden_size))
        self.score_weight = nn.Parameter(torch.empty(2, hidden_size))
        for weight in (self.context_weight, self.question_weight, self.state_weight):
            lecun_uniform_(weight, 2 * size + hidden_size)
        lecun_uniform_(self.score_weight, hidden_size)

    def forward(
        self, context: Tensor, question: Tensor, context_length: Tensor, question_length: Tensor
    ) -> tuple[Tensor, AttentionWeights]:
        """Context [batch, T, 2d] and question [batch, J, 2d] -> [batch, T, 2d], exactly 0 beyond an example's length.

        The attention weights are the mean of both directions.
        """
        ahead = context.transpose(0, 1)
        steps = torch.stack([ahead, reverse_within_length(ahead, context_length)], dim=1)  # [T, 2, batch, 2d]
        by_context = torch.einsum("tnbi,noi->tnbo", steps, self.context_weight) + self.bias.unsqueeze(1)
        by_question = torch.einsum("bji,noi->nbjo", question, self.question_weight)
        mask = length_mask(question_length, question.shape[1])
        gate_weight = torch.cat([self.lstm.weight_ih, self.lstm.weight_hh], dim=2).transpose(1, 2)
        gate_bias, state_weight = self.lstm.bias.unsqueeze(1), self.state_weight.transpose(1, 2)
        score_weight = self.score_weight[:, None, :, None]

        state = cell = context.new_zeros(2, len(context), self.lstm.hidden_size)
        states: list[Tensor] = []
        weights: list[Tensor] = []
        for word, query in zip(steps, by_context, strict=True):
            scores = torch.tanh((query + state @ state_weight).unsqueeze(2) + by_question) @ score_weight
            weight = masked_softmax(scores.squeeze(3), mask)  # [2, batch, J]
            attended = (weight.to(question.dtype).unsqueeze(2) @ question).squeeze(2)
            inputs = torch.cat([word, attended, word * attended, (word - attended).abs()], dim=2)
            gates = torch.baddbmm(gate_bias, torch.cat([self.lstm.dropout(inputs), state], dim=2), gate_weight)
            entry, forget, candidate, output = gates.chunk(4, dim=2)
            cell = forget.sigmoid() * cell + entry.sigmoid() * candidate.tanh()
            state = output.sigmoid() * cell.tanh()
            states.append(state)
            weights.append(weight)
        ahead, back = _in_reading_order(torch.stack(weights), context_length)
        attention = (ahead + back) / 2
        padding = ~length_mask(context_length, context.shape[1]).unsqueeze(2)
        outputs = torch.cat(_in_reading_order(torch.stack(states), context_length), dim=2)
        return outputs.masked_fill(padding, 0.0), AttentionWeights(attention.masked_fill(padding, 0.0), None)


def _in_reading_order(steps: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """[T, 2, batch, size] in the order of each direction -> both [batch, T, size] in the order of the text."""
    ahead, back = steps.unbind(1)
    return ahead.transpose(0, 1), reverse_within_length(back, lengths).transpose(0, 1)
