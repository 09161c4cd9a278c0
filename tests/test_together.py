"""Two processes that make the same thing at the same moment: both end well, and what is made is whole."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from helpers_cli import Tiny, succeed

from bidaf.cli.app import main
from bidaf.data.cache import open_prepared
from bidaf.files.reading import sha256_of

ROUNDS = 4
TINY = ("-c", "tiny.yaml", "-s", "training.max_steps=1")


@pytest.fixture
def home(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny folder."""
    return shutil.copytree(tiny.folder, tmp_path / "home", symlinks=True)


def together(*arguments: str, cwd: Path, count: int = 2) -> Counter[int]:
    """Exit codes of as many processes, forked from this one, that begin a command in the same moment."""
    waiting, starting = os.pipe()
    children = []
    for number in range(count):
        if child := os.fork():
            children.append(child)
            continue
        code = 70
        try:
            os.close(starting)
            os.chdir(cwd)
            sys.argv = ["bidaf", *arguments]
            with (cwd / f"log-{number}").open("a") as log, redirect_stdout(log), redirect_stderr(log):
                os.read(waiting, 1)  # ends when the parent closes the other end
                main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    os.close(starting)
    os.close(waiting)
    codes = Counter(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    logs = [(cwd / f"log-{number}").read_text() for number in range(count)]
    assert not any("Traceback" in log for log in logs), logs
    return codes


def hidden(folder: Path) -> list[str]:
    """What was left half made."""
    return [path.name for path in folder.rglob(".*") if path.name != ".lock"]


def test_preparing(home: Path) -> None:
    for _ in range(ROUNDS):
        shutil.rmtree(home / "prepared")
        assert together("prepare", *TINY, cwd=home) == {0: 2}
        (folder,) = (home / "prepared").iterdir()
        open_prepared(folder).verify()


def test_exporting_to_one_folder(home: Path) -> None:
    for number in range(ROUNDS):
        assert together("export", "-m", "tiny", "-o", f"export-{number}", cwd=home) == {0: 1, 2: 1}
        succeed("predict", "dev.json", "-m", f"export-{number}", cwd=home)
    assert hidden(home) == []


def test_copying_a_run(home: Path) -> None:
    """The source is locked while it is copied: one comes too late."""
    for number in range(ROUNDS):
        codes = together("train", "--resume", "tiny", "--run-dir", f"runs/copy-{number}", cwd=home)
        assert codes == {0: 1, 2: 1}
        ours, theirs = (
            {path.relative_to(run).as_posix(): sha256_of(path) for path in run.glob("checkpoints/*/**/*.safetensors")}
            for run in (home / "runs" / f"copy-{number}", home / "runs" / "tiny")
        )
        assert ours == theirs
    assert hidden(home) == []


def test_starting_runs_in_the_same_second(home: Path) -> None:
    for number in range(1, ROUNDS + 1):
        assert together("train", *TINY, cwd=home, count=3) == {0: 3}
        runs = sorted(path for path in (home / "runs").glob("tiny-*"))
        assert len(runs) == 3 * number
        assert os.readlink(home / "runs" / "latest") in [run.name for run in runs]
    assert all((run / "last").exists() for run in runs)
    assert hidden(home) == []


def test_training_in_one_folder(home: Path) -> None:
    for number in range(ROUNDS):
        codes = together("train", *TINY, "--run-dir", f"runs/one-{number}", cwd=home)
        assert codes == {0: 1, 2: 1}
        assert (home / "runs" / f"one-{number}" / "last").exists()


def test_writing_one_report_and_one_output(home: Path) -> None:
    for _ in range(ROUNDS):
        assert together("report", "tiny", cwd=home) == {0: 2}
        assert together("eval", "-m", "tiny", "-p", "answers.json", cwd=home) == {0: 2}
    assert (home / "runs" / "tiny" / "report.html").read_text().rstrip().endswith("</html>")
    assert hidden(home) == []
