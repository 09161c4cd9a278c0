"""What a person sees of a run: a bar on a terminal, else a line an interval; the same messages in log.txt."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from tqdm import tqdm


class Progress:
    """Messages go to stderr and, with a time before them, to the log file; the bar to a terminal alone.

    Without a log there is nothing to see at all: of several processes one tells.
    """

    def __init__(self, log: Path | None, *, total: int, start: int) -> None:
        self._log = log
        self._hidden = True if log is None else None  # None: unless on a terminal
        self._bar = tqdm(total=total, initial=start, unit="step", desc="train", disable=self._hidden, leave=False)

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
        return tqdm(total=total, desc=label, unit="question", disable=self._hidden, leave=False)

    def close(self) -> None:
        """Take the bar off the screen."""
        self._bar.close()

    def _write(self, message: str) -> None:
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {message}\n")
