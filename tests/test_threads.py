"""Passes side by side: in order, in the caller's modes, and the same whatever runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from conftest import CPU

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
