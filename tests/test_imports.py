"""What a command does not need, it does not import: checked in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers_cli import succeed, write_tiny

HEAVY = {"torch", "spacy", "datasets", "pandas", "pyarrow", "safetensors", "yaml", "numpy", "matplotlib", "jinja2"}

# Runs the command lines of argv, parted by "+", and reports to the last line of stderr.
CHILD = """
import sys, time
from bidaf.cli.app import main
command = []
for word in [*sys.argv[1:], "+"]:
    if word != "+":
        command.append(word)
        continue
    sys.argv = ["bidaf", *command]
    command = []
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
print(time.process_time(), *sys.modules, file=sys.stderr)
"""


def imported(folder: Path, *command: str) -> tuple[float, set[str]]:
    """CPU seconds of the command, and which of the heavy packages it imported."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *command], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr
    seconds, *modules = child.stderr.splitlines()[-1].split()
    return float(seconds), HEAVY & set(modules)


@pytest.mark.parametrize(
    "command", [("--help",), ("--version",), ("train", "--help"), ("ask", "--help"), ("report", "--help")]
)
def test_help_imports_nothing_heavy_and_is_immediate(tmp_path: Path, command: tuple[str, ...]) -> None:
    seconds, heavy = imported(tmp_path, *command)
    assert heavy == set()
    assert seconds < 2


def test_scoring_a_file_imports_nothing_heavy(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "answers.json").write_text('{"dev-0-0": "Rome"}')
    assert imported(tmp_path, "score", "dev.json", "answers.json", "--json")[1] == set()


def test_the_library_imports_nothing_heavy_before_it_is_used() -> None:
    code = "import sys, bidaf; bidaf.score({'a': ['b']}, {'a': 'b'}); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY.isdisjoint(modules)


def test_listing_runs_imports_no_torch(tmp_path: Path) -> None:
    assert imported(tmp_path, "runs")[1] <= {"yaml", "numpy"}


def test_checking_a_config_imports_no_torch(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    assert imported(tmp_path, "config", "validate", "tiny.yaml")[1] <= {"yaml", "numpy"}


def test_training_and_scoring_on_prepared_features_import_neither_spacy_nor_datasets(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    folder = succeed("prepare", "-c", "tiny.yaml", "--json", cwd=tmp_path).json["folder"]
    light = {"spacy", "datasets", "pandas", "pyarrow"}
    train = ("train", "-c", "tiny.yaml", "--set", "training.max_steps=1")
    _, heavy = imported(tmp_path, *train, "+", "eval", "--json")
    assert {"torch", "numpy", "safetensors"} <= heavy
    assert heavy.isdisjoint(light)
    for name in ("train.json", "dev.json", "vectors.txt"):
        (tmp_path / name).unlink()
    assert imported(tmp_path, *train, "--prepared", folder, "+", "eval", "--json")[1].isdisjoint(light)
