"""Real processes that train together over gloo: they make the run of one process, and one's trouble ends it well."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, EMA_FILE, RAW_FILE, Configure, events, without_score_biases
from helpers_cli import succeed, write_tiny
from one_of_several import STEP_OF_TROUBLE
from safetensors.torch import load_file

from bidaf.config import Config
from bidaf.data.batches import BatchSource, EpochOrder
from bidaf.data.cache import Prepared
from bidaf.runs.checkpoint import OPTIMIZER, open_checkpoint
from bidaf.training.launch import resume_run, start_run

ROOT = Path(__file__).parents[1]
# 24 questions: the last batch of an epoch has three. The epsilon keeps Adam from making large steps of gradients that
# are almost nothing but rounding.
SEVEN = {"batch_size": 7, "optimizer": {"name": "adam", "lr": 0.05, "eps": 1e-3}}


def launch(size: int, *arguments: str, cwd: Path) -> list[subprocess.Popen[str]]:
    """`python -m ARGUMENTS` as each of `size` processes, with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(size),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=cwd,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


@pytest.fixture(scope="module")
def plan(configure: Configure) -> dict[str, Config]:
    """The runs that two processes make, by name."""
    return {
        "without dropout": configure(model={"dropout": 0.0}, training=SEVEN),
        "with dropout": configure(model={"dropout": 0.4}, training={**SEVEN, "accumulate": 2}),
        "begun by one": configure(model={"dropout": 0.0}, training=SEVEN),
        "stopped in training": configure(model={"dropout": 0.0}, training=SEVEN),
        "stopped in evaluation": configure(training=SEVEN),
        "with another weight": configure(training=SEVEN),
    }


TROUBLES = {
    "stopped in training": "SIGTERM in training",
    "stopped in evaluation": "SIGTERM in evaluation",
    "with another weight": "another weight",
}


def silent(message: str) -> None:
    pass


@pytest.fixture(scope="module")
def folder(plan: dict[str, Config], prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have made all runs of the plan."""
    folder = tmp_path_factory.mktemp("together")
    begun = plan["begun by one"]
    half = begun.model_copy(update={"training": begun.training.model_copy(update={"max_steps": 3})})
    start_run(half, folder / "begun by one", CPU, silent)
    entries = [
        {
            "name": name,
            "config": config.to_dict(),
            "resume": name == "begun by one",
            "trouble": TROUBLES.get(name),
        }
        for name, config in plan.items()
    ]
    (folder / "plan.json").write_text(json.dumps(entries), encoding="utf-8")
    processes = launch(2, "one_of_several", str(folder), cwd=folder)
    for process, (output, _) in [(process, process.communicate(timeout=240)) for process in processes]:
        assert process.returncode == 0, output
        assert "Traceback" not in output
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    """What each of the two saw."""
    return [json.loads((folder / f"seen-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(plan: dict[str, Config], folder: Path) -> Callable[[str], Path]:
    """The same run made by one process."""

    def run(name: str) -> Path:
        made = folder / f"{name}, alone"
        if not made.exists():
            start_run(plan[name], made, CPU, silent)
        return made

    return run


def assert_same_run(run: Path, other: Path) -> None:
    """Loss curve, scores, weights, shadow and optimizer, as near as sums in another order allow."""
    for kind, figures in (
        ("train", ("step", "loss", "grad_norm", "ema_decay")),
        ("eval", ("step", "raw", "ema", "best")),
    ):
        ours, theirs = (
            [[(line | line.get("scores", {}))[key] for key in figures] for line in events(each, kind)]
            for each in (run, other)
        )
        assert len(ours) >= len(theirs) > 0  # a run that was stopped was evaluated there, too
        for one, another in zip(ours[-len(theirs) :], theirs, strict=True):
            assert one == [pytest.approx(value, rel=1e-4) for value in another]
    checkpoints = [open_checkpoint(each / "last") for each in (run, other)]
    assert checkpoints[0].step == checkpoints[1].step == 8
    for file in (RAW_FILE, EMA_FILE, OPTIMIZER):
        tensors = [without_score_biases(load_file(checkpoint.folder / file)) for checkpoint in checkpoints]
        torch.testing.assert_close(*tensors, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["without dropout", "with dropout"])
def test_two_processes_make_the_run_of_one(folder: Path, alone: Callable[[str], Path], name: str) -> None:
    assert_same_run(folder / name, alone(name))
    about = json.loads((folder / name / "environment.json").read_text(encoding="utf-8"))
    assert about["processes"] == 2


def test_a_run_goes_on_with_another_number_of_processes(
    folder: Path, alone: Callable[[str], Path], plan: dict[str, Config]
) -> None:
    assert_same_run(folder / "begun by one", alone("without dropout"))
    stopped, told = folder / "stopped in training", list[str]()
    resume_run(stopped, CPU, told.append, config=plan["stopped in training"], folder=folder / "resumed by one")
    assert_same_run(folder / "resumed by one", alone("without dropout"))
    assert any("began with 2 processes" in message and "continues with 1" in message for message in told)


def test_both_end_in_the_same_state(seen: list[dict[str, Any]]) -> None:
    for name in ("without dropout", "with dropout", "begun by one"):
        ends = [{**of_one[name]["end"], "elapsed": None, "snapshots": None} for of_one in seen]  # rank 0's alone
        assert ends[0] == ends[1]
        assert ends[0]["step"] == 8
    assert ends[0]["scores"]["ema"]["f1"] > 0.0


def test_they_train_on_each_question_of_an_epoch_once(
    seen: list[dict[str, Any]], prepared: Prepared, plan: dict[str, Config]
) -> None:
    shares = [of_one["with dropout"]["trained"] for of_one in seen]
    assert all(shares)
    questions = [question for share in shares for part in share for question in part]
    assert sorted(questions) == sorted([*range(24), *range(24)])  # two epochs
    order = EpochOrder(BatchSource(prepared.features("train"), CPU), 7, seed=0, bucketed=False, reshuffle=True)
    batches = [set(order.batch(number)[0].tolist()) for number in range(8)]
    for number, batch in enumerate(batches):  # in every step, each has a part of the batch
        assert {q for share in shares for q in share[number]} == batch
    assert plan["with dropout"].training.seed == 0


def test_they_answer_each_question_of_an_evaluation_once(seen: list[dict[str, Any]]) -> None:
    shares = [of_one["without dropout"]["answered"] for of_one in seen]
    assert all(len(share) > 1 for share in shares)
    questions = [question for share in shares for batch in share for question in batch]
    assert sorted(questions) == sorted(list(range(12)) * 4)  # two evaluations of raw and shadow weights


def test_a_signal_to_one_ends_both_at_the_same_step(folder: Path, seen: list[dict[str, Any]]) -> None:
    for name, step in (("stopped in training", STEP_OF_TROUBLE + 1), ("stopped in evaluation", 4)):
        assert [of_one[name]["end"] for of_one in seen] == [143, 143]
        checkpoint = open_checkpoint(folder / name / "last")
        assert checkpoint.step == step
    assert checkpoint.state.evaluated_step == 0


def test_weights_that_differ_end_the_run_unsaved(folder: Path, seen: list[dict[str, Any]]) -> None:
    messages = {of_one["with another weight"]["end"] for of_one in seen}
    assert len(messages) == 1
    assert "step 8: the weights of process 1 differ" in messages.pop()
    assert open_checkpoint(folder / "with another weight" / "last").step == 4 < STEP_OF_TROUBLE


# ---- the command


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    write_tiny(tmp_path)
    succeed("prepare", "-c", "tiny.yaml", cwd=tmp_path)
    return tmp_path


def wait_for_step(step: int, run: Path, processes: list[subprocess.Popen[str]]) -> None:
    began = time.monotonic()
    while not (run / "metrics.jsonl").exists() or len(events(run, "train")) < step:
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 120
        time.sleep(0.02)


ENDLESS = (
    "--set",
    "training.epochs=100000",
    "--set",
    "training.log_every=1",
    "--set",
    "evaluation.every_steps=1000000",
)


def test_a_killed_process_ends_the_run_with_one_message_and_a_sound_checkpoint(tiny: Path) -> None:
    processes = launch(
        2, "bidaf", "train", "-c", "tiny.yaml", "--run-dir", "run", "--device", "cpu", *ENDLESS, cwd=tiny
    )
    wait_for_step(5, tiny / "run", processes)
    processes[1].kill()
    output, _ = processes[0].communicate(timeout=60)
    assert processes[0].returncode == 1
    assert output.count("error: ") == 1
    assert "Traceback" not in output
    checkpoint = open_checkpoint(tiny / "run" / "last")
    assert "lost contact with another process" in output
    assert f"saved at step {checkpoint.step}, resume with: bidaf train --resume run" in output
    assert checkpoint.step == len(events(tiny / "run", "train")) >= 5
    more = ("--set", f"training.max_steps={checkpoint.step + 2}")
    assert "done:" in succeed("train", "--resume", "run", *more, cwd=tiny).err
    assert processes[1].communicate()[0] == ""


def torchrun(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "bidaf", "train", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    """Process ids of what torchrun started, the first one first."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text(encoding="ascii").split()
    ranks = {}
    for child in children:
        for variable in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            if variable.startswith(b"RANK="):
                ranks[int(variable[5:])] = int(child)
    return [ranks[rank] for rank in sorted(ranks)]


START = ("-c", "tiny.yaml", "--run-dir", "run", "--device", "cpu", *ENDLESS)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in Linux's /proc")
def test_torchrun_whatever_happens(tiny: Path) -> None:
    launcher = torchrun("-c", "tiny.yaml", "--run-dir", "whole", "--device", "cpu", cwd=tiny)
    output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, output
    assert output.count("done: 20 steps") == 1
    assert [line["step"] for line in events(tiny / "whole", "eval")] == [20]

    launcher = torchrun("-c", "tiny.yaml", "--run-dir", "whole", "--device", "cpu", cwd=tiny)
    output, _ = launcher.communicate(timeout=240)
    assert output.count("error: ") == 1
    assert "already holds a run" in output
    assert "exitcode  : 2" in output

    launcher = torchrun(*START, cwd=tiny)
    wait_for_step(5, tiny / "run", [launcher])
    launcher.send_signal(signal.SIGINT)
    output, _ = launcher.communicate(timeout=60)
    assert output.count("interrupted and saved") == 1
    step = open_checkpoint(tiny / "run" / "last").step

    for victim, message in ((1, "saved at step"), (0, "lost contact with another process")):
        launcher = torchrun("--resume", "run", cwd=tiny)
        wait_for_step(step + 5, tiny / "run", [launcher])
        os.kill(workers_of(launcher)[victim], signal.SIGKILL)
        output, _ = launcher.communicate(timeout=60)
        assert output.count("error: ") == 1
        assert message in output
        assert "Error: " not in output.replace("ChildFailedError: ", "")
        found = open_checkpoint(tiny / "run" / "last").step
        assert found > step if victim == 1 else found == step
        step = found
