"""What a person sees of a run: a bar on a terminal, else a line an interval; the same messages in log.txt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bidaf.progress import bar
from bidaf.runs.layout import write_log


class Progress:
    """Messages go to stderr and, with a time before them, to the log file; the bar to a terminal alone.

    Without a log there is nothing to see at all: of several processes one tells.
    """

    def __init__(self, log: Path | None, *, total: int, start: int) -> None:
        self._log = log
        self._bar = self._make("train", "step", total, initial=start)

    @property
    def on_terminal(self) -> bool:
        """Whether there is a bar to look at."""
        return not self._bar.disable

    def say(self, message: str) -> None:
        """Something worth knowing, on a terminal too."""
        if self._log is not None:
            tqdm.write(message, file=sys.stderr)
            self._write(message)

    def train(self, line: str, postfix: str) -> None:
        """Training metrics of an interval: in the bar, or as a line."""
        if self._log is None:
            return
        if self.on_terminal:
            self._bar.set_postfix_str(postfix)
        else:
            print(line, file=sys.stderr, flush=True)
        self._write(line)

    def advance(self) -> None:
        """One step done."""
        self._bar.update()

    def evaluation(self, label: str, total: int) -> tqdm[None]:
        """A bar of its own for scoring `total` questions."""
        return self._make(label, "question", total)

    def _make(self, label: str, unit: str, total: int, **options: Any) -> tqdm[None]:
        return tqdm(disable=True) if self._log is None else bar(label, unit, total, **options)

    def close(self) -> None:
        """Take the bar off the screen."""
        self._bar.close()

    def _write(self, message: str) -> None:
        if self._log is not None:
            write_log(self._log, message)
