"""Progress bars: seen on a terminal alone, and gone when they are done."""

from __future__ import annotations

import io
import sys

import pytest

from bidaf.progress import watched


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_counts_on_a_terminal_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    assert list(watched([3, 1, 2], "count", "thing", mininterval=0)) == [3, 1, 2]
    shown = screen.getvalue().split("\r")
    assert "count: " in screen.getvalue()
    assert any("2/3" in line and "thing/s" in line for line in shown)
    assert shown[-2].strip() == ""


def test_elsewhere_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(watched([3, 1, 2], "count", "thing", mininterval=0)) == [3, 1, 2]
    assert capsys.readouterr() == ("", "")
