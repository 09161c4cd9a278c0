"""An install stands alone: the wheel in an environment of its own, used in an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Without the checkout that the tests themselves may run from.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tracked files, so that no build folder stays behind."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("bidaf", "configs", "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), ".")
    subprocess.run(build, cwd=source, env=ENVIRONMENT, check=True, capture_output=True, timeout=120)
    (built,) = target.iterdir()
    return built


def install(wheel: Path, folder: Path, *options: str) -> Path:
    """The wheel in a new environment in `folder`; returns its `bidaf` command."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *options, str(wheel))
    subprocess.run(pip, env=ENVIRONMENT, check=True, capture_output=True, timeout=1800)
    return folder / "bin" / "bidaf"


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bidaf` from the wheel; its dependencies are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    bidaf = install(wheel, folder, "--no-deps")
    (packages,) = folder.glob("lib/python*/site-packages")
    # A line of a .pth file adds a folder, without the .pth files in it: an editable install there stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return bidaf


def run(command: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (command, *arguments), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False
    )


def assert_it_works(command: Path, folder: Path) -> None:
    trained = run(command, "train", "--config", "mini.yaml", "--set", "training.max_steps=20", folder=folder)
    assert trained.returncode == 0, trained.stderr
    evaluated = run(command, "eval", "--json", folder=folder)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)
    assert run(command, "config", "validate", "squad.yaml", folder=folder).returncode == 0
    listed = run(command, "experiment", "mini_ablation.yaml", "--list", folder=folder)
    assert listed.stdout.count("missing") == 18, listed.stderr


def test_the_wheel_trains_and_scores_in_an_empty_folder(command: Path, tmp_path: Path) -> None:
    assert_it_works(command, tmp_path)


def test_missing_data_is_named_without_advice_that_only_a_checkout_has(command: Path, tmp_path: Path) -> None:
    ran = run(command, "train", "--config", "squad.yaml", folder=tmp_path)
    assert ran.returncode == 3
    assert "train-v1.1.json" in ran.stderr
    assert "scripts/" not in ran.stderr
    assert "data/mini" not in ran.stderr
    unknown = run(command, "train", "--config", "squat.yaml", folder=tmp_path)
    assert unknown.returncode == 2
    assert "squad.yaml" in unknown.stderr


def test_the_wheel_is_typed_and_has_the_version_of_the_code(command: Path, wheel: Path, tmp_path: Path) -> None:
    from bidaf.version import __version__

    assert wheel.name.startswith(f"bidaf-{__version__}-")
    assert run(command, "--version", folder=tmp_path).stdout == f"bidaf {__version__}\n"
    assert list(command.parents[1].glob("lib/python*/site-packages/bidaf/py.typed"))


@pytest.mark.slow
def test_the_wheel_with_its_declared_dependencies_alone_works(wheel: Path, tmp_path: Path) -> None:
    command = install(wheel, tmp_path / "environment", "-c", str(ROOT / "constraints.txt"))
    folder = tmp_path / "empty"
    folder.mkdir()
    assert_it_works(command, folder)
