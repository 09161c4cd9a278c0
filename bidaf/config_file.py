"""Settings from a YAML file and `--set key=value`: every problem of a config in one message, with its line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bidaf.config import Config
from bidaf.config_reference import nearest_name, sections_of, setting_names
from bidaf.config_yaml import kind_of, parse_yaml, read_yaml, to_yaml
from bidaf.errors import UsageError
from bidaf.files.shipped import shipped_configs

CONFIGS_FOLDER = "configs"
EXTENDS = "extends"
MAX_BASES = 10
# Settings of older versions, which files and checkpoints still hold: old key -> new key.
RENAMED = {"model.form": "model.variant"}
# Settings that are gone: old key -> the one value that is accepted, which is what every run does now.
REMOVED: dict[str, Any] = {"ema.every": 1}
# What a run's config says that was written before the setting existed: the run was made without it, whatever the
# default is now.
BEFORE: dict[str, Any] = {"ema.snapshots": None}


def find_config(name: str) -> Path:
    """The file itself, else that name in `configs/` here, else in the configs that come with the project."""
    for path in [Path(name), *(folder / name for folder in _config_folders())]:
        if os.path.isfile(path):  # where Path.is_file() raises for a name too long
            return path
    if os.path.isdir(name):
        raise UsageError(f"{name} is a folder; name a YAML file")
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
    values, origins = _read(path, of_a_run=of_a_run)
    if of_a_run:
        for key, value in BEFORE.items():
            if key not in origins:
                _put(values, key, value, str(path))
    for override in overrides:
        key, value = _parse_override(override)
        if key in REMOVED:
            _check_removed(key, value, f"--set {override}")
            continue
        _put(values, key, value, f"--set {override}")
        origins = {name: place for name, place in origins.items() if not name.startswith(f"{key}.")}
        origins[key] = "--set"
        for section in sections_of(key):
            origins.setdefault(section, "--set")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(detail, origins, path)}" for detail in error.errors())
        raise UsageError(f"the config does not hold:\n{problems}") from None


def dump_config(config: Config) -> str:
    """All settings as YAML that `load_config` reads back to the same object."""
    return to_yaml(config.to_dict())


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


def _read(path: Path, *, of_a_run: bool, above: tuple[Path, ...] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """Values, over those of the config that the file extends, and the place of each dotted key.

    `above` are the files that extend this one. The file of a run lists every setting and extends nothing.
    """
    values, lines = read_yaml(path)
    _modernize(values, lines, path)
    origins = {key: f"{path}, line {line}" for key, line in lines.items()}
    if of_a_run or EXTENDS not in values:
        return values, origins
    where = f"{origins[EXTENDS]}: {EXTENDS}"
    base = _find_base(values.pop(EXTENDS), path.parent, where)
    chain = (*above, path)
    if any(os.path.samefile(base, each) for each in chain):
        raise UsageError(f"{where} leads back to where it began: {' -> '.join(map(str, (*chain, base)))}")
    if len(chain) > MAX_BASES:
        raise UsageError(f"{where} leads through more than {MAX_BASES} files")
    base_values, base_origins = _read(base, of_a_run=False, above=chain)
    return _merge(base_values, values), base_origins | origins


def _find_base(name: Any, folder: Path, where: str) -> Path:
    """The config of this name: next to the file that extends it, else where `find_config` looks."""
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where} should name a config, found {_shown(name)}")
    if os.path.isfile(folder / name):
        return folder / name
    try:
        return find_config(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` settings over those of `base`. A section with another `name` (an optimizer) replaces the base's."""
    merged = dict(base)
    for key, value in own.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            named_otherwise = "name" in value and value["name"] != below.get("name")
            value = value if named_otherwise else _merge(below, value)
        merged[key] = value
    return merged


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
        return key, parse_yaml(text)
    except ValueError:
        raise UsageError(f"--set {override}: the value is not YAML; quote it") from None


def _put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a dotted key of nested values."""
    for section in sections_of(key):
        values = values.setdefault(section.rpartition(".")[2], {})
        if not isinstance(values, dict):
            raise UsageError(f"{where}: {section} is a value, not a section")
    values[key.rpartition(".")[2]] = value


def _explain(detail: ErrorDetails, origins: dict[str, str], path: Path) -> str:
    # Pydantic puts the chosen name of optimizer or schedule into the location: it is no key of the file.
    parts = [str(part) for part in detail["loc"]]
    if parts[:2] in (["training", "optimizer"], ["training", "schedule"]) and len(parts) > 2:
        parts.pop(2)
    key = ".".join(parts)
    where = next((origins[name] for name in [key, *reversed(sections_of(key))] if name in origins), str(path))
    if detail["type"] == "extra_forbidden":
        message = f"unknown setting{_suggestion(key)}"
    elif detail["type"] == "missing":
        message = "is required"
    elif detail["type"] == "value_error":
        message = str(detail["ctx"]["error"])
    elif detail["type"] in ("model_type", "model_attributes_type"):
        message = f"should be a section (lines of `key: value`), found {kind_of(detail['input'])}"
    elif detail["type"] == "union_tag_invalid":
        message = f"name should be one of {detail['ctx']['expected_tags']}, found {_shown(detail['input']['name'])}"
    else:
        message = f"{detail['msg'].removeprefix('Input ')}, found {_shown(detail['input'])}"
    return f"{key or 'config'} ({where}): {message}"


def _suggestion(key: str) -> str:
    if key in setting_names():  # an optimizer's or a schedule's, but not that one's
        return f" with this {key.split('.')[-2]}.name"
    close = nearest_name(key)
    return f"; did you mean {close}?" if close else ""


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # numbers of thousands of digits, which YAML can write in hexadecimal
        text = f"{kind_of(value)} too long to show"
    return text if len(text) <= 60 else f"{text[:57]}..."
