"""One optimizer step: forward, backward, check, update of weights and shadow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.config import TrainingConfig
from bidaf.data.batches import BatchSource, Shape, upload
from bidaf.distributed import ALONE, Group
from bidaf.ema.average import ExponentialMovingAverage
from bidaf.errors import BidafError
from bidaf.model.bidaf import Batch, Bidaf, span_loss
from bidaf.model.dropout import drawing_from
from bidaf.threads import map_on_threads
from bidaf.training.cuda_graph import CudaGraphs
from bidaf.training.micro_batches import cut
from bidaf.training.optimizer import learning_rate_factor, scale_learning_rate

Numbers = NDArray[np.int64]
Phase = Callable[[str], AbstractContextManager[object]]
"""Wraps each phase of a step: batch, forward, backward, optimizer, ema."""


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step computed. On a GPU, reading it waits for the step."""

    figures: Tensor
    """[2], on the device: mean loss of the batch, and global norm of its gradient before clipping."""
    updated: bool
    """False when the step was skipped. True also where it has not been checked yet (`TrainingStep.looks_at_once`)."""
    stop_flags: Tensor | None = None
    """With several processes: the sum of the stop flags that all of them passed in, on the device."""

    @property
    def loss(self) -> float:
        return float(self.figures[0])

    @property
    def grad_norm(self) -> float:
        return float(self.figures[1])


class TrainingStep:
    """Holds what a step changes: model, optimizer, shadow.

    With `phase`, each phase of a step runs inside its context, to be measured; nothing is recorded then.
    """

    def __init__(
        self,
        model: Bidaf,
        optimizer: torch.optim.Optimizer,
        ema: ExponentialMovingAverage | None,
        config: TrainingConfig,
        precision: Callable[[], AbstractContextManager[object]],
        group: Group = ALONE,
        phase: Phase | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.ema = ema
        self.config = config
        self.precision = precision
        self.group = group
        self._phase = phase or (lambda name: nullcontext())
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        device = self._weights[0].device
        self.looks_at_once = device.type == "cpu" or config.nonfinite == "skip"
        """Whether each step checks its own loss. On a GPU every step would have to wait for that: there the figures are
        checked when they are read, before anything is saved, and the run ends."""
        self._graphs: CudaGraphs | None = None
        if device.type == "cuda" and group.size == 1 and phase is None:
            self._graphs = CudaGraphs(self._accumulate, device)
            self._loss = torch.zeros((), device=device)
            self._gradient = [torch.zeros_like(weight) for weight in self._weights]

    def run(
        self, source: BatchSource, questions: Numbers, answers: Numbers, step: int, stop_flags: Sequence[float] = ()
    ) -> StepResult:
        """Train on these questions and gold answers as optimizer step `step`.

        Several processes call this with the same arguments, but for their own `stop_flags`, which are summed; each runs
        its share of the batch's micro-batches.

        Dropout masks are a function of (seed, step) and the batch. Each micro-batch counts by its number of questions;
        optimizer and shadow move once. When loss or gradient is not finite, nothing changes: raises `BidafError` naming
        the questions, or returns with `updated` false (`nonfinite: skip`).
        """
        self.model.train()
        scale_learning_rate(self.optimizer, learning_rate_factor(self.config.schedule, step))
        micro_batches = self._cut(source, questions, answers, step)
        compute = self._sum_recorded if self._graphs is not None else self._sum_written_out
        loss, gradient = compute(source, micro_batches)
        summed_flags: Tensor | None = None
        if self.group.size > 1:
            loss, gradient, summed_flags = self.group.sum_gradients(loss, gradient, stop_flags)
        figures = torch.stack([loss, torch.nn.utils.get_total_norm(gradient)])
        updated = not self.looks_at_once or bool(torch.isfinite(figures).all())
        if updated:
            with self._phase("optimizer"):
                self._descend(gradient, figures[1])
            if self.ema is not None:
                with self._phase("ema"):
                    self.ema.update()
        elif self.config.nonfinite == "stop":
            ids = [source.features.ids[question] for question in questions]
            raise nonfinite_error(step, figures.tolist(), ids, saved="no weight was changed")
        return StepResult(figures, updated, summed_flags)

    def _cut(self, source: BatchSource, questions: Numbers, answers: Numbers, step: int) -> list[_MicroBatch]:
        """This process's share of the micro-batches."""
        size = self.group.size
        at_least = -(-self.config.accumulate // size) * size  # the same number for each process
        positions = cut(source.context_lengths[questions], source.device, at_least=min(at_least, len(questions)))
        seeds = [np.random.SeedSequence([self.config.seed, step, number]) for number in range(len(positions))]
        micro_batches = [
            _MicroBatch(
                questions[chosen], answers[chosen], len(chosen) / len(questions), int(seed.generate_state(1)[0])
            )
            for chosen, seed in zip(positions, seeds, strict=True)
        ]
        return micro_batches[self.group.shard]

    def _sum_written_out(self, source: BatchSource, micro_batches: list[_MicroBatch]) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradient, summed over the micro-batches in their order."""

        def run(one: _MicroBatch) -> tuple[Tensor, tuple[Tensor, ...]]:
            if source.device.type != "cpu":
                torch.manual_seed(one.seed)
            with drawing_from(one.seed):
                with self._phase("batch"):
                    batch, spans = _gather(source, one.questions), source.gold_spans(one.answers)
                return self._differentiate(batch, spans, one.share)

        # Side by side on a CPU's threads; one after the other when micro-batches are there to save memory.
        in_turn = self.config.accumulate > 1
        results = map(run, micro_batches) if in_turn else map_on_threads(run, micro_batches, source.device)
        losses: list[Tensor] = []
        total: list[Tensor] = []
        for loss, gradient in results:
            losses.append(loss)
            if total:
                torch._foreach_add_(total, gradient)
            else:
                total = list(gradient)
        if not losses:  # fewer questions than processes
            return self._weights[0].new_zeros(()), [torch.zeros_like(weight) for weight in self._weights]
        return torch.stack(losses).sum(), total

    def _sum_recorded(self, source: BatchSource, micro_batches: list[_MicroBatch]) -> tuple[Tensor, list[Tensor]]:
        """The same by CUDA graphs, which add to memory that exists before them."""
        assert self._graphs is not None
        torch._foreach_zero_([self._loss, *self._gradient])
        for one in micro_batches:
            torch.manual_seed(one.seed)
            self._graphs.run(source, one.questions, one.answers, one.share)
        return self._loss, self._gradient

    def _accumulate(self, source: BatchSource, questions: Tensor, answers: Tensor, shape: Shape, share: float) -> None:
        batch, spans = source.gather_padded(questions, shape), source.gold_spans(answers)
        loss, gradient = self._differentiate(batch, spans, share)
        torch._foreach_add_([self._loss, *self._gradient], [loss, *gradient])

    def _differentiate(
        self, batch: Batch, spans: tuple[Tensor, Tensor], share: float
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Loss and gradient of a micro-batch that holds this share of the batch's questions."""
        with self._phase("forward"):
            with self.precision():
                scores = self.model(batch)
            loss = span_loss(scores, *spans) * share
        with self._phase("backward"):
            return loss.detach(), torch.autograd.grad(loss, self._weights)

    def _descend(self, gradient: list[Tensor], norm: Tensor) -> None:
        for weight, its_gradient in zip(self._weights, gradient, strict=True):
            weight.grad = its_gradient
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._weights, self.config.clip_norm, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class _MicroBatch(NamedTuple):
    questions: Numbers
    answers: Numbers
    share: float
    """Of the batch's questions, on all processes together."""
    seed: int
    """Of its dropout masks."""


def _gather(source: BatchSource, questions: Numbers) -> Batch:
    """On a GPU in a shape that is known beforehand, so that the host need not wait."""
    if source.device.type != "cuda":
        return source.gather(questions)
    return source.gather_padded(upload(questions, source.device), source.shape_of(questions))


def nonfinite_error(step: int, figures: Sequence[float], ids: Sequence[str], *, saved: str) -> BidafError:
    """The error that ends a run whose loss or gradient is not finite; `saved` says what was saved of it."""
    loss, grad_norm = figures
    return BidafError(
        f"step {step}: loss {loss} with gradient norm {grad_norm} is not finite; {saved}. Lower training.optimizer.lr "
        "or set training.clip_norm, or set training.nonfinite: skip to skip such batches. "
        f"Questions of the batch: {', '.join(ids)}"
    )
