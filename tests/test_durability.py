"""A power cut loses nothing that something else relies on: it is flushed to the disk before it gets its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, Configure

from bidaf.files.writing import claim_folder, put_folder, write_text
from bidaf.runs.folder import Run
from bidaf.training.launch import start_run

Unflushed = Callable[[Iterable[Path]], list[str]]


@pytest.fixture
def unflushed(monkeypatch: pytest.MonkeyPatch) -> Unflushed:
    """Names the files and folders whose content or entries changed since they were last flushed."""
    flushed: dict[int, tuple[int, int]] = {}
    fsync = os.fsync

    def noting(handle: int) -> None:
        fsync(handle)
        status = os.fstat(handle)
        flushed[status.st_ino] = (status.st_size, status.st_mtime_ns)

    def look(paths: Iterable[Path]) -> list[str]:
        states = {path.name: path.stat() for path in paths}
        return [name for name, s in states.items() if flushed.get(s.st_ino) != (s.st_size, s.st_mtime_ns)]

    monkeypatch.setattr(os, "fsync", noting)
    return look


def test_a_checkpoint_and_what_it_relies_on_are_flushed_before_it_gets_its_name(
    configure: Configure, tmp_path: Path, unflushed: Unflushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = tmp_path / "run", []
    rename = Path.rename

    def looking(path: Path, target: Path) -> Path:
        if target.name.startswith("step-"):
            beside = [run / "metrics.jsonl", run, *(run / "predictions").iterdir(), run / "predictions"]
            found.append(unflushed([path, *path.rglob("*"), *beside, *(run / "snapshots").iterdir()]))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", looking)
    snapshots = {"every": 2, "density": 1}
    start_run(configure(ema={"snapshots": snapshots}, training={"epochs": 1}), run, CPU, lambda message: None)
    assert found == [[]]
    assert unflushed([run / "checkpoints"]) == []


def test_a_file_is_flushed_before_it_replaces_another(
    tmp_path: Path, unflushed: Unflushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, replace = [], Path.replace

    def looking(path: Path, target: Any) -> Path:
        found.append(unflushed([path]))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", looking)
    write_text(tmp_path / "file", "text")
    assert found == [[]]


def test_the_names_of_new_folders_are_flushed(configure: Configure, tmp_path: Path, unflushed: Unflushed) -> None:
    with claim_folder(tmp_path / "folder") as unfinished:
        assert put_folder(unfinished, tmp_path / "folder")
    assert unflushed([tmp_path]) == []
    Run.create(tmp_path / "run", configure(), "cpu")
    assert unflushed([tmp_path, tmp_path / "run"]) == []
