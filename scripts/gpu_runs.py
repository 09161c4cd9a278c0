"""The steps of `scripts/gpu_check.py` that make whole runs: resumed, long and killed ones."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_task import Row, Task, silent

from bidaf.runs.folder import Run
from bidaf.training.launch import resume_run, start_run

PAPER_STEPS = 17_500


def resumed(task: Task) -> list[Row]:
    """A deterministic run that was stopped and resumed has the bytes of one that was not."""
    config = task.changed(training={"deterministic": True, "max_steps": 12}, evaluation={"every_steps": 12})
    stopped = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 7})})
    with tempfile.TemporaryDirectory() as folder:
        whole, half = Path(folder, "whole"), Path(folder, "half")
        start_run(config, whole, task.device, silent, features=task.features)
        start_run(stopped, half, task.device, silent, features=task.features)
        resume_run(half, task.device, silent, config=config)
        ends = [Run.open(run).last_checkpoint() for run in (whole, half)]
        files = sorted(path.relative_to(ends[0]) for path in ends[0].glob("**/*.safetensors"))
        different = [str(name) for name in files if len({(end / name).read_bytes() for end in ends}) > 1]
    return [Row("12 steps against 7 and a resume", ", ".join(different) or "the same bytes", "the same", not different)]


def long_run(task: Task) -> list[Row]:
    """Thousands of steps, an evaluation, and a resume."""
    steps = task.sizes.steps
    config = task.changed(training={"max_steps": steps, "epochs": 10_000}, evaluation={"every_steps": steps})
    more = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": steps + 5})})
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        start_run(config, run, task.device, silent, features=task.features)
        resume_run(run, task.device, silent, config=more)
        events = Run.open(run).events()
    lines = [event for event in events if event["event"] == "train"]
    rate = statistics.median(event["questions_per_second"] for event in lines[1:] or lines)
    seconds = config.training.batch_size / rate
    first, last = (event["loss"] for event in (lines[0], lines[-1]))
    return [
        Row(f"{steps:,} steps", f"{rate:,.0f} questions/s, {1000 * seconds:.1f} ms per step"),
        Row(f"{PAPER_STEPS:,} steps at this rate", f"{PAPER_STEPS * seconds / 60:.1f} min"),
        Row("loss", f"{first:.3f} to {last:.3f}", "falls", last < first or task.in_guard),
        Row("resumed to step", f"{lines[-1]['step']:,}", f"{steps + 5:,}", lines[-1]["step"] == steps + 5),
    ]


def killed(task: Task) -> list[Row]:
    """A run that is killed, resumed, and interrupted by Ctrl-C."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        for number, code, name in ((signal.SIGKILL, -9, "kill -9"), (signal.SIGINT, 130, "Ctrl-C")):
            before = Run.open(run).last_checkpoint().name if run.exists() else ""
            with _training(task, run, before) as process:
                process.send_signal(number)
                ended = process.wait(timeout=120)
            saved = Run.open(run).last_checkpoint().name
            what = f"{name}: exit code, checkpoint"
            rows.append(Row(what, f"{ended}, {saved}", f"{code}, a newer one", ended == code and saved > before))
    return rows


@contextmanager
def _training(task: Task, run: Path, before: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that trains in `run`, as soon as it has saved a checkpoint after the one named `before`."""
    process = subprocess.Popen([*task.child, str(run)], stdout=subprocess.DEVNULL, env=dict(os.environ))
    try:
        deadline = time.monotonic() + 240
        while not any(path.parent.name > before for path in run.glob("checkpoints/step-*/complete.json")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the training process saved no checkpoint")
            time.sleep(0.2)
        yield process
    finally:
        process.kill()
        process.wait()
