"""Pages that stand alone: one file, no request, and no data can become markup or script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from bidaf.reporting.words import count, signed

TEMPLATES = Path(__file__).parent / "templates"

# Characters that would end the element, open a comment in it, or are not allowed in a script.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


class Page(NamedTuple):
    """A page, and the policy in its head: one that a server also sends as a header."""

    html: str
    policy: str


def render(template: str, **values: Any) -> str:
    """A page of `templates/NAME.html` that stands alone: see `make_page`."""
    return make_page(template, **values).html


def make_page(
    template: str,
    *,
    shares: Sequence[str] = (),
    inline_styles: bool = True,
    asks_server: bool = False,
    **values: Any,
) -> Page:
    """A page of `templates/NAME.html` with the style sheet and the script of all pages, those it `shares` with others,
    and `NAME.js`, if any.

    Every value is escaped where it is inserted (jinja's autoescape). The policy allows the one script by its hash, no
    other, and no request, or with `asks_server` only requests to the server the page came from: should an escape ever
    fail, nothing runs and nothing leaves. Charts, which are SVG with `style` attributes, need `inline_styles`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"signed": signed, "count": count}
    scripts = ("page.js", *shares, f"{template}.js")
    script = "".join(_source(name) for name in scripts if (TEMPLATES / name).is_file())
    style = _source("page.css")
    allowed = {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'" if inline_styles else _digest(style),
        "script-src": _digest(script),
        "img-src": "data:",
        "connect-src": "'self'" if asks_server else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{name} {value}" for name, value in allowed.items())
    page = environment.get_template(f"{template}.html").render(
        style=Markup(style), script=Markup(script), policy=policy, **values
    )
    # File names may hold bytes that are not UTF-8.
    return Page(page.encode("utf-8", "replace").decode(), policy)


def script_json(value: Any) -> Markup:
    """JSON for the inside of a `<script type="application/json">` element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return Markup(text.translate(_ESCAPES))


def _digest(text: str) -> str:
    """A source of a policy that allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
