"""The eleven steps of `scripts/gpu_check.py`: each measures something and says what is expected of it."""

from __future__ import annotations

import importlib
import inspect
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.inputs import synthetic
from bench.timing import seconds_of
from bench.training import sweep, time_training
from bidaf.config import Config
from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared
from bidaf.data.prepare import prepare
from bidaf.device import describe
from bidaf.evaluation.evaluator import predict_spans
from bidaf.model.encoder import BiLstm
from bidaf.runs.folder import Run
from bidaf.training.launch import resume_run, start_run
from bidaf.training.trainer import Trainer

PAPER_STEPS = 17_500


class Row(NamedTuple):
    """A line of the table."""

    what: str
    measured: str
    expected: str = ""
    passed: bool = True


@dataclass(frozen=True)
class Sizes:
    """How much each step does."""

    batch: int = 60
    context: int = 400
    batches: tuple[int, ...] = (60, 30, 15, 8)
    hidden: tuple[int, ...] = (88, 96, 100, 104, 112, 120, 128)
    replays: int = 20
    rounds: int = 12
    sweep: tuple[tuple[int, ...], tuple[int, ...]] = ((1, 15, 60), (50, 100, 200, 400, 800))
    steps: int = 2_000


SMALL = Sizes(2, 6, (2, 1), (4, 8), 3, 1, ((1, 2), (5, 9)), 12)
"""For the guard."""


@dataclass(frozen=True)
class Task:
    """What the steps work with."""

    config: Config
    features: str
    """The key of the prepared data."""
    device: torch.device
    sizes: Sizes
    in_guard: bool
    child: tuple[str, ...]
    """The command that trains in a process of its own; a run folder follows."""

    def prepared(self) -> Prepared:
        return prepare(self.config.data, key=self.features)

    def changed(self, **sections: Mapping[str, Any]) -> Config:
        """The config with other settings."""
        given = self.config.to_dict()
        return Config.model_validate({**given, **{name: {**given[name], **new} for name, new in sections.items()}})


def versions(task: Task) -> list[Row]:
    """What this machine has, and whether everything that training needs can be imported."""
    about = {"python": platform.python_version(), "torch": torch.__version__, **describe(task.device)}
    needed = ("numpy", "pydantic", "safetensors", "pyyaml", "tqdm")
    free, total = torch.cuda.mem_get_info(task.device)
    memory = f"{free / 1e9:.0f} of {total / 1e9:.0f} GB free"
    packages = ", ".join(f"{name} {version(name)}" for name in needed)
    return [*(Row(name, text) for name, text in about.items()), Row("memory", memory), Row("packages", packages)]


def one_lstm(task: Task) -> list[Row]:
    """One layer, both directions, forward and backward: without a warning, in few kernels, by cuDNN's fast algorithm."""
    work = _lstm(task, task.sizes.batch, task.sizes.hidden[2 % len(task.sizes.hidden)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            work()
    rows = [Row("a bidirectional LSTM, forward and backward", f"{1000 * _least(work, task.device):.2f} ms")]
    if task.in_guard:
        return [*rows, Row("its kernels", "not seen in the guard")]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize(task.device)
    kernels = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    persistent = sorted({name.split("<")[0][-60:] for name in kernels if "persist" in name.lower()})
    rows.append(Row("kernels of both directions", f"{len(kernels)}", "under 200", len(kernels) < 200))
    names = ", ".join(persistent) or "none"
    return [*rows, Row("persistent kernels", names, "at least one", bool(persistent))]


def lstm_sizes(task: Task) -> list[Row]:
    """How the time of an LSTM step depends on batch and hidden size: whether slices on several streams could pay."""
    rows = []
    for hidden in task.sizes.hidden:
        times = {size: _least(_lstm(task, size, hidden), task.device) for size in task.sizes.batches}
        each = ", ".join(f"B={size}: {1e6 * seconds / task.sizes.context:.1f}" for size, seconds in times.items())
        rows.append(Row(f"us per LSTM step, forward and backward, H={hidden}", each))
    return rows


def gpu_tests(task: Task) -> list[Row]:
    """tests/test_gpu.py on the prepared data given here: its own needs a tokenizer."""
    pytest, tests = importlib.import_module("pytest"), importlib.import_module("test_gpu")
    prepared, rows = task.prepared(), []
    small = {
        "model": {"hidden_size": 4, "char_channels": 8, "char_embedding_size": 3, "dropout": 0.1},
        "training": {"batch_size": 4, "optimizer": {"name": "adam", "lr": 0.01}, "clip_norm": None},
    }

    def configure(**sections: Mapping[str, Any]) -> Config:
        return task.changed(**{name: {**small.get(name, {}), **sections.get(name, {})} for name in {*small, *sections}})

    for name, test in inspect.getmembers(tests, inspect.isfunction):
        if not name.startswith("test_"):
            continue
        marks = {mark.name: mark.args for mark in getattr(test, "pytestmark", [])}
        for case in marks["parametrize"][1] if "parametrize" in marks else [None]:
            with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
                given = {"configure": configure, "prepared": prepared, "tmp_path": Path(folder), "monkeypatch": patch}
                given |= {marks["parametrize"][0]: case} if "parametrize" in marks else {}
                result = _outcome(partial(test, **{key: given[key] for key in inspect.signature(test).parameters}))
            rows.append(Row(f"{name}{f' [{case}]' if case else ''}", result or "passed", "passed", not result))
    return rows


def no_waits(task: Task) -> list[Row]:
    """Replayed steps on full batches, in which PyTorch refuses every wait."""
    trainer, source, questions = _full_batch(task)
    for number in range(1, 4):
        trainer.step.run(source, questions, questions, number)

    def replay() -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.step.run(source, questions, questions, 4)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    times = [1000 * seconds_of(replay, task.device) for _ in range(task.sizes.replays)]
    median, memory = statistics.median(times), torch.cuda.max_memory_reserved(task.device) / 1e9
    what = f"a replayed step, {task.sizes.batch} x {task.sizes.context} tokens"
    spread = f"{median:.1f} ms ({min(times):.1f} to {max(times):.1f})"
    return [Row(what, spread, "at most 20 ms", median <= 20 or task.in_guard), Row("memory reserved", f"{memory:.1f} GB")]


def resumed(task: Task) -> list[Row]:
    """A deterministic run that was stopped and resumed has the bytes of one that was not."""
    config = task.changed(training={"deterministic": True, "max_steps": 12}, evaluation={"every_steps": 12})
    stopped = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 7})})
    with tempfile.TemporaryDirectory() as folder:
        whole, half = Path(folder, "whole"), Path(folder, "half")
        start_run(config, whole, task.device, _silent, features=task.features)
        start_run(stopped, half, task.device, _silent, features=task.features)
        resume_run(half, task.device, _silent, config=config)
        ends = [Run.open(run).last_checkpoint() for run in (whole, half)]
        files = sorted(path.relative_to(ends[0]) for path in ends[0].glob("**/*.safetensors"))
        different = [str(name) for name in files if len({(end / name).read_bytes() for end in ends}) > 1]
    return [Row("12 steps against 7 and a resume", ", ".join(different) or "the same bytes", "the same", not different)]


def bf16(task: Task) -> list[Row]:
    """In bf16, LSTMs stay in float32; what it gains."""
    rows = []
    for precision in ("fp32", "tf32", "bf16"):
        config = task.changed(training={"precision": precision})
        trainer, source, questions = _full_batch(task, config)
        work = partial(trainer.step.run, source, questions, questions, 1)
        loss = work().loss
        work()
        rows.append(
            Row(f"a step in {precision}", f"{1000 * _least(work, task.device):.1f} ms, loss {loss:.3f}", "", loss == loss)
        )
    layer = BiLstm(8, 8, 0.0).to(task.device)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        given = torch.ones(2, 3, 8, device=task.device, dtype=torch.bfloat16)
        found = layer(given, torch.tensor([3, 2]).to(task.device)).dtype
    return [*rows, Row("output of an LSTM in bf16", str(found), "torch.float32", found == torch.float32)]


def benchmark(task: Task) -> list[Row]:
    """Ours against the baseline, and how a step grows."""
    rows, prepared = [], task.prepared()
    if not task.in_guard:  # the baseline's packed sequences are beyond it
        times = time_training(task.config, prepared, task.device, task.sizes.rounds)
        ours, baseline = (1000 * statistics.median(each) for each in (times.pairs.ours, times.pairs.baseline))
        rows = [
            Row("a training step: ours, baseline", f"{ours:.1f} ms, {baseline:.1f} ms"),
            Row("baseline over ours", f"{times.pairs.ratio:.1f}", "more than 1", times.pairs.ratio > 1),
            Row("ours over the latency of its LSTM steps", f"{times.gaps()['over_latency']:.1f}"),
            Row("memory: ours, baseline", ", ".join(f"{times.memory[name] / 1e9:.1f} GB" for name in ("ours", "baseline"))),
        ]
    for one in sweep(task.config, prepared, task.device, *task.sizes.sweep):
        size = f"{one.batch_size} x {one.context_tokens} tokens"
        rows.append(Row(f"a step on {size}", f"{1000 * one.seconds:.1f} ms, {one.memory_bytes / 1e9:.1f} GB"))
    return rows


def evaluation(task: Task) -> list[Row]:
    """The dev questions in small and in large batches."""
    trainer, rows, texts = Trainer(task.config, task.prepared(), task.device), [], []
    for tokens in (12_000, 60_000):

        def answer(tokens: int = tokens) -> None:
            found = predict_spans(trainer.model, trainer.dev_source, batch_tokens=tokens, max_answer_tokens=None)
            texts.append({question: best.text for question, (best,) in found.items()})

        answer()
        seconds = seconds_of(answer, task.device)
        rows.append(Row(f"{len(trainer.dev_source):,} questions, {tokens:,} tokens per batch", f"{seconds:.1f} s"))
    same = sum(texts[1][question] == text for question, text in texts[-1].items()) / len(texts[-1])
    return [*rows, Row("the same answers", f"{same:.1%}", "over 99 %", same > 0.99)]


def long_run(task: Task) -> list[Row]:
    """Thousands of steps, an evaluation, and a resume."""
    steps = task.sizes.steps
    config = task.changed(training={"max_steps": steps, "epochs": 10_000}, evaluation={"every_steps": steps})
    more = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": steps + 5})})
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        start_run(config, run, task.device, _silent, features=task.features)
        resume_run(run, task.device, _silent, config=more)
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


STEPS: tuple[Callable[[Task], list[Row]], ...] = (
    versions,
    one_lstm,
    lstm_sizes,
    gpu_tests,
    no_waits,
    resumed,
    bf16,
    benchmark,
    evaluation,
    long_run,
    killed,
)


@contextmanager
def _training(task: Task, run: Path, before: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that trains in `run`, as soon as it has saved a checkpoint after the one named `before`."""
    process = subprocess.Popen([*task.child, str(run)], stdout=subprocess.DEVNULL, env=dict(os.environ))
    try:
        deadline = time.monotonic() + 240
        checkpoints = run / "checkpoints"
        while not any(path.name > before for path in checkpoints.glob("step-*/complete.json/..")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the training process saved no checkpoint")
            time.sleep(0.2)
        yield process
    finally:
        process.kill()
        process.wait()


def _full_batch(task: Task, config: Config | None = None) -> tuple[Trainer, BatchSource, Any]:
    """A trainer, and one batch of the largest size."""
    trainer = Trainer(config or task.config, task.prepared(), task.device)
    features = synthetic(trainer.train_source.features, task.sizes.batch, task.sizes.context)
    return trainer, BatchSource(features, task.device), np.arange(task.sizes.batch)


def _lstm(task: Task, batch: int, hidden: int) -> Callable[[], object]:
    """Forward and backward pass of a layer on full-length sequences."""
    layer = BiLstm(hidden, hidden, 0.0).to(task.device)
    sequence = torch.randn(batch, task.sizes.context, hidden).to(task.device).requires_grad_()
    lengths = torch.full((batch,), task.sizes.context).to(task.device)
    inputs = [sequence, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(sequence, lengths).sum(), inputs)


def _least(work: Callable[[], object], device: torch.device) -> float:
    work()
    return min(seconds_of(work, device) for _ in range(5))


def _outcome(test: Callable[[], object]) -> str:
    """What went wrong; empty when nothing did."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            test()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def _silent(message: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit("run scripts/gpu_check.py")
