"""Faults planted in a copy of the GPU path: the guard's scenarios must catch each of them.

`python -m pytest -m slow tests/test_gpu_mutations.py`, about ten seconds per fault.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SAME, SHAPES, BENCH = "replayed and adam", "every_shape", "benchmark_times"
STEP, GRAPHS, ENCODER = "training/step.py", "training/cuda_graph.py", "model/encoder.py"
LOSS = "            loss = span_loss(scores, *spans) * share\n"
ADD = "        torch._foreach_add_([self._loss, *self._gradient], [loss, *gradient])\n"


class Fault(NamedTuple):
    caught_by: str
    """The scenarios to run, as for `pytest -k`."""
    edits: list[tuple[str, str, str]]
    """File in the package, text in it, and what is there instead."""


FAULTS = {
    "the host reads the loss": Fault(SAME, [(STEP, LOSS, LOSS + "            loss.item()\n")]),
    "the host reads the loss while it is written out": Fault(
        "several_processes", [(STEP, LOSS, LOSS + "            loss.tolist()\n")]
    ),
    "no fork of the side stream": Fault(SAME, [(ENCODER, "    side.wait_stream(main)\n", "")]),
    "no join of the side stream": Fault(SAME, [(ENCODER, "        main.wait_stream(side)\n", "")]),
    "no wait for the caller's stream": Fault(SAME, [(GRAPHS, "        self._stream.wait_stream(outer)\n", "")]),
    "the caller's stream does not wait": Fault(SAME, [(GRAPHS, "        outer.wait_stream(self._stream)\n", "")]),
    "distinct words are found by unique": Fault(
        SAME,
        [
            (
                "data/batches.py",
                "        seen = torch.zeros_like(self.word_rows).index_fill_(0, tokens, 1)\n",
                "        seen = torch.zeros_like(self.word_rows).index_fill_(0, torch.unique(tokens), 1)\n",
            )
        ],
    ),
    "written-out steps gather by unique": Fault(
        "several_processes", [(STEP, '    if source.device.type != "cuda":\n', "    if True:\n")]
    ),
    "a boolean index": Fault(
        SAME, [(ENCODER, "        join(back)\n", "        join(back)\n        back[back > 2.0].sum()\n")]
    ),
    "a mask is drawn on the host": Fault(
        SAME,
        [
            (
                "model/dropout.py",
                "            return F.dropout(values, self.p)\n",
                "            return values * torch.empty(values.shape).bernoulli_(1 - self.p).to(values.device)\n",
            )
        ],
    ),
    "inputs come from memory that is not pinned": Fault(SAME, [(GRAPHS, ".pin_memory()", "")]),
    "inputs are in new memory each time": Fault(SAME, [(GRAPHS, "if key.questions not in self._inputs:", "if True:")]),
    "results stay in the pool": Fault(
        SHAPES, [(STEP, ADD, "        self._loss, self._gradient = loss, list(gradient)\n")]
    ),
    "sums are not cleared": Fault(SAME, [(STEP, "        torch._foreach_zero_([self._loss, *self._gradient])\n", "")]),
    "the optimizer's step is recorded": Fault(
        SAME,
        [
            (STEP, ADD, ADD + "        self._descend(self._gradient, self._loss)\n"),
            (STEP, "                self._descend(gradient, figures[1])\n", "                pass\n"),
        ],
    ),
    "the average's update is recorded": Fault(
        SAME,
        [
            (STEP, ADD, ADD + "        if self.ema is not None:\n            self.ema.update()\n"),
            (
                STEP,
                "            if self.ema is not None:\n                with",
                "            if False:\n                with",
            ),
        ],
    ),
    "the seed is recorded": Fault(SAME, [(STEP, ADD, ADD + "        torch.manual_seed(0)\n")]),
    "no seed before a replay": Fault(
        SAME,
        [
            (
                STEP,
                "            torch.manual_seed(one.seed)\n            self._graphs",
                "            self._graphs",
            )
        ],
    ),
    "a recording serves every source": Fault(
        "each_source",
        [
            (
                GRAPHS,
                "self._graphs.setdefault(source, {})",
                "self._graphs.setdefault(next(iter(self._graphs), source), {})",
            )
        ],
    ),
    "a recording serves every shape": Fault(
        SHAPES,
        [
            (
                GRAPHS,
                "_Key(len(questions), source.shape_of(questions), share)",
                "_Key(len(questions), Shape(96, 32, 1024), share)",
            )
        ],
    ),
    "LSTMs run under autocast": Fault(
        "bf16",
        [(ENCODER, 'torch.autocast("cuda", enabled=False) if sequence.is_cuda else nullcontext()', "nullcontext()")],
    ),
    "weights go to both streams": Fault(
        SAME,
        [
            (ENCODER, "        ahead_weights, back_weights = self._weights()\n", "        back_weights = [sequence]\n"),
            (ENCODER, "lengths), back_weights), lengths)", "lengths), list(self._weights())[1]), lengths)"),
            (ENCODER, "self._run(sequence, ahead_weights)", "self._run(sequence, next(iter(self._weights())))"),
        ],
    ),
    "the recording is on the first GPU": Fault(
        "second_gpu", [(GRAPHS, "torch.cuda.Stream(device)", "torch.cuda.Stream(0)")]
    ),
    "the current device is the first GPU, and so is PyTorch's recording stream": Fault(
        "second_gpu",
        [
            ("device.py", "        torch.cuda.set_device(device)\n", "        pass\n"),
            (GRAPHS, ", stream=self._stream):", "):"),
        ],
    ),
    "stop flags are uploaded": Fault(
        "several_processes",
        [
            (
                "distributed.py",
                "flags = [loss.new_full((1,), flag) for flag in stop_flags]",
                "flags = list(loss.new_tensor(stop_flags).split(1))",
            )
        ],
    ),
    "a lost process's garbage is saved": Fault(
        "lost_process", [("training/loop.py", ' and self.trainer.train_source.device.type == "cpu"', "")]
    ),
    "rates do not count waiting for the GPU": Fault(
        "rates",
        [
            (
                "training/loop.py",
                "        self._interval_seconds += time.perf_counter() - began  # on",
                "        # on",
            )
        ],
    ),
    "phases are measured while recording": Fault(BENCH, [(STEP, " and phase is None:", ":")]),
    "steps are timed before they are replayed": Fault(
        BENCH, [("../scripts/bench/timing.py", 'range(3 if device.type == "cuda" else 0)', "range(0)")]
    ),
    "the card is not named": Fault(
        "a_run_scores", [("runs/folder.py", "        **describe(torch.device(device)),\n", "")]
    ),
    "a snapshot is written before its copy is complete": Fault(
        "snapshots", [("runs/snapshots.py", "if self._copied is None or self._copied.query():", "if True:")]
    ),
    "a snapshot makes training wait": Fault(
        "snapshots", [("runs/snapshots.py", "non_blocking=on_gpu", "non_blocking=False")]
    ),
    "losses that are not finite are overlooked": Fault(
        "not_finite",
        [
            (
                "training/loop.py",
                "            if result.updated:\n                raise",
                "            if False:\n                raise",
            )
        ],
    ),
    "batches of an evaluation are small": Fault(
        "larger_on_a_gpu", [("evaluation/evaluator.py", "60_000 if", "4_000 if")]
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source tree, to plant faults in."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("bidaf", "tests", "scripts", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def scenarios(folder: Path, which: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(folder / name) for name in ("", "tests", "scripts"))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_gpu_guard.py", "-x", "--basetemp=temporary", "-k", which],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_caught(copy: Path, fault: Fault) -> None:
    originals = {name: (copy / "bidaf" / name).read_text(encoding="utf-8") for name, _, _ in fault.edits}
    try:
        for name, text, planted in fault.edits:
            path = copy / "bidaf" / name
            source = path.read_text(encoding="utf-8")
            assert source.count(text) == 1, f"{name} has changed: plant this fault again"
            path.write_text(source.replace(text, planted), encoding="utf-8")
        ran = scenarios(copy, fault.caught_by)
        assert ran.returncode == 1, ran.stdout
    finally:
        for name, source in originals.items():
            (copy / "bidaf" / name).write_text(source, encoding="utf-8")


def test_without_a_fault_the_same_scenarios_pass(copy: Path) -> None:
    ran = scenarios(copy, " or ".join(f"({which})" for which in sorted({fault.caught_by for fault in FAULTS.values()})))
    assert ran.returncode == 0, ran.stdout
