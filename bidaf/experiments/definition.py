"""An experiment file: a base config, variants of it, seeds. Each variant with each seed is one run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from bidaf.config import Config
from bidaf.config_base import Count, Section
from bidaf.config_file import CONFIGS_FOLDER, find_config, load_config
from bidaf.config_yaml import read_yaml
from bidaf.errors import BidafError, UsageError
from bidaf.files.reading import read_text
from bidaf.files.shipped import shipped_configs
from bidaf.files.writing import write_text
from bidaf.runs.layout import EXPERIMENT

FOLDER = "experiments"  # in configs/
SEED = "training.seed"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Settings = dict[str, Any]
"""Dotted names of settings and their values, as `--set` takes them."""


class Paper(Section):
    """What the paper reports for a variant, in percent."""

    exact_match: float
    f1: float


class Variant(Section):
    """Settings of the base config that are changed; none of them for the base itself."""

    settings: Settings = {}
    paper: Paper | None = None


class Experiment(Section):
    """The content of an experiment file."""

    config: str
    """The base config: next to the file, or found as `bidaf train --config` finds it."""
    settings: Settings = {}
    """Settings that all runs have in common."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(strict=False, min_length=1)] = (0,)
    threads: Count = 1
    """Processor threads of each run: sums are rounded in another way with another number."""
    processes: Count = 1
    """Processes of each run, one per GPU; more than one are started by torchrun."""
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]
    """The first one is what the others are compared with."""

    @field_validator("seeds")
    @classmethod
    def _each_seed_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed twice")
        return seeds

    @property
    def base(self) -> str:
        """Name of the variant that the others are compared with."""
        return next(iter(self.variants))


@dataclass(frozen=True)
class Job:
    """One run of an experiment."""

    variant: str
    seed: int
    config: Config
    arguments: tuple[str, ...]
    """Of `bidaf train`: the config and each setting that differs from it."""
    folder: Path

    @property
    def name(self) -> str:
        """Name of its folder, such as no-char-seed0."""
        return self.folder.name


def find_experiment(name: str) -> Path:
    """The file itself, else that name in `configs/experiments/` here, else in the ones that come with the project."""
    for path in [Path(name), *(folder / name for folder in _folders())]:
        if os.path.isfile(path):
            return path
    known = known_experiments()
    near = get_close_matches(Path(name).name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise UsageError(f"no experiment {name}, neither as a path nor in configs/{FOLDER}/; {hint}")


def known_experiments() -> list[str]:
    """Names that `find_experiment` finds in its folders."""
    return sorted({path.name for folder in _folders() for path in folder.glob("*.yaml")})


def _folders() -> list[Path]:
    return [Path(CONFIGS_FOLDER, FOLDER), shipped_configs() / FOLDER]


def read_experiment(path: Path) -> Experiment:
    """Read and check a file, but not yet the settings in it. Raises `UsageError` with all its problems."""
    values, lines = read_yaml(path)
    for name, variant in (values.get("variants") or {}).items() if isinstance(values.get("variants"), dict) else ():
        if variant is None:  # `full:` with nothing behind it
            values["variants"][name] = {}
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
            line = next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), 1)
            message = {"extra_forbidden": "is no key of an experiment", "missing": "is required"}.get(detail["type"])
            problems.append(f"\n  line {line}: {key}: {message or detail['msg'].removeprefix('Value error, ')}")
        raise UsageError(f"{path} is not an experiment:{''.join(problems)}") from None


def plan(experiment: Experiment, path: Path, folder: Path) -> list[Job]:
    """All runs in `folder`, seed by seed. Raises `UsageError` with every variant whose settings don't hold."""
    beside = path.parent / experiment.config
    config = os.path.relpath(beside) if beside.is_file() else experiment.config
    file = find_config(config)
    jobs, problems = [], []
    for name, variant in experiment.variants.items():
        settings = experiment.settings | variant.settings
        try:
            if SEED in settings:
                raise UsageError(f"{SEED}: list it under seeds")
            if sections := [key for key, value in settings.items() if isinstance(value, dict) and "." not in key]:
                raise UsageError(f"{sections[0]} is a section: write its settings as {sections[0]}.NAME: VALUE")
            jobs.append([_job(name, seed, settings, config, file, folder) for seed in experiment.seeds])
        except UsageError as error:
            problems.append(f"\nvariant {name}: {error}")
    if problems:
        raise UsageError(f"{path} does not hold:{''.join(problems)}")
    return [job for of_seed in zip(*jobs, strict=True) for job in of_seed]


def _job(variant: str, seed: int, settings: Settings, config: str, file: Path, folder: Path) -> Job:
    overrides = [f"{key}={json.dumps(value, default=str)}" for key, value in (settings | {SEED: seed}).items()]
    arguments = ("--config", config, *(part for override in overrides for part in ("--set", override)))
    return Job(variant, seed, load_config(file, overrides), arguments, folder / f"{variant}-seed{seed}")


def keep_copy(path: Path, folder: Path) -> None:
    """Put the file next to the runs, which an ensemble and people then know. Raises `BidafError` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / EXPERIMENT, read_text(path))
    except OSError as error:
        raise BidafError(f"{folder} can't be written: {error.strerror or error}") from None


def choose(jobs: list[Job], only: list[str]) -> list[Job]:
    """The runs of these variants, of all where none is named. Raises `UsageError` for one that does not exist."""
    known = list(dict.fromkeys(job.variant for job in jobs))
    for name in only:
        if name not in known:
            raise UsageError(f"no variant {name}; there are {', '.join(known)}")
    return [job for job in jobs if not only or job.variant in only]


def by_variant(jobs: list[Job]) -> Iterator[tuple[str, list[Job]]]:
    """The runs of each variant, in the order of the file."""
    for name in dict.fromkeys(job.variant for job in jobs):
        yield name, [job for job in jobs if job.variant == name]
