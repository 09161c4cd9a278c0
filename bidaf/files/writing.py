"""Writing files so that a crash leaves the old content or the new one, never a part."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write beside, flush to the disk, rename over."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # a report may be written by two processes at once
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write a value as `json_text` has it."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Readable JSON, floats at full precision."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def point_link(link: Path, target: str) -> None:
    """Make the symbolic link `link` name `target` (relative to the link's folder), replacing an older link at once."""
    beside = link.with_name(f".{link.name}.tmp")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
