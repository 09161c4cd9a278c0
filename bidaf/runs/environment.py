"""What a run runs on: versions, processors, device, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bidaf.device import describe

PACKAGES = ("bidaf", "torch", "numpy", "spacy", "datasets", "pydantic", "safetensors")


def environment(device: str, processes: int = 1) -> dict[str, Any]:
    """What the run runs on, for whoever reads its numbers later."""
    packages = {}
    for package in PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "not installed"
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": packages,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "device": device,
        **describe(torch.device(device)),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "commit": _commit(),
    }


@cache
def _commit() -> str | None:
    """The source's git commit, with `+` when it was changed since; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if status.stdout.strip() else "")
