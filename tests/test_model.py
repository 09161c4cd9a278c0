"""The network computes what the paper says, whatever is padded around an example or stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from reference import PlainBidaf
from torch import Tensor

from bidaf.config import ModelConfig
from bidaf.model.attention import AttentionFlow
from bidaf.model.bidaf import Batch, Bidaf, SpanScores, count_weights, span_loss
from bidaf.model.dropout import Dropout
from bidaf.model.dynamic_attention import AttentiveBiLstm

NUM_TRAINED, NUM_FIXED, NUM_CHARS, WORD_CHARS = 4, 9, 8, 6
SMALL: dict[str, Any] = {
    "hidden_size": 5,
    "char_embedding_size": 3,
    "char_channels": 6,
    "char_width": 3,
    "dropout": 0.0,
}

Texts = Sequence[Sequence[int]]
"""Texts as rows of a small lexicon; the word of row 0 is padding."""


def lexicon() -> tuple[Tensor, Tensor]:
    """Word row and padded characters of 12 forms: form 0 is padding, form 1 has one character."""
    generator = torch.Generator().manual_seed(7)
    rows = torch.randint(1, NUM_TRAINED + NUM_FIXED, (12,), generator=generator)
    chars = torch.randint(1, NUM_CHARS, (12, WORD_CHARS), generator=generator)
    lengths = torch.randint(2, WORD_CHARS + 1, (12, 1), generator=generator)
    rows[0], lengths[0], lengths[1] = 0, 0, 1
    return rows, chars.masked_fill(torch.arange(WORD_CHARS) >= lengths, 0)


ROWS, CHARS = lexicon()
# Repeated forms, a text of one token, a question of one token, a context shorter than its question.
CONTEXTS: Texts = [[2, 3, 4, 2, 5, 6, 1], [7], [1, 8, 9], [4, 4, 4, 11, 10]]
QUESTIONS: Texts = [[3, 1, 5], [2, 7, 9, 1], [6], [4, 10]]


def make_model(seed: int = 0, dtype: torch.dtype = torch.float64, **settings: Any) -> Bidaf:
    """A small network whose every weight, biases included, is random."""
    torch.manual_seed(seed)
    fixed = torch.randn(NUM_FIXED, 4)
    config = ModelConfig(**{**SMALL, **settings})
    model = Bidaf(config, num_trained=NUM_TRAINED, num_chars=NUM_CHARS, fixed=fixed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.4)
    return model.to(dtype)


def pad(texts: Texts, extra: int = 0) -> Tensor:
    width = max(map(len, texts)) + extra
    return torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])


def make_batch(contexts: Texts = CONTEXTS, questions: Texts = QUESTIONS, extra: int = 0) -> Batch:
    context_length, question_length = (torch.tensor(list(map(len, texts))) for texts in (contexts, questions))
    return Batch(pad(contexts, extra), pad(questions, extra), context_length, question_length, ROWS, CHARS)


def plain_scores(model: Bidaf, batch: Batch) -> SpanScores:
    tokens = {
        "context_rows": batch.word_rows[batch.context],
        "context_chars": batch.chars[batch.context],
        "question_rows": batch.word_rows[batch.question],
        "question_chars": batch.chars[batch.question],
    }
    scores: SpanScores = PlainBidaf(model)(
        **tokens, context_length=batch.context_length, question_length=batch.question_length
    )
    return scores


def parts(scores: SpanScores) -> list[Tensor]:
    """What there is of start, end and no answer."""
    return [part for part in (scores.start, scores.end, scores.no_answer) if part is not None]


def gradients(model: Bidaf, scores: SpanScores) -> dict[str, Tensor]:
    """Gradients of a loss that weighs every score of every token differently."""
    generator = torch.Generator().manual_seed(3)
    loss = torch.zeros((), dtype=scores.start.dtype)
    for part in parts(scores):
        weights = torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part.dtype)
        loss = loss + (part.masked_fill(part == -torch.inf, 0.0) * weights).sum()
    names, weights_ = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, weights_, materialize_grads=True), strict=True))


SETTINGS: list[dict[str, Any]] = [
    {},
    {"share_phrase_lstm": False},
    {"score_bias": False},
    {"projection_size": 5},
    {"highway_layers": 0},
    {"modeling_layers": 3},
    {"char_width": WORD_CHARS},
]
NO_ANSWER: dict[str, Any] = {"no_answer": True}
ABLATIONS: list[dict[str, Any]] = [
    {"embeddings": "word"},
    {"embeddings": "char"},
    {"attention": "context_to_query"},
    {"attention": "query_to_context"},
    {"attention": "dynamic"},
]


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("settings", [*SETTINGS, *ABLATIONS, NO_ANSWER], ids=str)
def test_scores_and_every_gradient_equal_those_of_the_plain_restatement(variant: str, settings: dict[str, Any]) -> None:
    model = make_model(variant=variant, **settings)
    if isinstance(model.attention, AttentionFlow):  # context words should differ in their most similar question word
        model.attention.similarity.product_weight.detach().mul_(9.0)
    batch = make_batch(extra=2)
    fast, plain = model(batch), plain_scores(model, batch)
    torch.testing.assert_close(parts(fast), parts(plain), rtol=0, atol=1e-8)
    expected = gradients(model, plain)
    for name, gradient in gradients(model, fast).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-8)
    # Nothing above agrees by being zero: only what is the same for every item of a softmax has no effect.
    constant = ["similarity.bias"]
    constant += ["start_scorer.bias", "end_scorer.bias"] * (not settings.get("no_answer"))
    constant += ["similarity.context_weight"] * (settings.get("attention") == "context_to_query")
    without_effect = {n for n, gradient in expected.items() if gradient.abs().max() < 1e-12}
    assert without_effect == {n for n in expected if n.endswith(tuple(constant))}


@pytest.mark.parametrize("settings", [{"variant": "paper"}, {"variant": "released"}, *ABLATIONS, NO_ANSWER], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_scores_depend_on_neither_padding_nor_batch_nor_neighbours(
    settings: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    model = make_model(dtype=dtype, **settings)
    together = model(make_batch())
    for k, (context, question) in enumerate(zip(CONTEXTS, QUESTIONS, strict=True)):
        others = [i for i in (3, 1, 0) if i != k]
        for scores, row in (
            (model(make_batch([context], [question])), 0),
            (model(make_batch([context], [question], extra=9)), 0),
            (
                model(
                    make_batch([*(CONTEXTS[i] for i in others), context], [*(QUESTIONS[i] for i in others), question])
                ),
                len(others),
            ),
        ):
            for ours, alone in zip(parts(together), parts(scores), strict=True):
                shown = slice(len(context)) if ours.dim() == 2 else ...
                torch.testing.assert_close(alone[row][shown], ours[k][shown], rtol=0, atol=tolerance)


def test_what_the_padding_form_holds_changes_no_score_and_gets_no_gradient() -> None:
    model = make_model()
    batch = make_batch(extra=3)
    rows, chars = ROWS.clone(), CHARS.clone()
    rows[0], chars[0] = NUM_TRAINED + 2, torch.arange(WORD_CHARS)
    scores = model(batch)
    changed = model(batch._replace(word_rows=rows, chars=chars))
    torch.testing.assert_close(parts(changed), parts(scores), rtol=0, atol=1e-12)
    assert gradients(model, scores)["embedding.word.trained"][0].abs().max() == 0


def test_scores_are_log_probabilities_over_the_context_and_impossible_beyond_it() -> None:
    model = make_model()
    batch = make_batch(extra=2)
    for part in model(batch)[:2]:
        torch.testing.assert_close(part.exp().sum(1), torch.ones(4, dtype=torch.float64))
        beyond = torch.arange(part.shape[1]) >= batch.context_length[:, None]
        assert torch.equal(part == -torch.inf, beyond)


@pytest.mark.parametrize("settings", [{"variant": "paper"}, {"variant": "released"}, *ABLATIONS, NO_ANSWER], ids=str)
def test_gradients_are_finite_however_much_is_padding(settings: dict[str, Any]) -> None:
    model = make_model(**settings, dtype=torch.float32, dropout=0.4)
    model.train()
    scores = model(make_batch(extra=30))
    gold = torch.tensor([6, 0, -1 if settings == NO_ANSWER else 2, 4])
    loss = span_loss(scores, gold, gold)
    for gradient in torch.autograd.grad(loss, tuple(model.parameters())):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, 1_610_703),
        ({"variant": "released"}, 2_570_703),
        ({"score_bias": False}, 1_610_700),
        ({"share_phrase_lstm": False}, 1_851_503),
        ({"embeddings": "word"}, 1_406_203),
        ({"embeddings": "char"}, 1_410_303),
        ({"attention": "query_to_context"}, 1_610_703),
        ({"attention": "context_to_query"}, 1_450_303),
        ({"attention": "dynamic"}, 1_709_302),
        ({"no_answer": True}, 1_610_704),
        ({"attention": "dynamic", "variant": "released"}, 2_189_302),
    ],
)
def test_the_number_of_weights_is_the_documented_one(settings: dict[str, Any], weights: int) -> None:
    config = ModelConfig(**settings)
    model = Bidaf(config, num_trained=3, num_chars=11, fixed=torch.zeros(5, 100))
    counts = count_weights(model)
    words, chars = counts.pop("word table", 0), counts.pop("char table", 0)
    assert words == (0 if config.embeddings == "char" else 3 * 100)
    assert chars == (0 if config.embeddings == "word" else 11 * 8)
    assert sum(counts.values()) == weights
    assert sum(weight.numel() for weight in model.parameters()) == weights + words + chars


def test_pretrained_vectors_neither_train_nor_are_saved_with_the_weights() -> None:
    model = make_model()
    assert model.embedding.word is not None
    fixed = model.embedding.word.fixed
    assert not fixed.requires_grad
    assert not any("fixed" in name for name in model.state_dict())
    before = model(make_batch()).start
    with torch.no_grad():
        fixed.add_(1.0)
    assert not torch.allclose(model(make_batch()).start, before)


def test_a_network_without_pretrained_vectors_works() -> None:
    config = ModelConfig(**SMALL)
    model = Bidaf(config, num_trained=NUM_TRAINED + NUM_FIXED, num_chars=NUM_CHARS, fixed=torch.zeros(0, 4))
    assert model(make_batch()).start.exp().sum(1).tolist() == pytest.approx([1.0] * 4)


def test_a_loaded_state_dict_gives_the_same_scores() -> None:
    model, other = make_model(), make_model(seed=1)
    for twin, own in zip(other.buffers(), model.buffers(), strict=True):
        twin.copy_(own)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(make_batch()).end, model(make_batch()).end)


def test_every_lstm_starts_with_open_forget_gates() -> None:
    model = Bidaf(ModelConfig(**SMALL), num_trained=2, num_chars=2, fixed=torch.zeros(2, 4))
    for name, weight in model.named_parameters():
        if name.endswith(".bias") and weight.dim() == 2:
            gates = weight.view(2, 4, SMALL["hidden_size"])
            assert gates.mean(dim=(0, 2)).tolist() == [0.0, 1.0, 0.0, 0.0], name


def test_attention_weighs_real_tokens_alone() -> None:
    torch.manual_seed(0)
    attention = AttentionFlow(6, bias=True)
    lengths = torch.tensor([4, 1]), torch.tensor([1, 3])
    to_question, to_context = attention(torch.randn(2, 4, 6), torch.randn(2, 3, 6), *lengths)[1]
    torch.testing.assert_close(to_question.sum(2), torch.ones(2, 4))
    torch.testing.assert_close(to_context.sum(1), torch.ones(2))
    assert to_question[0, :, 1:].abs().max() == 0
    assert to_context[1].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_only_dynamic_attention_depends_on_the_words_read_before() -> None:
    """Of the context, attention to the question looks at one word; in the LSTM it looks at the previous state, too."""
    torch.manual_seed(0)
    context, question = torch.randn(1, 5, 6), torch.randn(1, 3, 6)
    lengths = torch.tensor([5]), torch.tensor([3])
    changed = context.clone()
    changed[0, 0] += 1.0
    for attention, is_dynamic in ((AttentionFlow(6, bias=True), False), (AttentiveBiLstm(6, 3, p=0.0), True)):
        before, after = (attention(words, question, *lengths)[1].to_question for words in (context, changed))
        torch.testing.assert_close(before.sum(2), torch.ones(1, 5))
        assert differs(before[0, 0], after[0, 0])
        assert all(differs(before[0, t], after[0, t]) is is_dynamic for t in range(1, 5))


def test_a_variant_has_no_weights_of_an_attention_that_it_lacks() -> None:
    found = {
        name: [weights is not None for weights in make_model(attention=name).score_and_attend(make_batch())[1]]
        for name in ("both", "context_to_query", "query_to_context", "dynamic")
    }
    assert found == {
        "both": [True, True],
        "context_to_query": [True, False],
        "query_to_context": [False, True],
        "dynamic": [True, False],
    }


def test_the_loss_is_the_mean_of_both_negative_log_probabilities() -> None:
    scores = make_model()(make_batch())
    start, end = [1, 0, 0, 2], [3, 0, 2, 2]
    by_hand = -sum(scores.start[k, start[k]] + scores.end[k, end[k]] for k in range(4)) / 4
    torch.testing.assert_close(span_loss(scores, torch.tensor(start), torch.tensor(end)), by_hand)


def test_with_no_answer_the_scores_of_all_tokens_and_of_none_add_up_to_one() -> None:
    model = make_model(no_answer=True)
    scores = model(make_batch(extra=2))
    bias = model.no_answer_bias
    assert bias is not None
    assert scores.no_answer is not None
    shares = [1 - part.exp().sum(1) for part in scores[:2]]
    torch.testing.assert_close(shares[0] * shares[1], scores.no_answer.exp(), rtol=0, atol=1e-12)
    with torch.no_grad():
        bias.add_(1.0)
    raised = model(make_batch(extra=2))
    assert (raised.no_answer > scores.no_answer).all()
    # The bias competes with all tokens alike.
    torch.testing.assert_close(raised.start.softmax(1), scores.start.softmax(1), rtol=0, atol=1e-12)


def test_the_loss_of_a_question_without_an_answer_is_that_of_no_start_and_no_end() -> None:
    scores = make_model(no_answer=True)(make_batch())
    start, end = [1, -1, 0, -1], [3, -1, 2, -1]
    spans = [scores.start[k, start[k]] + scores.end[k, end[k]] for k in (0, 2)]
    by_hand = -(sum(spans) + scores.no_answer[1] + scores.no_answer[3]) / 4
    torch.testing.assert_close(span_loss(scores, torch.tensor(start), torch.tensor(end)), by_hand)
    answered = span_loss(scores, torch.tensor([1, 0, 0, 2]), torch.tensor([3, 0, 2, 2]))
    without = SpanScores(scores.start, scores.end)
    torch.testing.assert_close(answered, span_loss(without, torch.tensor([1, 0, 0, 2]), torch.tensor([3, 0, 2, 2])))


@pytest.mark.parametrize("attention", ["both", "dynamic"])
def test_scores_stay_in_single_precision_under_autocast(attention: str) -> None:
    model = make_model(dtype=torch.float32, attention=attention)
    expected = model(make_batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(make_batch())
    for part, whole in zip(scores[:2], expected[:2], strict=True):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part, whole, rtol=0, atol=0.02)


def differs(once: Tensor, again: Tensor) -> bool:
    return not torch.equal(once, again)


@pytest.mark.parametrize("attention", ["both", "dynamic"])
def test_dropout_acts_in_training_alone(attention: str) -> None:
    model = make_model(dropout=0.5, attention=attention)
    model.train()
    assert differs(model(make_batch()).start, model(make_batch()).start)
    model.eval()
    assert torch.equal(model(make_batch()).start, model(make_batch()).start)


@pytest.mark.parametrize("shared", [True, False])
def test_context_dropout_spares_the_context_phrase_lstm_alone(shared: bool) -> None:
    for context_dropout in (True, False):
        model = make_model(dropout=0.5, context_dropout=context_dropout, share_phrase_lstm=shared)
        model.train()
        model.embedding.eval()
        once, again = model.encode(make_batch()), model.encode(make_batch())
        assert differs(once[0], again[0]) is context_dropout
        assert differs(once[1], again[1])


@pytest.mark.parametrize("shape", [(100_001,), (333, 300), (1,), (0,)])
@pytest.mark.parametrize("drop", [0.2, 0.5])
def test_dropout_keeps_its_share_and_scales_it_back(shape: tuple[int, ...], drop: float) -> None:
    torch.manual_seed(0)
    values = torch.ones(shape, requires_grad=True)
    dropped = Dropout(drop)(values)
    scale = torch.tensor(1 / (1 - drop)).item()
    assert set(dropped.flatten().tolist()) <= {0.0, scale}
    if values.numel() > 1:
        assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    (gradient,) = torch.autograd.grad(dropped.sum(), values)
    assert torch.equal(gradient, dropped)


def test_the_same_seed_makes_the_same_network() -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        made.append(Bidaf(ModelConfig(**SMALL), num_trained=3, num_chars=4, fixed=torch.zeros(2, 4)))
    for ours, theirs in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)
