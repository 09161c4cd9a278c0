"""What stands before the application: limits on body and time, and headers that tell a browser to trust no more than
it must."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Mapping
from typing import Any

from bidaf.messages import say
from bidaf.serve.limits import Limits

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""Of every response that does not set its own."""


RETRY_AFTER = "1"  # seconds


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """Reads the whole body of a request before the application sees it, and ends what takes too long.

    A fault of the program is one response and an escaped traceback on stderr.
    """

    def __init__(self, app: Any, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._active = 0

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Handle one request, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = received = False

        async def send_guarded(message: dict[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                present = {name.lower() for name, _ in message["headers"]}
                missing = {name.encode(): value.encode() for name, value in SECURITY_HEADERS.items()}
                headers = [*message["headers"], *(pair for pair in missing.items() if pair[0] not in present)]
                message = {**message, "headers": headers}
            await send(message)

        self._active += 1
        try:
            if self._active > self._limits.requests:
                raise _Refused(503, f"{self._limits.requests:,} requests are in progress; ask again in a moment")
            async with asyncio.timeout(self._limits.request_seconds):
                body = await self._read(scope, receive)
                received = True
                await self._app(scope, _replayed(body, receive), send_guarded)
        except _Refused as refused:
            await _respond(send_guarded, refused.status, str(refused))
        except TimeoutError:
            if not started:
                message = f"this took longer than {self._limits.request_seconds:g} seconds; ask on a shorter context"
                await _respond(send_guarded, 503 if received else 408, message)
        except Exception:
            _say_fault(scope)
            if not started:
                await _respond(send_guarded, 500, "the server failed on this request; its messages say why")
        finally:
            self._active -= 1

    async def _read(self, scope: Mapping[str, Any], receive: Any) -> bytes:
        headers = dict(scope["headers"])
        limit = self._limits.body_bytes
        too_large = _Refused(413, f"the request is larger than {limit:,} bytes")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            raise too_large
        content_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if scope["method"] == "POST" and content_type != b"application/json":
            # Also keeps other sites out: a browser asks before it sends this type across origins.
            raise _Refused(415, "the body must be JSON, with the header content-type: application/json")
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Refused(400, "the request was cut off")
            body += message.get("body", b"")
            if len(body) > limit:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)


def _replayed(body: bytes, receive: Any) -> Any:
    """A `receive` that gives the body at once, and then what else comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return waiting.pop() if waiting else await receive()

    return replay


async def _respond(send: Any, status: int, message: str) -> None:
    """One JSON error. The connection ends with it: what is left of a body is not read."""
    body = json.dumps({"error": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 503:
        headers.append((b"retry-after", RETRY_AFTER.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _say_fault(scope: Mapping[str, Any]) -> None:
    """The traceback on stderr, indented: no text of a request can look like a message of this program."""
    lines = traceback.format_exc().splitlines()
    say("\n  ".join([f"error: {scope['method']} {scope['path']!a} failed:", *lines]))
