"""Batches are the questions themselves, padded; their order is a pure function of seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import CPU, Configure
from hypothesis import given, settings
from hypothesis import strategies as st

from bidaf.data.batches import FORMS_BUCKET, WIDTH_BUCKET, BatchSource, EpochOrder, batches_by_length
from bidaf.data.cache import Prepared
from bidaf.data.features import Features, Texts
from bidaf.model.build import build_model

FORMS, WORD_CHARS = 40, 5


def flatten(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    flat = np.array([form for text in texts for form in text], dtype=np.int32)
    return flat, np.cumsum([0, *map(len, texts)], dtype=np.int64)


def make_features(questions: int, contexts: int = 7, seed: int = 0, longest: int = 30) -> Features:
    """Random texts over `FORMS` forms; question i has 1 to 4 gold answers."""
    rng = np.random.default_rng(seed)

    def texts(number: int, longest: int) -> list[list[int]]:
        return [rng.integers(1, FORMS, rng.integers(1, longest + 1)).tolist() for _ in range(number)]

    context_types, context_offsets = flatten(texts(contexts, longest))
    question_types, question_offsets = flatten(texts(questions, 9))
    answers = rng.integers(1, 5, questions)
    word_rows = rng.integers(1, 100, FORMS).astype(np.int32)
    chars = rng.integers(1, 60, (FORMS, WORD_CHARS)).astype(np.int16)
    word_rows[0] = chars[0] = 0
    return Features(
        word_rows=word_rows,
        chars=chars,
        context_types=context_types,
        context_offsets=context_offsets,
        context_spans=np.zeros((len(context_types), 2), dtype=np.int32),
        question_types=question_types,
        question_offsets=question_offsets,
        question_context=rng.integers(0, contexts, questions).astype(np.int32),
        answer_spans=np.sort(rng.integers(0, longest, (answers.sum(), 2)), axis=1).astype(np.int32),
        answer_offsets=np.cumsum([0, *answers], dtype=np.int64),
        read_texts=lambda: Texts(
            ids=[f"q{number}" for number in range(questions)],
            questions=[""] * questions,
            titles=[None] * questions,
            contexts=[""] * contexts,
            answers=[["x"] * number for number in answers.tolist()],
        ),
    )


def make_source(questions: int, contexts: int = 7, seed: int = 0, longest: int = 30) -> BatchSource:
    return BatchSource(make_features(questions, contexts, seed, longest), CPU)


def make_order(
    source: BatchSource, batch_size: int, *, seed: int = 3, bucketed: bool = False, reshuffle: bool = True
) -> EpochOrder:
    return EpochOrder(source, batch_size, seed=seed, bucketed=bucketed, reshuffle=reshuffle)


def epoch(order: EpochOrder, number: int) -> list[np.ndarray]:
    first = number * order.batches_per_epoch
    return [order.batch(first + place)[0] for place in range(order.batches_per_epoch)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_a_batch_is_its_questions_one_by_one(seed: int, data: st.DataObject) -> None:
    source = make_source(12, seed=seed)
    features = source.features
    indices = np.array(data.draw(st.lists(st.integers(0, 11), min_size=1, max_size=8)))
    batch = source.gather(indices)
    expected = []
    for question in indices.tolist():
        context = features.question_context[question]
        for forms, offsets, text in (
            (features.context_types, features.context_offsets, context),
            (features.question_types, features.question_offsets, question),
        ):
            expected.append(forms[offsets[text] : offsets[text + 1]])
    for texts, lengths, wanted in (
        (batch.context, batch.context_length, expected[::2]),
        (batch.question, batch.question_length, expected[1::2]),
    ):
        assert lengths.tolist() == list(map(len, wanted))
        assert texts.shape == (len(indices), max(map(len, wanted)))
        for row, forms in zip(texts, wanted, strict=True):
            places, padding = row[: len(forms)], row[len(forms) :]
            assert batch.word_rows[places].tolist() == features.word_rows[forms].tolist()
            assert batch.chars[places].tolist() == features.chars[forms].tolist()
            assert padding.tolist() == [0] * len(padding)
            assert 0 not in places
    assert batch.word_rows[0] == 0
    assert not batch.chars[0].any()


def test_a_batch_holds_each_of_its_forms_once() -> None:
    source = make_source(20)
    source.features.word_rows[:] = np.arange(FORMS)
    batch = BatchSource(source.features, CPU).gather(np.arange(20))
    assert batch.word_rows.tolist() == sorted(set(batch.word_rows.tolist()))
    used = {0, *batch.context.flatten().tolist(), *batch.question.flatten().tolist()}
    assert used == set(range(len(batch.word_rows)))
    assert len(batch.chars) == len(batch.word_rows)


def test_gold_spans_are_those_of_the_answers_asked_for() -> None:
    source = make_source(9)
    answers = np.array([3, 0, 3, len(source.features.answer_spans) - 1])
    start, end = source.gold_spans(answers)
    assert torch.stack([start, end], dim=1).tolist() == source.features.answer_spans[answers].tolist()


@pytest.mark.parametrize("bucketed", [False, True])
@pytest.mark.parametrize(("questions", "batch_size"), [(10, 4), (12, 4), (3, 8), (1, 1), (257, 2)])
def test_an_epoch_asks_every_question_once(questions: int, batch_size: int, bucketed: bool) -> None:
    order = make_order(make_source(questions), batch_size, bucketed=bucketed)
    full, rest = divmod(questions, batch_size)
    for number in range(2):
        batches = epoch(order, number)
        assert sorted(np.concatenate(batches).tolist()) == list(range(questions))
        assert [len(batch) for batch in batches] == [batch_size] * full + [rest] * (rest > 0)


@pytest.mark.parametrize("bucketed", [False, True])
@pytest.mark.parametrize("reshuffle", [False, True])
def test_any_batch_can_be_asked_for_at_any_time(bucketed: bool, reshuffle: bool) -> None:
    source = make_source(50)
    straight = make_order(source, 8, bucketed=bucketed, reshuffle=reshuffle)
    jumping = make_order(source, 8, bucketed=bucketed, reshuffle=reshuffle)
    expected = [straight.batch(number) for number in range(21)]
    for number in np.random.default_rng(0).permutation(21).tolist():
        for found, wanted in zip(jumping.batch(number), expected[number], strict=True):
            assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("bucketed", [False, True])
def test_seed_and_epoch_decide_the_order(bucketed: bool) -> None:
    source = make_source(200)
    seen = {
        tuple(np.concatenate(epoch(make_order(source, 10, seed=seed, bucketed=bucketed), number)).tolist())
        for seed in (0, 1)
        for number in (0, 1, 2)
    }
    assert len(seen) == 6


@pytest.mark.parametrize("bucketed", [False, True])
def test_without_reshuffling_every_epoch_has_the_order_of_the_first(bucketed: bool) -> None:
    source = make_source(50)
    still = make_order(source, 8, bucketed=bucketed, reshuffle=False)
    moving = make_order(source, 8, bucketed=bucketed)
    first = [batch.tolist() for batch in epoch(moving, 0)]
    assert [batch.tolist() for batch in epoch(still, 0)] == first
    assert [batch.tolist() for batch in epoch(still, 5)] == first
    assert [batch.tolist() for batch in epoch(moving, 5)] != first


def padded_tokens(source: BatchSource, order: EpochOrder) -> int:
    return sum(len(batch) * int(source.context_lengths[batch].max()) for batch in epoch(order, 0))


def test_bucketed_batches_waste_less_on_padding() -> None:
    source = make_source(600, contexts=200, longest=300)
    tokens = int(source.context_lengths.sum())
    plain, bucketed = (padded_tokens(source, make_order(source, 10, bucketed=bucketed)) for bucketed in (False, True))
    assert bucketed - tokens < (plain - tokens) / 5


def test_bucketed_batches_come_in_no_order_of_length() -> None:
    source = make_source(600, contexts=200, longest=300)
    longest = [int(source.context_lengths[batch].max()) for batch in epoch(make_order(source, 10, bucketed=True), 0)]
    steps = np.sign(np.diff(longest))
    assert (steps > 0).sum() > 10
    assert (steps < 0).sum() > 10


@pytest.mark.parametrize("reshuffle", [False, True])
def test_each_epoch_draws_one_of_a_questions_own_answers(reshuffle: bool) -> None:
    source = make_source(60)
    offsets = source.features.answer_offsets
    order = make_order(source, 7, reshuffle=reshuffle)
    drawn: list[set[int]] = [set() for _ in range(60)]
    for number in range(40 * order.batches_per_epoch):
        for question, answer in zip(*order.batch(number), strict=True):
            assert offsets[question] <= answer < offsets[question + 1]
            drawn[question].add(int(answer))
    # 40 draws of one in four miss an answer of a question once in a hundred thousand times.
    assert [len(answers) for answers in drawn] == np.diff(offsets).tolist()


def test_the_answers_of_an_epoch_are_the_same_however_batches_are_made() -> None:
    source = make_source(30)
    chosen = []
    for batch_size, bucketed in ((4, False), (7, True)):
        order = make_order(source, batch_size, bucketed=bucketed)
        pairs = [zip(*order.batch(number), strict=True) for number in range(order.batches_per_epoch)]
        chosen.append({int(question): int(answer) for batch in pairs for question, answer in batch})
    assert chosen[0] == chosen[1]


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), max_size=60), budget=st.integers(1, 200))
def test_batches_by_length_hold_every_question_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(batches_by_length(lengths, budget))
    flat = [int(index) for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths, reverse=True)
    for number, batch in enumerate(batches, 1):
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert number == len(batches) or (len(batch) + 1) * longest > budget


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_every_shape_gives_every_question_the_same_scores(
    configure: Configure, prepared: Prepared, variant: str
) -> None:
    source, vocabulary = BatchSource(prepared.features("train"), CPU), prepared.vocabulary()
    sizes = {"num_trained": len(vocabulary.trained_words), "num_chars": len(vocabulary.chars)}
    torch.manual_seed(0)
    settings = configure(model={"variant": variant}).model
    model = build_model(settings, **sizes, vectors=prepared.vectors(), device=CPU).double().eval()
    questions = np.array([20, 3, 9, 14, 1])
    with torch.no_grad():
        exact = model(source.gather(questions))
        shape = source.shape_of(questions)
        for wider in range(0, 400, WIDTH_BUCKET):
            padded = shape._replace(context=shape.context + wider, forms=shape.forms + (wider // 100) * FORMS_BUCKET)
            scores = model(source.gather_padded(torch.from_numpy(questions), padded))
            for one, other in ((exact.start, scores.start), (exact.end, scores.end)):
                torch.testing.assert_close(other[:, : one.shape[1]], one, rtol=1e-8, atol=1e-10)
                assert torch.isneginf(other[:, one.shape[1] :]).all()


def test_a_shape_is_the_smallest_of_few_that_holds_the_batch(prepared: Prepared) -> None:
    source = BatchSource(prepared.features("train"), CPU)
    questions = np.arange(8)
    shape, batch = source.shape_of(questions), source.gather(questions)
    needed = (batch.context.shape[1], int(source.questions.lengths.max()), len(batch.word_rows))
    for size, least, bucket in zip(shape, needed, (WIDTH_BUCKET, WIDTH_BUCKET, FORMS_BUCKET), strict=True):
        assert size % bucket == 0
        assert size - bucket < least <= size
