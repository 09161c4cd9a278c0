"""The first 40 minutes on a GPU as one command: eleven steps, and a table for docs/performance.md.

    python scripts/gpu_check.py --config squad_adam.yaml --prepared prepared/KEY --out gpu_check
    python scripts/gpu_check.py ... --steps 5,8-9            # these again

Each step runs in a process of its own, for eight minutes at most. Results are kept in OUT: the same command continues
where it was stopped. It ends early when a step fails without which the others make no sense (1, 2 and 4).

It needs torch, numpy, pydantic, safetensors, pyyaml, tqdm and pytest; no tokenizer, with prepared features. Without a
GPU it runs everything it can in the guard of the tests, at small sizes: then its figures say nothing about speed.

Exit code 0 when all is as expected, 1 when not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from gpu_guard import Guard
from gpu_steps import STEPS
from gpu_task import SMALL, Row, Sizes, Task

from bidaf.config_file import find_config, load_config
from bidaf.data.prepare import prepare, use_prepared
from bidaf.errors import BidafError
from bidaf.messages import say
from bidaf.runs.environment import environment
from bidaf.training.interrupt import Interrupted
from bidaf.training.launch import resume_run, start_run

SECONDS = 480
NEEDED = (1, 2, 4)
IN_GUARD = [
    "model.hidden_size=8",
    "model.char_channels=8",
    "model.char_embedding_size=4",
    "training.batch_size=4",
    "training.log_every=4",
    "ema.snapshots={every: 4}",
    "evaluation.map=null",
]


def main(arguments: list[str] | None = None) -> int:
    """Run the steps that are missing, or those that are named; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", "-c", default="mini.yaml", help="whose data and settings")
    parser.add_argument("--set", "-s", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--prepared", type=Path, help="prepared features, whose sources may be missing")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder of the results")
    parser.add_argument("--steps", type=_numbers, help="run these, as in 5,8-9 (default: all that are missing)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # this step, in this process
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # the run of step 11, in this process
    options = parser.parse_args(arguments)
    in_guard = not torch.cuda.is_available()
    try:
        if options.one or options.train:
            with Guard() if in_guard else nullcontext():
                return _train(options, in_guard) if options.train else _run_one(options, in_guard)
        if in_guard:
            say("There is no GPU here: everything runs in the guard, at small sizes.")
        return _run_all(options, in_guard)
    except BidafError as error:
        say(f"error: {error}")
        return error.exit_code


def _run_all(options: argparse.Namespace, in_guard: bool) -> int:
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for number in options.steps or range(1, len(STEPS) + 1):
        if str(number) in results and not options.steps:
            continue
        say(f"step {number} of {len(STEPS)}: {STEPS[number - 1].__doc__}")
        rows = _in_a_process(_command(options, "--one", str(number)))
        for row in rows:
            say(f"  {'' if row.passed else 'NOT AS EXPECTED: '}{row.what}: {row.measured}")
        results[str(number)] = rows
        file.write_text(json.dumps(results, indent=1), encoding="utf-8")
        (options.out / "table.md").write_text(_table(results, in_guard), encoding="utf-8")
        if number in NEEDED and not all(row.passed for row in rows):
            say(f"Without step {number} the others make no sense: stopping.")
            break
    print(_table(results, in_guard), end="")
    return 0 if all(Row(*row).passed for rows in results.values() for row in rows) else 1


def _in_a_process(command: list[str]) -> list[Row]:
    """The rows of a step, or one that says how its process ended."""
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return [Row("the step", f"took more than {SECONDS} s", "less", passed=False)]
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        return [Row("the step", f"exit code {child.returncode}: {last}", "no error", passed=False)]
    return [Row(*row) for row in json.loads(child.stdout.splitlines()[-1])]


def _run_one(options: argparse.Namespace, in_guard: bool) -> int:
    print(json.dumps(STEPS[options.one - 1](_task(options, in_guard))))
    return 0


def _train(options: argparse.Namespace, in_guard: bool) -> int:
    """Train until a signal comes, in a new run or an existing one."""
    task, run = _task(options, in_guard), options.train
    try:
        if run.exists():
            resume_run(run, task.device, say)
        else:
            config = task.changed(training={"save_every": 5, "epochs": 100_000}, evaluation={"every_steps": 1_000_000})
            start_run(config, run, task.device, say, features=task.features)
    except Interrupted as end:
        return end.exit_code
    return 0


def _task(options: argparse.Namespace, in_guard: bool) -> Task:
    config = load_config(find_config(options.config), [*(IN_GUARD if in_guard else []), *options.set])
    if options.prepared:
        data, features = use_prepared(config.data, options.prepared)
        config = config.model_copy(update={"data": data})
    else:
        features = prepare(config.data, echo=say).key
    sizes = SMALL if in_guard else Sizes()
    return Task(config, features, torch.device("cuda", 0), sizes, in_guard, tuple(_command(options, "--train")))


def _command(options: argparse.Namespace, *more: str) -> list[str]:
    """This command again, with the same data."""
    given = ["--config", options.config, *(f"--set={setting}" for setting in options.set)]
    given += ["--prepared", str(options.prepared)] if options.prepared else []
    return [sys.executable, str(Path(__file__).resolve()), *given, *more]


def _table(results: dict[str, Any], in_guard: bool) -> str:
    """All results as Markdown."""
    with Guard() if in_guard else nullcontext():
        about = environment("cuda:0")
    title = ", ".join(f"{name} {about[name]}" for name in ("card", "driver", "cuda", "cudnn"))
    lines = [f"{title}; PyTorch {torch.__version__}; commit {about['commit']}.", ""]
    lines += ["| step | what | measured | expected | |", "|---|---|---|---|---|"]
    for number in sorted(results, key=int):
        for row in map(Row._make, results[number]):
            name = STEPS[int(number) - 1].__name__
            cells = (number, name, row.what, row.measured, row.expected, "" if row.passed else "**no**")
            lines.append("| {} {} | {} | {} | {} | {} |".format(*(cell.replace("|", "/") for cell in cells)))
    return "\n".join(lines) + "\n"


def _numbers(text: str) -> list[int]:
    """5,8-9 -> [5, 8, 9]."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if not found or min(found) < 1 or max(found) > len(STEPS):
        raise ValueError
    return found


if __name__ == "__main__":
    sys.exit(main())
