"""How fast it is on this machine, compared with the baseline on the same input.

python scripts/bench train --config mini.yaml          # training steps; --sweep: how they grow
python scripts/bench predict --config mini.yaml        # answers to dev questions
python scripts/bench ema --config mini.yaml            # updates of the average
python scripts/bench prepare --config mini.yaml        # from text to features
python scripts/bench parity --config mini.yaml         # not speed: does ours learn as well as the baseline?
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tqdm import tqdm

from bench.others import time_average, time_prediction, time_preparing
from bench.parity import train_both
from bench.plot import draw_growth
from bench.timing import Pairs, Spread
from bench.training import PHASES, Growth, sweep, time_training
from bidaf.cli.common import print_json, print_table
from bidaf.config_file import find_config, load_config
from bidaf.data.prepare import prepare
from bidaf.device import choose_device
from bidaf.errors import BidafError, UsageError
from bidaf.messages import say
from bidaf.runs.environment import environment

BATCH_SIZES = (1, 15, 60)
CONTEXT_LENGTHS = (50, 100, 200, 400, 800)


def train(options: argparse.Namespace) -> None:
    """Training steps: ours and the baseline's on the same batches, from the same weights."""
    if options.plot is not None and not options.sweep:
        raise UsageError("--plot draws what --sweep measures: add --sweep")
    config, prepared, device = _begin(options)
    if options.sweep:
        with tqdm(total=len(BATCH_SIZES) * len(CONTEXT_LENGTHS), unit="size", disable=None, leave=False) as bar:
            growth = sweep(config, prepared, device, BATCH_SIZES, CONTEXT_LENGTHS, bar.update)
        _show_growth(growth, device, options)
        return
    times = time_training(config, prepared, device, options.rounds or 12)
    bound, gaps = times.rooflines[0], times.gaps()
    if options.json:
        rooflines = {
            "gflop": mean(bound.flop for bound in times.rooflines) / 1e9,
            "gflop_per_second": bound.flop_per_second / 1e9,
            "lstm_step": bound.step_seconds,
            **gaps,
        }
        result = {"phases": times.shares, "memory_bytes": times.memory, "roofline": rooflines}
        rates = {"questions": times.questions, "questions_per_second": times.questions / sum(times.pairs.ours)}
        order = {"ratio_with_order": times.ratio_with_order}
        print_json({**_machine(device), **_pairs(times.pairs), **rates, **order, **result})
        return
    _print_pairs("a training step", times.pairs, per=len(times.pairs.ours) / times.questions, unit="questions/s")
    if times.random_order is not times.pairs.baseline:
        print(
            f"{times.ratio_with_order:.2f} times as many questions per second as the baseline in random order (this "
            "counts batches of similar length, too)"
        )
    milliseconds = {"ours": 1000 * mean(times.pairs.ours), "baseline": 1000 * mean(times.pairs.baseline)}
    rows = [
        (phase, *(f"{whole * times.shares[name].get(phase, 0.0):.1f}" for name, whole in milliseconds.items()))
        for phase in PHASES
    ]
    print_table("ms of a step by phase", ("", *milliseconds), rows)
    memory = " and ".join(f"{size / 1e9:.2f} GB ({name})" for name, size in times.memory.items())
    print(f"peak memory on the longest batch: {memory}")
    print(
        f"a step takes {gaps['over_arithmetic']:.2f} times as long as its matrix products would at the speed of a "
        f"large one ({bound.flop_per_second / 1e9:,.0f} GFLOP/s), and {gaps['over_latency']:.1f} times as long as its "
        f"LSTM steps would with nothing to compute ({1e6 * bound.step_seconds:.0f} us each)"
    )


def predict(options: argparse.Namespace) -> None:
    """Answers to prepared dev questions; both implementations on the same batches."""
    config, prepared, device = _begin(options)
    times = time_prediction(config, prepared, device, options.rounds or 3, options.questions)
    if options.json:
        rate = times.questions / Spread.of(times.pairs.ours).median
        rates = {"questions": times.questions, "questions_per_second": rate}
        print_json({**_machine(device), **_pairs(times.pairs), **rates})
        return
    _print_pairs(f"{times.questions:,} dev questions", times.pairs, per=1 / times.questions, unit="questions/s")


def ema(options: argparse.Namespace) -> None:
    """Updates of the average: one fused call, and tensor by tensor in a dictionary."""
    config, prepared, device = _begin(options)
    times = time_average(config, prepared, device, options.rounds or 7)
    share = Spread.of(times.pairs.ours).median / times.step.median
    if options.json:
        steps = {"step": asdict(times.step), "share_of_step": share}
        print_json({**_machine(device), **_pairs(times.pairs), **steps})
        return
    _print_pairs("an update of the average", times.pairs, per=1.0, unit="updates/s")
    print(f"{share:.2%} of a training step ({1000 * times.step.median:.0f} ms)")


def preparing(options: argparse.Namespace) -> None:
    """From text to features, nothing prepared before: in one process per processor, and in one."""
    times = time_preparing(load_config(find_config(options.config), options.set), options.rounds or 1)
    if options.json:
        print_json({**_machine(torch.device("cpu")), **_pairs(times.pairs), "workers": times.workers})
        return
    _print_pairs(f"preparing, in {times.workers} processes and in one", times.pairs, per=1.0, unit="runs/s")


def parity(options: argparse.Namespace) -> None:
    """Whether ours learns as well as the baseline."""
    config, prepared, device = _begin(options)
    outcomes = []
    for seed in range(options.seeds):
        for outcome in train_both(config, prepared, device, seed, options.epochs):
            outcomes.append(outcome)
            say(str(outcome))
    if options.json:
        print_json([asdict(outcome) for outcome in outcomes])
        return
    for name in ("ours", "baseline"):
        for weights in ("raw_f1", "ema_f1"):
            scores = [getattr(outcome, weights) for outcome in outcomes if outcome.implementation == name]
            print(f"{name:8} {weights}: mean {mean(scores):.2f}, {min(scores):.2f} to {max(scores):.2f}")


def _begin(options: argparse.Namespace) -> tuple[Any, Any, torch.device]:
    """Settings, prepared data and device."""
    config = load_config(find_config(options.config), options.set)
    return config, prepare(config.data, echo=say), choose_device(options.device)


def _machine(device: torch.device) -> dict[str, Any]:
    about = environment(str(device))
    names = ("platform", "processors", "device", "card", "driver", "cuda", "cudnn", "commit")
    machine = {name: about[name] for name in names if name in about}
    return {"machine": machine, "torch": torch.__version__, "threads": torch.get_num_threads()}


def _pairs(pairs: Pairs) -> dict[str, Any]:
    """Seconds and ratio as plain values."""
    return {
        "ours": asdict(Spread.of(pairs.ours)),
        "baseline": asdict(Spread.of(pairs.baseline)),
        "ratio": pairs.ratio,
        "ratios": asdict(pairs.ratios),
        "rounds": len(pairs.ours),
    }


def _print_pairs(what: str, pairs: Pairs, *, per: float, unit: str) -> None:
    """One row per implementation; `per` is the number of rounds over the number of what `unit` counts."""
    rows = []
    for name, seconds in (("ours", pairs.ours), ("baseline", pairs.baseline)):
        spread = Spread.of(seconds)
        rate = len(seconds) / sum(seconds) / per
        rows.append((name, f"{1000 * spread.median:,.1f}", _range(spread, 1000.0, ",.1f"), f"{rate:,.1f}"))
    print_table(f"{what}: {len(pairs.ours)} of each, in turn", ("", "ms (median)", "min to max", unit), rows)
    ratios = pairs.ratios
    print(
        f"ours is {pairs.ratio:.2f} times as fast, all together (one by one: median {ratios.median:.2f}, "
        f"{_range(ratios, 1.0, '.2f')})"
    )


def _range(spread: Spread, unit: float, digits: str) -> str:
    return f"{spread.least * unit:{digits}} to {spread.most * unit:{digits}}"


def _show_growth(growth: list[Growth], device: torch.device, options: argparse.Namespace) -> None:
    if options.plot is not None:
        draw_growth(growth, options.plot)
    if options.json:
        print_json({**_machine(device), "sizes": [asdict(one) for one in growth]})
        return
    rows = [
        (
            f"{one.context_tokens}",
            f"{one.batch_size}",
            f"{1000 * one.seconds:,.0f}",
            f"{1e6 * one.seconds / (one.batch_size * one.context_tokens):,.0f}",
            f"{one.memory_bytes / 1e9:.2f}",
        )
        for one in growth
    ]
    print_table("a training step", ("context tokens", "batch", "ms", "us per token", "GB at most"), rows)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": train,
    "predict": predict,
    "ema": ema,
    "prepare": preparing,
    "parity": parity,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit code."""
    parser = argparse.ArgumentParser("bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        options = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        options.set_defaults(command=command)
        options.add_argument("--config", "-c", default="mini.yaml", help="whose data and settings")
        options.add_argument("--set", "-s", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
        options.add_argument("--json", action="store_true", help="print the result as JSON")
        if name != "prepare":
            options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        if name == "parity":
            options.add_argument("--epochs", type=_positive, default=3)
            options.add_argument("--seeds", type=_positive, default=3)
        else:
            options.add_argument("--rounds", "-n", type=_positive, help="measurements of each implementation")
        if name == "predict":
            options.add_argument("--questions", type=_positive, default=600, help="dev questions, evenly spread")
        if name == "train":
            options.add_argument("--sweep", action="store_true", help="instead: time and memory against batch size")
            options.add_argument("--plot", type=Path, help="with --sweep: draw it into this .svg or .png file")
    chosen = parser.parse_args(arguments)
    try:
        chosen.command(chosen)
    except BidafError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
