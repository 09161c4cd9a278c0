"""Passes on several threads: in order, in the caller's modes, with its number of threads, and after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import CPU

from bidaf.device import choose_device, free_memory
from bidaf.errors import BidafError
from bidaf.threads import map_on_threads


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_results_come_in_order_and_the_caller_keeps_its_threads() -> None:
    def work(number: int) -> tuple[int, int]:
        return number * 2, torch.get_num_threads()

    assert list(map_on_threads(work, [3, 1, 2], CPU)) == [(6, 1), (2, 1), (4, 1)]
    assert list(map_on_threads(work, [5], CPU)) == [(10, 2)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_threads_started_later_have_the_number_of_before(ends: str) -> None:
    def work(number: int) -> float:
        return 1 / (number if ends == "with an error" else 1)

    try:
        list(map_on_threads(work, [2, 1, 0], CPU))
    except ZeroDivisionError:
        assert ends == "with an error"
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2


@pytest.mark.usefixtures("two_threads")
def test_an_error_passes_on() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_on_threads(lambda number: 1 // number, [1, 0], CPU))


@pytest.mark.usefixtures("two_threads")
def test_the_modes_are_those_of_the_caller() -> None:
    def modes(number: int) -> tuple[bool, torch.dtype]:
        return torch.is_inference_mode_enabled(), (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    assert list(map_on_threads(modes, [1, 2], CPU)) == [(False, torch.float32)] * 2
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert list(map_on_threads(modes, [1, 2], CPU)) == [(True, torch.bfloat16)] * 2


def test_one_thread_does_it_all_itself() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert list(map_on_threads(lambda number: number + 1, [1, 2], CPU)) == [2, 3]
    finally:
        torch.set_num_threads(threads)


FORK = """
import os, sys
import torch
from bidaf.threads import map_on_threads

def work(number):
    return float((torch.ones(300, 300) @ torch.ones(300, 300)).sum()) * number

def passes():
    return list(map_on_threads(work, [1, 2, 3], torch.device("cpu")))

torch.set_num_threads(2)
before = passes() if sys.argv[1] == "used" else None
if (child := os.fork()) == 0:
    answers = passes()
    assert torch.get_num_threads() == 1
    os._exit(0 if answers == [2.7e7, 5.4e7, 8.1e7] else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("parent", ["used", "unused"])
def test_a_forked_process_computes_on_one_thread(parent: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK, parent], env=environment, timeout=60, check=True)


def test_a_process_forked_from_one_that_used_the_gpu_gets_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    for use in (free_memory, lambda device: choose_device(str(device))):
        with pytest.raises(BidafError, match="forked from one that had used the GPU"):
            use(torch.device("cuda"))
