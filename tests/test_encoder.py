"""The padded BiLSTM is PyTorch's packed one: values, gradients, and nothing of the padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bidaf.model.encoder import BiLstm, reverse_within_length

DOUBLE = torch.float64
LENGTHS = [[7, 1, 4, 7, 2], [1], [3, 3, 3], [1, 9]]


def make_pair(inputs: int, hidden: int, seed: int = 0) -> tuple[BiLstm, nn.LSTM]:
    """Our layer and PyTorch's with the same weights; the second bias of the latter is zero."""
    torch.manual_seed(seed)
    ours = BiLstm(inputs, hidden, p=0.0).to(DOUBLE)
    nn.init.normal_(ours.bias)
    theirs = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True, dtype=DOUBLE)
    with torch.no_grad():
        for direction, suffix in enumerate(("", "_reverse")):
            getattr(theirs, f"weight_ih_l0{suffix}").copy_(ours.weight_ih[direction])
            getattr(theirs, f"weight_hh_l0{suffix}").copy_(ours.weight_hh[direction])
            getattr(theirs, f"bias_ih_l0{suffix}").copy_(ours.bias[direction])
            getattr(theirs, f"bias_hh_l0{suffix}").zero_()
    return ours, theirs


def run_packed(lstm: nn.LSTM, sequence: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(sequence, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=sequence.shape[1])[0]


def stacked(lstm: nn.LSTM, name: str) -> Tensor:
    grads = [getattr(lstm, f"{name}_l0{suffix}").grad for suffix in ("", "_reverse")]
    return torch.stack(grads)


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_values_and_gradients_are_those_of_packed_sequences(lengths: list[int], extra: int) -> None:
    ours, theirs = make_pair(inputs=5, hidden=3)
    steps = torch.tensor(lengths)
    sequence = torch.randn(len(lengths), max(lengths) + extra, 5, dtype=DOUBLE, requires_grad=True)
    twin = sequence.detach().clone().requires_grad_()
    found, expected = ours(sequence, steps), run_packed(theirs, twin, steps)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    for ours_grad, theirs_grad in [
        (sequence.grad, twin.grad),
        (ours.weight_ih.grad, stacked(theirs, "weight_ih")),
        (ours.weight_hh.grad, stacked(theirs, "weight_hh")),
        (ours.bias.grad, stacked(theirs, "bias_ih")),
    ]:
        torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-10, atol=1e-10)


def test_output_is_exactly_zero_at_padding_and_takes_no_gradient_there() -> None:
    ours, _ = make_pair(4, 3)
    lengths = torch.tensor([2, 5, 1])
    sequence = torch.randn(3, 6, 4, dtype=DOUBLE, requires_grad=True)
    outputs = ours(sequence, lengths)
    outputs.square().sum().backward()
    assert sequence.grad is not None
    for row, grad, length in zip(outputs, sequence.grad, lengths.tolist(), strict=True):
        assert torch.count_nonzero(row[length:]) == torch.count_nonzero(grad[length:]) == 0
        assert torch.count_nonzero(row[:length]) == length * 6
        assert (grad[:length] != 0).all()


@pytest.mark.parametrize("filler", [0.0, 1e30, float("inf"), float("nan")])
def test_nothing_depends_on_what_the_padding_holds_or_how_long_it_is(filler: float) -> None:
    ours, _ = make_pair(4, 3)
    lengths = torch.tensor([2, 5, 1])
    short = torch.randn(3, 5, 4, dtype=DOUBLE)
    long = torch.cat([short, torch.zeros(3, 4, 4, dtype=DOUBLE)], dim=1)
    long[torch.arange(9) >= lengths.unsqueeze(1)] = filler
    torch.testing.assert_close(ours(long, lengths)[:, :5], ours(short, lengths), rtol=1e-12, atol=1e-12)


def test_an_example_alone_gives_what_it_gives_among_others() -> None:
    ours, _ = make_pair(4, 3)
    lengths = torch.tensor([2, 5, 1])
    sequence = torch.randn(3, 5, 4, dtype=DOUBLE)
    together = ours(sequence, lengths)
    for number, length in enumerate(lengths.tolist()):
        alone = ours(sequence[number : number + 1, :length], lengths[number : number + 1])
        torch.testing.assert_close(alone[0], together[number, :length], rtol=1e-12, atol=1e-12)


def test_dropout_acts_on_the_input_only_in_training_and_only_when_wanted() -> None:
    torch.manual_seed(0)
    layer = BiLstm(20, 4, p=0.5)
    lengths = torch.tensor([6, 3])
    sequence = torch.randn(2, 6, 20)
    clean = layer.eval()(sequence, lengths)
    layer.train()
    torch.testing.assert_close(layer(sequence, lengths, with_dropout=False), clean)
    assert (layer(sequence, lengths) - clean).abs().max() > 0.01


@pytest.mark.parametrize("lengths", LENGTHS)
def test_reversing_turns_each_example_around_and_twice_is_nothing(lengths: list[int]) -> None:
    steps = torch.tensor(lengths)
    sequence = torch.randn(max(lengths) + 2, len(lengths), 3)
    reversed_ = reverse_within_length(sequence, steps)
    for row, original, length in zip(reversed_.unbind(1), sequence.unbind(1), lengths, strict=True):
        assert torch.equal(row[:length], original[:length].flip(0))
        assert torch.equal(row[length:], original[length:])
    assert torch.equal(reverse_within_length(reversed_, steps), sequence)


def test_the_gradient_of_reversing_is_right() -> None:
    sequence = torch.randn(5, 3, 2, dtype=DOUBLE, requires_grad=True)
    lengths = torch.tensor([5, 1, 3])
    assert torch.autograd.gradcheck(lambda values: reverse_within_length(values, lengths), sequence)


def test_a_transposed_input_is_reversed_too() -> None:
    sequence = torch.randn(3, 5, 2).transpose(0, 1)
    lengths = torch.tensor([5, 1, 3])
    assert torch.equal(reverse_within_length(sequence, lengths), reverse_within_length(sequence.contiguous(), lengths))
