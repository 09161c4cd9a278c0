"""A step: its loss, its micro-batches, its check for figures that are not finite, its random numbers."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, Configure, to_bytes
from torch import Tensor

from bidaf.config import Config
from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared
from bidaf.ema.average import ExponentialMovingAverage, trained_weights
from bidaf.errors import BidafError
from bidaf.model.bidaf import Bidaf, SpanScores, span_loss
from bidaf.model.build import build_model
from bidaf.training.optimizer import build_optimizer
from bidaf.training.step import StepResult, TrainingStep

MakeOptimizer = Callable[[Bidaf], torch.optim.Optimizer]
# Seven questions of several contexts, a number that no number of micro-batches divides.
QUESTIONS = np.array([20, 3, 9, 14, 1, 22, 7])


class Bench:
    """A step with everything it changes, and the questions it runs on."""

    def __init__(self, config: Config, prepared: Prepared, make_optimizer: MakeOptimizer | None, dtype: Any) -> None:
        torch.manual_seed(0)
        vocabulary = prepared.vocabulary()
        self.model = build_model(
            config.model,
            num_trained=len(vocabulary.trained_words),
            num_chars=len(vocabulary.chars),
            vectors=prepared.vectors(),
            device=CPU,
        ).to(dtype)
        self.ema = ExponentialMovingAverage(self.model, decay=0.9)
        optimizer = config.training.optimizer
        self.optimizer = make_optimizer(self.model) if make_optimizer else build_optimizer(self.model, optimizer)
        self.step = TrainingStep(self.model, self.optimizer, self.ema, config.training, nullcontext)
        self.source = BatchSource(prepared.features("train"), CPU)

    def run(self, number: int = 1, questions: Any = QUESTIONS) -> StepResult:
        # The last gold answer of each question: for some it is not the first.
        return self.step.run(self.source, questions, self.source.features.answer_offsets[questions + 1] - 1, number)

    def weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in trained_weights(self.model)}

    def everything(self) -> dict[str, dict[str, bytes]]:
        fields = {
            f"{number}.{name}": torch.as_tensor(value)
            for number, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        parts: dict[str, Mapping[str, Tensor]] = {"raw": self.weights(), "shadow": self.ema.shadow, "optimizer": fields}
        return {name: to_bytes(tensors) for name, tensors in parts.items()} | {"counter": {str(self.ema.steps): b""}}


MakeBench = Callable[..., Bench]


def plain_descent(model: Bidaf) -> torch.optim.Optimizer:
    """With rate 1 the change of the weights is the gradient."""
    return torch.optim.SGD(model.parameters(), lr=1.0)


@pytest.fixture
def bench(configure: Configure, prepared: Prepared) -> MakeBench:
    def make(
        make_optimizer: MakeOptimizer | None = None,
        *,
        dropout: float = 0.0,
        dtype: torch.dtype = torch.float32,
        **training: Any,
    ) -> Bench:
        config = configure(model={"dropout": dropout}, training=training)
        return Bench(config, prepared, make_optimizer, dtype)

    return make


def norm_of_change(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(((after[name] - before[name]) ** 2).sum()) for name in before))


def test_the_loss_is_the_mean_negative_log_probability_of_both_ends(bench: MakeBench) -> None:
    b = bench(dtype=torch.float64)
    features = b.source.features
    expected = 0.0
    with torch.no_grad():
        for question in QUESTIONS:  # each on its own: no batching, padding or cutting
            first, last = features.answer_spans[features.answer_offsets[question + 1] - 1]
            scores = b.model(b.source.gather(np.array([question])))
            expected -= float(scores.start[0, int(first)] + scores.end[0, int(last)])
    result = b.run()
    assert result.updated
    assert result.loss == pytest.approx(expected / len(QUESTIONS), rel=1e-6)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_batch_in_micro_batches_moves_weights_and_shadow_as_the_whole_does(bench: MakeBench, count: int) -> None:
    whole, split = (bench(plain_descent, dtype=torch.float64, accumulate=n, clip_norm=1.0) for n in (1, count))
    before = whole.weights()
    one, other = whole.run(), split.run()
    assert other.loss == pytest.approx(one.loss, rel=1e-6)
    assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-9)
    for ours, theirs in ((split.weights(), whole.weights()), (split.ema.shadow, whole.ema.shadow)):
        torch.testing.assert_close(dict(ours), dict(theirs), rtol=0, atol=1e-12)
    assert norm_of_change(before, split.weights()) > 0.1
    assert split.ema.steps == 1


def test_a_batch_smaller_than_their_number_runs_one_question_in_each(bench: MakeBench) -> None:
    whole, split = bench(plain_descent, accumulate=1), bench(plain_descent, accumulate=4)
    losses = [b.run(questions=QUESTIONS[:2]).loss for b in (whole, split)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_counter_of_the_shadow_counts_optimizer_steps(bench: MakeBench) -> None:
    b = bench(accumulate=3)
    for number in range(1, 6):
        b.run(number)
        assert b.ema.steps == number
        assert {int(state["step"]) for state in b.optimizer.state.values()} == {number}


def test_the_shadow_follows_the_weights_after_the_step(bench: MakeBench) -> None:
    b = bench()
    before = b.weights()
    b.run()
    expected = {name: 0.9 * before[name] + 0.1 * weight for name, weight in b.weights().items()}
    torch.testing.assert_close(dict(b.ema.shadow), expected)


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_the_gradient_is_scaled_to_the_norm_only_when_it_is_longer(bench: MakeBench, limit: float) -> None:
    b = bench(plain_descent, dtype=torch.float64, clip_norm=limit)
    before = b.weights()
    result = b.run()
    assert 0.01 < result.grad_norm < 1e6  # reported as it was before clipping
    assert norm_of_change(before, b.weights()) == pytest.approx(min(limit, result.grad_norm), rel=1e-4)


def infinite_loss(scores: SpanScores, start: Tensor, end: Tensor) -> Tensor:
    return span_loss(scores, start, end) * float("inf")


def nan_loss(scores: SpanScores, start: Tensor, end: Tensor) -> Tensor:
    return span_loss(scores, start, end) * float("nan")


def nan_gradient(scores: SpanScores, start: Tensor, end: Tensor) -> Tensor:
    """The right loss; the slope of the square root at 0 is infinite, times 0."""
    return span_loss(scores, start, end) + (scores.start[:, 0].sum() * 0.0).sqrt()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("poison", [infinite_loss, nan_loss, nan_gradient])
def test_stop_names_the_questions_and_changes_nothing(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, poison: Any, accumulate: int
) -> None:
    b = bench(accumulate=accumulate, clip_norm=1.0)
    b.run(1)
    before = b.everything()
    monkeypatch.setattr("bidaf.training.step.span_loss", poison)
    with pytest.raises(BidafError, match=r"^step 2: .* not finite; no weight was changed") as caught:
        b.run(2)
    assert caught.value.exit_code == 1
    for question in QUESTIONS:
        assert b.source.features.ids[question] in str(caught.value)
    assert b.everything() == before


@pytest.mark.parametrize("poison", [infinite_loss, nan_loss, nan_gradient])
def test_a_skipped_step_leaves_no_trace_in_those_that_follow(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, poison: Any
) -> None:
    b, untroubled = bench(nonfinite="skip", dropout=0.3), bench(nonfinite="skip", dropout=0.3)
    for one in (b, untroubled):
        one.run(1)
    before = b.everything()
    with monkeypatch.context() as patch:
        patch.setattr("bidaf.training.step.span_loss", poison)
        result = b.run(2)
    assert not result.updated
    assert b.everything() == before
    assert b.run(3).updated
    untroubled.run(3)
    assert b.everything() == untroubled.everything()
    assert b.ema.steps == 2


def test_one_weight_that_is_not_a_number_is_noticed(bench: MakeBench) -> None:
    b = bench()
    with torch.no_grad():
        b.model.start_scorer.flow_weight[0] = float("nan")
    with pytest.raises(BidafError, match="loss nan"):
        b.run()


def test_dropout_masks_are_a_function_of_seed_and_step(bench: MakeBench) -> None:
    def loss(seed: int, number: int, state_of_generator: int) -> float:
        b = bench(dropout=0.5, seed=seed)
        torch.manual_seed(state_of_generator)
        return b.run(number).loss

    assert loss(0, 1, state_of_generator=5) == loss(0, 1, state_of_generator=6)
    assert len({loss(0, 1, 5), loss(0, 2, 5), loss(1, 1, 5), loss(1, 2, 5)}) == 4


def test_a_batch_on_a_cpu_is_not_padded_further(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a shape that is known beforehand is for a GPU")

    monkeypatch.setattr(BatchSource, "gather_padded", refuse)
    assert bench().run().updated


def test_a_step_trains_though_the_model_was_left_in_evaluation_mode(bench: MakeBench) -> None:
    in_training, in_evaluation = bench(dropout=0.5), bench(dropout=0.5)
    in_evaluation.model.eval()
    assert in_training.run().loss == in_evaluation.run().loss


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads, and batches that are large enough to be cut for them."""
    monkeypatch.setattr("bidaf.training.micro_batches.FEWEST_TOKENS", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_micro_batches_at_the_same_time_compute_what_they_do_one_after_the_other(bench: MakeBench) -> None:
    seen = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        b = bench(dropout=0.3)
        results = [b.run(step) for step in (1, 2, 3)]
        seen.append((b.everything(), [(result.loss, result.grad_norm) for result in results]))
    assert seen[0] == seen[1]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_accumulated_micro_batches_run_one_after_the_other(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    threads = []

    def noting(*given: Any) -> Tensor:
        threads.append(threading.current_thread())
        return span_loss(*given)

    monkeypatch.setattr("bidaf.training.step.span_loss", noting)
    bench(accumulate=accumulate).run()
    assert len(threads) >= 2
    assert (set(threads) == {threading.main_thread()}) == (accumulate > 1)
