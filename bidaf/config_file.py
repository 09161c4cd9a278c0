"""Settings from a YAML file and `--set key=value`: every problem of a config in one message, with its line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bidaf.config import Config
from bidaf.errors import UsageError
from bidaf.files.shipped import shipped_configs

CONFIGS_FOLDER = "configs"
MAX_DEPTH = 20
MAX_BYTES = 65_536  # a config is a page of text; YAML can make minutes of work out of a megabyte
# Settings of older versions, which files and checkpoints still hold: old key -> new key.
RENAMED = {"model.form": "model.variant"}
# Settings that are gone: old key -> the one value that is accepted, which is what every run does now.
REMOVED: dict[str, Any] = {"ema.every": 1}
# What a run's config says that was written before the setting existed: the run was made without it, whatever the
# default is now.
BEFORE: dict[str, Any] = {"ema.snapshots": None}


class _Loader(yaml.SafeLoader):
    """Safe YAML that also reads 1e-8 as a number, which YAML 1.1 takes for text."""


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes the text "1e-8"."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(  # type: ignore[no-untyped-call]
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def find_config(name: str) -> Path:
    """The file itself, else that name in `configs/` here, else in the configs that come with the project."""
    for path in [Path(name), *(folder / name for folder in _config_folders())]:
        if os.path.isfile(path):  # where Path.is_file() raises for a name too long
            return path
    if os.path.isdir(name):
        raise UsageError(f"--config {name} is a folder; name a YAML file")
    known = known_configs()
    near = {path.name: str(path) for pattern in ("*.yaml", "*.yml") for path in Path(name).parent.glob(pattern)}
    close = [near.get(match, match) for match in difflib.get_close_matches(Path(name).name, [*near, *known], n=1)]
    hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}" if known else ""
    raise UsageError(f"no config {name}, neither as a path nor in {CONFIGS_FOLDER}/{hint}")


def explain_missing(config: Config, path: Path) -> str:
    """A line for each source of the config that lies next to its file, and not where its path leads; or nothing."""
    sources = {"train": config.data.train, "dev": config.data.dev, "vectors": (config.data.vectors or "",)}
    return "".join(
        f"\ndata.{name}: paths are relative to the current folder; {source} lies next to {path.name}: {neighbor}"
        for name, names in sources.items()
        for source in names
        if source and not os.path.exists(source) and os.path.isfile(neighbor := path.parent / source)
    )


def known_configs() -> list[str]:
    """Names that `find_config` finds in its folders."""
    return sorted({path.name for folder in _config_folders() for path in folder.glob("*.yaml")})


def _config_folders() -> list[Path]:
    return [Path(CONFIGS_FOLDER), shipped_configs()]


def load_config(path: Path, overrides: Sequence[str] = (), *, of_a_run: bool = False) -> Config:
    """Read and check a config, with `key=value` overrides applied. Raises `UsageError` with all problems at once.

    `of_a_run` is for a file that `dump_config` wrote, which lists every setting that its version had.
    """
    values, lines = _read(path)
    if of_a_run:
        for key, value in BEFORE.items():
            if key not in lines:
                _put(values, key, value, str(path))
    origins = {key: f"{path}, line {line}" for key, line in lines.items()}
    for override in overrides:
        key, value = _parse_override(override)
        if key in REMOVED:
            _check_removed(key, value, f"--set {override}")
            continue
        _put(values, key, value, f"--set {override}")
        origins = {name: place for name, place in origins.items() if not name.startswith(f"{key}.")}
        origins[key] = "--set"
        for section in _sections_of(key):
            origins.setdefault(section, "--set")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(detail, origins, path)}" for detail in error.errors())
        raise UsageError(f"the config does not hold:\n{problems}") from None


def dump_config(config: Config) -> str:
    """All settings as YAML that `load_config` reads back to the same object."""
    return yaml.dump(config.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class Difference(NamedTuple):
    """A setting that two configs give different values; `absent` where one of them has no such setting."""

    key: str
    ours: Any
    theirs: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.ours} -> {self.theirs}"


def differences(ours: Config, theirs: Config) -> list[Difference]:
    """Each setting that differs, in the order of the config."""
    left, right = dict(_leaves(ours.to_dict())), dict(_leaves(theirs.to_dict()))
    return [
        Difference(key, left.get(key, "absent"), right.get(key, "absent"))
        for key in {**left, **right}
        if left.get(key, ...) != right.get(key, ...)
    ]


def setting_names() -> list[str]:
    """Dotted names of all settings, in order."""
    return list(_settings(Config))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Values, and the line of each dotted key."""
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
        raise UsageError(f"{path} must hold sections (data:, model:, ...), found {_kind(values)}")
    lines = dict(_key_lines(root, "", path))
    _modernize(values, lines, path)
    return values, lines


def _modernize(values: dict[str, Any], lines: dict[str, int], path: Path) -> None:
    """Give settings that older versions wrote their present names, and drop those that are gone."""
    for old in REMOVED.keys() & lines.keys():
        section, _, name = old.rpartition(".")
        _check_removed(old, values[section].pop(name), f"{path}, line {lines.pop(old)}")
    for old, new in RENAMED.items():
        if old not in lines:
            continue
        if new in lines:
            raise UsageError(f"{path}, line {lines[old]}: {old} is the old name of {new}, which is given too; keep one")
        section, _, name = old.rpartition(".")
        values[new.partition(".")[0]][new.rpartition(".")[2]] = values[section].pop(name)
        lines[new] = lines.pop(old)


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


def _check_removed(key: str, value: Any, where: str) -> None:
    kept = REMOVED[key]
    if type(value) is not type(kept) or value != kept:
        raise UsageError(f"{where}: {key} was removed, and every run now has the value {kept}; found {_shown(value)}")


def _parse_override(override: str) -> tuple[str, Any]:
    """The dotted key and the value of `a.b=value` (YAML)."""
    key, equals, text = override.partition("=")
    key = RENAMED.get(key.strip(), key.strip())
    if not equals or not all(key.split(".")):
        raise UsageError(f"--set {override}: write it as section.key=value")
    try:
        _compose(text)
        return key, yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UsageError(f"--set {override}: the value is not YAML; quote it") from None


def _put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a dotted key of nested values."""
    for section in _sections_of(key):
        values = values.setdefault(section.rpartition(".")[2], {})
        if not isinstance(values, dict):
            raise UsageError(f"{where}: {section} is a value, not a section")
    values[key.rpartition(".")[2]] = value


def _sections_of(key: str) -> list[str]:
    """`a` and `a.b` of `a.b.c`."""
    parts = key.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _explain(detail: ErrorDetails, origins: dict[str, str], path: Path) -> str:
    # Pydantic puts the chosen name of optimizer or schedule into the location: it is no key of the file.
    parts = [str(part) for part in detail["loc"]]
    if parts[:2] in (["training", "optimizer"], ["training", "schedule"]) and len(parts) > 2:
        parts.pop(2)
    key = ".".join(parts)
    where = next((origins[name] for name in [key, *reversed(_sections_of(key))] if name in origins), str(path))
    if detail["type"] == "extra_forbidden":
        message = f"unknown setting{_suggestion(key)}"
    elif detail["type"] == "missing":
        message = "is required"
    elif detail["type"] == "value_error":
        message = str(detail["ctx"]["error"])
    elif detail["type"] in ("model_type", "model_attributes_type"):
        message = f"should be a section (lines of `key: value`), found {_kind(detail['input'])}"
    elif detail["type"] == "union_tag_invalid":
        message = f"name should be one of {detail['ctx']['expected_tags']}, found {_shown(detail['input']['name'])}"
    else:
        message = f"{detail['msg'].removeprefix('Input ')}, found {_shown(detail['input'])}"
    return f"{key or 'config'} ({where}): {message}"


def _suggestion(key: str) -> str:
    names = setting_names()
    if key in names:  # an optimizer's, but not that one's
        return f" with this {key.split('.')[-2]}.name"
    names += dict.fromkeys(section for name in names for section in _sections_of(name))
    by_last = {name.rpartition(".")[2]: name for name in names}
    close = difflib.get_close_matches(key.rpartition(".")[2], by_last, n=1)
    return f"; did you mean {by_last[close[0]]}?" if close else ""


def _settings(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        nested = [kind for kind in kinds if issubclass(kind, BaseModel)]
        if not nested:
            yield f"{prefix}{name}"
        yield from dict.fromkeys(leaf for kind in nested for leaf in _settings(kind, f"{prefix}{name}."))


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _kind(value: Any) -> str:
    return {type(None): "nothing", list: "a list", str: "text"}.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # numbers of thousands of digits, which YAML can write in hexadecimal
        text = f"{_kind(value)} too long to show"
    return text if len(text) <= 60 else f"{text[:57]}..."
