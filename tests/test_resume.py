"""Resuming from wherever a run was stopped, and what resuming refuses, forgets and leaves alone."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, EMA_FILE, RAW_FILE, Configure, checkpoint_steps, events
from helpers_cli import fail, succeed, write_tiny

from bidaf.config_file import load_config
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.files.reading import sha256_of
from bidaf.files.writing import write_json
from bidaf.inference.loading import find_checkpoint
from bidaf.runs import checkpoint_folders
from bidaf.runs.checkpoint import CONFIG, OPTIMIZER, open_checkpoint
from bidaf.runs.checkpoint_folders import COMPLETE
from bidaf.runs.folder import Run
from bidaf.runs.layout import LOCK
from bidaf.runs.state import STATE, TrainingState
from bidaf.training import loop, trainer
from bidaf.training.interrupt import Interrupted, InterruptRequests
from bidaf.training.launch import MAY_CHANGE, resume_run, start_run
from bidaf.training.step import TrainingStep

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from compare_runs import differences  # noqa: E402

pytestmark = pytest.mark.usefixtures("prepared")


def start(config: Any, folder: Path) -> TrainingState:
    return start_run(config, folder, CPU, lambda message: None)


def resume(source: Path, **options: Any) -> tuple[TrainingState, str]:
    said: list[str] = []
    return resume_run(source, CPU, said.append, **options), "\n".join(said)


@pytest.fixture(scope="module")
def whole(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps that nothing disturbed, each batch in two parts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    start(configure(training={"accumulate": 2}), folder)
    return folder


def interrupt_at(patch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    original, calls = getattr(owner, name), iter(range(1, 10_000))

    def signalling(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **options)

    patch.setattr(owner, name, signalling)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program answers to it but `finally`, which is undone below."""


# ---- stopped anywhere


@pytest.mark.parametrize("call", [7, 8])
def test_a_run_stopped_between_the_parts_of_a_batch_ends_as_one_that_was_not(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path, call: int
) -> None:
    config = configure(training={"accumulate": 2})
    with monkeypatch.context() as patch:
        interrupt_at(patch, sys.modules["bidaf.training.step"], "span_loss", call)  # parts 1 and 2 of step 4
        with pytest.raises(Interrupted):
            start(config, tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run") == [4]
    resume(tmp_path / "run")
    assert differences(tmp_path / "run", whole, common_checkpoints=True) == []


def test_a_run_stopped_before_its_first_step_has_no_best_checkpoint(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, InterruptRequests, "check", 1)
        with pytest.raises(Interrupted):
            start(configure(training={"save_every": 1}), folder)
    assert checkpoint_steps(folder) == [0]
    with monkeypatch.context() as patch:
        interrupt_at(patch, InterruptRequests, "check", 3)
        with pytest.raises(Interrupted):
            resume(folder)
    assert find_checkpoint(folder).name == "step-000002"  # and not the untrained one, which nothing scored


def test_a_run_stopped_before_its_first_checkpoint_starts_over(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_checkpoint", lambda *arguments, **options: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            start(configure(training={"accumulate": 2}), folder)
    assert len(events(folder)) == 8  # a start, six steps and an evaluation
    assert "was stopped before its first checkpoint: starting over" in resume(folder)[1]
    assert differences(folder, whole) == []


def test_a_run_whose_checkpoints_were_deleted_does_not_silently_start_over(
    configure: Configure, tmp_path: Path
) -> None:
    start(configure(training={"max_steps": 1}), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(DataError, match="holds no valid checkpoint"):
        resume(tmp_path / "run")
    assert [event["event"] for event in events(tmp_path / "run")] == ["start", "train", "eval", "end"]


def test_no_generator_outside_of_the_settings_has_a_say(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    """Neither is any drawn from: python's and numpy's stand where they stood."""
    before = random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    start(configure(training={"accumulate": 2}), tmp_path / "plain")
    assert (random.getstate(), repr(np.random.get_state())) == before  # noqa: NPY002

    original = TrainingStep.run

    def disturbed(self: TrainingStep, *arguments: Any) -> Any:
        for seed_it in (random.seed, np.random.seed, torch.manual_seed):
            seed_it(arguments[3] * 7919)
        return original(self, *arguments)

    monkeypatch.setattr(TrainingStep, "run", disturbed)
    start(configure(training={"accumulate": 2}), tmp_path / "disturbed")
    for run in ("plain", "disturbed"):
        assert differences(tmp_path / run, whole) == []


# ---- windows in which a crash could lose something


@contextmanager
def killed_after_rename(patch: pytest.MonkeyPatch, ending: str) -> Iterator[None]:
    """Nothing is done any more, not even in `finally`, once a folder got a name with this ending."""
    rename, dead = Path.rename, [False]
    real = {name: getattr(checkpoint_folders, name) for name in ("clean_checkpoints",)}

    def renaming(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        # A sitting begins with bringing back what stepped aside; it is the save that is killed here.
        if str(target).endswith(ending) and not self.name.endswith(".replaced"):
            dead[0] = True
            raise Killed
        return moved

    patch.setattr(Path, "rename", renaming)
    patch.setattr(checkpoint_folders, "clean_checkpoints", lambda folder: dead[0] or real["clean_checkpoints"](folder))
    patch.setattr(shutil, "rmtree", lambda *arguments, real=shutil.rmtree, **o: dead[0] or real(*arguments, **o))
    with pytest.raises(Killed):
        yield


def test_a_checkpoint_being_replaced_is_there_at_every_moment(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    """Stopped in an evaluation, a run saves; resumed, it saves the same step again, with scores. Here it is killed."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, loop, "predict_spans", 1)
        with pytest.raises(Interrupted):
            start(configure(training={"accumulate": 2}), folder)
    assert checkpoint_steps(folder) == [6]
    for ending, left in ((".step-000006.replaced", []), ("step-000006", [6])):
        with monkeypatch.context() as patch, killed_after_rename(patch, ending):
            resume(folder)
        assert checkpoint_steps(folder) == left
        assert len(list((folder / "checkpoints").glob(".step-000006.*"))) == 2 - len(left)
    assert "at step 6 of 12" in resume(folder)[1]
    assert differences(folder, whole) == []


def test_what_a_crash_left_half_done_is_undone_by_the_next_sitting(
    configure: Configure, tmp_path: Path, whole: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder, symlinks=True)
    shutil.copytree(folder / "last", folder / "checkpoints" / ".step-000012.77.tmp")
    shutil.copytree(folder / "last", folder / "checkpoints" / ".step-000006.replaced")
    for name in (".metrics.jsonl.tmp", "predictions/.step-000012.raw.json.tmp"):
        (folder / name).write_text("half")
    (folder / ".last.tmp").symlink_to("nowhere")
    (folder / ".notes.tmp").write_text("mine")
    resume(folder)
    assert differences(folder, whole) == [".notes.tmp is there"]


def test_a_half_removed_checkpoint_is_pruned_by_the_next_sitting(
    configure: Configure, tmp_path: Path, whole: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder, symlinks=True)
    shutil.copytree(folder / "best", folder / "checkpoints" / "step-000003")  # as good as the best
    (folder / "checkpoints" / "step-000003" / COMPLETE).unlink()
    resume(folder, config=configure(training={"accumulate": 2, "keep_last": 1}))
    assert checkpoint_steps(folder) == sorted({12, open_checkpoint(folder / "best").step})


def test_predictions_of_evaluations_that_are_not_made_again_do_not_stay(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start(configure(evaluation={"every_steps": 4}), folder)
    shutil.rmtree(folder / "checkpoints" / "step-000012")
    resume(folder, config=configure(training={"max_steps": 10}, evaluation={"every_steps": 10}))
    names = {path.name.split(".")[0] for path in (folder / "predictions").glob("step-*")}
    assert names == {"step-000004", "step-000008", "step-000010"}


def test_a_copy_of_a_run_is_whole_or_not_there(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    def half(source: Path, target: Path, **options: Any) -> None:
        target.mkdir(exist_ok=True)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", half)
        with pytest.raises(Killed):
            resume(whole, folder=tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []
    resume(whole, folder=tmp_path / "copy")
    assert differences(tmp_path / "copy", whole) == []


def test_a_resumed_copy_among_the_runs_is_the_latest(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start(configure(training={"max_steps": 1}), Path("runs/one"))
    resume(Path("runs/one"), folder=Path("runs/two"))
    assert os.readlink("runs/latest") == "two"


# ---- what a resumed run may be


def test_another_format_is_refused_and_nothing_is_passed_over_for_it(configure: Configure, tmp_path: Path) -> None:
    """A newer program's checkpoint is no damage: going on before it would delete it."""
    start(configure(), tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-000012"
    write_json(newest / STATE, {**json.loads((newest / STATE).read_bytes()), "format": 99})
    sums = json.loads((newest / COMPLETE).read_bytes())
    write_json(newest / COMPLETE, {**sums, STATE: sha256_of(newest / STATE)})
    with pytest.raises(DataError, match="has checkpoint format 99; this version reads formats 1 and 2"):
        resume(tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run") == [6, 12]


def test_changed_settings_stay_changed_in_the_sessions_that_follow(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start(configure(training={"max_steps": 1}), folder)
    resume(folder, config=configure(training={"max_steps": 3}))
    assert load_config(folder / CONFIG).training.max_steps == 3
    assert resume(folder)[0].step == 3
    with pytest.raises(UsageError, match=r"training\.seed: 0 -> 1"):
        resume(folder, config=configure(training={"seed": 1}))


def test_a_run_stopped_by_a_nan_goes_on_past_it(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = sys.modules["bidaf.training.step"].span_loss
    calls = iter(range(1, 100))
    monkeypatch.setattr(
        "bidaf.training.step.span_loss", lambda *a: loss(*a) * (float("nan") if next(calls) in (8, 9) else 1.0)
    )
    with pytest.raises(BidafError, match="step 8: loss nan"):
        start(configure(), tmp_path / "run")
    calls = iter(range(7, 100))  # step 7, then the same batch
    state = resume(tmp_path / "run", config=configure(training={"nonfinite": "skip"}))[0]
    assert (state.step, state.skipped) == (12, 2)


def test_another_count_of_threads_is_told(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start(configure(training={"max_steps": 1}), folder)
    assert "began with" not in resume(folder)[1]
    before = torch.get_num_threads()
    write_json(folder / "environment.json", {"threads": before + 1})
    assert f"began with {before + 1} threads and continues with {before}" in resume(folder)[1]
    for content in ("{}", "[]", "half"):
        (folder / "environment.json").write_text(content)
        assert "began with" not in resume(folder)[1]


def test_the_docs_list_the_settings_that_may_change() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = text.split("### Settings that may change")[1].split("\n#")[0]
    listed = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(listed) == sorted(MAY_CHANGE)


def test_the_docs_name_tests_and_scripts_that_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    assert len(named) > 10
    assert [name for name in named if f"def {name}(" not in written] == []
    files = re.findall(r"(?:tests|scripts)/\w+\.py", text)
    assert len(files) > 5
    assert [name for name in files if not (ROOT / name).is_file()] == []


# ---- a full disk


def test_a_full_disk_ends_the_run_with_one_message_and_it_goes_on_later(tmp_path: Path) -> None:
    """The system refuses to let any file grow beyond a size between that of the log and that of the weights."""
    write_tiny(tmp_path)
    arguments = ("train", "-c", "tiny.yaml", "--run-dir", "run", "--set", "training.save_every=5")
    succeed("prepare", "-c", "tiny.yaml", cwd=tmp_path)
    succeed(*arguments, "--set", "training.max_steps=5", cwd=tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "run/checkpoints").rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, limits[1]))
    try:
        message = fail(1, "train", "--resume", "run", "--set", "training.max_steps=20", cwd=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the checkpoint run/checkpoints/step-000010 can't be written: " in message
    assert "File too large" in message
    after = {path: path.read_bytes() for path in (tmp_path / "run/checkpoints").rglob("*") if path.is_file()}
    assert after == before
    succeed("train", "--resume", "run", "--set", "training.max_steps=20", cwd=tmp_path)
    succeed("train", "-c", "tiny.yaml", "--run-dir", "whole", cwd=tmp_path)
    for file in (RAW_FILE, EMA_FILE, OPTIMIZER):
        assert (tmp_path / "run/last" / file).read_bytes() == (tmp_path / "whole/last" / file).read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_run_goes_on_from_wherever_the_disk_was_full(tmp_path: Path, small_disk: Path) -> None:
    write_tiny(tmp_path)
    settings = ("--set", "training.save_every=3", "--set", "training.log_every=1")
    succeed("train", "-c", "tiny.yaml", "--run-dir", "whole", *settings, cwd=tmp_path)
    messages = set()
    for kilobytes in range(4, 132, 8):
        run, ballast = small_disk / "run", small_disk / "ballast"
        ballast.write_bytes(bytes(1024 * (1024 - kilobytes)))
        message = fail(1, "train", "-c", "tiny.yaml", "--run-dir", run, *settings, cwd=tmp_path)
        assert "No space left on device" in message
        messages.add(message.replace(str(run), "RUN"))
        for checkpoint in (run / "checkpoints").glob("step-*"):
            open_checkpoint(checkpoint)
        ballast.unlink()
        started = ("--resume", run) if (run / CONFIG).exists() else ("-c", "tiny.yaml", "--run-dir", run, *settings)
        succeed("train", *started, cwd=tmp_path)
        assert differences(run, tmp_path / "whole") == []
        shutil.rmtree(run)
    assert len(messages) > 2  # at different files


# ---- two processes


def test_a_lock_lives_no_longer_than_its_process(tmp_path: Path) -> None:
    script = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / LOCK)]
    other = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None
    assert other.stdout is not None
    with other.stdin, other.stdout:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(UsageError, match="another process is training in"), Run(tmp_path).locked():
            pass
        other.kill()
        other.wait()
    with Run(tmp_path).locked():
        pass


def test_two_starts_in_one_folder_make_one_run(configure: Configure, tmp_path: Path) -> None:
    """Both found the folder free; the lock lets one through, and the settings are that one's."""
    folder = tmp_path / "run"
    with Run(folder).locked(), pytest.raises(UsageError, match="another process"):
        start(configure(), folder)
    assert not (folder / CONFIG).exists()
    start(configure(training={"max_steps": 1}), folder)


def test_a_run_folder_that_cannot_be_made_is_one_message(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/run can't be made"):
        start(configure(), tmp_path / "file" / "run")


# ---- the crash test itself


def test_killed_and_resumed_runs_end_as_one_that_was_not() -> None:
    """The short form of `python scripts/crash_test.py --kills 200`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts/crash_test.py"), "--kills", "3", "--seed", "3", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads(ran.stdout)
    assert sum(report["kills"].values()) == 3
    assert report["lost"] == report["different"] == []
    assert report["sessions"] == report["runs"] + 3 + report["terminations"]


def test_comparing_what_is_no_run_is_a_usage_error(tmp_path: Path) -> None:
    script = str(ROOT / "scripts/compare_runs.py")
    ran = subprocess.run([sys.executable, script, tmp_path, tmp_path], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "is not a run folder" in ran.stderr


def test_comparing_runs_sees_every_sort_of_difference(tmp_path: Path, whole: Path) -> None:
    changes = {
        f"checkpoints/step-000012/{RAW_FILE}": b"x",
        "predictions/step-000006.raw.json": b"{}",
        "config.yaml": b"",
        "stranger": b"",
    }
    for name, content in changes.items():
        other = tmp_path / name.replace("/", "-")
        shutil.copytree(whole, other, symlinks=True)
        (other / name).write_bytes(content)
        assert [line.split(" is ")[0] for line in differences(whole, other)] == [name]
    other = tmp_path / "other"
    shutil.copytree(whole, other, symlinks=True)
    (other / "best").unlink()
    (other / "best").symlink_to("checkpoints/step-000099")
    text = (other / "metrics.jsonl").read_text()
    (other / "metrics.jsonl").write_text(text.replace('"best": ', '"worst": '))
    state = json.loads((other / "last" / STATE).read_bytes())
    write_json(other / "last" / STATE, {**state, "training": {**state["training"], "elapsed": 99.0}})
    assert differences(whole, other) == ["best is different", "metrics.jsonl is different"]
    write_json(other / "last" / STATE, {**state, "training": {**state["training"], "skipped": 1}})
    assert f"checkpoints/step-000012/{STATE} is different" in differences(whole, other)
