"""Questions of many requests, answered together: what arrives while all threads compute is the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from bidaf.device import set_up
from bidaf.evaluation.evaluator import Prediction
from bidaf.serve.limits import Limits
from bidaf.serve.service import Outcome, Question

T = TypeVar("T")


class Busy(Exception):
    """More questions are waiting than the server accepts."""


@dataclass(frozen=True)
class _Waiting:
    question: Question
    answers: asyncio.Future[list[Prediction]]
    since: float


class Batcher:
    """A queue before a few threads, each of which answers a batch. Used from one event loop, where `run` is a task.

    On a CPU there are as many as PyTorch has, and each computes alone: the steps of an LSTM are too small to be shared
    among threads, and OpenMP, which would share them, keeps threads of its own for each thread that asks it to. With
    more of them than processors they sleep after every step (measured: six times slower). A GPU has one.
    """

    def __init__(
        self, answer: Callable[[Sequence[Question]], list[Outcome]], limits: Limits, device: torch.device
    ) -> None:
        self._answer = answer
        self._limits = limits
        self._torch_threads = torch.get_num_threads()
        self._threads = self._torch_threads if device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(self._threads, "bidaf-serve", lambda: _set_up_thread(device))
        self._queue: deque[_Waiting] = deque()
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

    async def compute(self, work: Callable[[], T]) -> T:
        """What `work` returns, computed in one of the threads. Raises as `ask` does, and what `work` raises."""
        with self._accept(1):
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def run(self) -> None:
        """Answer what is in the queue, batch after batch, until the task is cancelled."""
        await asyncio.gather(*(self._answer_batches() for _ in range(self._threads)))

    def close(self) -> None:
        """End the threads; what they compute is finished, and what waits is not begun."""
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._torch_threads)  # also what threads of the process that start later have

    async def _answer_batches(self) -> None:
        """Keep one thread busy."""
        loop = asyncio.get_running_loop()
        while True:
            async with self._collecting:
                await self._arrived.wait()
                # Whatever came while all threads were computing has waited long enough.
                await asyncio.sleep(max(0.0, self._queue[0].since + self._limits.batch_seconds - loop.time()))
                batch = self._next_batch()
            if not batch:
                continue
            questions = [each.question for each in batch]
            try:
                outcomes = await loop.run_in_executor(self._pool, self._answer, questions)
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
        """The oldest questions that somebody still waits for, as many as a batch may hold; at least one, if any."""
        batch: list[_Waiting] = []
        characters = 0
        while self._queue:
            first = self._queue[0]
            if not first.answers.done():
                characters += len(first.question.context)
                if batch and characters > self._limits.batch_characters:
                    return batch
                batch.append(first)
            self._queue.popleft()
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


def _set_up_thread(device: torch.device) -> None:
    set_up(device)
    torch.set_num_threads(1)
