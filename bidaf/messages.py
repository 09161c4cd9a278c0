"""Messages for people: on stderr, so that stdout carries only data; escaped, because they quote data."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, TextIO


def printable(text: str) -> str:
    """The text with whatever a terminal can't show, or would interpret, escaped; line breaks and tabs stay."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def say(message: str) -> None:
    """Show a message on stderr, above any progress bar."""
    text = printable(message)
    if "tqdm" in sys.modules:  # else there is no bar, and importing tqdm takes longer than many commands
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


class LossyStream:
    """A text stream that drops what can't be written: a closed pipe or a full disk must not end a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
