"""The application: its routes, and how each error becomes a response."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from bidaf.errors import BidafError, DataError, UsageError
from bidaf.files.reading import show_place
from bidaf.messages import say
from bidaf.reporting.html import Page
from bidaf.serve.batching import Batcher, Busy
from bidaf.serve.guard import RETRY_AFTER, Guard
from bidaf.serve.information import model_information
from bidaf.serve.limits import Limits
from bidaf.serve.pages import api_page, front_page
from bidaf.serve.schemas import AnswerRequest, AnswerResponse, ExplainRequest, Health, ModelResponse, Problem
from bidaf.serve.service import Service
from bidaf.serve.workers import WorkerDied, Workers
from bidaf.version import __version__

PROBLEMS: dict[int | str, dict[str, Any]] = {
    408: {"model": Problem, "description": "The body took too long to arrive."},
    413: {"model": Problem, "description": "The body, or the number of questions, is too large."},
    415: {"model": Problem, "description": "The body is not JSON."},
    422: {"model": Problem, "description": "A text is empty, a field is missing or unknown, or no such weight set."},
    503: {
        "model": Problem,
        "description": "Too many questions are waiting, or this took too long: see Retry-After.",
    },
}

OneOrMore = AnswerResponse | list[AnswerResponse]
RESPONSE: TypeAdapter[OneOrMore] = TypeAdapter(OneOrMore)


def make_app(service: Service, workers: Workers, limits: Limits, *, host: str, cors: Sequence[str] = ()) -> FastAPI:
    """The application that answers with `service`, which `workers` have too.

    `host` is where it listens, `cors` the origins that may ask too.
    """
    batcher = Batcher(workers, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        answering = asyncio.create_task(batcher.run())
        yield
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering

    app = FastAPI(
        title="bidaf serve",
        summary="Questions on a text, answered by a span of it.",
        version=__version__,
        docs_url=None,  # they load scripts from elsewhere; /api is ours
        redoc_url=None,
        lifespan=lifespan,
    )
    if cors:
        app.add_middleware(CORSMiddleware, allow_origins=list(cors), allow_methods=["GET", "POST"], allow_headers=["*"])
    app.add_middleware(Guard, limits=limits)
    if (names := _own_names(host)) is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    _handle_errors(app)
    _add_api(app, service, batcher, limits)
    _add_pages(app, service, batcher)
    return app


def _add_api(app: FastAPI, service: Service, batcher: Batcher, limits: Limits) -> None:
    information = model_information(service)

    @app.post("/answer", response_model=OneOrMore, responses=PROBLEMS, summary="Answer one question or several")
    async def answer(asked: AnswerRequest) -> Response:
        """Of lists the answer is a list in the same order."""
        if asked.count > limits.questions:
            raise HTTPException(413, f"a request holds at most {limits.questions:,} questions, not {asked.count:,}")
        questions = asked.questions(service.default)
        service.check_weights([questions[0].weights])
        ranked = await batcher.ask(questions)
        answers = [AnswerResponse.of(*each) for each in zip(ranked, questions, strict=True)]
        # As JSON already: FastAPI would check every answer once more.
        return Response(RESPONSE.dump_json(answers if asked.is_list else answers[0]), media_type="application/json")

    @app.get("/healthz", summary="Whether the server is up")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get("/model", summary="Which model answers: its weight sets, scores and card")
    async def model() -> ModelResponse:
        return information


def _add_pages(app: FastAPI, service: Service, batcher: Batcher) -> None:
    front = _page(front_page(service))

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return front

    @app.get("/api", include_in_schema=False)
    async def api(request: Request) -> HTMLResponse:
        return _page(api_page(app.openapi(), str(request.base_url)))

    @app.post("/explain", include_in_schema=False)
    async def explain(asked: ExplainRequest) -> JSONResponse:
        service.check_weights(asked.weights)
        return JSONResponse(await batcher.explain(asked.question, asked.context, asked.weights))

    @app.get("/dev", include_in_schema=False)
    async def dev(search: Annotated[str, Query(max_length=1_000)] = "") -> JSONResponse:
        return JSONResponse(service.search(search))


def _page(page: Page) -> HTMLResponse:
    policy = f"{page.policy}; frame-ancestors 'none'"
    return HTMLResponse(page.html, headers={"content-security-policy": policy})


def _handle_errors(app: FastAPI) -> None:
    def problem(status: int, message: str) -> JSONResponse:
        headers = {"retry-after": RETRY_AFTER} if status == 503 else None
        return JSONResponse({"error": message}, status, headers)

    @app.exception_handler(Busy)
    @app.exception_handler(WorkerDied)
    async def unavailable(request: Request, error: Exception) -> JSONResponse:
        return problem(503, str(error))

    @app.exception_handler(BidafError)
    async def failed(request: Request, error: BidafError) -> JSONResponse:
        if isinstance(error, DataError | UsageError):
            return problem(422, str(error))
        say(f"error: {error}")
        return problem(500, "the model can't answer this question; the server's messages say why")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Of a text or a list of texts, what got further is what was meant.
        found = max(error.errors(), key=lambda each: len(each["loc"]))
        if found["type"] == "json_invalid":
            return problem(422, f"the body is not JSON: {found['ctx']['error']}")
        # After the field, the place holds positions in lists, and names of alternatives that mean nothing to others.
        field, steps = found["loc"][1:2], found["loc"][2:]
        place = show_place((*field, *(step for step in steps if isinstance(step, int))))
        return problem(422, f"{place or 'the body'}: {found['msg']}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail))


def _own_names(host: str) -> list[str] | None:
    """The names by which a browser on this machine knows a server that listens on a loopback address.

    Any other name in a request means that a site elsewhere made its own name lead here (DNS rebinding). None for other
    addresses, whose names nobody knows here.
    """
    if host != "localhost":
        try:
            if not ipaddress.ip_address(host).is_loopback:
                return None
        except ValueError:
            return None
    return ["localhost", "127.0.0.1", "::1", "[::1]", host]
