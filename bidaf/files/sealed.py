"""JSON files that hold their own SHA-256: a change of any byte is found."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SEAL = "sha256"  # the key of the checksum


def sealed(body: dict[str, Any]) -> str:
    """The text of a file with this content and its checksum."""
    text = json.dumps(body, indent=1)
    return json.dumps({**body, SEAL: hashlib.sha256(text.encode()).hexdigest()}, indent=1) + "\n"


def is_intact(text: str, document: dict[str, Any]) -> bool:
    """Whether the text of a file, which parses to `document`, is what `sealed` wrote."""
    return text == sealed({name: value for name, value in document.items() if name != SEAL})
