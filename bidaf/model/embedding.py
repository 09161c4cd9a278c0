"""Word and character vectors of a batch's distinct word types, joined by highway layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bidaf.model.dropout import Dropout
from bidaf.model.encoder import lecun_uniform_


class WordEmbedding(nn.Module):
    """Rows of two tables under one numbering: trained rows first, then the fixed (pre-trained) ones.

    As in the released code, the table of words without a pre-trained vector (with padding and unknown) trains, and
    pre-trained rows never do. The fixed table is not part of the state dict: it belongs to the vocabulary.
    """

    fixed: Tensor

    def __init__(self, num_trained: int, fixed: Tensor) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.randn(num_trained, fixed.shape[1]))
        self.register_buffer("fixed", fixed, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """[types] -> [types, word_size]."""
        num_trained = self.trained.shape[0]
        trained = F.embedding(rows.clamp(max=num_trained - 1), self.trained)
        if self.fixed.shape[0] == 0:
            return trained
        fixed = F.embedding((rows - num_trained).clamp(min=0), self.fixed)
        return torch.where((rows < num_trained).unsqueeze(1), trained, fixed)


class CharCnn(nn.Module):
    """Characters -> filters -> the strongest response of each over the word (paper, section 2, layer 1).

    Words always come padded to the same width, so that the padding's own responses, which take part in the maximum as
    they do in the released code, are the same wherever a word stands.
    """

    def __init__(self, num_chars: int, embedding_size: int, channels: int, width: int, p: float) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Parameter(torch.empty(num_chars, embedding_size))
        self.weight = nn.Parameter(torch.empty(channels, width * embedding_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.dropout = Dropout(p)
        lecun_uniform_(self.embedding, num_chars)
        lecun_uniform_(self.weight, width * embedding_size)

    def forward(self, chars: Tensor) -> Tensor:
        """[types, word_chars] -> [types, channels]."""
        embedded = self.dropout(F.embedding(chars, self.embedding))
        windows = embedded.unfold(1, self.width, 1).transpose(2, 3).flatten(2)
        return F.relu(F.linear(windows, self.weight, self.bias)).amax(dim=1)


class Highway(nn.Module):
    """x + gate * (relu(transform) - x), repeated (Srivastava et al., 2015; ReLU and gate bias 0 as released)."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(nn.Linear(size, size) for _ in range(layers))
        self.gates = nn.ModuleList(nn.Linear(size, size) for _ in range(layers))
        for linear in (*self.transforms, *self.gates):
            assert isinstance(linear, nn.Linear)
            lecun_uniform_(linear.weight, size)
            nn.init.zeros_(linear.bias)

    def forward(self, values: Tensor) -> Tensor:
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            values = values + torch.sigmoid(gate(values)) * (F.relu(transform(values)) - values)
        return values


class WordTypeEmbedding(nn.Module):
    """The vector of each distinct word type of a batch, [types, size].

    Characters, concatenation and highway see a word alone, without its neighbours. To run them once per distinct type
    instead of once per token does a quarter of the work in a batch of 60 and changes no value.

    The paper's ablations (Table 1b) leave out the characters or the words; never both.
    """

    def __init__(
        self, word: WordEmbedding | None, char: CharCnn | None, projection: nn.Linear | None, highway: Highway
    ) -> None:
        super().__init__()
        self.word = word
        self.char = char
        self.projection = projection
        self.highway = highway

    def forward(self, word_rows: Tensor, chars: Tensor) -> Tensor:
        parts: list[Tensor] = []
        if self.char is not None:
            parts.append(self.char(chars))
        if self.word is not None:
            parts.append(self.word(word_rows))
        joined = torch.cat(parts, dim=1)
        if self.projection is not None:
            joined = self.projection(joined)
        vectors: Tensor = self.highway(joined)
        return vectors
