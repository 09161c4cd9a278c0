"""What one request may take, and how many may wait: a server that is asked too much says so instead of growing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The defaults are those of `bidaf serve`."""

    body_bytes: int = 2 << 20
    request_seconds: float = 60.0
    """From the end of a request's head to its answer."""
    requests: int = 256
    """In progress at once."""
    connections: int = 512
    """Open at once, those without a request in progress among them."""
    questions: int = 128
    """In one request."""
    waiting: int = 256
    """Questions of all requests that are accepted and not yet answered."""
    batch_seconds: float = 0.002
    """How long a question waits for others to be answered with, while a worker is idle."""
    batch_characters: int = 3_000
    """Of the contexts that are answered together, padded to the longest, or of one longer context."""
    full_batch_characters: int = 20_000
    """The same where many wait: about one pass. It takes less time for each, and more until the first is answered."""
