"""Standard streams, closed, full or endless: what is lost is a message, never a run or its exit code."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers_cli import Tiny, bidaf, fail, succeed

from bidaf.files import reading
from bidaf.messages import printable
from bidaf.runs.layout import write_log

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "bidaf"]
QUICK = ["-s", "training.max_steps=3", "-s", "evaluation.every_steps=3", "--device", "cpu"]
ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b\u202e"


@pytest.fixture
def home(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny folder."""
    shutil.copytree(tiny.folder, tmp_path / "home", symlinks=True)
    return tmp_path / "home"


def process(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, env=environment, text=True, check=False, **options)


def broken_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return write


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


# ---- lost


@pytest.mark.parametrize("lost", [broken_pipe, full])
def test_training_goes_on_without_an_audience(home: Path, lost: Any) -> None:
    stream = lost()
    ran = process("train", "-c", "tiny.yaml", "--run-dir", "runs/new", *QUICK, cwd=home, stdout=stream, stderr=stream)
    os.close(stream)
    assert ran.returncode == 0
    assert (home / "runs/new/last").resolve().name == "step-000003"
    assert "done: 3 steps" in (home / "runs/new/log.txt").read_text()


@pytest.mark.parametrize("lost", [broken_pipe, full])
@pytest.mark.parametrize(
    ("code", "arguments"), [(2, ["train", "-c", "none.yaml"]), (3, ["score", "no.json", "no.json"])]
)
def test_an_error_that_nobody_sees_keeps_its_code(tmp_path: Path, lost: Any, code: int, arguments: list[str]) -> None:
    stream = lost()
    assert process(*arguments, cwd=tmp_path, stdout=stream, stderr=stream).returncode == code
    os.close(stream)


@pytest.mark.parametrize("arguments", [["runs"], ["config", "show", "tiny.yaml"], ["runs", "--json"]])
def test_data_that_nobody_reads_is_no_error_and_data_that_does_not_fit_is_one(home: Path, arguments: list[str]) -> None:
    for lost, code in ((broken_pipe, 0), (full, 1)):
        stream = lost()
        ran = process(*arguments, cwd=home, stdout=stream, stderr=subprocess.PIPE)
        os.close(stream)
        assert ran.returncode == code
        assert ran.stderr == ("error: No space left on device\n" if code else "")


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["ask", "-c", "text", "-q", "Where?", "-m", "runs/tiny"]),
        (3, ["ask", "-c", "text", "-m", "runs/tiny"]),
        (3, ["ask", "-c", "-", "-q", "Where?", "-m", "runs/tiny"]),
        (3, ["explain", "-c", "-", "-q", "Where?", "-m", "runs/tiny"]),
        (3, ["predict", "-", "-m", "runs/tiny"]),
    ],
)
def test_a_closed_standard_input_is_an_empty_one(
    home: Path, code: int, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "text").write_text("Anna lives in Oslo.")
    ran = process(*arguments, cwd=home, capture_output=True, preexec_fn=lambda: os.close(0))
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    assert (ran.stderr.count("error: standard input") + ran.stderr.count("is empty") > 0) == (code == 3)


def test_standard_input_without_an_end_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 10_000)
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 10_000)
    (home / "text").write_text("Anna lives in Oslo.")
    endless = b"a" * 1_100_000
    for arguments in (["ask", "-c", "-", "-q", "Where?"], ["explain", "-c", "-", "-q", "Where?"], ["predict", "-"]):
        assert "holds more than 10,000 bytes" in fail(3, *arguments, "-m", "runs/tiny", cwd=home, stdin=endless)
    message = fail(3, "ask", "-c", "text", "-m", "runs/tiny", cwd=home, stdin=endless)
    assert message == "standard input, line 1: is longer than 10,000 bytes"


# ---- terminals


def visible(text: str) -> bool:
    """Whether nothing in the text, layout aside, is for a terminal to obey."""
    return printable(text) == text


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable("é\n\tü — ✓") == "é\n\tü — ✓"
    assert printable("\x1b[31m\r\x07\u202e\ud800") == r"\x1b[31m\r\x07\u202e\ud800"


def test_names_and_settings_come_escaped_in_tables_and_messages(home: Path) -> None:
    name = f"run{ESCAPES}"
    shutil.copytree(home / "runs/tiny", home / "runs" / name, symlinks=True)
    (home / f"gold{ESCAPES}.json").write_bytes((home / "dev.json").read_bytes())
    (home / "given.json").write_text(json.dumps({ESCAPES: "x"}))
    marker = max((home / "runs" / name).glob("checkpoints/*/complete.json"))
    marker.write_text(marker.read_text().replace("}", ', "\\u001b[2J": "x"}'))
    (home / "one.yaml").write_text('data: {train: "\\e[2J.json", dev: dev.json}')
    for code, *arguments in (
        (0, "runs"),
        (0, "score", f"gold{ESCAPES}.json", "given.json"),
        (0, "config", "diff", "one.yaml", "tiny.yaml"),
        (0, "report", f"runs/{name}"),
        (3, "train", "--resume", f"runs/{name}"),
        (3, "train", "-c", "one.yaml"),
        (3, "eval", "-m", marker.parent),
    ):
        ran = bidaf(*arguments, cwd=home)
        assert ran.code == code, ran.err
        assert visible(ran.out + ran.err), ran


def test_what_a_log_quotes_comes_escaped(tmp_path: Path) -> None:
    write_log(tmp_path, f"failed: the loss of question {ESCAPES} is not finite")
    assert visible((tmp_path / "log.txt").read_text())


# ---- environments


def test_a_user_without_a_home_folder_trains(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "BIDAF_CACHE"):
        monkeypatch.delenv(name, raising=False)
    succeed("train", "-c", "tiny.yaml", "--run-dir", "runs/new", *QUICK, cwd=home)
    named = ["-s", "data.vectors=glove.6B.100d"]
    assert "BIDAF_CACHE" in fail(3, "train", "-c", "tiny.yaml", "--run-dir", "runs/other", *QUICK, *named, cwd=home)
    monkeypatch.setenv("BIDAF_CACHE", str(home))
    (home / "glove.6B.100d.txt").write_text("the 1\n")
    assert "is cut short" in fail(3, "train", "-c", "tiny.yaml", "--run-dir", "runs/third", *QUICK, *named, cwd=home)


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_made(home: Path) -> None:
    """What stores the weights takes no such path."""
    name = os.fsdecode(b"runs/caf\xe9")
    assert "UTF-8" in fail(2, "train", "-c", "tiny.yaml", "--run-dir", name, *QUICK, cwd=home)
    assert "UTF-8" in fail(2, "train", "--resume", "runs/tiny", "--run-dir", name, cwd=home)
    assert "UTF-8" in fail(1, "export", "-m", "runs/tiny", "-o", name, cwd=home)
    assert sorted(os.listdir(home / "runs")) == ["latest", "tiny"]


def test_files_whose_names_are_not_utf8_are_read_and_written(home: Path) -> None:
    name = os.fsdecode(b"caf\xe9.json")
    shutil.copy(home / "dev.json", home / name)
    shutil.copytree(home / "runs/tiny", home / "runs" / os.fsdecode(b"\xff"), symlinks=True)
    succeed("eval", "-m", "runs/tiny", "-d", name, "-p", os.fsdecode(b"\xe9.json"), cwd=home)
    assert r"caf\udce9" in succeed("score", name, os.fsdecode(b"\xe9.json"), cwd=home).out
    assert r"\udcff" in succeed("runs", cwd=home).out
    succeed("report", os.fsdecode(b"\xff"), "-o", os.fsdecode(b"\xe9.html"), cwd=home)
    settings = ["--run-dir", "runs/new", "-s", f"data.train={name}", "-s", "training.max_steps=1"]
    assert "YAML" in fail(2, "train", "-c", "tiny.yaml", *settings, cwd=home)
