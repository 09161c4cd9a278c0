"""`bidaf runs` and what Tab offers: each run once, with the state its files tell."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import events
from helpers_cli import Tiny, fail, succeed

from bidaf.cli.runs import shown_age, shown_size
from bidaf.runs.folder import Run
from bidaf.runs.layout import LOG, METRICS, write_log
from bidaf.runs.log import read_run
from bidaf.runs.summary import summarize, summarize_runs


@pytest.fixture
def home(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny folder, to do anything to."""
    folder = tmp_path / "home"
    shutil.copytree(tiny.folder, folder, symlinks=True)
    return folder


def test_a_finished_run_is_told_with_its_best_score_steps_and_size(tiny: Tiny) -> None:
    (record,) = succeed("runs", "--json", cwd=tiny.folder).json
    best = tiny.last_scores()["ema"]
    assert record["best"] == {"f1": best["f1"], "exact_match": best["exact_match"], "weights": "ema", "step": 20}
    assert {key: record[key] for key in ("folder", "status", "step", "total_steps", "failure")} == {
        "folder": "runs/tiny",
        "status": "finished",
        "step": 20,
        "total_steps": 20,
        "failure": None,
    }
    files = [path for path in tiny.run.rglob("*") if path.is_file() and not path.is_symlink()]
    assert record["size_bytes"] == sum(path.stat().st_size for path in files if "best" not in path.parts)
    age = datetime.now(UTC) - datetime.fromisoformat(record["started"])
    assert 0 <= age.total_seconds() < 3600
    table = succeed("runs", cwd=tiny.folder)
    cells = [cell.strip() for cell in table.out.splitlines()[4].strip("│").split("│")]
    assert cells[:4] == ["tiny (latest)", "finished", f"{best['f1']:.2f} ema", "20 of 20"]
    assert table.err == ""


def cut_short(run: Path) -> None:
    """As a killed process leaves it: metrics and log end in the middle, the last line of both half written."""
    metrics, log = run / METRICS, run / LOG
    lines = metrics.read_text().splitlines(keepends=True)
    kept = (line for line in lines if json.loads(line)["step"] <= 10)
    metrics.write_text("".join(kept) + '{"event": "tra')
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:1]))


def ended(run: Path, status: str, step: int) -> None:
    """As a session leaves it that ended in this way at this step."""
    cut_short(run)
    (run / METRICS).write_text((run / METRICS).read_text().removesuffix('{"event": "tra'))
    Run(run).log_end(status, step, f"{status}: by hand")


def by_an_older_version(run: Path, message: str) -> None:
    """Cut short by a version that recorded the end in log.txt alone."""
    cut_short(run)
    write_log(run, message)


@pytest.mark.parametrize(
    ("arrange", "status", "step"),
    [
        (lambda run: ended(run, "interrupted", 13), "interrupted", 13),
        (lambda run: ended(run, "failed", 12), "failed", 12),
        (lambda run: by_an_older_version(run, "interrupted and saved"), "interrupted", 10),
        (lambda run: by_an_older_version(run, "failed: the loss is not finite"), "failed", 10),
        # Resumed for more steps and killed, its log still ends with the message of the session before.
        (lambda run: by_an_older_version(run, "done: 10 steps"), "stopped", 10),
        (cut_short, "stopped", 10),
        (lambda run: (run / LOG).unlink(), "finished", 20),
    ],
)
def test_the_status_of_a_run_that_does_not_train_is_how_it_ended(
    home: Path, arrange: Callable[[Path], object], status: str, step: int
) -> None:
    run = home / "runs" / "tiny"
    arrange(run)
    summary = summarize(run)
    assert (summary.status, summary.step, summary.total_steps) == (status, step, 20)


def test_a_resumed_run_forgets_how_it_ended_before(home: Path) -> None:
    run = home / "runs" / "tiny"
    assert [event["status"] for event in events(run, "end")] == ["finished"]
    succeed("train", "--resume", "tiny", "-s", "training.log_every=7", cwd=home)
    assert [(event["status"], event["step"]) for event in events(run, "end")] == [("finished", 20)]


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "eval", "step": 20, "raw": {"f1": NaN}}',
        '{"event": "train", "step": "x"}',
        '{"event": "eval", "step": 20, "scores": {"ema": {"f1": 3}}}',
        '{"event": "start", "step": 99, "total_steps": -1}',
        '{"event": 3, "step": 1}',
        '{"step": 1e400, "event": "eval"}',
        "[" * 100_000,
        "[]",
        "\x00\xff",
    ],
)
def test_a_line_that_is_no_event_spoils_nothing(home: Path, line: str) -> None:
    run = home / "runs" / "tiny"
    before = summarize(run)
    with (run / METRICS).open("a") as file:
        file.write(line + "\n")
    after = summarize(run)
    assert (after.status, after.step, after.best) == (before.status, before.step, before.best)
    assert read_run(run).unread == 1
    assert succeed("runs", "--json", cwd=home).json[0]["step"] == 20
    succeed("train", "--resume", "tiny", "-s", "training.log_every=7", cwd=home)


def test_a_run_is_running_while_its_lock_is_held(home: Path) -> None:
    run = home / "runs" / "tiny"
    cut_short(run)
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert summarize(run).status == "running"
    assert summarize(run).status == "stopped"


def test_the_list_says_why_a_run_cannot_be_read(home: Path) -> None:
    (home / "runs/tiny/metrics.jsonl").unlink()
    assert "runs/tiny has no metrics.jsonl" in succeed("runs", cwd=home).err
    with (home / "runs/tiny/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "no metrics.jsonl" not in succeed("runs", cwd=home).err  # it is being started


def test_a_run_logs_how_it_ended(home: Path) -> None:
    (home / "huge.txt").write_text("in 3e38 -3e38\nthe 3e38 3e38\n")
    fail(1, "train", "-c", "tiny.yaml", "-s", "data.vectors=huge.txt", "--run-dir", "runs/bad", cwd=home)
    bad = summarize(home / "runs" / "bad")
    assert bad.status == "failed"
    assert bad.failure is not None
    assert "is not finite" in bad.failure
    assert bad.failure in succeed("runs", cwd=home).err
    # A second process that the lock turns away says nothing of the run that holds it.
    with (home / "runs" / "tiny" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fail(2, "train", "--resume", "tiny", "-s", "training.epochs=21", cwd=home)
    assert summarize(home / "runs" / "tiny").status == "finished"


def test_the_newest_comes_first_and_what_is_no_run_is_left_out(home: Path) -> None:
    runs = home / "runs"
    for name, year in (("old", 2019), ("newest", 2029), ("undated", None)):
        shutil.copytree(runs / "tiny", runs / name, symlinks=True)
        path = runs / name / "environment.json"
        path.write_text(json.dumps({"started": f"{year}-01-01T00:00:00+00:00"}) if year else "{")
    (runs / "notes").mkdir()
    (runs / "file").write_text("")
    assert [run.folder.name for run in summarize_runs(runs)] == ["newest", "tiny", "old", "undated"]
    (runs / "undated" / "config.yaml").write_text("nonsense: 3")
    (runs / "old" / METRICS).unlink()
    by_name = {run.folder.name: run for run in summarize_runs(runs)}
    assert by_name["undated"].total_steps == 20  # as its log has it, whatever happened to its settings
    assert (by_name["old"].step, by_name["old"].best) == (0, None)
    assert by_name["old"].problem is not None
    assert "undated" in succeed("runs", "runs", cwd=home).out


def test_no_run_is_no_error_but_a_wrong_folder_is(tmp_path: Path) -> None:
    ran = succeed("runs", cwd=tmp_path)
    assert (ran.out, ran.err) == ("", "no run in runs yet; start one with `bidaf train --config mini.yaml`\n")
    assert succeed("runs", "--json", cwd=tmp_path).json == []
    assert fail(3, "runs", "nowhere", cwd=tmp_path) == "nowhere: no such folder"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-3, "0 s"), (59.9, "60 s"), (61, "1 min"), (7300, "2 h"), (86400 * 400, "400 d")]
)
def test_an_age_is_shown_in_the_greatest_unit_it_fills(seconds: float, shown: str) -> None:
    assert shown_age(seconds) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (14_914_296, "15 MB"), (999_600, "1.0 MB"), (5e12, "5000 GB")],
)
def test_a_size_is_shown_in_the_unit_that_leaves_it_short(size: int, shown: str) -> None:
    assert shown_size(size) == shown


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("bidaf train --config squad_", ["squad_adam.yaml", "squad_released.yaml"]),
        ("bidaf prepare -c mi", ["mini.yaml", "mini2.yaml"]),
        ("bidaf config show mini2", ["mini2.yaml"]),
        ("bidaf eval --model t", ["tiny"]),
        ("bidaf ask -m ti", ["tiny"]),
        ("bidaf train --resume t", ["tiny"]),
        ("bidaf report ti", ["tiny"]),
        ("bidaf sweep ti", ["tiny"]),
        ("bidaf compare ti", ["tiny"]),
        ("bidaf train --set training.b", ["training.batch_size=", "training.batching="]),
        ("bidaf train --set ema.decay=", []),
        ("bidaf pre", ["prepare", "predict"]),
    ],
)
def test_tab_offers_configs_runs_and_settings(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, words: str, offered: list[str]
) -> None:
    monkeypatch.setenv("_BIDAF_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert succeed(cwd=tiny.folder).out.split() == offered


def test_the_newest_run_is_found_when_the_one_that_latest_names_was_deleted(home: Path) -> None:
    shutil.copytree(home / "runs" / "tiny", home / "runs" / "other", symlinks=True)
    shutil.rmtree(home / "runs" / "tiny")
    assert (home / "runs" / "latest").is_symlink()
    assert succeed("report", cwd=home).out == "runs/other/report.html\n"
    shutil.rmtree(home / "runs" / "other")
    assert "no run yet" in fail(3, "report", cwd=home)


def test_a_thousand_runs_are_listed_in_seconds(home: Path) -> None:
    runs = home / "many"
    lines = (home / "runs" / "tiny" / METRICS).read_bytes() * 4
    for number in range(1000):
        folder = runs / f"run-{number}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("data: {train: a, dev: b}\n")
        (folder / METRICS).write_bytes(lines)
    began = time.process_time()
    assert len(summarize_runs(runs)) == 1000
    assert time.process_time() - began < 1.5
