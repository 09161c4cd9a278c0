"""The two pages: one to ask, and one that describes the API."""

from __future__ import annotations

from typing import Any

from bidaf.reporting.attention_page import COMPONENTS, label
from bidaf.reporting.html import Page, make_page
from bidaf.serve.information import model_name
from bidaf.serve.service import Service
from bidaf.version import __version__


def front_page(service: Service) -> Page:
    """The page that asks: passage, question, weight sets, answers with their attention, history."""
    sets = [{"name": name, "label": label(name)} for name in service.predictors]
    step = service.predictors[service.default].loaded.step
    return make_page(
        "serve",
        shares=COMPONENTS,
        inline_styles=False,
        asks_server=True,
        title="Ask about a text",
        origin=f"{model_name(service)}, step {step:,}",
        version=__version__,
        sets=sets,
        has_dev=service.has_dev_questions,
    )


def api_page(schema: dict[str, Any], address: str) -> Page:
    """What `/openapi.json` says, for people. `address` is the server's own, for the examples."""
    return make_page(
        "api",
        inline_styles=False,
        title="The API of bidaf serve",
        version=__version__,
        address=address,
        operations=[
            _operation(path, method, operation, schema)
            for path, methods in schema["paths"].items()
            for method, operation in methods.items()
        ],
    )


def _operation(path: str, method: str, operation: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    body = operation.get("requestBody")
    request = _named(body["content"]["application/json"]["schema"], schema) if body else None
    good = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return {
        "path": path,
        "method": method.upper(),
        "summary": operation["summary"],
        "description": operation.get("description", ""),
        "request": _fields(request) if request else [],
        "example": request.get("example") if request else None,
        "response": _fields(_named(good, schema)),
        "problems": {
            status: response["description"] for status, response in operation["responses"].items() if status != "200"
        },
    }


def _named(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference leads to; of alternatives the first."""
    while "$ref" not in part:
        part = part["anyOf"][0]
    found: dict[str, Any] = schema["components"]["schemas"][part["$ref"].rpartition("/")[2]]
    return found


def _fields(part: dict[str, Any]) -> list[dict[str, Any]]:
    required = part.get("required", [])
    return [
        {
            "name": name,
            "type": _type(field),
            "description": field.get("description", ""),
            "default": None if name in required else field.get("default"),
            "required": name in required,
        }
        for name, field in part["properties"].items()
    ]


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"])
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if isinstance(values := field.get("additionalProperties"), dict):
        return f"object of {_type(values)}"
    return str(field.get("type", "any"))
