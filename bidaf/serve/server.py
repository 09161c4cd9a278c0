"""The server process: its socket, its messages, and its end."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import closing

import uvicorn

from bidaf.errors import UsageError
from bidaf.inference.ensemble import Loaded
from bidaf.messages import say
from bidaf.serve.api import make_app
from bidaf.serve.limits import Limits
from bidaf.serve.service import Service
from bidaf.serve.workers import WorkerDied, Workers, start_workers


class _Messages(logging.Handler):
    """Warnings of the libraries, each as one escaped line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        say(f"server: {' '.join(self.format(record).split())}")


def serve(
    models: Sequence[Loaded],
    *,
    host: str,
    port: int,
    cors: Sequence[str] = (),
    on_ready: Callable[[str], None],
) -> None:
    """Serve weight sets of one model, or an ensemble, until SIGTERM or Ctrl-C.

    Requests that were accepted are still answered then.

    `port` 0 takes a free one; `on_ready` gets the address. Raises `UsageError` for an address that can't be listened
    on, at once what weights that have diverged raise, and `WorkerDied`.
    """
    listen(host, port).close()  # what can't be listened on is said before anything takes time
    service = Service(models)
    service.warm_up()
    # Before there is a socket: what forked processes have of it would stay open when the server closes it.
    with closing(start_workers(service)) as workers, listen(host, port) as listening:
        server = make_server(service, workers, Limits(), host=host, cors=cors)
        on_ready(address_of(listening))
        server.run(sockets=[listening])
    if workers.died:
        raise WorkerDied


def make_server(
    service: Service, workers: Workers, limits: Limits, *, host: str, cors: Sequence[str] = ()
) -> uvicorn.Server:
    """The server of `service`, not started yet; it ends when a worker dies."""
    for name in ("uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _Messages) for handler in logger.handlers):
            logger.addHandler(_Messages(logging.WARNING))
        logger.propagate = False
    config = uvicorn.Config(
        make_app(service, workers, limits, host=host, cors=cors),
        http="h11",  # which bounds the head of a request, as other parsers that may be installed do not
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=int(limits.request_seconds) + 1,
    )
    server = uvicorn.Server(config)

    def end() -> None:
        server.should_exit = True

    workers.on_death = end
    return server


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `UsageError` where that is not possible."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"can't listen on {host}, port {port}: {reason}; name another --host or --port") from None
    # Its connections inherit this. Else the body of a response waits until the client has acknowledged the head: 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def address_of(listening: socket.socket) -> str:
    """Where a browser finds a server that listens on this socket."""
    host, port, *_ = listening.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
