"""`bidaf bench`: how fast it is here, and how many times as fast as the plain form."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidaf.cli.common import DeviceOption, JsonOption, SetOption, print_json, print_table
from bidaf.messages import say

if TYPE_CHECKING:
    from bidaf.bench.timing import Pairs, Spread
    from bidaf.bench.training import Growth

bench_app = typer.Typer(
    help="Time training, prediction, average and preparation against the plain form, in turn, on the same input.",
    no_args_is_help=True,
)

BenchConfigOption = Annotated[
    str, typer.Option("--config", "-c", help="Whose data and settings: a path, or a name in configs/.")
]
RoundsOption = Annotated[int, typer.Option("--rounds", "-n", min=1, help="Measurements of each form.")]
BATCH_SIZES = (1, 15, 60)
CONTEXT_LENGTHS = (50, 100, 200, 400, 800)


@bench_app.command("train")
def train_command(
    config: BenchConfigOption = "mini.yaml",
    set: SetOption = None,
    rounds: RoundsOption = 12,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Instead: time and memory against batch size and context length.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="With --sweep: draw it into this .svg or .png file.")] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Training steps: ours and the plain form's on the same batches, from the same weights."""
    from bidaf.bench.training import sweep as grow
    from bidaf.bench.training import time_training
    from bidaf.errors import UsageError

    if plot is not None and not sweep:
        raise UsageError("--plot draws what --sweep measures: add --sweep")
    settings, prepared, chosen = _begin(config, set, device)
    if sweep:
        from tqdm import tqdm

        with tqdm(total=len(BATCH_SIZES) * len(CONTEXT_LENGTHS), unit="size", disable=None, leave=False) as bar:
            growth = grow(settings, prepared, chosen, BATCH_SIZES, CONTEXT_LENGTHS, bar.update)
        _show_growth(growth, _machine(chosen), plot, json)
        return
    times = time_training(settings, prepared, chosen, rounds)
    if json:
        print_json(
            {
                **_machine(chosen),
                **_pairs(times.pairs),
                "questions": times.questions,
                "questions_per_second": times.questions / sum(times.pairs.ours),
                "ratio_with_order": times.ratio_with_order,
                "phases": times.shares,
                "memory_bytes": times.memory,
                "floors": {
                    "gflop": sum(floor.flop for floor in times.floors) / len(times.floors) / 1e9,
                    "gflop_per_second": times.floors[0].flop_per_second / 1e9,
                    "lstm_step": times.floors[0].step_seconds,
                    **times.gaps(),
                },
            }
        )
        return
    _print_pairs("a training step", times.pairs, per=len(times.pairs.ours) / times.questions, unit="questions/s")
    if times.random_order is not times.pairs.plain:
        print(
            f"against the plain form in random order: {times.ratio_with_order:.2f} times as many questions a second "
            "(batches of similar length count as well)"
        )
    from bidaf.bench.training import PHASES

    rows = [
        (
            phase,
            *(
                f"{1000 * sum(seconds) / len(seconds) * times.shares[form].get(phase, 0.0):.1f}"
                for form, seconds in (("ours", times.pairs.ours), ("plain", times.pairs.plain))
            ),
        )
        for phase in PHASES
    ]
    print_table("ms of a step by phase", ("", "ours", "plain"), rows)
    memory = " and ".join(f"{size / 1e9:.2f} GB ({form})" for form, size in times.memory.items())
    print(f"peak memory on the longest batch: {memory}")
    gaps, floor = times.gaps(), times.floors[0]
    print(
        f"a step takes {gaps['over_arithmetic']:.2f} times what its matrix products would at the speed of a large one "
        f"({floor.flop_per_second / 1e9:,.0f} GFLOP/s), and {gaps['over_latency']:.1f} times what its LSTM steps would "
        f"with nothing to compute ({1e6 * floor.step_seconds:.0f} us each)"
    )


@bench_app.command("predict")
def predict_command(
    config: BenchConfigOption = "mini.yaml",
    set: SetOption = None,
    rounds: RoundsOption = 3,
    questions: Annotated[int, typer.Option(min=1, help="Dev questions answered, evenly spread.")] = 600,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Answers to dev questions, from features on; both forms on the same batches."""
    from bidaf.bench.others import time_prediction

    settings, prepared, chosen = _begin(config, set, device)
    times = time_prediction(settings, prepared, chosen, rounds, questions)
    if json:
        rate = times.questions / _pairs(times.pairs)["ours"]["median"]
        print_json(
            {**_machine(chosen), **_pairs(times.pairs), "questions": times.questions, "questions_per_second": rate}
        )
        return
    _print_pairs(f"{times.questions:,} dev questions", times.pairs, per=1 / times.questions, unit="questions/s")


@bench_app.command("ema")
def ema_command(
    config: BenchConfigOption = "mini.yaml",
    set: SetOption = None,
    rounds: RoundsOption = 7,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Updates of the average: one fused call, and tensor by tensor through a dictionary."""
    from bidaf.bench.others import time_average

    settings, prepared, chosen = _begin(config, set, device)
    times = time_average(settings, prepared, chosen, rounds)
    share = _pairs(times.pairs)["ours"]["median"] / times.step.median
    if json:
        print_json({**_machine(chosen), **_pairs(times.pairs), "step": asdict(times.step), "share_of_step": share})
        return
    _print_pairs("an update of the average", times.pairs, per=1.0, unit="updates/s")
    print(f"{share:.2%} of a training step ({1000 * times.step.median:.0f} ms)")


@bench_app.command("prepare")
def prepare_command(
    config: BenchConfigOption = "mini.yaml",
    set: SetOption = None,
    rounds: RoundsOption = 1,
    json: JsonOption = False,
) -> None:
    """From text to features, nothing prepared before: in as many processes as there are processors, and in one."""
    from bidaf.bench.others import time_preparing
    from bidaf.config_file import find_config, load_config
    from bidaf.device import choose_device

    times = time_preparing(load_config(find_config(config), set or ()), rounds)
    if json:
        print_json({**_machine(choose_device("cpu")), **_pairs(times.pairs), "workers": times.workers})
        return
    _print_pairs(f"preparing, in {times.workers} processes and in one (plain)", times.pairs, per=1.0, unit="runs/s")


def _begin(config: str, set: list[str] | None, device: str) -> tuple[Any, Any, Any]:
    """Settings, prepared data and device."""
    from bidaf.config_file import find_config, load_config
    from bidaf.data.prepare import prepare
    from bidaf.device import choose_device

    settings = load_config(find_config(config), set or ())
    return settings, prepare(settings.data, echo=say), choose_device(device)


def _machine(device: Any) -> dict[str, Any]:
    import torch

    from bidaf.runs.folder import environment

    about = environment(str(device))
    return {
        "machine": {name: about[name] for name in ("platform", "processors", "device", "commit")},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _pairs(pairs: Pairs) -> dict[str, Any]:
    """Seconds and ratio as plain values."""
    from bidaf.bench.timing import Spread

    return {
        "ours": asdict(Spread.of(pairs.ours)),
        "plain": asdict(Spread.of(pairs.plain)),
        "ratio": pairs.ratio,
        "ratios": asdict(pairs.ratios),
        "rounds": len(pairs.ours),
    }


def _print_pairs(what: str, pairs: Pairs, *, per: float, unit: str) -> None:
    """One row a form; `per` is the count of rounds over the count of what `unit` counts."""
    from bidaf.bench.timing import Spread

    rows = []
    for form, seconds in (("ours", pairs.ours), ("plain", pairs.plain)):
        spread = Spread.of(seconds)
        rate = len(seconds) / sum(seconds) / per
        rows.append((form, f"{1000 * spread.median:,.1f}", _range(spread, 1000.0, ",.1f"), f"{rate:,.1f}"))
    print_table(f"{what}: {len(pairs.ours)} of each form, in turn", ("", "ms (median)", "min to max", unit), rows)
    ratios = pairs.ratios
    print(
        f"ours is {pairs.ratio:.2f} times as fast, all together (one by one: median {ratios.median:.2f}, "
        f"{_range(ratios, 1.0, '.2f')})"
    )


def _range(spread: Spread, unit: float, form: str) -> str:
    return f"{spread.least * unit:{form}} to {spread.most * unit:{form}}"


def _show_growth(growth: list[Growth], machine: dict[str, Any], plot: Path | None, json: bool) -> None:
    if plot is not None:
        from bidaf.bench.plot import draw_growth

        draw_growth(growth, plot)
    if json:
        print_json({**machine, "sizes": [asdict(one) for one in growth]})
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
    print_table("a training step", ("context tokens", "batch", "ms", "us a token", "GB at most"), rows)
