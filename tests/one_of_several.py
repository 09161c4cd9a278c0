"""One process of a group for tests: it takes part in the runs of a folder's plan and writes down what it saw.

    python -m one_of_several FOLDER

The environment is a launcher's. FOLDER/plan.json lists runs: `name`, `config`, `resume`, and `trouble`, which befalls
the process that is not the first. FOLDER/seen-RANK.json has, for each run, the questions trained on and answered,
how it ended, and its state.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.distributed import distributed_c10d

from bidaf.config import Config
from bidaf.data.batches import BatchSource
from bidaf.distributed import Group, joined
from bidaf.ema.average import trained_weights
from bidaf.errors import BidafError
from bidaf.evaluation import evaluator
from bidaf.runs.state import TrainingState
from bidaf.training.interrupt import Interrupted
from bidaf.training.launch import follow_run, resume_run, start_run
from bidaf.training.step import StepResult, TrainingStep

CPU = torch.device("cpu")
STEP_OF_TROUBLE = 5


def main(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    with joined("cpu") as group, mock.patch.object(distributed_c10d, "_unpickler", _refuse):
        seen = {entry["name"]: _take_part(folder, group, **entry) for entry in plan}
        (folder / f"seen-{group.rank}.json").write_text(json.dumps(seen), encoding="utf-8")


def _refuse(*given: Any) -> Any:
    raise AssertionError("something that another process sent is unpickled")


def _take_part(
    folder: Path, group: Group, name: str, config: dict[str, Any], resume: bool = False, trouble: str | None = None
) -> dict[str, Any]:
    trained: list[list[int]] = []
    answered: list[list[int]] = []
    gather = BatchSource.gather

    def noting(source: BatchSource, indices: Any) -> Any:
        (answered if torch.is_inference_mode_enabled() else trained).append(indices.tolist())
        return gather(source, indices)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(BatchSource, "gather", noting))
        if trouble and not group.is_first:
            _make(trouble, stack)
        try:
            end: Any = _run(folder / name, group, Config.model_validate(config), resume).model_dump()
        except Interrupted as interrupted:
            end = interrupted.exit_code
        except BidafError as error:
            end = str(error)
    return {"trained": trained, "answered": answered, "end": end}


def _run(run: Path, group: Group, config: Config, resume: bool) -> TrainingState:
    if not group.is_first:
        return follow_run(CPU, group)
    if resume:
        return resume_run(run, CPU, lambda message: None, config=config, group=group)
    return start_run(config, run, CPU, lambda message: None, group=group)


def _make(trouble: str, stack: ExitStack) -> None:
    step, cut = TrainingStep.run, evaluator.cut_answer
    cuts = itertools.count()

    def troubled_step(
        self: TrainingStep, source: Any, questions: Any, answers: Any, number: int, stop_flags: Any
    ) -> StepResult:
        result = step(self, source, questions, answers, number, stop_flags)
        if number == STEP_OF_TROUBLE and trouble == "SIGTERM in training":
            os.kill(os.getpid(), signal.SIGTERM)
        if number == STEP_OF_TROUBLE and trouble == "another weight":
            next(weight for _, weight in trained_weights(self.model)).data[0] += 1.0
        return result

    def troubled_cut(*given: Any) -> Any:
        if trouble == "SIGTERM in evaluation" and next(cuts) == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return cut(*given)

    stack.enter_context(mock.patch.object(TrainingStep, "run", troubled_step))
    stack.enter_context(mock.patch.object(evaluator, "cut_answer", troubled_cut))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
