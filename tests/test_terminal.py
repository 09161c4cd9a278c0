"""What the commands show on a terminal of 60 columns, and what they say about the model that answers."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from helpers_cli import DEV, Tiny, succeed

ROOT = Path(__file__).parents[1]
COLUMNS = 60
NAME = "squad_released-20260101-120000"


def on_terminal(*arguments: str, cwd: Path, interrupt_after: str | None = None) -> str:
    """What the command shows on a terminal of its own; Ctrl-C is typed once a text is there."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))

    def attach() -> None:
        os.setsid()
        fcntl.ioctl(follower, termios.TIOCSCTTY, 0)

    inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "bidaf", *arguments],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        preexec_fn=attach,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            block = os.read(leader, 4096)
        except OSError:  # the last process has closed it
            break
        shown += block
        if interrupt_after and re.search(interrupt_after.encode(), shown):
            os.write(leader, b"\x03")
            interrupt_after = None
    os.close(leader)
    process.wait()
    return shown.decode()


def screen(shown: str) -> list[str]:
    """The lines that stay on a terminal: text overwrites and wraps, the cursor goes back and up."""
    lines: list[list[str]] = [[]]
    row = column = 0
    for char in re.findall(r"\x1b\[A|.", re.sub(r"\x1b\[[\d;]*m", "", shown), re.DOTALL):
        if char == "\x1b[A":
            row -= 1
        elif char == "\r":
            column = 0
        elif char == "\n" or column == COLUMNS:
            row, column = row + 1, 0
            lines += [[]] * (row + 1 - len(lines))
        if char.isprintable():
            line = lines[row] + [" "] * (column + 1 - len(lines[row]))
            line[column] = char
            lines[row], column = line, column + 1
    return [text for line in lines if (text := "".join(line).rstrip())]


def test_training_says_at_once_what_it_does_and_its_bar_leaves_nothing_at_ctrl_c(tiny: Tiny, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(tiny.folder, home, symlinks=True)
    settings = ["-s", "training.epochs=100000", "-s", "training.log_every=1", "-s", "evaluation.every_steps=2"]
    arguments = ["train", "-c", "tiny.yaml", "--run-dir", "runs/new", "--device", "cpu", *settings]
    shown = on_terminal(*arguments, cwd=home, interrupt_after=r"ema F1 \d+\.\d\b(?! )")
    left = screen(shown)
    assert "loading" in left[0]
    begin = "\n".join(left[1:6])
    for said in ("run runs/new on cpu", r"\d+ thread", "3,075 parameters", "100,000 steps"):
        assert re.search(said, begin), begin
    assert re.search(r"train .*loss \d+\.\d+  raw F1 \d+\.\d  ema F1 \d+\.\d", shown)
    assert "^C" in shown
    assert any("interrupted and saved" in line for line in left)
    assert not re.search(r"\^C|/100000|question/s|%", "\n".join(left)), left


def test_runs_are_listed_whole(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny.run, tmp_path / "runs" / NAME, symlinks=True)
    shown = on_terminal("runs", cwd=tmp_path)
    lines = shown.replace("\r", "").splitlines()
    assert max(map(len, lines)) <= COLUMNS
    at = lines.index(NAME)
    status, best, steps, *_ = re.split(r" {2,}", lines[at + 1].strip())
    assert (status, best, steps) == ("finished", f"{tiny.last_scores()['ema']['f1']:.2f} ema", "20 of 20")


def test_an_answer_comes_with_its_confidence(tiny: Tiny) -> None:
    (tiny.folder / "text.txt").write_text(DEV[0][0], encoding="utf-8")
    left = screen(on_terminal("ask", "-c", "text.txt", "-q", "Where does Dora live?", cwd=tiny.folder))
    assert "ema weights of runs/tiny, step 20" in left[0]
    assert re.search(r"confidence \d+\.\d%", left[-1])


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_run_step_and_weight_set_are_named_on_stderr(tiny: Tiny, tmp_path: Path, weights: str) -> None:
    (tmp_path / "text.txt").write_text(DEV[0][0], encoding="utf-8")
    commands = (
        ("predict", "dev.json"),
        ("export", "-o", tmp_path / "model"),
        ("ask", "-c", tmp_path / "text.txt", "-q", "Where?"),
    )
    for command in commands:
        ran = succeed(*command, "-w", weights, cwd=tiny.folder)
        assert f"{weights} weights of runs/tiny, step 20" in ran.err


def test_switches_show_both_their_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    for command in ("eval", "predict", "ask", "explain", "export"):
        assert re.search(r"--use-ema ?/ ?--no-use-ema", succeed(command, "--help", cwd=tmp_path).out)
