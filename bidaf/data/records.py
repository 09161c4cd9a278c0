"""JSON records checked for exact types, each problem named by its JSON path and said in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bidaf.errors import DataError
from bidaf.files.reading import Place, kind_of, quote, show_place

LISTED_PROBLEMS = 10

T = TypeVar("T")


def _encodable(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair (such as \\ud800), which is no character") from None
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty" if not text else "holds only white space")
    return text


Text = Annotated[str, AfterValidator(_encodable)]
NonBlank = Annotated[Text, AfterValidator(_not_blank)]
Offset = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """A JSON object with exact types; keys that are not asked for are ignored."""

    model_config = ConfigDict(strict=True)


def validate(adapter: TypeAdapter[T], value: Any, where: str, name_item: Callable[[int], str] | None = None) -> T:
    """Validate parsed JSON; `name_item` names the items of a top-level list (`row 17`, `line 3`).

    Raises `DataError` with the JSON path of every problem, up to ten.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            place = problem["loc"]
            if name_item and place:
                place = (name_item(int(place[0])), *place[1:])
            problems.append(f"{show_place(place)}: {_explain(problem)}".removeprefix(": "))
        raise problems_error(where, problems) from None


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "an object",
    "greater_than_equal": "0 or more",
}


def _explain(problem: Any) -> str:
    kind, value = problem["type"], problem["input"]
    if kind == "missing":
        return "missing"
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind == "string_type" and problem["loc"][-1] == "id" and kind_of(value) == "a number":
        return f'expected text, found the number {value!s:.40}; ids must be text: "{value!s:.40}"'
    found = f"{value!s:.40}" if kind == "greater_than_equal" else kind_of(value)
    return f"expected {_EXPECTED[kind]}, found {found}" if kind in _EXPECTED else problem["msg"]


def refuse_repeats(ids: Iterable[tuple[str, Place]], where: str) -> None:
    """Raise `DataError` with both places of every id that is given twice."""
    places: dict[str, Place] = {}
    repeats = []
    for id, place in ids:
        if id in places:
            repeats.append(f"{show_place(place)}.id: {quote(id)} is already the id of {show_place(places[id])}")
        places.setdefault(id, place)
    if repeats:
        raise problems_error(where, repeats)


def problems_error(where: str, problems: Sequence[str]) -> DataError:
    """Make one error of all problems of a source: the first ten, and how many more."""
    if len(problems) == 1:
        return DataError(f"{where}: {problems[0]}")
    lines = [f"{where}: {len(problems)} problems", *problems[:LISTED_PROBLEMS]]
    if len(problems) > LISTED_PROBLEMS:
        lines.append(f"and {len(problems) - LISTED_PROBLEMS} more")
    return DataError("\n  ".join(lines))
