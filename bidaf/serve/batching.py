"""Questions of many requests, answered together: what arrives while all workers compute is the next batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bidaf.evaluation.evaluator import Prediction
from bidaf.serve.limits import Limits
from bidaf.serve.service import Question
from bidaf.serve.workers import Workers

_BATCHES_EACH = 2
"""What waits is divided into so many batches for each worker, so that the next one, which is soon idle, finds some."""


class Busy(Exception):
    """More questions are waiting than the server accepts."""


@dataclass(frozen=True)
class _Waiting:
    question: Question
    answers: asyncio.Future[list[Prediction]]
    since: float

    @property
    def length(self) -> int:
        """Characters of the context."""
        return len(self.question.context)


class Batcher:
    """A queue before the workers, each of which answers a batch. Used from one event loop, where `run` is a task."""

    def __init__(self, workers: Workers, limits: Limits) -> None:
        self._workers = workers
        self._limits = limits
        self._queue: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._collecting = asyncio.Lock()
        self._accepted = 0

    async def ask(self, questions: Sequence[Question]) -> list[list[Prediction]]:
        """The answers to each question, in their order.

        Raises `Busy` where that would make too many wait, and else the error of the first question that has one.
        """
        loop = asyncio.get_running_loop()
        with self._accept(len(questions)):
            waiting = [_Waiting(each, loop.create_future(), loop.time()) for each in questions]
            self._queue.extend(waiting)
            self._arrived.set()
            try:
                return list(await asyncio.gather(*(each.answers for each in waiting)))
            finally:
                for each in waiting:
                    each.answers.cancel()  # nobody waits for the others of a request that failed or ran out of time

    async def explain(self, question: str, context: str, weights: Sequence[str]) -> dict[str, Any]:
        """What `Service.explain` returns. Raises as `ask` does."""
        with self._accept(1):
            return await self._workers.explain(question, context, weights)

    async def run(self) -> None:
        """Answer what is in the queue, batch after batch, until the task is cancelled."""
        await asyncio.gather(*(self._answer_batches() for _ in range(self._workers.number)))

    async def _answer_batches(self) -> None:
        """Keep one worker busy."""
        loop = asyncio.get_running_loop()
        while True:
            async with self._collecting:
                await self._arrived.wait()
                # Whatever came while all workers were computing has waited long enough.
                if (left := self._queue[0].since + self._limits.batch_seconds - loop.time()) > 0:
                    await asyncio.sleep(left)
                batch = self._next_batch()
            if not batch:
                continue
            questions = [each.question for each in batch]
            try:
                outcomes = await self._workers.answer(questions)
            except Exception as error:  # a fault of this program; those who ask next must still be answered
                outcomes = [error] * len(batch)
            for each, outcome in zip(batch, outcomes, strict=True):
                if each.answers.done():
                    continue
                if isinstance(outcome, Exception):
                    each.answers.set_exception(outcome)
                else:
                    each.answers.set_result(outcome)

    def _next_batch(self) -> list[_Waiting]:
        """The question that has waited longest, and those whose contexts are nearest to its own in length, as many as
        a batch may hold; nothing where nobody waits any more.

        Shorter ones would be padded for nothing, and have to wait until a longer one is answered.
        """
        self._queue = [each for each in self._queue if not each.answers.done()]
        if not self._queue:
            self._arrived.clear()
            return []
        limits = self._limits
        size = sum(each.length for each in self._queue) // (_BATCHES_EACH * self._workers.number)
        size = min(max(size, limits.batch_characters), limits.full_batch_characters)
        first = self._queue[0]
        batch: list[_Waiting] = []
        longest = 0
        for each in sorted(self._queue, key=lambda each: abs(each.length - first.length)):
            longest = max(longest, each.length)
            if batch and longest * (len(batch) + 1) > size:
                break
            batch.append(each)
        chosen = set(map(id, batch))
        self._queue = [each for each in self._queue if id(each) not in chosen]
        if not self._queue:
            self._arrived.clear()
        return batch

    @contextmanager
    def _accept(self, questions: int) -> Iterator[None]:
        if self._accepted + questions > self._limits.waiting:
            raise Busy(f"{self._accepted:,} questions are waiting already; ask again in a moment")
        self._accepted += questions
        try:
            yield
        finally:
            self._accepted -= questions
