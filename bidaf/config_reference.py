"""Every setting with its default, its range and a sentence, from the one place that defines it: `bidaf.config`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from bidaf.config import Config
from bidaf.config_yaml import to_yaml
from bidaf.errors import UsageError

Schema = dict[str, Any]
KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}

HEAD = """\
# Settings

Every setting of a config file. `bidaf config describe` prints the same, `bidaf config describe KEY` one of them or one
section, and `bidaf config show FILE` the settings of a config with all defaults. `--set KEY=VALUE` changes one.

A config may begin with `extends: OTHER.yaml`: it then takes every setting from that file that it does not give itself.
The other file lies next to it, or is found as `--config` finds it. A section with another `name` (an optimizer, a
schedule) replaces the other file's section as a whole.

This page is written by `bidaf config describe --markdown > docs/settings.md`.
"""


@dataclass(frozen=True)
class Setting:
    """One setting, or a section of settings, of the config."""

    key: str
    """Dotted: `training.batch_size`."""
    default: str
    """As YAML writes it; empty for a section, `required` where there is none."""
    range: str
    """Which values are valid; empty for a section."""
    sentence: str
    only_with: str = ""
    """The values of the section's `name` that have this setting, as in `adam, adamw`; empty where all do."""

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return {name: value for name, value in vars(self).items() if value}


@cache
def settings() -> tuple[Setting, ...]:
    """All sections and settings, in the order of the config."""
    schema = Config.model_json_schema()
    return tuple(_walk(schema, schema["$defs"], ""))


def describe(key: str | None = None) -> list[Setting]:
    """The setting of this name, or all of the section of this name. Raises `UsageError` when there is neither."""
    found = [each for each in settings() if key is None or each.key == key or each.key.startswith(f"{key}.")]
    if not found:
        close = nearest_name(str(key))
        raise UsageError(f"there is no setting {key}" + (f"; did you mean {close}?" if close else ""))
    return found


def setting_names() -> list[str]:
    """Dotted names of all settings, without those of sections, in order."""
    return list(dict.fromkeys(each.key for each in settings() if each.range))


def nearest_name(key: str) -> str | None:
    """The setting or section whose last part is most like that of an unknown name."""
    by_last = {each.key.rpartition(".")[2]: each.key for each in reversed(settings())}
    close = difflib.get_close_matches(key.rpartition(".")[2], by_last, n=1)
    return by_last[close[0]] if close else None


def sections_of(key: str) -> list[str]:
    """`a` and `a.b` of `a.b.c`."""
    parts = key.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def as_text(found: list[Setting]) -> str:
    """For a terminal: name and default, range, sentence."""
    blocks = []
    for each in found:
        condition = f"  (with name: {each.only_with})" if each.only_with else ""
        default = f" = {each.default}" if each.range else ""
        lines = [f"{each.key}{default}{condition}", each.range, each.sentence]
        blocks.append("\n    ".join(line for line in lines if line))
    return "\n\n".join(blocks)


def as_markdown() -> str:
    """The page docs/settings.md."""
    lines = [HEAD.rstrip()]
    for each in settings():
        if "." not in each.key:
            lines += ["", f"## {each.key}", "", each.sentence, ""]
            lines += ["| setting | default | values | |", "|---|---|---|---|"]
            continue
        name = f"`{each.key}`" + (f" ({each.only_with})" if each.only_with else "")
        default = f"`{each.default}`" if each.range else ""
        lines.append(f"| {name} | {default} | {each.range} | {each.sentence} |")
    return "\n".join(lines) + "\n"


def _walk(section: Schema, definitions: Schema, prefix: str) -> Iterator[Setting]:
    required = section.get("required", [])
    for name, field in section["properties"].items():
        key, sentence = f"{prefix}{name}", field.get("description", "")
        choices = [definitions[each["$ref"].rpartition("/")[2]] for each in _alternatives(field) if "$ref" in each]
        if "discriminator" in field:
            yield Setting(key, "", "", sentence)
            yield from _walk_named(field, choices, definitions, f"{key}.")
        elif choices:
            yield Setting(key, "", "", sentence or choices[0]["description"])
            yield from _walk(choices[0], definitions, f"{key}.")
        else:
            default = "required" if name in required else to_yaml(field["default"]).removesuffix("...\n").strip()
            yield Setting(key, default, _range(field), sentence)


def _walk_named(field: Schema, choices: list[Schema], definitions: Schema, prefix: str) -> Iterator[Setting]:
    """A section whose `name` decides which settings it has. What several names have alike is listed once."""
    names = [name for choice in choices for name in _range(choice["properties"]["name"]).split(", ")]
    yield Setting(f"{prefix}name", field["default"]["name"], ", ".join(names), "Which of them.")
    having: dict[Setting, list[str]] = {}
    for choice in choices:
        for each in _walk(choice, definitions, prefix):
            if each.key != f"{prefix}name":
                having.setdefault(each, []).extend(_range(choice["properties"]["name"]).split(", "))
    for each, of in having.items():
        yield replace(each, only_with="" if of == names else ", ".join(of))


def _alternatives(field: Schema) -> list[Schema]:
    return field.get("anyOf") or field.get("oneOf") or [field]


def _range(field: Schema) -> str:
    """Which values a setting may have, in words."""
    return ", or ".join(_values(each) for each in _alternatives(field))


def _values(field: Schema) -> str:
    if "const" in field or "enum" in field:
        return ", ".join(field.get("enum") or [field["const"]])
    if field["type"] == "null":
        return "null"
    if field["type"] == "array":
        return f"list of {_values(field['items'])}" + (", at least one" if field.get("minItems") else "")
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    limits = [f"{words} {_number(field[bound])}" for bound, words in bounds.items() if bound in field]
    return " ".join([KINDS[field["type"]], *limits])


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
