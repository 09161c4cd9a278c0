"""The steps of `scripts/gpu_check.py`: each measures something and says what is expected of it."""

from __future__ import annotations

import importlib
import inspect
import platform
import statistics
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.inputs import synthetic
from bench.timing import seconds_of
from bench.training import sweep, time_training
from gpu_runs import killed, long_run, resumed
from gpu_task import Row, Task

from bidaf.config import Config
from bidaf.data.batches import BatchSource
from bidaf.device import describe
from bidaf.evaluation.evaluator import predict_spans
from bidaf.model.encoder import BiLstm
from bidaf.training.trainer import Trainer


def versions(task: Task) -> list[Row]:
    """What this machine has, and whether everything that training needs can be imported."""
    about = {"python": platform.python_version(), "torch": torch.__version__, **describe(task.device)}
    needed = ("numpy", "pydantic", "safetensors", "pyyaml", "tqdm")
    free, total = torch.cuda.mem_get_info(task.device)
    memory = f"{free / 1e9:.0f} of {total / 1e9:.0f} GB free"
    packages = ", ".join(f"{name} {version(name)}" for name in needed)
    return [*(Row(name, text) for name, text in about.items()), Row("memory", memory), Row("packages", packages)]


def one_lstm(task: Task) -> list[Row]:
    """One layer, both directions, forward and backward: no warning, few kernels, cuDNN's fast algorithm."""
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
    kernels = [event.name for event in profile.events() if event.device_type.name == "CUDA"]
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
    small: dict[str, dict[str, Any]] = {
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
    return [
        Row(what, spread, "at most 20 ms", median <= 20 or task.in_guard),
        Row("memory reserved", f"{memory:.1f} GB"),
    ]


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
            Row(
                f"a step in {precision}",
                f"{1000 * _least(work, task.device):.1f} ms, loss {loss:.3f}",
                "",
                loss == loss,
            )
        )
    layer = BiLstm(8, 8, 0.0).to(task.device)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        given = torch.ones(2, 3, 8, device=task.device, dtype=torch.bfloat16)
        dtype = layer(given, torch.tensor([3, 2]).to(task.device)).dtype
    return [*rows, Row("output of an LSTM in bf16", str(dtype), "torch.float32", dtype == torch.float32)]


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
            Row(
                "memory: ours, baseline",
                ", ".join(f"{times.memory[name] / 1e9:.1f} GB" for name in ("ours", "baseline")),
            ),
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
