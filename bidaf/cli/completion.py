"""What the shell completes when Tab is pressed; `bidaf --install-completion` enables it."""

from __future__ import annotations

from pathlib import Path


def complete_config(incomplete: str) -> list[str]:
    """Names in `configs/`; the shell itself completes paths."""
    from bidaf.config_file import known_configs

    return [name for name in known_configs() if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Names in `runs/`."""
    from bidaf.runs.layout import RUNS_FOLDER, find_runs

    return [run.name for run in find_runs(Path(RUNS_FOLDER)) if run.name.startswith(incomplete)]


def complete_setting_name(incomplete: str) -> list[str]:
    """Dotted names of settings."""
    from bidaf.config_reference import setting_names

    return [name for name in setting_names() if name.startswith(incomplete)]


def complete_setting(incomplete: str) -> list[str]:
    """Dotted names of settings, ready for their value."""
    return [f"{name}=" for name in complete_setting_name(incomplete)]


def complete_experiment(incomplete: str) -> list[str]:
    """Names in `configs/experiments/`."""
    from bidaf.experiments.definition import known_experiments

    return [name for name in known_experiments() if name.startswith(incomplete)]
