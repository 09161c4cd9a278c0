"""Several processes make the same features as one, and none of them outlives the command."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers_cli import fail, write_tiny

from bidaf.config import DataConfig
from bidaf.data import workers
from bidaf.data.prepare import prepare
from bidaf.data.tokenizer import Tokenizer
from bidaf.data.vectors import VectorSource, read_vectors
from bidaf.errors import BidafError


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are started for the smallest corpus, which they get in many parts."""
    monkeypatch.setattr(workers, "WORDS_A_WORKER", 1)
    monkeypatch.setattr(workers, "_WORDS_A_TASK", 5)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("eager")
def test_features_are_equal_to_the_byte_with_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    started: list[int] = []

    def counting(source: VectorSource) -> Any:
        started.append(len(multiprocessing.active_children()))
        return read_vectors(source)

    monkeypatch.setattr("bidaf.data.build.read_vectors", counting)
    folders = []
    for count in (1, 2, 3):
        config = DataConfig(
            train=("train.json",),
            dev=("dev.json",),
            vectors="vectors.txt",
            min_word_count=0,
            split_questions=False,
            prepared_dir=f"by-{count}",
        )
        folders.append(files_of(prepare(config, workers=count).folder))
        assert multiprocessing.active_children() == []
    assert started == [0, 2, 3]
    assert folders[0] == folders[1] == folders[2]


@pytest.mark.parametrize(("words", "count", "expected"), [(99, 8, 0), (100, 8, 2), (250, 8, 5), (250, 3, 3)])
def test_processes_are_started_only_where_each_gets_enough_to_do(
    monkeypatch: pytest.MonkeyPatch, words: int, count: int, expected: int
) -> None:
    started: list[int] = []

    def pool(number: int, *args: object, **kwargs: object) -> None:
        started.append(number)
        raise InterruptedError

    monkeypatch.setattr(workers, "WORDS_A_WORKER", 50)
    monkeypatch.setattr(workers, "ProcessPoolExecutor", pool)
    text = " ".join(f"w{number}" for number in range(words))
    with contextlib.suppress(InterruptedError), workers.learning(Tokenizer(), [text, text], count):
        pass
    assert started == ([expected] if expected else [])


def die(words: list[str]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("eager")
def test_a_worker_that_is_killed_is_one_message_and_takes_the_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_cut_words", die)
    with pytest.raises(BidafError, match=r"a process that tokenizes died.*--workers 1"):
        with workers.learning(Tokenizer(), ["one two three four five six"], 2):
            pass
    assert multiprocessing.active_children() == []


# Runs `bidaf prepare` with workers, and tells their process ids once they are there.
CHILD = """
import multiprocessing, sys, time
from bidaf.cli.app import main
from bidaf.data import build, workers

def never(source):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    workers.WORDS_A_WORKER, workers._WORDS_A_TASK, workers._cut_words = 1, 5, len
    build.read_vectors = never
    sys.argv = ["bidaf", "prepare", "-c", "tiny.yaml", "--workers", "2"]
    main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_command_whether_interrupted_or_killed(tmp_path: Path, number: int) -> None:
    write_tiny(tmp_path)
    (tmp_path / "child.py").write_text(CHILD)
    child = subprocess.Popen(
        [sys.executable, "child.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    pids = [int(pid) for pid in child.stdout.readline().split()]
    assert len(pids) == 2
    if number == signal.SIGINT:
        os.killpg(child.pid, number)  # as a terminal does: everyone in the group
    else:
        child.kill()
    _, errors = child.communicate(timeout=30)
    if number == signal.SIGINT:
        assert child.returncode == 130
        assert errors.endswith("questions\nerror: interrupted\n")
    deadline = time.monotonic() + 20
    while alive := [pid for pid in pids if _runs(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_workers_at_all_is_a_usage_error(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    assert "--workers" in fail(2, "prepare", "-c", "tiny.yaml", "--workers", 0, cwd=tmp_path)
