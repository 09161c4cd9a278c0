"""Pages that stand alone: one file, no request, and no data can become markup or script."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bidaf.reporting.words import count, signed

TEMPLATES = Path(__file__).parent / "templates"

# Characters that would end the element, open a comment in it, or are not allowed in a script.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def render(template: str, **values: Any) -> str:
    """A page of `templates/NAME.html`, with the style sheet and the script of all pages and `NAME.js`, if any.

    Every value is escaped where it is inserted (jinja's autoescape). A policy in the page's head allows the one script
    by its hash, no other, and no request of any kind: should an escape ever fail, nothing runs and nothing leaves.
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
    scripts = ("page.js", f"{template}.js")
    script = "".join(_source(name) for name in scripts if (TEMPLATES / name).is_file())
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(f"{template}.html").render(
        style=Markup(_source("page.css")),
        script=Markup(script),
        policy=(
            f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        ),
        **values,
    )
    # File names may hold bytes that are not UTF-8.
    return page.encode("utf-8", "replace").decode()


def script_json(value: Any) -> Markup:
    """JSON for the inside of a `<script type="application/json">` element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return Markup(text.translate(_ESCAPES))


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
