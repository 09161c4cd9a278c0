"""YAML of plain values: read safely, with the line of each key, and written so that it is read back the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bidaf.errors import UsageError

MAX_DEPTH = 20
MAX_BYTES = 65_536  # a config is a page of text; YAML can make minutes of work out of a megabyte


class _Loader(yaml.SafeLoader):
    """Safe YAML that also reads 1e-8 as a number, which YAML 1.1 takes for text."""


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes the text "1e-8"."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(  # type: ignore[no-untyped-call]
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of a config, and the line of each dotted key. Raises `UsageError` for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is too large for a config ({path.stat().st_size:,} bytes)")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None
    try:
        root = _compose(text)
        values = {} if root is None else yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise UsageError(f"{path} is not a YAML config: {problem}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold sections (data:, model:, ...), found {kind_of(values)}")
    return values, dict(_key_lines(root, "", path))


def parse_yaml(text: str) -> Any:
    """The value that a piece of YAML stands for. Raises `ValueError` for what is not YAML."""
    try:
        _compose(text)
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from None


def to_yaml(values: Any) -> str:
    """YAML that is read back to the same values, in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def kind_of(value: Any) -> str:
    """What sort of value this is, for a message."""
    return {type(None): "nothing", list: "a list", str: "text"}.get(type(value), type(value).__name__)


def _compose(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, of none but plain values: a few lines of aliases can expand without bound."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:  # the time that PyYAML takes grows with the square of it
            problem = f"found more than {MAX_DEPTH} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            problem = "found an anchor, alias or tag (&, *, !)"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]
    return yaml.compose(text, _Loader)


def _key_lines(node: Any, prefix: str, path: Path) -> Iterator[tuple[str, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        line = key_node.start_mark.line + 1
        if key in seen:
            raise UsageError(f"{path}, line {line}: {key} is given twice; keep one")
        seen.add(key)
        yield key, line
        yield from _key_lines(value_node, f"{key}.", path)
