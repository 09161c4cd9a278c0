"""The figures of docs/ema.md on snapshots and synthesis, each measured here.

    python scripts/lab_figures.py profiles          shares read off by pulses against the computed ones
    python scripts/lab_figures.py errors            snapshot files and predicted errors of runs on SQuAD
    python scripts/lab_figures.py run adam          predicted errors against measured ones, on the embedded corpus
    python scripts/lab_figures.py time              one synthesis from the snapshots of 1.6 million weights
    python scripts/lab_figures.py cost              what a snapshot costs a training step
    python scripts/lab_figures.py kills             runs killed at random: the same snapshots, the same synthesis

The exit code is 1 when a figure is not within its limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import crash_test
import numpy as np
import torch
from asked_for import profile_of
from compare_runs import differences
from numpy.typing import NDArray
from torch import Tensor, nn

from bidaf.config import SnapshotsConfig
from bidaf.config_file import find_config, load_config
from bidaf.ema.average import WARMUPS, ExponentialMovingAverage, trained_weights
from bidaf.ema.synthesis import Target, exponential, pad, raw, solve
from bidaf.files.confined import ConfinedFolder
from bidaf.inference.loading import load_model
from bidaf.inference.predictor import Predictor
from bidaf.model.weights import load_weights
from bidaf.runs.averages import decays_of, readers_of, resolve_weights, sources_of, synthesize
from bidaf.runs.checkpoint import open_checkpoint
from bidaf.runs.layout import SNAPSHOTS
from bidaf.runs.snapshots import SnapshotWriter, kept_steps, sparser
from bidaf.training.launch import start_run

CPU = torch.device("cpu")
WIDE = "decay:0.99 decay:0.995 decay:0.998 decay:0.9995 decay:0.9999 decay:0.9999:debias".split()
WIDE += "sigma:0.02 sigma:0.05 sigma:0.1 sigma:0.25 tail:5% tail:10% tail:25% tail:50%".split()
MEASURED = "decay:0.95 decay:0.98 decay:0.99 decay:0.995 decay:0.999 decay:0.9995 decay:0.999:debias".split()
MEASURED += "sigma:0.05 sigma:0.1 sigma:0.25 tail:10% tail:25%".split()
OPTIMIZERS = {"adam": "{name: adam, lr: 3e-3}", "adadelta": "{name: adadelta, lr: 0.5}"}
WEIGHTS, SQUAD_STEPS = 1_610_703, 17_500


def profiles(options: argparse.Namespace) -> bool:
    """Weight t is 1 after step t alone, so the shadow holds its own profile."""
    within = True
    for warmup in WARMUPS:

        def average(model: nn.Linear, decay: float, warmup: str = warmup) -> tuple[Callable[[], object], ...]:
            ema = ExponentialMovingAverage(model, decay=decay, warmup=warmup)
            return ema.update, lambda: ema.shadow["weight"]

        found = profile_of(average, 2_000, 0.999)  # type: ignore[arg-type]
        worst = float(np.abs(found - exponential(decays_of(0.999, warmup, 2_000))).max())
        print(f"warm-up {warmup}: largest difference of a share {worst:.1e}")
        within &= worst <= 1e-6
    return within


def errors(options: argparse.Namespace) -> bool:
    """Runs with a shadow of 0.999 and the default snapshots; checkpoints at each epoch, the last three kept."""
    settings, within, rows = SnapshotsConfig(), True, []
    for updates in (8_992, 13_500, 17_500, 20_000):
        taken = range(0, updates + 1, settings.every)
        newest = kept_steps(taken, [updates], settings)
        saved = range(1_460, updates, 1_460)
        sparse = kept_steps(taken, saved[-2:], sparser(settings))
        worst = max(len(sparse | kept_steps(taken, [best, updates], settings)) for best in saved)
        decays = decays_of(0.999, "none", updates)
        columns = [*(pad(exponential(decays[:step]), updates) for step in sorted(newest)), exponential(decays)]
        matrix = np.stack([*columns, raw(updates)], axis=1)
        found = [solve(matrix, Target.parse(name).profile(decays)).predicted_error for name in WIDE]
        rows.append([f"{updates:,}", str(len(newest)), str(worst), *(f"{100 * error:.2f}" for error in found)])
        within &= len(newest) <= 55 and worst <= 110 and max(found) <= 0.01
    print_table(["steps", "files for the newest", "files at most", *(f"{name}, %" for name in WIDE)], rows)
    return within


def run(options: argparse.Namespace) -> bool:
    """The embedded corpus; the exact averages are summed up from the weights of every step while it trains."""
    overrides = [
        f"training.optimizer={OPTIMIZERS[options.optimizer]}",
        f"training.max_steps={options.steps}",
        "training.epochs=1000",
        "evaluation.every_steps=1000000",
        "evaluation.map=null",
        f"ema.warmup={options.warmup}",
    ]
    config = load_config(find_config("mini.yaml"), overrides)
    decays = decays_of(config.ema.decay or 0.999, config.ema.warmup, options.steps)
    exact = {name: Sum(Target.parse(name).profile(decays)) for name in MEASURED}
    with tempfile.TemporaryDirectory() as folder, observed(exact):
        start_run(config, Path(folder, "run"), CPU, lambda message: None)
        checkpoint = open_checkpoint(Path(folder, "run", "last"))
        found = resolve_weights(checkpoint, MEASURED, allow_error=True).sets
        raw_weights = checkpoint.weights("raw")
        rows, within = [], True
        for name in MEASURED:
            tensors, made = found[name]
            true = exact[name].result()
            gap = norm({key: raw_weights[key].double() - true[key] for key in true})
            measured = norm({key: tensors[key].double() - true[key] for key in true}) / gap
            predicted = made.predicted_error  # type: ignore[union-attr]
            changed = changed_answers(Path(folder, "run"), name, true)
            narrow = name in MEASURED[:5]
            good = measured <= 2.5 * predicted + 1e-4 and (not narrow or (measured <= 0.015 and changed <= 0.01))
            within &= good
            row = [f"{100 * predicted:.3f}", f"{100 * measured:.3f}", f"{measured / max(predicted, 1e-12):.2f}"]
            rows.append([name, *row, f"{100 * changed:.2f}", "" if good else "over the limit"])
    print_table(["average", "predicted, %", "measured, %", "ratio", "answers that differ, %", ""], rows)
    return within


class Sum:
    """An exact average, weight by weight in fp64."""

    def __init__(self, profile: NDArray[np.float64]) -> None:
        self._profile = profile
        self._total: dict[str, Tensor] = {}

    def add(self, update: int, weights: Mapping[str, Tensor]) -> None:
        for name, tensor in weights.items():
            if update == 0:
                self._total[name] = torch.zeros(tensor.shape, dtype=torch.float64)
            self._total[name].add_(tensor.detach(), alpha=float(self._profile[update]))

    def result(self) -> dict[str, Tensor]:
        return self._total


@contextmanager
def observed(sums: Mapping[str, Sum]) -> Iterator[None]:
    """Within the block the sums see the weights of every update of the shadow."""
    update = ExponentialMovingAverage.update

    def observing(ema: ExponentialMovingAverage) -> None:
        if ema.steps == 0:  # the shadow still is the initial weights
            for each in sums.values():
                each.add(0, ema.shadow)
        update(ema)
        weights = dict(trained_weights(ema._model))
        for each in sums.values():
            each.add(ema.steps, weights)

    with mock.patch.object(ExponentialMovingAverage, "update", observing):
        yield


def norm(tensors: Mapping[str, Tensor]) -> float:
    return float(torch.sqrt(torch.stack([tensor.square().sum() for tensor in tensors.values()]).sum()))


def changed_answers(folder: Path, name: str, exact: Mapping[str, Tensor]) -> float:
    """The share of dev questions that the synthesised and the exact average answer differently."""
    loaded = load_model(str(folder), weights=name, allow_error=True, device=CPU)
    features, predictor = loaded.dev_features(), Predictor(loaded)
    assert features is not None
    synthesised = predictor.answer(features)
    load_weights(loaded.model, {key: tensor.float() for key, tensor in exact.items()}, "the exact average")
    answers = predictor.answer(features)
    return sum(answers[id][0].text != synthesised[id][0].text for id in answers) / len(answers)


def walked_snapshots(folder: Path, weights: int = WEIGHTS, steps: int = SQUAD_STEPS) -> Callable[[str], float]:
    """Snapshots of so many weights, as a run of these steps leaves them; what synthesises from them, and its error."""
    settings = SnapshotsConfig()
    kept = sorted(kept_steps(range(0, steps + 1, settings.every), [steps], settings))
    writer = SnapshotWriter(ConfinedFolder(folder), settings)
    generator = torch.Generator().manual_seed(0)
    tensors = {f"weight{number}": torch.zeros(weights // 57) for number in range(57)}
    for step in kept:
        for tensor in tensors.values():
            tensor += torch.randn(tensor.shape, generator=generator)
        writer.take(step, step, tensors)
    records = writer.flush(steps)
    writer.close()
    decays = decays_of(0.999, "none", steps)

    def synthesise(name: str) -> float:
        sources = sources_of(decays, readers_of(folder / SNAPSHOTS, records), lambda: tensors, lambda: tensors)
        ((average,), left_out) = synthesize([Target.parse(name)], sources, decays, max_error=0.05)
        assert average.tensors is not None
        assert left_out == []
        return average.predicted_error

    return synthesise


def timing(options: argparse.Namespace) -> bool:
    """Checksums, fit and sum, on one thread, with the files in the page cache."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        synthesise = walked_snapshots(Path(folder))
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            synthesise("decay:0.9995")
            seconds.append(time.perf_counter() - began)
        files = len(list(Path(folder, SNAPSHOTS).iterdir()))
    median = sorted(seconds)[len(seconds) // 2]
    print(f"{files} snapshots of {WEIGHTS:,} weights: {median:.2f} s (median of {len(seconds)})")
    return median <= 3.0


def cost(options: argparse.Namespace) -> bool:
    """The time that training is held up: taking a snapshot and flushing it, for 1.6 million weights."""
    torch.set_num_threads(1)
    held = []
    with tempfile.TemporaryDirectory() as folder:
        writer = SnapshotWriter(ConfinedFolder(Path(folder)), SnapshotsConfig())
        tensors = {f"weight{number}": torch.randn(WEIGHTS // 57) for number in range(57)}
        for step in range(0, 1_500, 50):
            began = time.perf_counter()
            writer.take(step, step, tensors)
            held.append(time.perf_counter() - began)
            time.sleep(0.05)
        began = time.perf_counter()
        writer.flush(1_500)
        flushed = (time.perf_counter() - began) / len(held)
        writer.close()
    each = sum(held) / len(held) + flushed
    print(f"a snapshot holds training up for {1e3 * each:.1f} ms, {1e3 * flushed:.1f} ms of it flushing")
    print(f"in 50 steps of {options.step:g} s that is {each / (50 * options.step):.3%}")
    return bool(each <= 0.01 * 50 * options.step)


def kills(options: argparse.Namespace) -> bool:
    """`scripts/crash_test.py`, which compares the snapshots too; and what is synthesised from them."""
    synthesised = 0

    def compared(run: Path, whole: Path, **settings: bool) -> list[str]:
        nonlocal synthesised
        found = differences(run, whole, **settings)
        ours, theirs = (
            resolve_weights(open_checkpoint(each / "last"), ["half-life:5", "tail:50%"], allow_error=True).sets
            for each in (run, whole)
        )
        for name in ours:
            synthesised += 1
            if any(not torch.equal(tensor, theirs[name][0][key]) for key, tensor in ours[name][0].items()):
                found.append(f"{name} is different")
        return found

    torch.set_num_threads(1)  # a fork does not carry threads along
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with mock.patch.object(crash_test, "differences", compared):
            test = crash_test.CrashTest(Path(folder).resolve(), seed=0)
            test.run(options.count)
        os.chdir("/")
    crash_test.print_report(test.report)
    print(f"{synthesised} averages synthesised from the ends of killed runs and compared")
    return not (test.report.lost or test.report.different)


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    for cells in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    figures = parser.add_subparsers(required=True, metavar="FIGURE")
    commands: dict[str, Callable[[argparse.Namespace], bool]] = {
        "profiles": profiles,
        "errors": errors,
        "run": run,
        "time": timing,
        "cost": cost,
        "kills": kills,
    }
    parsers = {name: figures.add_parser(name, help=command.__doc__) for name, command in commands.items()}
    for name, command in commands.items():
        parsers[name].set_defaults(command=command)
    parsers["run"].add_argument("optimizer", choices=OPTIMIZERS)
    parsers["run"].add_argument("--warmup", choices=WARMUPS, default="ramp", help="[default: %(default)s]")
    parsers["run"].add_argument("--steps", type=int, default=1130, help="ten epochs  [default: %(default)s]")
    parsers["cost"].add_argument("--step", type=float, default=0.65, help="seconds of a step  [default: %(default)s]")
    parsers["kills"].add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    sys.exit(0 if options.command(options) else 1)


if __name__ == "__main__":
    main()
