"""Where a service computes: in processes of its own, so that its sums and the server's HTTP share no Python lock."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from bidaf.device import return_freed_memory, set_up
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.serve.service import Outcome, Question, Service
from bidaf.signals import held_back

CALLS_PER_RETURN = 16
"""After so many, a process gives back the memory that it has freed: for each it would cost time, for none it grows."""


class WorkerDied(BidafError):
    """The system has killed a process that computes; the server ends."""

    def __init__(self) -> None:
        super().__init__("a process that computes was killed, as systems do that are short of memory")


class Workers(ABC):
    """A few processes or threads, each of which computes for one call at a time, on one thread.

    On a CPU there are as many as PyTorch has threads: the steps of an LSTM are too small to be shared, and OpenMP,
    which would share them, keeps threads of its own for each thread that asks it to. With more of them than processors
    they sleep after every step (measured: six times slower). A GPU has one.
    """

    def __init__(self, service: Service) -> None:
        self.number = torch.get_num_threads() if service.device.type == "cpu" else 1
        self.died = False
        self.on_death: Callable[[], None] = lambda: None
        """Called when one was killed: from then on some calls are not answered."""

    async def answer(self, asked: Sequence[Question]) -> list[Outcome]:
        """What `Service.answer` returns. Raises `WorkerDied`, and what only a fault of this program raises."""
        outcomes: list[Outcome] = await self._call("answer", asked)
        return outcomes

    async def explain(self, question: str, context: str, weights: Sequence[str]) -> dict[str, Any]:
        """What `Service.explain` returns. Raises `WorkerDied`, and as that does."""
        explained: dict[str, Any] = await self._call("explain", question, context, weights)
        return explained

    @abstractmethod
    async def _call(self, method: str, *arguments: object) -> Any:
        """What this method of the service returns."""

    @abstractmethod
    def close(self) -> None:
        """End them; what they compute is finished, and what waits is not begun."""


def start_workers(service: Service) -> Workers:
    """Processes where the system and the device survive a fork, else threads."""
    return Processes(service) if sys.platform == "linux" and service.device.type == "cpu" else Threads(service)


class Threads(Workers):
    """Threads of this process."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._service = service
        self._torch_threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self.number, "bidaf-serve", lambda: _set_up_thread(service.device))

    async def _call(self, method: str, *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, getattr(self._service, method), *arguments)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._torch_threads)  # also what threads of the process that start later have


class Processes(Workers):
    """Processes that are forked from this one, so that weights and vectors are in memory once.

    They end with this one, however it ends: the connection over which they get their calls is then closed.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        gc.collect()
        gc.freeze()  # a later collection would write to every object, and so copy the memory that they share
        context = multiprocessing.get_context("fork")
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._idle: asyncio.Queue[Connection] = asyncio.Queue()
        # Ctrl-C and SIGTERM may be sent to all; this process alone drains.
        with held_back(signal.SIGINT, signal.SIGTERM), warnings.catch_warnings():
            # Python 3.12 and later warn of threads at a fork, which PyTorch has; the processes use none of them.
            warnings.simplefilter("ignore", DeprecationWarning)
            for _ in range(self.number):
                here, there = context.Pipe()
                self._connections.append(here)
                process = context.Process(target=_work, args=(service, there, self._connections), daemon=True)
                process.start()
                there.close()
                self._processes.append(process)
                self._idle.put_nowait(here)

    async def _call(self, method: str, *arguments: object) -> Any:
        worker = await self._idle.get()
        loop = asyncio.get_running_loop()
        answered = loop.create_future()

        def receive() -> None:
            """Also what nobody waits for any more: the process is idle only after it."""
            loop.remove_reader(worker.fileno())
            os.set_blocking(worker.fileno(), True)  # event loops take that away, and a result may come in pieces
            try:
                result, error = worker.recv()
            except (EOFError, OSError):
                self.died = True
                self.on_death()
                result, error = None, WorkerDied()
            self._idle.put_nowait(worker)
            if answered.cancelled():
                return
            if error is not None:
                answered.set_exception(error)
            else:
                answered.set_result(result)

        with suppress(OSError):  # of a process that has died, which `receive` will meet
            worker.send((method, arguments))
        loop.add_reader(worker.fileno(), receive)
        return await answered

    def close(self) -> None:
        for each in self._connections:
            each.close()
        for process in self._processes:
            process.join()
        gc.unfreeze()


def _set_up_thread(device: torch.device) -> None:
    set_up(device)
    torch.set_num_threads(1)


def _work(service: Service, calls: Connection, of_parent: Sequence[Connection]) -> None:
    """Answer calls until the other end of their connection is closed."""
    for each in of_parent:
        each.close()  # or this process itself would keep them open
    _set_up_thread(service.device)
    with suppress(EOFError, OSError):
        for number in count(1):
            method, arguments = calls.recv()
            calls.send(_result(getattr(service, method), arguments))
            if number % CALLS_PER_RETURN == 0:
                return_freed_memory()


def _result(method: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, Exception | None]:
    """What a call returns or raises, as another process can make it again."""
    try:
        result = method(*arguments)
    except Exception as error:
        return None, _portable(error)
    if isinstance(result, list):  # of outcomes
        result = [_portable(each) if isinstance(each, Exception) else each for each in result]
    return result, None


def _portable(error: Exception) -> Exception:
    """An error with the same message and exit code, made of nothing but its message; of a fault, its traceback."""
    for kind in (DataError, UsageError, BidafError):
        if isinstance(error, kind):
            return kind(str(error))
    return RuntimeError("".join(traceback.format_exception(error)))
