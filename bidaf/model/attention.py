"""Attention in both directions between context and question (paper, section 2, layer 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bidaf.model.encoder import lecun_uniform_


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """[batch] -> bool [batch, size], true at real positions."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax in at least fp32 over the positions where `mask` is true; 0 elsewhere.

    Every row along `dim` must have a true position: a text has at least one token.
    """
    if scores.dtype in (torch.bfloat16, torch.float16):
        scores = scores.float()
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=dim)


class AttentionWeights(NamedTuple):
    """What attends to what; weights of padding are 0. None where a variant has no attention in that direction."""

    to_question: Tensor | None
    """Context to question `[batch, T, J]`: each row adds up to 1 over the words of the question."""
    to_context: Tensor | None
    """Question to context `[batch, T]`: adds up to 1 over the words of the context."""


class TrilinearSimilarity(nn.Module):
    """S[t, j] = w . [h_t; u_j; h_t * u_j] (+ b), in three products instead of a [batch, T, J, 6d] tensor."""

    def __init__(self, size: int, bias: bool) -> None:
        super().__init__()
        self.context_weight = nn.Parameter(torch.empty(size))
        self.question_weight = nn.Parameter(torch.empty(size))
        self.product_weight = nn.Parameter(torch.empty(size))
        for weight in (self.context_weight, self.question_weight, self.product_weight):
            lecun_uniform_(weight, 3 * size)
        self.bias = nn.Parameter(torch.zeros(1)) if bias else None

    def forward(self, context: Tensor, question: Tensor) -> Tensor:
        """[batch, T, 2d], [batch, J, 2d] -> [batch, T, J]."""
        by_context = (context @ self.context_weight).unsqueeze(2)
        by_question = (question @ self.question_weight).unsqueeze(1)
        scores = torch.baddbmm(by_context + by_question, context * self.product_weight, question.transpose(1, 2))
        return scores if self.bias is None else scores + self.bias


class AttentionFlow(nn.Module):
    """G = [h; u~; h * u~; h * h~], [batch, T, 8d]: the query-aware representation of the context.

    The paper's ablations (Table 1b): without context-to-question attention, u~ is the mean of the question's vectors;
    without question-to-context attention, G lacks its last term and is 6d wide.
    """

    def __init__(self, size: int, bias: bool, *, to_question: bool = True, to_context: bool = True) -> None:
        super().__init__()
        self.to_question = to_question
        self.to_context = to_context
        self.output_size = (4 if to_context else 3) * size
        self.similarity = TrilinearSimilarity(size, bias)

    def attend(
        self, context: Tensor, question: Tensor, context_length: Tensor, question_length: Tensor
    ) -> AttentionWeights:
        """The weights by which context [batch, T, 2d] and question [batch, J, 2d] attend to each other."""
        scores = self.similarity(context, question)
        question_mask = length_mask(question_length, question.shape[1]).unsqueeze(1)
        to_question = masked_softmax(scores, question_mask) if self.to_question else None
        to_context: Tensor | None = None
        if self.to_context:
            strongest = scores.masked_fill(~question_mask, float("-inf")).amax(dim=2)
            to_context = masked_softmax(strongest, length_mask(context_length, context.shape[1]))
        return AttentionWeights(to_question, to_context)

    def forward(
        self, context: Tensor, question: Tensor, context_length: Tensor, question_length: Tensor
    ) -> tuple[Tensor, AttentionWeights]:
        """Context [batch, T, 2d] and question [batch, J, 2d] -> G, and the weights it was made with."""
        to_question, to_context = weights = self.attend(context, question, context_length, question_length)
        if to_question is None:
            uniform = length_mask(question_length, question.shape[1]).to(question.dtype) / question_length.unsqueeze(1)
            to_question = uniform.unsqueeze(1).expand(-1, context.shape[1], -1)
        attended_question = to_question.to(question.dtype) @ question
        attended = [attended_question]  # gradients are summed in the order of these lines: it decides the last bits
        if to_context is not None:
            attended.append(to_context.to(context.dtype).unsqueeze(1) @ context)
        return torch.cat([context, attended_question, *(context * each for each in attended)], dim=2), weights
