"""A server of the tiny run, in a thread of the test process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bidaf.device import choose_device
from bidaf.inference.loading import load_weight_sets
from bidaf.serve.limits import Limits
from bidaf.serve.server import address_of, listen, make_server
from bidaf.serve.service import Service
from bidaf.serve.workers import Threads


@dataclass(frozen=True)
class Running:
    """A server that answers at `address`."""

    address: str
    server: Any
    thread: threading.Thread

    def stop(self) -> None:
        """What SIGTERM does: no new connection, and the end once all requests are answered."""
        self.server.should_exit = True


def load_service(folder: Path, name: str = "tiny") -> Service:
    """The raw weights and the shadow of a run in this folder."""
    with contextlib.chdir(folder):
        return Service(load_weight_sets(name, None, choose_device("cpu")))


@contextlib.contextmanager
def running(service: Service, limits: Limits | None = None, *, cors: Sequence[str] = ()) -> Iterator[Running]:
    """A server on a free port, which computes in threads."""
    with listen("127.0.0.1", 0) as listening, contextlib.closing(Threads(service)) as workers:
        address = address_of(listening)
        server = make_server(service, workers, limits or Limits(), host="127.0.0.1", cors=cors)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield Running(address, server, thread)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
