"""`bidaf ask`: in one go, through pipes, and at a prompt on a terminal of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers_cli import DEV, Tiny, fail, succeed, train_tiny

from bidaf.cli.answers import print_passage
from bidaf.evaluation.evaluator import Prediction

CONTEXT, ((WHERE, _), (HOW_MANY, _)) = DEV[0]
MARKED = "\x1b[1;30;103m"

# The command with its terminal as the controlling one, so that Ctrl-C is a signal.
CHILD = """
import fcntl, termios
from bidaf.cli.app import main
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
main()
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = train_tiny(tmp_path_factory.getbasetemp())
    (folder.folder / "passage.txt").write_text(CONTEXT, encoding="utf-8")
    return folder


def predicted(tiny: Tiny, *questions: str, n_best: int = 1) -> list[list[str]]:
    """The answers that `bidaf predict` gives."""
    records = json.dumps([{"context": CONTEXT, "question": question} for question in questions])
    answers = succeed("predict", "-", "--n-best", n_best, cwd=tiny.folder, stdin=records.encode()).json
    return [[best["text"] for best in record["answers"]] for record in answers]


# In one go, and through pipes


def test_questions_are_answered_one_a_line_as_predict_answers_them(tiny: Tiny) -> None:
    expected = [best for (best,) in predicted(tiny, WHERE, HOW_MANY)]
    once = succeed("ask", "-c", "passage.txt", "-q", WHERE, "-q", HOW_MANY, cwd=tiny.folder)
    confidences, answers = zip(*(line.split("\t") for line in once.out.splitlines()), strict=True)
    assert list(answers) == expected
    assert all(0 < float(confidence) <= 1 for confidence in confidences)
    assert once.err == "answering with the ema weights of runs/tiny, step 20\n"
    lines = f"{WHERE}\n\n  {HOW_MANY}  \n".encode()
    assert succeed("ask", "-c", "passage.txt", cwd=tiny.folder, stdin=lines).out == once.out
    text = CONTEXT.encode()
    assert succeed("ask", "-c", "-", "-q", WHERE, "-q", HOW_MANY, cwd=tiny.folder, stdin=text).out == once.out


def test_several_answers_come_with_their_probabilities(tiny: Tiny) -> None:
    ran = succeed("ask", "-c", "passage.txt", "-q", WHERE, "--n-best", 3, cwd=tiny.folder)
    probabilities, texts = zip(*(line.split("\t") for line in ran.out.splitlines()), strict=True)
    assert [list(texts)] == predicted(tiny, WHERE, n_best=3)
    assert sorted(map(float, probabilities), reverse=True) == list(map(float, probabilities))


def test_json_is_one_object_a_question(tiny: Tiny) -> None:
    ran = succeed("ask", "-c", "passage.txt", "-q", WHERE, "-q", HOW_MANY, "--n-best", 2, "--json", cwd=tiny.folder)
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert [record["question"] for record in records] == [WHERE, HOW_MANY]
    for record in records:
        assert [list(best) for best in record["answers"]] == [["text", "start", "end", "probability"]] * 2
        assert all(best["text"] == CONTEXT[best["start"] : best["end"]] for best in record["answers"])


def test_an_answer_of_several_lines_is_printed_as_one(tiny: Tiny) -> None:
    ran = succeed("ask", "-c", "-", "-q", "Where?", "--n-best", 9, cwd=tiny.folder, stdin=b"one\r\n\x1b[31m\ttwo")
    assert len(ran.out.splitlines()) == len([line for line in ran.out.split("\n") if line])
    assert "\x1b" not in ran.out
    assert any("one" in line and "two" in line for line in ran.out.splitlines())


@pytest.mark.parametrize(
    ("code", "args", "stdin", "problem"),
    [
        (2, ["-q", "Who?"], "", "name the text: --context FILE, or --context - for standard input"),
        (2, [], "Who?\n", "name the text"),
        (2, ["-c", "-"], "text", "give the questions with --question"),
        (2, ["-c", "passage.txt", "-q", " "], "", "--question is empty"),
        (2, ["-c", "passage.txt", "-q", "Who?", "--n-best", "0"], "", "--n-best"),
        (3, ["-c", "pasage.txt", "-q", "Who?"], "", "did you mean passage.txt?"),
        (3, ["-c", "runs", "-q", "Who?"], "", "runs: is a folder; name a file"),
        (3, ["-c", "empty.txt", "-q", "Who?"], "", "empty.txt: is empty"),
        (3, ["-c", "latin.txt", "-q", "Who?"], "", "latin.txt: is not UTF-8"),
        (3, ["-c", "-", "-q", "Who?"], " \n", "standard input: is empty"),
        (3, ["-c", "passage.txt"], " \n\n", "standard input: holds no question"),
        (3, ["-c", "passage.txt"], b"\xff\n", "standard input, line 1: is not UTF-8"),
        (3, ["-c", "passage.txt", "-q", "\u200b"], "", "the question is empty"),
        (3, ["-c", "passage.txt", "-q", "Who?", "-m", "nowhere"], "", "no run nowhere"),
    ],
)
def test_what_is_wrong_is_one_message(tiny: Tiny, code: int, args: list[str], stdin: str | bytes, problem: str) -> None:
    (tiny.folder / "empty.txt").write_text("\n")
    (tiny.folder / "latin.txt").write_bytes(b"caf\xe9")
    given = stdin if isinstance(stdin, bytes) else stdin.encode()
    assert problem in fail(code, "ask", *args, cwd=tiny.folder, stdin=given)


def test_a_long_passage_is_shown_around_its_answer(capsys: pytest.CaptureFixture[str]) -> None:
    context = f"{'Rain fell. ' * 500}Dora\r lives in \x1b[2J Rome. {'Rain fell. ' * 500}"
    start = context.index("Rome")
    print_passage(context, Prediction("Rome", start, start + 4, 0.123, 2.5))
    shown = capsys.readouterr().out
    text = " ".join(shown.split())
    assert text.startswith("... ")
    assert "Rain fell. Dora lives in [2J Rome. Rain fell." in text
    assert text.endswith(" ... Rome confidence 12.3%")
    assert len(text) < 900
    assert "\x1b[2J" not in shown
    words = text.removeprefix("... ").partition(" ...")[0].split()
    assert set(words) == {"Rain", "fell.", "Dora", "lives", "in", "[2J", "Rome."}  # none is cut
    print_passage(context)
    assert capsys.readouterr().out.count("Rain fell.") > 900
    print_passage(context, Prediction(context[: start + 4], 0, start + 4, 1.0, 2.5))
    last = capsys.readouterr().out.strip().rpartition("\n\n")[2]
    assert last.startswith("Rain fell. ")
    assert " ... " in last
    assert len(last) < 300


# At a prompt


class Terminal:
    """`bidaf ask` on a terminal: what it shows can be waited for, and keys pressed."""

    def __init__(self, folder: Path, *args: str) -> None:
        self._screen, other = pty.openpty()
        self.shown = ""
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": ""}
        self._child = subprocess.Popen(
            [sys.executable, "-c", CHILD, "ask", *args],
            cwd=folder,
            env=environment,
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)

    def wait_for(self, text: str, seconds: float = 180) -> str:
        """All that came up to a text."""
        until = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < until, self.shown
            if select.select([self._screen], [], [], 1)[0]:
                self._read()
        seen, _, self.shown = self.shown.partition(text)
        return seen

    def press(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def press_until_it_ends(self, keys: str) -> None:
        """Again every few seconds: readline overlooks a signal between its prompt and its wait for the next key."""
        for _ in range(20):
            self.press(keys)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(5)
                return

    def end(self) -> int:
        """Wait for the command to end; its exit code."""
        code = self._child.wait(180)
        while select.select([self._screen], [], [], 0)[0] and self._read():
            pass
        return code

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._screen)

    def _read(self) -> bool:
        try:
            data = os.read(self._screen, 1 << 16)
        except OSError:  # the other side is closed
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


@pytest.fixture
def terminal(tiny: Tiny, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    terminal = Terminal(tiny.folder, *request.param)
    yield terminal
    terminal.close()


@pytest.mark.parametrize("terminal", [["-c", "passage.txt"]], indirect=True)
def test_a_session_at_the_prompt(tiny: Tiny, terminal: Terminal) -> None:
    prompt = "question> "

    def ask(line: str) -> str:
        terminal.press(f"{line}\r")
        terminal.wait_for(line)
        return terminal.wait_for(prompt)

    assert "ema weights of runs/tiny, step 20" in terminal.wait_for(prompt)
    (expected,) = predicted(tiny, WHERE, n_best=4)
    shown = ask(WHERE)
    assert f"{MARKED}{expected[0]}\x1b[0m" in shown
    assert re.search(r"confidence \d+\.\d%", shown)
    assert re.sub(r"\x1b\[[\d;]*m", "", shown).strip().startswith(CONTEXT)
    table = [line.split("│")[1].strip() for line in ask("/best 4").splitlines() if line.startswith("│")]
    assert table == expected
    assert "error: /best takes a number" in ask("/best two")
    assert "error: no command /nope; there are /best" in ask("/nope")
    assert "nowhere.txt: no such file" in ask("/context nowhere.txt")
    assert CONTEXT in ask("/show")
    assert "/context FILE  another passage" in ask("/help")
    assert ask(" ").strip() == ""
    # A pasted passage: longer than a terminal's own line, with a blank line in it.
    terminal.press("/context\r")
    terminal.wait_for("ends it.")
    terminal.wait_for("| ")  # only now does the terminal take a line of any length
    terminal.press(f"Kiel lies by the sea. {'It rains. ' * 600}\r\rEnd.\r.\r")
    assert "passage: 1,206 words" in terminal.wait_for(prompt)
    assert "error: ask a question first" in ask("/best")
    assert MARKED in ask("Where?")
    terminal.press("\x04")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("terminal", [[]], indirect=True)
def test_ctrl_c_leaves_the_prompt_without_a_word(terminal: Terminal) -> None:
    assert "/quit          leave (or Ctrl-D, Ctrl-C)" in terminal.wait_for("ends it.")
    terminal.wait_for("| ")
    terminal.press_until_it_ends("\x03")
    assert terminal.end() == 0
    assert "error" not in terminal.shown
    assert "Traceback" not in terminal.shown
