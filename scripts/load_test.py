"""Put load on `bidaf serve`: questions per second against `bidaf predict`, latency at half of that, a mix of good and
bad requests.

    python scripts/load_test.py RUN --data data/mini/train.json                           # all goals, 12 minutes
    python scripts/load_test.py RUN --data data/mini/train.json --seconds 3 --mixed 10    # does it work at all?

At half load questions come in random order, as from people who do not know of each other, and then again in the order
of the file, where long contexts may stand together. Every answer is compared with that of `bidaf predict`. Prints JSON,
and exits with 1 where a goal is missed. The client speaks HTTP over plain sockets: a client library would take more of
the processor than the server's own HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from bidaf import load
from bidaf.data.questions import read_questions
from bidaf.library import predict_examples

TICKS = os.sysconf("SC_CLK_TCK")
JSON = "application/json"


@dataclass(frozen=True)
class Asked:
    """A request as bytes, and the answer that `bidaf predict` gives."""

    body: bytes
    answer: str


@dataclass
class Server:
    """A running `bidaf serve`."""

    process: subprocess.Popen[str]
    host: str
    port: int
    messages: Path

    def cpu_seconds(self) -> float:
        """Of all its processes so far."""
        fields = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in self.processes()]
        return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS

    def memory(self) -> float:
        """Memory of all its processes in MB; what they share counts once."""
        files = [Path(f"/proc/{each}/smaps_rollup").read_text().splitlines() for each in self.processes()]
        return sum(int(line.split()[1]) / 1024 for lines in files for line in lines if line.startswith("Pss:"))

    def processes(self) -> list[int]:
        """The server and those that compute for it."""
        own = self.process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children)]


class Connection:
    """Requests one after the other over one connection, which is opened again where the server closed it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes, path: str = "/answer", content_type: str = JSON) -> tuple[int, bytes]:
        """Status and body of the response.

        A server may close an idle connection just when the next request is sent: that is sent again, as browsers do.
        """
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
        request = f"{head}\r\n\r\n".encode() + body
        if self._streams is not None:
            try:
                return await self._exchange(*self._streams, request)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.close()
        self._streams = await asyncio.open_connection(self._server.host, self._server.port)
        return await self._exchange(*self._streams, request)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[int, bytes]:
        writer.write(request)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines if line)
        response = await reader.readexactly(int(headers[b"content-length"]))
        if headers.get(b"connection") == b"close":
            self.close()
        return int(first.split()[1]), response

    async def send_and_leave(self, content: bytes) -> None:
        """Send bytes that need not be HTTP, and hang up."""
        _, writer = await asyncio.open_connection(self._server.host, self._server.port)
        writer.write(content)
        await writer.drain()
        writer.close()

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@contextmanager
def serving(model: str, messages: Path) -> Iterator[Server]:
    """`bidaf serve` on a free port, in a process of its own."""
    command = [sys.executable, "-m", "bidaf", "serve", "--model", model, "--port", "0"]
    with messages.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        if address.hostname is None or address.port is None:
            raise SystemExit(f"the server did not start: {messages.read_text()}")
        yield Server(process, address.hostname, address.port, messages)
    finally:
        process.kill()
        process.wait()


def prepare(arguments: argparse.Namespace) -> tuple[list[Asked], float]:
    """The questions with their answers, and how many a second `bidaf predict` answers once its model is loaded."""
    examples = read_questions(arguments.data)
    chosen = np.linspace(0, len(examples) - 1, min(arguments.questions, len(examples))).astype(int)
    examples = [examples[number] for number in chosen]
    model = load(arguments.model)
    seconds = []
    for _ in range(4):  # the first reads words for the first time, as the server will have done too
        began = time.perf_counter()
        answers = predict_examples(model, examples, n_best=None, on_progress=lambda questions: None)
        seconds.append(time.perf_counter() - began)
    assert isinstance(answers, dict)
    asked = [
        Asked(json.dumps({"question": each.question, "context": each.context}).encode(), answers[each.id])
        for each in examples
    ]
    return asked, len(asked) / min(seconds)


async def check(connection: Connection, asked: Asked) -> None:
    """Ask, and compare the answer."""
    status, body = await connection.post(asked.body)
    if (status, json.loads(body).get("answer")) != (200, asked.answer):
        raise SystemExit(f"a wrong answer: {status} {body[:300]!r}, expected {asked.answer!r}")


async def single(server: Server, asked: list[Asked]) -> float:
    """Median seconds of a question when there is no other."""
    connection, seconds = Connection(server), []
    for each in asked[:200]:
        began = time.perf_counter()
        await check(connection, each)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


async def together(server: Server, asked: list[Asked], connections: int, seconds: float) -> dict[str, float]:
    """Questions per second where each connection asks again as soon as it has its answer."""

    async def ask(number: int) -> int:
        connection, count = Connection(server), 0
        while time.perf_counter() < end:
            await check(connection, asked[(number + count * connections) % len(asked)])
            count += 1
        return count

    began, own, servers = time.perf_counter(), time.process_time(), server.cpu_seconds()
    end = began + seconds
    count = sum(await asyncio.gather(*(ask(number) for number in range(connections))))
    took = time.perf_counter() - began
    return {
        "questions_per_second": count / took,
        "client_cores": (time.process_time() - own) / took,
        "server_cores": (server.cpu_seconds() - servers) / took,
    }


async def at_rate(server: Server, asked: list[Asked], rate: float, seconds: float) -> list[float]:
    """Seconds of each question where they arrive at random, `rate` a second, whether or not others are answered."""
    draw = random.Random(0)
    free: list[Connection] = []

    async def ask(each: Asked, due: float) -> float:
        connection = free.pop() if free else Connection(server)
        await check(connection, each)
        free.append(connection)
        return time.perf_counter() - due  # from when it was due: a late start of the client counts too

    tasks, due = [], time.perf_counter()
    for number in range(int(rate * seconds)):
        due += draw.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(asked[number % len(asked)], due)))
    return list(await asyncio.gather(*tasks))


@dataclass
class Mixed:
    """What became of a mix of good and bad requests."""

    requests: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """Questions answered with 503 because too many were waiting: the clients ask for more than the server can do."""
    wrong: Counter[str] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)
    """MB, once a second."""

    @property
    def growth(self) -> float:
        """Of the memory, from the second tenth of the time, when all caches have filled, to the last."""
        tenth = max(1, len(self.memory) // 10)
        return float(np.mean(self.memory[-tenth:]) / np.mean(self.memory[tenth : 2 * tenth]) - 1)


async def mixed(server: Server, asked: list[Asked], connections: int, seconds: float) -> Mixed:
    """Good and bad requests in random order, for a while."""
    result, end = Mixed(), time.perf_counter() + seconds
    text = "The ship \u2028<script> \U0001f600 sailed to Rome. "

    def body(**fields: Any) -> bytes:
        return json.dumps({"question": "Where?", "context": text, **fields}).encode()

    def is_refused(status: int) -> bool:
        result.refused += status == 503
        return status == 503

    async def question(connection: Connection, expected: int, **fields: Any) -> bool:
        status, _ = await connection.post(body(**fields))
        return is_refused(status) or status == expected

    async def post(connection: Connection, expected: int, *content: Any) -> bool:
        return (await connection.post(*content))[0] == expected

    async def left(connection: Connection, content: bytes) -> bool:
        await connection.send_and_leave(content)
        return True

    async def good(connection: Connection, draw: random.Random) -> bool:
        each = draw.choice(asked)
        status, found = await connection.post(each.body)
        return is_refused(status) or (status, json.loads(found).get("answer")) == (200, each.answer)

    kinds: dict[str, tuple[int, Callable[[Connection, random.Random], Awaitable[bool]]]] = {
        "good": (80, good),
        "list": (3, lambda at, draw: question(at, 200, question=["Where?"] * draw.randint(1, 20))),
        "long": (1, lambda at, draw: question(at, 200, context=text * draw.randint(10, 800))),
        "new words": (3, lambda at, draw: question(at, 200, context=f"{text} {draw.random()} {draw.random()}")),
        "empty": (3, lambda at, draw: question(at, 422, context=" ")),
        "no JSON": (2, lambda at, draw: post(at, 422, b'{"question": "Whe')),
        "no text": (2, lambda at, draw: post(at, 422, body(question=draw.random()))),
        "no such set": (1, lambda at, draw: post(at, 422, body(weights="\x1b[31m\nerror: forged"))),
        "no such type": (1, lambda at, draw: post(at, 415, body(), "/answer", "text/plain")),
        "no such page": (1, lambda at, draw: post(at, 404, body(), "/none")),
        "too large": (1, lambda at, draw: post(at, 413, body(context="x" * (3 << 20)))),
        "cut off": (1, lambda at, draw: left(at, b"POST /answer HTTP/1.1\r\nContent-Length: 99\r\n\r\n{")),
        "no HTTP": (1, lambda at, draw: left(at, draw.randbytes(200) + b"\r\n\r\n")),
    }

    async def ask(seed: int) -> None:
        draw, connection = random.Random(seed), Connection(server)
        while time.perf_counter() < end:
            (kind,) = draw.choices(list(kinds), [weight for weight, _ in kinds.values()])
            result.requests[kind] += 1
            try:
                as_expected = await kinds[kind][1](connection, draw)
            except (OSError, EOFError):
                # A server may close a connection while a body that it has refused is still on its way.
                as_expected = kind == "too large"
                connection.close()
            result.wrong[kind] += not as_expected

    async def watch() -> None:
        while time.perf_counter() < end:
            result.memory.append(server.memory())
            await asyncio.sleep(1)

    await asyncio.gather(watch(), *(ask(number) for number in range(connections)))
    return result


async def ended(server: Server, asked: list[Asked]) -> int:
    """Exit code of a server that is terminated while it has questions to answer; all of them are."""
    connections = [(Connection(server), each) for each in asked[:50]]
    await asyncio.gather(*(check(*each) for each in connections))
    answers = [asyncio.create_task(check(*each)) for each in connections]
    # Once one is answered the server has read all of them, and not answered the others.
    await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
    server.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*answers)
    return server.process.wait(60)


async def measure(
    server: Server, asked: list[Asked], predicted: float, arguments: argparse.Namespace
) -> dict[str, Any]:
    """All figures."""
    alone = await single(server, asked)
    await together(server, asked, arguments.connections, 1)
    load = await together(server, asked, arguments.connections, arguments.seconds)
    rate = load["questions_per_second"]
    shuffled = random.Random(0).sample(asked, len(asked))
    latencies = np.array(await at_rate(server, shuffled, rate / 2, arguments.seconds))
    in_order = np.array(await at_rate(server, asked, rate / 2, arguments.seconds))
    mix = await mixed(server, asked, arguments.connections // 2, arguments.mixed)
    code = await ended(server, asked)
    return {
        "questions": len(asked),
        "connections": arguments.connections,
        "predict_questions_per_second": predicted,
        **load,
        "share_of_predict": rate / predicted,
        "single_ms": 1000 * alone,
        "half_load_p50_ms": 1000 * float(np.quantile(latencies, 0.5)),
        "half_load_p99_ms": 1000 * float(np.quantile(latencies, 0.99)),
        "half_load_p99_per_single": float(np.quantile(latencies, 0.99)) / alone,
        "in_order_p99_per_single": float(np.quantile(in_order, 0.99)) / alone,
        "mixed_seconds": arguments.mixed,
        "mixed_requests": dict(mix.requests),
        "mixed_refused": mix.refused,
        "mixed_wrong": {kind: count for kind, count in mix.wrong.items() if count},
        "memory_mb": mix.memory[-1],
        "memory_growth": mix.growth,
        "exit_code": code,
        "tracebacks": server.messages.read_text().count("Traceback"),
    }


def missed(figures: dict[str, Any]) -> list[str]:
    """The goals that were not reached."""
    goals = {
        "70 % of the questions per second of bidaf predict": figures["share_of_predict"] >= 0.7,
        "p99 at half load under 10 times a single question": figures["half_load_p99_per_single"] < 10,
        "the same in the order of the file": figures["in_order_p99_per_single"] < 10,
        "every mixed request answered as it should be": not figures["mixed_wrong"],
        "memory grows by at most 10 %": figures["memory_growth"] <= 0.1,
        "no traceback": figures["tracebacks"] == 0,
        "SIGTERM ends it": figures["exit_code"] == 128 + signal.SIGTERM,
    }
    return [goal for goal, reached in goals.items() if not reached]


def main() -> None:
    """Print the figures; exit with 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run or an export")
    parser.add_argument("--data", required=True, help="a file of questions")
    parser.add_argument("--questions", type=int, default=600, help="how many of them, evenly spaced (default: 600)")
    parser.add_argument("--connections", type=int, default=192, help="that ask at once (default: 192)")
    parser.add_argument("--seconds", type=float, default=30, help="of full and of half load (default: 30)")
    parser.add_argument("--mixed", type=float, default=600, help="seconds of good and bad requests (default: 600)")
    parser.add_argument("--messages", type=Path, default=Path("load_test.txt"), help="where the server's messages go")
    arguments = parser.parse_args()
    asked, predicted = prepare(arguments)
    with serving(arguments.model, arguments.messages) as server:
        figures = asyncio.run(measure(server, asked, predicted, arguments))
    print(json.dumps(figures, indent=2))
    for goal in (goals := missed(figures)):
        print(f"missed: {goal}", file=sys.stderr)
    sys.exit(bool(goals))


if __name__ == "__main__":
    main()
