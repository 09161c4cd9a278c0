"""A run stands alone: all but training works wherever it lies, whatever became of what it was made from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers_cli import Tiny, fail, succeed

from bidaf.data.cache import open_prepared
from bidaf.files.reading import sha256_of
from bidaf.runs.layout import DATA
from bidaf.runs.log import read_run

FIXTURE = Path(__file__).parent / "fixtures" / "format1"


@pytest.fixture
def home(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny folder, hard links included."""
    subprocess.run(["cp", "-a", tiny.folder, tmp_path / "home"], check=True)
    return tmp_path / "home"


@pytest.fixture
def moved(home: Path, tmp_path: Path) -> Path:
    """The run alone: moved elsewhere, and all that it was made from deleted."""
    (tmp_path / "elsewhere").mkdir()
    (home / "runs" / "tiny").rename(tmp_path / "elsewhere" / "alone")
    (home / "dev.json").rename(tmp_path / "elsewhere" / "questions.json")
    shutil.rmtree(home)
    return tmp_path / "elsewhere"


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def test_a_run_answers_is_scored_explained_exported_and_reported_anywhere(tiny: Tiny, moved: Path) -> None:
    model = ["-m", "alone"]
    for weights in ("raw", "ema"):
        ours = succeed("eval", *model, "--weights", weights, "--json", cwd=moved).json
        theirs = succeed("eval", "--weights", weights, "--json", cwd=tiny.folder).json
        assert {**ours, "model": ""} == {**theirs, "model": ""}
    assert succeed("predict", "questions.json", *model, cwd=moved).json
    assert succeed("predict", moved / "questions.json", "-m", moved / "alone", cwd=Path("/")).json
    assert succeed("ask", "-c", "questions.json", "-q", "Who?", *model, cwd=moved).out.strip()
    succeed("explain", "dev-0-0", *model, cwd=moved)
    succeed("export", *model, "-o", "export", cwd=moved)
    assert succeed("eval", "-m", "export", "-d", "questions.json", "--json", cwd=moved).json["questions"] == 6
    page = Path(succeed("report", "alone", "-o", moved / "page.html", cwd=moved).out.strip())
    assert "Where does Dora live?" in page.read_text()


def test_training_alone_needs_what_the_run_was_made_from(moved: Path) -> None:
    message = fail(3, "train", "--resume", "alone", "--set", "training.epochs=22", cwd=moved)
    assert str(moved / "train.json") in message or str(moved / "prepared") in message


def test_links_in_a_run_are_relative_and_stay_inside(home: Path) -> None:
    run = home / "runs" / "tiny"
    links = [path for path in run.rglob("*") if path.is_symlink()]
    assert {link.name for link in links} == {"best", "last"}
    for link in links:
        assert not os.path.isabs(os.readlink(link))
        assert link.resolve().is_relative_to(run.resolve())


def test_data_is_linked_where_it_can_be_and_nothing_writes_into_it(home: Path) -> None:
    start = read_run(home / "runs" / "tiny").start
    assert start
    prepared = home / "prepared" / start.features
    data = home / "runs" / "tiny" / DATA
    shared = [name for name in hashes(data) if name != "manifest.json"]
    assert any(name.startswith("dev/") for name in shared)
    assert not any(name.startswith("train") for name in shared)
    assert all((data / name).samefile(prepared / name) for name in shared)
    before = hashes(prepared), hashes(data)
    succeed("train", "--resume", "tiny", "--set", "training.epochs=22", cwd=home)
    succeed("train", "--resume", "tiny", "--set", "training.epochs=24", "--run-dir", "runs/copy", cwd=home)
    succeed("prepare", "-c", "tiny.yaml", cwd=home)
    succeed("export", "-m", "copy", "-o", "export", cwd=home)
    assert (hashes(prepared), hashes(data)) == before
    copy = home / "runs" / "copy" / DATA
    assert all((copy / name).samefile(prepared / name) for name in shared)


def test_data_is_copied_where_it_cannot_be_linked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    succeed("train", "-c", "tiny.yaml", "--run-dir", "runs/new", "--set", "training.max_steps=1", cwd=home)
    new, linked = (home / "runs" / name / DATA for name in ("new", "tiny"))
    assert hashes(new) == hashes(linked)
    assert not any((new / name).samefile(linked / name) for name in hashes(new))


def test_corrupted_data_is_refused_and_resuming_restores_it(home: Path) -> None:
    vocabulary = home / "runs" / "tiny" / DATA / "vocabulary.json"
    text = vocabulary.read_bytes()
    vocabulary.unlink()  # a hard link: writing through it would change the prepared data
    vocabulary.write_bytes(text[:-2] + b"x}")
    assert "vocabulary.json changed" in fail(3, "eval", "-m", "tiny", cwd=home)
    succeed("train", "--resume", "tiny", cwd=home)
    assert vocabulary.read_bytes() == text
    succeed("eval", "-m", "tiny", cwd=home)


def test_a_run_of_format_1_uses_the_prepared_data_and_gets_its_own_when_it_is_resumed(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "home", symlinks=True)
    home, run = tmp_path / "home", tmp_path / "home" / "run"
    before = succeed("eval", "-m", "run", "--json", cwd=home).json
    shutil.move(run, tmp_path / "run")
    assert str(tmp_path / "prepared") in fail(3, "eval", "-m", "run", cwd=tmp_path)
    shutil.move(tmp_path / "run", run)
    succeed("train", "--resume", "run", "--set", "training.max_steps=82", cwd=home)
    assert open_prepared(run / DATA).key == json.loads((run / "last/state.json").read_text())["features"]
    shutil.move(run, tmp_path / "run")
    shutil.rmtree(home)
    after = succeed("eval", "-m", "run", "--json", cwd=tmp_path).json
    assert after["questions"] == before["questions"]
