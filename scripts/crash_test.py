"""Kill a small run at random moments, resume it, kill it again; its end must be that of a run nobody disturbed.

    python scripts/crash_test.py --kills 200

One process imports PyTorch and forks a child for each session, which runs `bidaf train ...` in a process group of its
own: a session costs a second or two, and is as dead after SIGKILL as any process. Half of the kills come at any time
from start to end, a quarter while a checkpoint is being written, a quarter right before some operation on a file
(create, rename, delete, link). Some sessions are ended by SIGTERM instead, so that there are checkpoints between the
planned ones; they do not count as kills. In some, nobody reads standard output and error, or the disk behind them is
full; in some, another process writes the run's report meanwhile. `compare_runs.py` says what is compared; nothing else
may be left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from compare_runs import differences

from bidaf.cli.app import main as run_bidaf
from bidaf.errors import DataError
from bidaf.runs.checkpoint import open_checkpoint
from bidaf.runs.checkpoint_folders import REPLACED, list_checkpoints
from bidaf.runs.layout import CONFIG
from bidaf.training.launch import resume_run  # noqa: F401  (all that a session imports, once)

DATA = Path(__file__).parents[1] / "data" / "mini"
PARAGRAPHS = {"train": 12, "dev": 4}
SETTINGS = """\
data: {train: train.json, dev: dev.json, min_word_count: 3, min_char_count: 3}
model: {hidden_size: 8, word_size: 8, char_channels: 8, char_embedding_size: 4, dropout: 0.2}
ema: {warmup: ramp, snapshots: {every: 2, density: 1}}
training:
  epochs: 3
  batch_size: 6
  accumulate: 2
  optimizer: {name: adam, lr: 0.02}
  log_every: 2
  save_every: 3
  keep_last: 2
  keep_best: 2
evaluation: {every_steps: 4, batch_tokens: 1000}
"""
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink"}
UNFINISHED = re.compile(r"\.step-\d+\.\d+-[0-9a-f]+\.tmp")  # a checkpoint folder; files have an ending
KINDS = {"at any time": 0.5, "in a save": 0.25, "before a file operation": 0.25}
TERMINATIONS, LOST, WATCHED = 0.15, 0.2, 0.15  # shares of the sessions


@dataclass
class Report:
    """What came of it."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    terminations: int = 0
    sessions: int = 0
    resumes: int = 0
    without_output: int = 0
    """Sessions whose messages could not be shown."""
    watched: int = 0
    """Sessions during which another process wrote the report."""
    restarts: int = 0
    """Kills before the run's folder was made."""
    incomplete_skipped: int = 0
    """Checkpoints that a resume met and that were not whole."""
    stale_cleaned: int = 0
    """Half-written folders and files that a resume met."""
    runs: int = 0
    lost: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Session:
    """A child that trains, and the pipe in which it reports its writes: `s` a save begins, `e` it is in place, `o`."""

    pid: int
    said: int

    def hear(self, until: float = float("inf")) -> str | None:
        """The next letter; "" when the child has ended, None when it is that time before."""
        left = max(0.0, until - time.monotonic()) if until < float("inf") else None
        if not select.select([self.said], [], [], left)[0]:
            return None
        return os.read(self.said, 1).decode()

    def run_until(self, until: float) -> None:
        """Return at that time, or when the child has ended before."""
        while self.hear(until):
            pass

    def run_until_save(self, number: int) -> None:
        """Return as its save of that number begins, or when the child has ended before."""
        while number and (letter := self.hear()):
            number -= letter == "s"

    def end(self, number: int | None = None) -> int:
        """Send a signal to the process group and wait; returns the exit code, or minus the signal that ended it."""
        if number is not None:
            os.killpg(self.pid, number)
        self.run_until(float("inf"))
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.said)
        return os.waitstatus_to_exitcode(status)


def begin(arguments: list[str], output: int, kill_before: int = 0) -> Session:
    """Fork a child that runs `bidaf ARGUMENTS`; it kills its group before its write number `kill_before`.

    Its standard output and error go to the descriptor `output`, which is closed here.
    """
    said, says = os.pipe()
    pid = os.fork()
    if pid:
        os.close(says)
        os.close(output)
        os.setpgid(pid, pid)
        return Session(pid, said)
    os.setpgid(0, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # as a new process has them
    _run_command(arguments, says, kill_before)


def logged(path: Path) -> int:
    """A descriptor that appends to a file."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)


def lost(source: random.Random) -> int:
    """A descriptor that takes nothing: of a full disk, or of a pipe that nobody reads."""
    if source.random() < 0.5:
        return os.open("/dev/full", os.O_WRONLY)
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _run_command(arguments: list[str], says: int, kill_before: int) -> NoReturn:
    writes = 0

    def witness(event: str, args: tuple[Any, ...]) -> None:
        nonlocal writes
        opens = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not opens and event not in WRITES:
            return
        writes += 1
        if writes == kill_before:
            os.killpg(0, signal.SIGKILL)
        unfinished = bool(UNFINISHED.fullmatch(os.path.basename(str(args[0]))))
        os.write(says, {"os.mkdir": b"s", "os.rename": b"e"}.get(event, b"o") if unfinished else b"o")

    code = 70
    sys.argv = ["bidaf", *arguments]
    sys.addaudithook(witness)
    try:
        run_bidaf()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # in a file of its own: the output may be lost
        Path(f"traceback-{os.getpid()}.log").write_text(traceback.format_exc(), encoding="utf-8")
    sys.stderr.flush()
    os._exit(code)


class CrashTest:
    """Runs in one folder, all of the same settings; nothing disturbs `whole`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.report = Report()
        write_data(folder)
        os.chdir(folder)  # the children's paths are relative, as a user's are
        self.whole = Path("whole")
        if begin(["prepare", "--config", "crash.yaml"], logged(Path("prepare.log"))).end():
            sys.exit(f"the data was not prepared; see {folder / 'prepare.log'}")
        began = time.monotonic()
        session = begin(self._start(self.whole), logged(Path("whole.log")))
        told = []
        while letter := session.hear():
            told.append((letter, time.monotonic()))
        if session.end():
            sys.exit(f"the undisturbed run failed; see {folder / 'whole.log'}")
        self.seconds = time.monotonic() - began
        self.writes = len(told)
        self.steps = open_checkpoint(self.whole / "last").step
        saves = [moment for letter, moment in told if letter == "s"]
        self.saves = len(saves)
        ends = (moment for letter, moment in told if letter == "e")
        self.save_seconds = sum(end - begin for begin, end in zip(saves, ends, strict=True)) / len(saves)

    def run(self, kills: int) -> None:
        """Whole runs of killed sessions, until there were so many kills; the report is up to date all along."""
        began = time.monotonic()
        while sum(self.report.kills.values()) < kills:
            number = self.report.runs = self.report.runs + 1
            run = Path(f"run-{number:03d}")
            try:
                terminated = self._run_to_the_end(run, kills)
            except RuntimeError as error:
                self.report.lost.append(f"{run}: {error}")
                continue
            if problems := differences(run, self.whole, common_checkpoints=terminated):
                self.report.different.append(f"{run}: {'; '.join(problems)}")
            else:
                shutil.rmtree(run)
            self.report.seconds = round(time.monotonic() - began, 1)
            print(f"{run}: {sum(self.report.kills.values())} of {kills} kills", file=sys.stderr, flush=True)

    def _run_to_the_end(self, run: Path, kills: int) -> bool:
        """Returns whether SIGTERM made checkpoints that the undisturbed run has not."""
        report, log = self.report, run.with_suffix(".log")
        terminated = False
        while True:
            arguments = self._resume(run) if (run / CONFIG).exists() else self._start(run)
            report.sessions += 1
            left = kills - sum(report.kills.values())
            kind = self.random.choices(list(KINDS), list(KINDS.values()))[0] if left else None
            if kind and self.random.random() < TERMINATIONS:
                kind = "terminated"
            code = self._run_session(run, arguments, kind)
            if code == 0:
                log.unlink()
                return terminated
            if kind in KINDS and code == -signal.SIGKILL:
                report.kills[kind] += 1
            elif kind == "terminated" and code in (128 + signal.SIGTERM, -signal.SIGTERM):
                report.terminations += 1
                terminated = True
            else:
                raise RuntimeError(f"`bidaf {' '.join(arguments)}` ended with {code}; see *.log in {self.folder}")

    def _left(self, run: Path) -> float:
        """The share of the run that a session has before it; a little more, so that it can end by itself."""
        done = max((int(folder.name[5:]) for folder in list_checkpoints(run / "checkpoints")), default=0)
        return 1.1 - done / self.steps

    def _run_session(self, run: Path, arguments: list[str], kind: str | None) -> int:
        """One session, ended as `kind` says; its exit code."""
        output = logged(run.with_suffix(".log"))
        if self.random.random() < LOST:
            os.close(output)
            output = lost(self.random)
            self.report.without_output += 1
        left = self._left(run)
        at_write = self.random.randint(1, round(self.writes * left)) if kind == "before a file operation" else 0
        session = begin(arguments, output, kill_before=at_write)
        watcher = None
        if self.random.random() < WATCHED:
            watcher = begin(["report", str(run)], logged(Path("report.log")))
            self.report.watched += 1
        if kind == "in a save":
            session.run_until_save(self.random.randint(1, round(1 + self.saves * left)))
            session.run_until(time.monotonic() + self.random.uniform(0.0, 1.5 * self.save_seconds))
        elif kind in ("at any time", "terminated"):
            session.run_until(time.monotonic() + self.random.uniform(0.0, self.seconds * left))
        number = signal.SIGTERM if kind == "terminated" else signal.SIGKILL
        code = session.end(number if kind and not at_write else None)
        if watcher and (ended := watcher.end()) not in (0, 3):  # 3: there is no log yet
            raise RuntimeError(f"`bidaf report {run}` ended with {ended}; see {self.folder / 'report.log'}")
        return code

    def _start(self, run: Path) -> list[str]:
        self.report.restarts += run.exists()
        return ["train", "--config", "crash.yaml", "--device", "cpu", "--run-dir", str(run)]

    def _resume(self, run: Path) -> list[str]:
        self.report.resumes += 1
        for folder in list_checkpoints(run / "checkpoints"):
            try:
                open_checkpoint(folder)
            except DataError:
                self.report.incomplete_skipped += 1
        self.report.stale_cleaned += len([path for path in run.rglob(".*") if is_stale(path)])
        return ["train", "--resume", str(run), "--device", "cpu"]


def is_stale(path: Path) -> bool:
    """Whether this is the half of something."""
    return path.name.endswith(".tmp") or bool(REPLACED.fullmatch(path.name))


def write_data(folder: Path) -> None:
    """Some paragraphs of the embedded corpus, and the settings."""
    for split, count in PARAGRAPHS.items():
        document = json.loads((DATA / f"{split}.json").read_text(encoding="utf-8"))
        paragraphs = [paragraph for article in document["data"] for paragraph in article["paragraphs"]][:count]
        part = {"version": "1.1", "data": [{"title": "part", "paragraphs": paragraphs}]}
        (folder / f"{split}.json").write_text(json.dumps(part), encoding="utf-8")
    (folder / "crash.yaml").write_text(SETTINGS, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; the machine's speed decides them too")
    parser.add_argument("--folder", type=Path, help="a new folder, which is kept  [default: a temporary one]")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    if options.folder and options.folder.exists():
        parser.error(f"{options.folder} exists; name a new folder")
    torch.set_num_threads(1)  # a fork does not carry threads along
    with tempfile.TemporaryDirectory(prefix="crash-test-", ignore_cleanup_errors=True) as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        test = CrashTest(folder.resolve(), options.seed)
        try:
            test.run(options.kills)
        except KeyboardInterrupt:
            print("interrupted; so far:", file=sys.stderr)
        report = test.report
        if options.folder is None:
            os.chdir("/")
    if options.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print_report(report)
    sys.exit(1 if report.lost or report.different else 0)


def print_report(report: Report) -> None:
    """The figures, and each run that is not as it should be."""
    kills = ", ".join(f"{count} {kind}" for kind, count in report.kills.items())
    rows = {
        "kills": f"{sum(report.kills.values())} ({kills})",
        "ended by SIGTERM": report.terminations,
        "sessions whose messages could not be shown": report.without_output,
        "sessions during which another process wrote the report": report.watched,
        "runs": report.runs,
        "resumes": report.resumes,
        "started over (killed before the run's folder was made)": report.restarts,
        "checkpoints found incomplete and skipped": report.incomplete_skipped,
        "half-written folders and files cleaned": report.stale_cleaned,
        "runs lost": len(report.lost),
        "runs not identical": len(report.different),
        "seconds": report.seconds,
    }
    for name, value in rows.items():
        print(f"{name}: {value}")
    for problem in (*report.lost, *report.different):
        print(f"  {problem}")


if __name__ == "__main__":
    main()
