"""Streams, events and memory of a GPU that does not exist, and what may happen in which order.

Everything is computed at once and in program order; what is checked is the order that a GPU would have to keep. Each
stream numbers its work and knows how much of every stream's work comes before its own next work (a vector clock). Work
that touches the same memory must be ordered this way, or it is a race.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.multiprocessing.reductions import StorageWeakRef

if TYPE_CHECKING:
    from gpu_guard import Guard


class GpuFault(AssertionError):
    """What would fail, wait, race or give wrong numbers on a GPU."""


@dataclass(eq=False)
class Memory:
    """A storage that is on a device, or in pinned host memory (`device` None)."""

    storage: StorageWeakRef | None
    """Keeps the storage's address from being used again."""
    device: torch.device | None
    pool: Pool | None = None
    """Of the recording that allocated it."""
    written: tuple[Stream, int] | None = None
    """Stream and number of the last work that wrote it."""
    read: dict[Stream, int] = field(default_factory=dict)
    """The last work of each stream that has read it since."""


class Stream:
    """Replaces `torch.cuda.Stream`."""

    def __init__(self, guard: Guard, device: torch.device | None, name: str = "a side stream") -> None:
        self.guard = guard
        self.device = device
        self.name = name
        self.work = 0
        self.before: dict[Stream, int] = {}

    def __repr__(self) -> str:
        return f"{self.name} of {self.device or 'the host'}"

    def is_capturing(self) -> bool:
        return self.guard.recording is not None

    def run(self, reads: Iterable[Memory], writes: Iterable[Memory], what: str) -> None:
        """Do work that reads and writes this memory. Raises `GpuFault` where nothing orders it after other work."""
        self.after(self.guard.host.before)  # it is launched after all that the host has waited for
        self.work += 1
        self.before[self] = self.work
        writes = list(writes)
        for memory in reads:
            self._check(memory.written, what, "reads what", "is still writing")
            memory.read[self] = self.work
        for memory in writes:
            self._check(memory.written, what, "overwrites what", "is still writing")
            for reader in memory.read.items():
                self._check(reader, what, "overwrites what", "is still reading")
            memory.written, memory.read = (self, self.work), {}

    def _check(self, other: tuple[Stream, int] | None, what: str, does: str, doing: str) -> None:
        if other is not None and self.before.get(other[0], 0) < other[1]:
            raise GpuFault(f"race: {what} on {self} {does} {other[0]} {doing}")

    def after(self, clock: dict[Stream, int]) -> None:
        """Let everything on this stream from now on come after this work."""
        for stream, work in clock.items():
            self.before[stream] = max(self.before.get(stream, 0), work)

    def wait_stream(self, other: Stream) -> None:
        graph = self.guard.recording
        if graph is not None and other in graph.streams:
            graph.streams.add(self)
        elif graph is not None and self in graph.streams:
            raise GpuFault(f"{self} is being recorded and waits for {other}, which is not")
        self.after(other.before)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self.guard)
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        self.after(event.clock)

    def synchronize(self) -> None:
        self.guard.wait("Stream.synchronize", self)


class Event:
    """Replaces `torch.cuda.Event`."""

    def __init__(self, guard: Guard, **options: bool) -> None:
        self.guard = guard
        self.clock: dict[Stream, int] = {}
        self._asked = False

    def record(self, stream: Stream | None = None) -> None:
        self.clock = dict((stream or self.guard.current_stream()).before)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self.guard.current_stream()).wait_event(self)

    def query(self) -> bool:
        """False when asked first, unless the host knows better: the GPU may be late."""
        if all(self.guard.host.before.get(stream, 0) >= work for stream, work in self.clock.items()):
            return True
        if self._asked:
            self.guard.arrive(self.clock)
        self._asked = not self._asked
        return not self._asked

    def synchronize(self) -> None:
        self.guard.wait("Event.synchronize", None)
        self.guard.arrive(self.clock)


class Pool:
    """Memory that recordings share: `torch.cuda.graph_pool_handle()`."""

    def __init__(self) -> None:
        self.memory = Memory(None, None, self)
        self.blocks: list[torch.Tensor] = []
        """The bytes of everything allocated in it."""

    def overwrite(self) -> None:
        """Fill it with NaN and -1, as another recording that uses it might."""
        for block in self.blocks:
            block.fill_(255)
