"""One optimizer step: forward, backward, guard, update of weights and shadow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.config import TrainingConfig
from bidaf.data.batches import BatchSource, Shape
from bidaf.ema.average import ExponentialMovingAverage
from bidaf.errors import BidafError
from bidaf.model.bidaf import Bidaf, span_loss
from bidaf.model.dropout import drawing_from
from bidaf.threads import map_on_threads
from bidaf.training.cuda_graph import RecordedSteps
from bidaf.training.distributed import ALONE, Group
from bidaf.training.micro_batches import parts_of
from bidaf.training.optimizer import learning_rate_factor, scale_learning_rate

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step computed. On a GPU reading a figure waits for it."""

    figures: Tensor
    """[2], on the device: mean loss of the batch, and global norm of its gradient before clipping."""
    updated: bool
    """False when the step was skipped; true as well where it was not looked at yet (`TrainingStep.looks_at_once`)."""
    votes: Tensor | None = None
    """Of several processes, the sum of the votes they brought along, on the device."""

    @property
    def loss(self) -> float:
        return float(self.figures[0])

    @property
    def grad_norm(self) -> float:
        return float(self.figures[1])


class TrainingStep:
    """Holds what a step changes: model, optimizer, shadow."""

    def __init__(
        self,
        model: Bidaf,
        optimizer: torch.optim.Optimizer,
        ema: ExponentialMovingAverage | None,
        config: TrainingConfig,
        precision: Callable[[], AbstractContextManager[object]],
        group: Group = ALONE,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.ema = ema
        self.config = config
        self.precision = precision
        self.group = group
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        device = self._weights[0].device
        self.looks_at_once = device.type == "cpu" or config.nonfinite == "skip"
        """Whether a loss that is not finite is seen in its step. On a GPU that would make every step wait: there it is
        seen when the figures are read, before anything is saved, and the run ends."""
        self.phase: Callable[[str], AbstractContextManager[object]] = lambda name: nullcontext()
        """What each phase of a step runs in (batch, forward, backward, optimizer, ema): for whoever measures them."""
        self.votes: Callable[[], Sequence[float]] = lambda: ()
        """What a process among several brings along to be summed in each step."""
        self._recorded: RecordedSteps | None = None

    def run(self, source: BatchSource, questions: Numbers, answers: Numbers, step: int) -> StepResult:
        """Train on these questions and gold answers as optimizer step `step`.

        Several processes run this with the same arguments; each runs its parts of the batch.

        Dropout masks are a function of (seed, step) and the batch. The batch may run in parts, each weighted by its
        share of questions; optimizer and shadow move once. When loss or gradient is not finite nothing moves: raises
        `BidafError` naming the questions, or returns with `updated` false (`nonfinite: skip`).
        """
        self.model.train()
        scale_learning_rate(self.optimizer, learning_rate_factor(self.config.schedule, step))
        torch.manual_seed(_seed(self.config.seed, step, 0))  # a GPU's own generator
        if self._is_recorded(source.device):
            figures, updated, voted = self._run_recorded(source, questions, answers), True, None
        else:
            figures, voted = self._backward(source, questions, answers, step)
            updated = not self.looks_at_once or bool(torch.isfinite(figures).all())
            if updated:
                self._descend(figures[1])
            self.optimizer.zero_grad(set_to_none=True)
        result = StepResult(figures, updated, voted)
        if updated:
            if self.ema is not None:
                with self.phase("ema"):
                    self.ema.update()
        elif self.config.nonfinite == "stop":
            ids = [source.features.ids[question] for question in questions]
            raise nonfinite_error(step, figures.tolist(), ids, saved="no weight was changed")
        return result

    def _is_recorded(self, device: torch.device) -> bool:
        whole = self.config.accumulate == 1 and self.group.size == 1
        return device.type == "cuda" and not self.looks_at_once and whole

    def _run_recorded(self, source: BatchSource, questions: Numbers, answers: Numbers) -> Tensor:
        def compute(questions: Tensor, answers: Tensor, shape: Shape) -> Tensor:
            with self.precision():
                scores = self.model(source.gather_padded(questions, shape))
            loss = span_loss(scores, *source.gold_spans(answers))
            figures = self._take_gradient(loss.detach(), torch.autograd.grad(loss, self._weights))
            self._descend(figures[1])
            self.optimizer.zero_grad(set_to_none=True)
            return figures

        if self._recorded is None:
            self._recorded = RecordedSteps(compute, source.device)
        return self._recorded.run(questions, answers, source.shape_of(questions))

    def _descend(self, norm: Tensor) -> None:
        with self.phase("optimizer"):
            if self.config.clip_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(self._weights, self.config.clip_norm, norm)
            self.optimizer.step()

    def _take_gradient(self, loss: Tensor, gradient: Sequence[Tensor]) -> Tensor:
        """Put the gradient into the weights; the step's figures."""
        for weight, part in zip(self._weights, gradient, strict=True):
            weight.grad = part
        return torch.stack([loss, torch.nn.utils.get_total_norm(gradient)])

    def _backward(
        self, source: BatchSource, questions: Numbers, answers: Numbers, step: int
    ) -> tuple[Tensor, Tensor | None]:
        """Leave the gradient of the batch, part by part, in the weights; the step's figures, and all votes."""
        lengths, size = source.context_lengths[questions], self.group.size
        at_least = -(-self.config.accumulate // size) * size  # as many for each process
        parts = parts_of(lengths, source.device, at_least=min(at_least, len(questions)))

        def run(number: int) -> tuple[Tensor, tuple[Tensor, ...]]:
            part, seed = parts[number], _seed(self.config.seed, step, number)
            if source.device.type != "cpu":  # whichever process runs the part
                torch.manual_seed(seed)
            with drawing_from(seed):
                with self.phase("batch"):
                    batch = source.gather(questions[part])
                with self.phase("forward"):
                    with self.precision():
                        scores = self.model(batch)
                    loss = span_loss(scores, *source.gold_spans(answers[part])) * (len(part) / len(questions))
                with self.phase("backward"):
                    return loss.detach(), torch.autograd.grad(loss, self._weights)

        results = list(map_on_threads(run, range(len(parts))[self.group.shard], source.device))
        if not results:  # a batch of fewer questions than processes
            results = [(self._weights[0].new_zeros(()), tuple(torch.zeros_like(weight) for weight in self._weights))]
        losses, gradients = zip(*results, strict=True)
        loss, total = torch.stack(losses).sum(), list(gradients[0])
        for gradient in gradients[1:]:  # in this order, whichever part was ready first
            torch._foreach_add_(total, gradient)
        if self.group.size == 1:
            return self._take_gradient(loss, total), None
        loss, total, voted = self.group.sum_gradients(loss, total, self.votes())
        return self._take_gradient(loss, total), voted


def nonfinite_error(step: int, figures: Sequence[float], ids: Sequence[str], *, saved: str) -> BidafError:
    """What ends a run whose loss or gradient is not finite any more; `saved` says what was saved from it."""
    loss, grad_norm = figures
    return BidafError(
        f"step {step}: loss {loss} with gradient norm {grad_norm} is not finite; {saved}. Lower training.optimizer.lr "
        "or set training.clip_norm, or set training.nonfinite: skip to pass over such batches. "
        f"Questions of the batch: {', '.join(ids)}"
    )


def _seed(seed: int, step: int, part: int) -> int:
    return int(np.random.SeedSequence([seed, step, part]).generate_state(1, np.uint32)[0])
