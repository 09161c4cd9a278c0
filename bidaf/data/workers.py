"""Cutting a large corpus's words in several processes, while the caller does something else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from bidaf.data.tokenizer import Cuts, Tokenizer, cut_word
from bidaf.errors import BidafError
from bidaf.progress import bar
from bidaf.signals import held_back

# Starting a process and importing spaCy there takes as long as cutting some 50,000 words.
WORDS_A_WORKER = 50_000
_WORDS_A_TASK = 2_000


def usable_cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def learning(tokenizer: Tokenizer, texts: Iterable[str], workers: int) -> Iterator[None]:
    """During the block, up to `workers` processes cut the words of these texts; after it the tokenizer knows them.

    How a word is cut depends on nothing but the word, so the tokens are the same with any number of workers. Where no
    second process would pay, nothing happens here, and words are cut as they are met. Raises `BidafError` when a
    process dies. None outlives the block, nor the process that started it.
    """
    words = tokenizer.unknown_words(texts) if workers > 1 else []
    workers = min(workers, len(words) // WORDS_A_WORKER)
    if workers < 2:
        yield
        return
    tasks = [words[start : start + _WORDS_A_TASK] for start in range(0, len(words), _WORDS_A_TASK)]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(here,))
    try:
        with held_back(signal.SIGINT):
            futures: list[Future[list[Cuts]]] = [pool.submit(_cut_words, task, tokenizer.language) for task in tasks]
        yield
        with bar("cut words", "word", len(words)) as shown:
            for task, future in zip(tasks, futures, strict=True):
                tokenizer.learn(task, future.result())
                shown.update(len(task))
    except BrokenProcessPool:
        raise BidafError(
            "a process that tokenizes died; if memory is short, tokenize in one process: bidaf prepare --workers 1"
        ) from None
    except BaseException:
        there.close()  # ends them at once
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        here.close()
        there.close()


def _cut_words(words: list[str], language: str) -> list[Cuts]:
    return [cut_word(word, language) for word in words]


def _begin(line: Connection) -> None:
    """Let this process start fast, and end when the other end of the pipe is closed, even by a killed parent."""
    # spaCy imports torch if it is installed, which takes longer than the rest of spaCy and is not needed here.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]

    def watch() -> None:
        with suppress(EOFError):
            line.recv()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
