"""What a person sees of a run: a bar on a terminal, else a line per interval; the same messages in log.txt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bidaf.messages import say
from bidaf.progress import Bar, bar
from bidaf.runs.layout import write_log


class Progress:
    """Messages go to stderr and, with a time before them, to the run's log; the bar to a terminal alone.

    Without a run's folder nothing is shown or written: of several processes, rank 0 reports.
    """

    def __init__(self, folder: Path | None, *, total: int, start: int) -> None:
        self._folder = folder
        self._bar = self._make("train", "step", total, initial=start)

    @property
    def on_terminal(self) -> bool:
        """Whether a bar is shown."""
        return not self._bar.disable

    def say(self, message: str) -> None:
        """Log a message, and show it on a terminal too."""
        if self._folder is not None:
            say(message)
            write_log(self._folder, message)

    def train(self, line: str, postfix: str) -> None:
        """Training metrics of an interval: in the bar, or as a line."""
        if self._folder is None:
            return
        if self.on_terminal:
            self._bar.set_postfix_str(postfix)
        else:
            say(line)
        write_log(self._folder, line)

    def advance(self) -> None:
        """One step done."""
        self._bar.update()

    def evaluation(self, label: str, total: int) -> Bar:
        """A separate bar for scoring `total` questions."""
        return self._make(label, "question", total)

    def close(self) -> None:
        """Erase the bar."""
        self._bar.close()

    def _make(self, label: str, unit: str, total: int, **options: Any) -> Bar:
        return Bar(disable=True) if self._folder is None else bar(label, unit, total, **options)
