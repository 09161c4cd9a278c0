"""Signals as requests: the run continues to a safe point, saves, and ends with the signal's exit code."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A signal asked the run to end; `exit_code` is 128 plus its number (130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class InterruptRequests:
    """Within the block, the first SIGINT or SIGTERM is noted; `check` raises it. A second one acts as always.

    With several processes each may get a signal: they exchange their `stop_flags`, and end together once they `agree`.
    """

    def __init__(self, *, alone: bool = True) -> None:
        self.number: int | None = None
        self._alone = alone
        self._agreed: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> InterruptRequests:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def check(self) -> None:
        """Raise `Interrupted` once a signal has come; among several processes, once all know of it."""
        if self._alone:
            self._agreed = self.number
        if self._agreed is not None:
            raise Interrupted(self._agreed)

    def check_own(self) -> None:
        """Raise `Interrupted` once a signal has come to this process."""
        if self.number is not None:
            raise Interrupted(self.number)

    def stop_flags(self) -> list[float]:
        """For each of the two signals 1 or 0: whether it has come to this process."""
        return [float(self.number == number) for number in SIGNALS]

    def agree(self, stop_flags: Sequence[float]) -> None:
        """Record the stop flags of a process, or the sum over all of them."""
        self._agreed = next((number for number, flag in zip(SIGNALS, stop_flags, strict=True) if flag), self._agreed)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
