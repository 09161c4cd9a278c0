"""The API of `bidaf serve`: answers, limits, batches, errors, and who may ask."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from helpers_cli import DEV, Tiny, fail, succeed
from helpers_serve import Running, running

from bidaf.device import choose_device
from bidaf.errors import DataError
from bidaf.evaluation.evaluator import Prediction
from bidaf.inference.ensemble import load_named_sets
from bidaf.inference.ensemble_predictor import predictor_for
from bidaf.inference.predictor import Answerer, Predictor
from bidaf.serve.batching import Batcher, Busy
from bidaf.serve.limits import Limits
from bidaf.serve.server import listen
from bidaf.serve.service import Outcome, Question, Service
from bidaf.serve.workers import Processes, Threads

CONTEXT = DEV[0][0]
ASKED = [(question, context) for context, asked in DEV for question, _ in asked]


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address, timeout=30) as opened:
        yield opened


def expected(predictor: Answerer, question: str, context: str, n_best: int = 1) -> list[dict[str, Any]]:
    found = predictor.ask(question, context, n_best)
    return [
        {"answer": each.text, "score": pytest.approx(each.probability, rel=1e-5), "start": each.start, "end": each.end}
        for each in found
    ]


# Answers


def test_one_question_is_answered_as_the_library_answers_it(client: httpx.Client, service: Service) -> None:
    response = client.post("/answer", json={"question": "Where does Dora live?", "context": CONTEXT})
    assert response.status_code == 200
    best = expected(service.predictors["ema"], "Where does Dora live?", CONTEXT)
    assert response.json() == {**best[0], "weights": "ema", "answers": best, "no_answer": None}


def test_lists_are_answered_in_their_order(client: httpx.Client, service: Service) -> None:
    questions, contexts = zip(*ASKED, strict=True)
    asked = {"question": questions, "context": contexts, "weights": "raw", "n_best": 3}
    answers = client.post("/answer", json=asked).json()
    assert [each["answers"] for each in answers] == [
        expected(service.predictors["raw"], question, context, 3) for question, context in ASKED
    ]
    assert {each["weights"] for each in answers} == {"raw"}


def test_several_questions_share_one_context(client: httpx.Client) -> None:
    questions = ["Where does Dora live?", "How many?"]
    together = client.post("/answer", json={"question": questions, "context": CONTEXT}).json()
    alone = [client.post("/answer", json={"question": each, "context": CONTEXT}).json() for each in questions]
    assert [each["answer"] for each in together] == [each["answer"] for each in alone]
    assert client.post("/answer", json={"question": questions[:1], "context": CONTEXT}).json() == together[:1]


def test_offsets_count_code_points(client: httpx.Client) -> None:
    context = f"\U0001f600\U0001f600 Zoë é {CONTEXT}"
    found = client.post("/answer", json={"question": "Where does Dora live?", "context": context}).json()
    assert found["answer"] == context[found["start"] : found["end"]] != ""


def test_a_context_far_longer_than_any_batch_is_answered(client: httpx.Client) -> None:
    context = f"{CONTEXT} " * 800
    found = client.post("/answer", json={"question": "Where does Dora live?", "context": context}).json()
    assert found["answer"] == context[found["start"] : found["end"]]


def test_an_ensemble_is_served_like_a_model(tiny: Tiny, tmp_path: Path) -> None:
    members = ("tiny", "tiny", "-w", "raw", "-w", "ema")
    succeed("ensemble", *members, "--export", tmp_path / "both", cwd=tiny.folder)
    (loaded,) = load_named_sets(str(tmp_path / "both"), None, choose_device("cpu"))
    with running(Service([loaded])) as started, httpx.Client(base_url=started.address, timeout=30) as client:
        found = client.post("/answer", json={"question": "Where does Dora live?", "context": CONTEXT}).json()
        model = client.get("/model").json()
        asked = {"question": "Where does Dora live?", "context": CONTEXT, "weights": [model["default_weights"]]}
        explained = client.post("/explain", json=asked).json()
        page = client.get("/").text
    best = expected(predictor_for(loaded), "Where does Dora live?", CONTEXT)
    assert {name: found[name] for name in best[0]} == best[0]
    assert "2 models (sum rule)" in model["weights"][model["default_weights"]]["made"]
    assert "ensemble of 2 models" in model["card"]
    assert [each["label"] for each in explained["explanations"]] == ["tiny (1)", "tiny (2)"]
    assert "both, step 20" in page


# Refusals


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"question": "Where?", "context": " \n\t"}, "context is empty"),
        ({"question": "", "context": CONTEXT}, "question is empty"),
        ({"question": "Where?"}, "context: Field required"),
        ({"question": 3, "context": CONTEXT}, "question: .* valid string"),
        ({"question": ["Where?", None], "context": CONTEXT}, r"question\[1\]: .*valid string"),
        ({"question": [], "context": []}, "question: "),
        ({"question": ["a", "b"], "context": ["a"]}, "1 contexts for 2 questions"),
        ({"question": "a", "context": ["a", "b"]}, "2 contexts for 1 questions"),
        ({"question": "a", "context": "b", "n_best": 0}, "n_best: .*greater"),
        ({"question": "a", "context": "b", "n_best": 10**30}, "n_best: "),
        ({"question": "a", "context": "b", "n_best": "2"}, "n_best: "),
        ({"question": "a", "context": "b", "top_k": 2}, "top_k: "),
        ({"question": "a", "context": "b", "weights": "\x1b[31m"}, "only raw, ema"),
        ({"question": "\ud800", "context": "b"}, "question: .*surrogate"),
        ([1, 2], "the body: "),
        ("Where?", "the body: "),
    ],
)
def test_what_can_not_be_answered_is_one_message(client: httpx.Client, asked: Any, words: str) -> None:
    response = client.post("/answer", content=json.dumps(asked), headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert list(response.json()) == ["error"]
    assert re.search(words, response.json()["error"])


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"question": NaN, "context": "a"}'])
def test_what_is_no_question_is_refused(client: httpx.Client, body: bytes) -> None:
    response = client.post("/answer", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert "error" in response.json()


def test_another_site_can_not_send_a_question(client: httpx.Client) -> None:
    body = json.dumps({"question": "Where?", "context": CONTEXT})
    # What a form or a script elsewhere can send without being asked for permission first.
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        response = client.post("/answer", content=body, headers={"content-type": content_type})
        assert response.status_code == 415
    permission = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    response = client.options("/answer", headers=permission)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_name_of_another_site_that_leads_here_is_refused(client: httpx.Client, server: Running) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::2]"):
        assert client.get("/model", headers={"host": host}).status_code == 400
    for host in ("localhost", "127.0.0.1:1", "LOCALHOST:8000", "[::1]:8000"):
        assert client.get("/model", headers={"host": host}).status_code == 200


def test_an_origin_may_ask_when_it_was_named(service: Service) -> None:
    with running(service, cors=["http://app.example"]) as server, httpx.Client(base_url=server.address) as client:
        for origin, allowed in (("http://app.example", "http://app.example"), ("http://evil.example", None)):
            headers = {"origin": origin, "access-control-request-method": "POST"}
            assert client.options("/answer", headers=headers).headers.get("access-control-allow-origin") == allowed
            assert client.get("/healthz", headers=headers).headers.get("access-control-allow-origin") == allowed


def test_a_body_is_limited_also_where_it_does_not_say_its_size(service: Service) -> None:
    limits = Limits(body_bytes=1000, questions=3)
    with running(service, limits) as server, httpx.Client(base_url=server.address) as client:
        large = json.dumps({"question": "Where?", "context": "a" * 1000}).encode()
        headers = {"content-type": "application/json"}
        assert client.post("/answer", content=large, headers=headers).status_code == 413
        pieces = (large[at : at + 100] for at in range(0, len(large), 100))
        assert client.post("/answer", content=pieces, headers=headers).status_code == 413
        many = client.post("/answer", json={"question": ["a"] * 4, "context": "b"})
        assert (many.status_code, "at most 3 questions" in many.json()["error"]) == (413, True)
        assert client.post("/answer", json={"question": ["a"] * 3, "context": "b"}).status_code == 200


def test_a_head_without_end_is_refused(server: Running) -> None:
    url = httpx.URL(server.address)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as endless:
        endless.sendall(b"GET /healthz HTTP/1.1\r\nx: " + b"x" * 100_000)
        assert endless.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_does_not_arrive_ends(service: Service) -> None:
    with running(service, Limits(request_seconds=0.3)) as server:
        url = httpx.URL(server.address)
        with socket.create_connection((url.host, url.port or 0), timeout=10) as slow:
            head = f"POST /answer HTTP/1.1\r\nhost: {url.host}\r\ncontent-type: application/json\r\n"
            slow.sendall(f"{head}content-length: 9\r\n\r\n{{".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
            while slow.recv(1000):
                pass  # until the server hangs up


# What the server says of itself


def test_every_response_tells_browsers_to_trust_nothing(client: httpx.Client) -> None:
    for path in ("/", "/api", "/model", "/none"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_the_model_is_described(client: httpx.Client, tiny: Tiny) -> None:
    found = client.get("/model").json()
    assert (found["model"], found["step"], found["default_weights"]) == ("tiny", 20, "ema")
    assert {name: each["scores"] for name, each in found["weights"].items()} == {
        name: pytest.approx(scores) for name, scores in tiny.last_scores().items()
    }
    assert "# BiDAF" in found["card"]
    assert str(tiny.folder) not in json.dumps(found)
    assert client.get("/healthz").json() == {"status": "ok"}


def test_the_api_is_described_for_programs_and_people(client: httpx.Client, server: Running) -> None:
    schema = client.get("/openapi.json").json()
    assert {path: list(methods) for path, methods in schema["paths"].items()} == {
        "/answer": ["post"],
        "/healthz": ["get"],
        "/model": ["get"],
    }
    page = client.get("/api").text
    for path in schema["paths"]:
        assert path in page
    for word in ("n_best", "question", "start", "503", "default_weights", f"curl {server.address}answer"):
        assert word in page
    for path in ("/docs", "/redoc"):
        assert client.get(path).status_code == 404


# Batches and queue


@pytest.fixture
def torch_threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads PyTorch has, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(torch_threads: Callable[[int], None]) -> None:
    """One thread computes."""
    torch_threads(1)


class Model:
    """Answers with the question itself, and counts."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()

    def answer(self, asked: Sequence[Question]) -> list[Outcome]:
        assert self.free.wait(30)
        self.batches.append([each.question for each in asked])
        return [
            DataError("bad") if each.question == "bad" else [Prediction(each.question, 0, 1, 1.0)] for each in asked
        ]


def ask_together(model: Model, limits: Limits, requests: Sequence[Sequence[Question]]) -> list[Any]:
    """The answers of all requests, or their errors, asked at the same time."""

    async def main() -> list[Any]:
        workers = Threads(model)  # type: ignore[arg-type]
        batcher = Batcher(workers, limits)
        answering = asyncio.create_task(batcher.run())
        try:
            return await asyncio.gather(*(batcher.ask(each) for each in requests), return_exceptions=True)
        finally:
            answering.cancel()
            workers.close()

    return asyncio.run(main())


def test_questions_of_several_requests_are_answered_together() -> None:
    model = Model()
    requests = [[Question(name, "text", "raw") for name in names] for names in (("a",), ("b", "bad", "c"), ("d",))]
    first, second, third = ask_together(model, Limits(), requests)
    assert model.batches == [["a", "b", "bad", "c", "d"]]
    assert [first[0][0].text, third[0][0].text] == ["a", "d"]
    assert isinstance(second, DataError)


def ask_sizes(limits: Limits, sizes: dict[str, int]) -> list[list[str]]:
    """The batches in which questions on contexts of these many characters are answered, all asked at once."""
    model = Model()
    requests = [[Question(name, "x" * size, "raw")] for name, size in sizes.items()]
    assert [found[0][0].text for found in ask_together(model, limits, requests)] == list(sizes)
    return model.batches


@pytest.mark.usefixtures("one_thread")
def test_a_batch_is_limited_by_its_contexts_as_they_are_padded() -> None:
    limits = Limits(batch_characters=100, full_batch_characters=100)
    assert ask_sizes(limits, {"a": 30, "b": 40, "c": 40, "d": 500}) == [["a", "b"], ["c"], ["d"]]


@pytest.mark.usefixtures("one_thread")
def test_a_batch_has_who_waits_longest_and_contexts_of_about_that_length() -> None:
    limits = Limits(batch_characters=4_000, full_batch_characters=4_000)
    sizes = {"a": 2_000, "b": 100, "c": 1_900, "d": 120}
    assert [set(batch) for batch in ask_sizes(limits, sizes)] == [{"a", "c"}, {"b", "d"}]


@pytest.mark.usefixtures("one_thread")
def test_batches_grow_where_many_wait() -> None:
    limits = Limits(batch_characters=100, full_batch_characters=600)
    batches = ask_sizes(limits, {str(number): 10 for number in range(100)})
    assert [len(batch) for batch in batches[:2]] == [50, 25]
    assert len(batches[-2]) == 10
    batches = ask_sizes(Limits(batch_characters=100, full_batch_characters=150), {str(each): 10 for each in range(100)})
    assert len(batches[0]) == 15


@pytest.mark.usefixtures("one_thread")
def test_shorter_contexts_that_keep_coming_do_not_pass_a_long_one() -> None:
    model = Model()

    async def main() -> list[str]:
        workers = Threads(model)  # type: ignore[arg-type]
        batcher = Batcher(workers, Limits(batch_characters=1, full_batch_characters=1))
        answering = asyncio.create_task(batcher.run())
        done: list[str] = []

        async def keep_asking(name: str, size: int) -> None:
            while "long" not in done:
                await batcher.ask([Question(name, "x" * size, "raw")])
                done.append(name)

        await asyncio.gather(*(keep_asking("short", 10) for _ in range(3)), keep_asking("long", 1_000_000))
        answering.cancel()
        workers.close()
        return done

    assert asyncio.run(asyncio.wait_for(main(), 30)).index("long") <= 3


def test_too_many_questions_are_turned_away_and_later_ones_answered() -> None:
    model = Model()
    requests = [[Question(name, "text", "raw")] * count for name, count in (("a", 2), ("b", 2), ("c", 1))]
    first, second, third = ask_together(model, Limits(waiting=3), requests)
    assert isinstance(second, Busy)
    assert (len(first), third[0][0].text) == (2, "c")
    assert isinstance(ask_together(model, Limits(waiting=3), requests)[1], Busy)


def test_one_question_that_fails_takes_no_other_with_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    features = Predictor.features

    def failing(self: Predictor, examples: Any) -> Any:
        if any("fails" in each.question for each in examples):
            raise MemoryError
        return features(self, examples)

    monkeypatch.setattr(Predictor, "features", failing)
    asked = [Question(each, CONTEXT, "raw") for each in ("Where does Dora live?", "this fails", " ", "How many?")]
    outcomes = service.answer(asked)
    assert [type(each) for each in outcomes] == [list, MemoryError, DataError, list]


@pytest.fixture
def stuck(service: Service, one_thread: None) -> Iterator[tuple[Service, Model]]:
    """The service with a model that answers when it is set free, in one thread."""
    model = Model()
    model.free.clear()
    slow = copy.copy(service)
    slow.answer = model.answer  # type: ignore[method-assign]
    yield slow, model
    model.free.set()


def test_each_thread_answers_a_batch_and_computes_alone(torch_threads: Callable[[int], None]) -> None:
    torch_threads(2)
    together = threading.Barrier(2, timeout=20)

    class Meeting(Model):
        def answer(self, asked: Sequence[Question]) -> list[Outcome]:
            together.wait()
            return [[Prediction("", 0, torch.get_num_threads(), 1.0)] for _ in asked]

    requests = [[Question("Where?", "text", "raw")]] * 2
    found = ask_together(Meeting(), Limits(batch_characters=1), requests)
    assert [answers[0][0].end for answers in found] == [1, 1]
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2


def post(server: Running, question: str) -> httpx.Response:
    return httpx.post(f"{server.address}answer", json={"question": question, "context": "text"}, timeout=30)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_queue_answers_503_and_says_when_to_ask_again(stuck: tuple[Service, Model]) -> None:
    slow, model = stuck
    with running(slow, Limits(waiting=2)) as server, ThreadPoolExecutor(5) as pool:
        found = [pool.submit(post, server, str(number)) for number in range(5)]
        wait_for(lambda: sum(each.done() for each in found) == 3)
        for refused in (each.result() for each in found if each.done()):
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            assert "waiting" in refused.json()["error"]
        assert httpx.get(f"{server.address}healthz").status_code == 200
        model.free.set()
        assert sorted(each.result().status_code for each in found) == [200, 200, 503, 503, 503]
        assert post(server, "again").json()["answer"] == "again"


def test_a_question_that_takes_too_long_is_given_up(stuck: tuple[Service, Model]) -> None:
    slow, model = stuck
    with running(slow, Limits(request_seconds=0.3)) as server:
        late = post(server, "a")
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        assert post(server, "b").status_code == 503  # it waited behind the first
        model.free.set()
        assert post(server, "c").json()["answer"] == "c"
    assert model.batches == [["a"], ["c"]]


def test_the_end_waits_for_what_was_accepted(stuck: tuple[Service, Model]) -> None:
    slow, model = stuck
    with running(slow) as server, ThreadPoolExecutor(1) as pool:
        found = pool.submit(post, server, "a")
        wait_for(lambda: not model.free.is_set() and server.server.server_state.tasks)
        server.stop()
        wait_for(lambda: not _accepts(server))
        assert not found.done()
        model.free.set()
        assert found.result().json()["answer"] == "a"
        server.thread.join(20)


def _accepts(server: Running) -> bool:
    url = httpx.URL(server.address)
    with socket.socket() as tried:
        return tried.connect_ex((url.host, url.port)) == 0


def test_a_fault_is_one_response_and_its_message_forges_none(
    service: Service, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = copy.copy(service)
    text = "\x1b[31m\nerror: forged\r\u2028error: forged"

    def fault(asked: Sequence[Question]) -> list[Outcome]:
        raise RuntimeError(asked[0].question)

    broken.answer = fault  # type: ignore[method-assign]
    with running(broken) as server:
        response = post(server, text)
        assert post(server, text).status_code == 500  # the server lives on
    assert (response.status_code, "forged" in response.text) == (500, False)
    messages = capfd.readouterr().err
    assert "\x1b" not in messages
    assert "RuntimeError" in messages
    assert not [line for line in messages.splitlines() if line.startswith("error: forged")]


def test_threads_that_meet_new_words_at_the_same_time_answer_as_one_alone(service: Service) -> None:
    asked = [
        Question("Where does Dora live?", f"Dora{number} lives in Ro-{number}me. {CONTEXT}", service.default)
        for number in range(120)
    ]
    with ThreadPoolExecutor(4) as pool:
        found = [outcome for part in pool.map(service.answer, [asked[at::4] for at in range(4)]) for outcome in part]
    alone = predictor_for(service.predictors[service.default].loaded)
    for outcome, each in zip(found, [each for at in range(4) for each in asked[at::4]], strict=True):
        assert isinstance(outcome, list)
        assert outcome[0].text == alone.ask(each.question, each.context)[0].text


def test_a_response_waits_for_no_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_serving_leaves_the_threads_of_the_process_as_they_were(service: Service) -> None:
    before = torch.get_num_threads()
    with running(service) as server:
        post(server, "Where?")
    assert torch.get_num_threads() == before


# The command


def test_an_address_that_is_taken_is_one_message(tiny: Tiny) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in fail(2, "serve", "-m", "tiny", "--port", port, cwd=tiny.folder)
    assert "--host" in fail(2, "serve", "-m", "tiny", "--host", "no.such.name.invalid", cwd=tiny.folder)


def test_a_missing_package_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bidaf.cli.serve.find_spec", lambda name: None if name == "uvicorn" else object())
    message = fail(1, "serve", "-m", "tiny", cwd=tiny.folder)
    assert "pip install" in message
    assert "uvicorn" in message


@contextlib.contextmanager
def serving(tiny: Tiny, threads: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the address that it prints."""
    command = [sys.executable, "-W", "error", "-m", "bidaf", "serve", "-m", "tiny", "--port", "0", "--weights", "raw"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command, cwd=tiny.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_the_command_prints_its_address_and_answers_what_it_accepted_before_sigterm(tiny: Tiny) -> None:
    with serving(tiny, threads=1) as (server, address):
        long = {"question": "Where does Dora live?", "context": f"{CONTEXT} " * 4000}
        with httpx.Client(timeout=60) as client, ThreadPoolExecutor(1) as pool:
            assert list(client.get(f"{address}model").json()["weights"]) == ["raw"]
            found = pool.submit(client.post, f"{address}answer", json=long)
            time.sleep(0.3)  # on its way, and nowhere near done
            httpx.get(f"{address}healthz", timeout=60)  # the server has read what came before
            server.send_signal(signal.SIGTERM)
            assert found.result().json()["answer"] in long["context"]
        out, err = server.communicate(timeout=30)
    assert (server.returncode, out) == (143, "")
    assert err.splitlines()[0].startswith("serving the raw weights")
    assert err.splitlines()[1:] == ["error: terminated"]


forked = pytest.mark.skipif(sys.platform != "linux", reason="threads compute where a process does not survive a fork")


def workers_of(server: subprocess.Popen[str]) -> list[int]:
    return [int(each) for each in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # whoever has adopted it may not have waited for it yet


def ask_all(address: str, asked: Sequence[tuple[str, str]]) -> list[int]:
    """Statuses of the responses to questions that are asked at the same time."""

    def ask(pair: tuple[str, str]) -> int:
        question, context = pair
        return httpx.post(f"{address}answer", json={"question": question, "context": context}, timeout=60).status_code

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(ask, asked))


@forked
def test_as_many_processes_compute_as_there_are_threads_and_a_signal_to_all_ends_them_in_order(tiny: Tiny) -> None:
    with serving(tiny, threads=2) as (server, address):
        workers = workers_of(server)
        assert len(workers) == 2
        explained = {"question": "Where does Dora live?", "context": CONTEXT, "weights": ["raw"]}
        assert httpx.post(f"{address}explain", json=explained, timeout=60).status_code == 200
        asked = [("Where?", f"{CONTEXT} {number}" * (1 + 40 * (number % 2))) for number in range(8)] + [("Where?", " ")]
        assert ask_all(address, asked) == [200] * 8 + [422]
        for process in [*workers, server.pid]:
            os.kill(process, signal.SIGINT)  # as a terminal does
        _, err = server.communicate(timeout=30)
        assert server.returncode == 130
        assert "Traceback" not in err
        assert not any(map(is_alive, workers))


class Said(DataError):
    """An error that is not made of its message alone, so that another process can not make it again."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")


@forked
def test_an_error_of_any_kind_comes_back_from_a_process() -> None:
    class Failing(Model):
        def answer(self, asked: Sequence[Question]) -> list[Outcome]:
            if asked[0].question == "all":
                raise Said("all", "failed")
            if asked[0].question == "fault":
                raise OSError(threading.Lock(), "of no file")
            return [Said(each.question, "failed") for each in asked]

    async def main() -> list[Any]:
        workers = Processes(Failing())  # type: ignore[arg-type]
        batcher = Batcher(workers, Limits(batch_characters=1, full_batch_characters=1))
        answering = asyncio.create_task(batcher.run())
        requests = [batcher.ask([Question(name, "text", "raw")]) for name in ("all", "one", "fault", "two")]
        found = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), 20)
        answering.cancel()
        workers.close()
        assert not workers.died
        return found

    every, one, fault, two = asyncio.run(main())
    for error, message in ((every, "all failed"), (one, "one failed"), (two, "two failed")):
        assert isinstance(error, DataError)
        assert str(error) == message
    assert "of no file" in str(fault)


@forked
@pytest.mark.parametrize("busy", [False, True])
def test_no_process_outlives_a_server_that_is_killed(tiny: Tiny, busy: bool) -> None:
    with serving(tiny, threads=2) as (server, address):
        workers = workers_of(server)
        with ThreadPoolExecutor(1) as pool:
            if busy:
                pool.submit(ask_all, address, [("Where does Dora live?", f"{CONTEXT} " * 2000)])
                time.sleep(0.3)
            server.kill()
        wait_for(lambda: not any(map(is_alive, workers)))


@forked
def test_a_server_whose_process_is_killed_answers_and_ends_with_one_message(tiny: Tiny) -> None:
    with serving(tiny, threads=1) as (server, address):
        (worker,) = workers_of(server)
        os.kill(worker, signal.SIGKILL)
        assert ask_all(address, [("Where does Dora live?", CONTEXT)]) == [503]
        out, err = server.communicate(timeout=30)
    assert (server.returncode, out) == (1, "")
    assert err.splitlines()[1:] == [err.splitlines()[-1]]
    assert "killed" in err.splitlines()[-1]
