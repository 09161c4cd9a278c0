"""Give the commands bad input by the thousand, and count what they make of it.

    python scripts/fuzz.py --inputs 20000 --seed 0

Each kind of input (tests/helpers_fuzz.py) has a process of its own. Its inputs are drawn at random by hypothesis, or,
with `--engine atheris` where that is installed (`pip install atheris`), led by the lines of code that they reach. What
a command makes of an input is checked against a count of it that the standard library alone makes: every question that
went in was answered, or the file refused, or the question named.

Exit code 1 when one traceback, hang, silent loss or wrong exit code was found.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
PROBLEMS = {"traceback": "tracebacks", "hang": "hangs", "loss": "silent losses", "code": "wrong exit codes"}
SHOWN = 5
ADDRESS_SPACE = 8 << 30
COLUMNS = ("target", "inputs", "accepted", "rejected", *PROBLEMS.values(), "CPU s")

if TYPE_CHECKING:
    from helpers_fuzz import Home, Target


def main() -> int:
    """Run all targets, one after the other, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="over all targets together (default 20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", help="this kind of input alone; repeatable")
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], default="hypothesis")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        fuzz(arguments.target[0], arguments.inputs, arguments.seed, arguments.engine, arguments.child)
        return 0
    sys.path.insert(0, str(TESTS))
    from helpers_fuzz import TARGETS

    names = arguments.target or [target.name for target in TARGETS]
    if unknown := set(names) - {target.name for target in TARGETS}:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(each.name for each in TARGETS)}")
    share = -(-arguments.inputs // len(names))
    reports = [run_child(name, share, arguments.seed, arguments.engine) for name in names]
    print(json.dumps(reports, indent=2) if arguments.json else as_table(reports))
    return int(any(report[problem] for report in reports for problem in PROBLEMS))


def run_child(name: str, inputs: int, seed: int, engine: str) -> dict[str, Any]:
    """One target in a process of its own: what it leaves behind, and what kills it, stay there."""
    with tempfile.TemporaryDirectory(prefix="bidaf-fuzz-") as folder:
        command = [sys.executable, __file__, "--child", folder, "--target", name, "--engine", engine]
        ended = subprocess.run([*command, "--inputs", str(inputs), "--seed", str(seed)], capture_output=True, text=True)
        path = Path(folder, "report.json")
        if not path.exists():
            raise SystemExit(
                f"{name}: the process ended with {ended.returncode} before its first report\n{ended.stderr}"
            )
        report: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    if report["inputs"] < inputs:
        # The process died within an input, which no command should be able to bring about.
        report["hang"] += 1
        report["examples"].append(
            {
                "problem": "hang",
                "detail": f"ended with {ended.returncode}\n{ended.stderr[-2000:]}",
                "input": report["last"],
            }
        )
    for example in report["examples"]:
        print(f"{name}: {example['problem']} of {example['input']}\n{example['detail']}\n", file=sys.stderr)
    counts = ", ".join(f"{report[problem]} {shown}" for problem, shown in PROBLEMS.items())
    print(f"{name}: {report['inputs']:,} inputs, {counts}", file=sys.stderr, flush=True)
    return report


def fuzz(name: str, inputs: int, seed: int, engine: str, folder: Path) -> None:
    """Draw so many inputs, give each to the target, and keep the report as it grows."""
    sys.path.insert(0, str(TESTS))
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["bidaf"]):
            from helpers_fuzz import TARGETS, make_home
    else:
        from helpers_fuzz import TARGETS, make_home
    target = next(each for each in TARGETS if each.name == name)
    # A size that is only claimed ends in a wrong exit code here, and not in all the memory of the machine.
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    os.chdir(folder)
    tally = Tally(target, make_home(folder), folder / "report.json")
    draw = _by_coverage if engine == "atheris" else _at_random
    draw(target, tally, inputs, seed)
    tally.write()


class Tally:
    """Counts of what came of the inputs so far."""

    def __init__(self, target: Target, home: Home, path: Path) -> None:
        self._target, self._home, self._path = target, home, path
        self._codes: Counter[int | None] = Counter()
        self._problems: Counter[str] = Counter()
        self._examples: list[dict[str, str]] = []
        self._began, self._written, self._last = time.process_time(), 0.0, ""
        self.inputs = 0

    def take(self, value: Any) -> None:
        """Give one input to the target."""
        self._last = repr(value)[:4000]
        if time.monotonic() - self._written > 1:
            self.write()
        outcome = self._target.judge(self._home, value)
        self.inputs += 1
        self._codes[outcome.code] += 1
        if outcome.problem:
            self._problems[outcome.problem] += 1
            if len(self._examples) < SHOWN:
                self._examples.append({"problem": outcome.problem, "detail": outcome.detail, "input": self._last})

    def write(self) -> None:
        """Keep the counts where the parent process finds them."""
        self._written = time.monotonic()
        rejected = {str(code): count for code, count in sorted(self._codes.items(), key=str) if code}
        report = {
            "target": self._target.name,
            "inputs": self.inputs,
            "accepted": self._codes[0],
            "rejected": rejected,
            **{problem: self._problems[problem] for problem in PROBLEMS},
            "cpu_seconds": round(time.process_time() - self._began, 1),
            "examples": self._examples,
            "last": self._last,
        }
        beside = self._path.with_suffix(".part")
        beside.write_text(json.dumps(report), encoding="ascii")
        beside.replace(self._path)


def _at_random(target: Target, tally: Tally, inputs: int, seed: int) -> None:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    round_number = 0
    while tally.inputs < inputs:  # hypothesis stops early where it believes to have seen everything
        run = settings(
            max_examples=inputs - tally.inputs,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            deadline=None,
            database=None,
        )(given(target.strategy)(tally.take))
        seeded(seed * 1_000 + round_number)(run)()
        round_number += 1


def _by_coverage(target: Target, tally: Tally, inputs: int, seed: int) -> None:
    import atheris
    from hypothesis import given, settings

    drawn: Any = settings(database=None)(given(target.strategy)(tally.take))
    one_input: Callable[[bytes], object] = drawn.hypothesis.fuzz_one_input

    def take(data: bytes) -> None:
        one_input(data)
        if tally.inputs >= inputs:
            tally.write()
            os._exit(0)  # libFuzzer itself never comes back

    corpus = Path("corpus")
    corpus.mkdir()
    source = random.Random(seed)
    for number in range(100):
        (corpus / str(number)).write_bytes(source.randbytes(2048))
    options = [
        f"-seed={seed + 1}",
        "-max_len=4096",
        "-len_control=0",
        "-timeout=0",
        "-rss_limit_mb=0",
        "-handle_alrm=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], take)
    atheris.Fuzz()


def as_table(reports: list[dict[str, Any]]) -> str:
    """A Markdown table, with the sums in its last row."""
    rows = []
    for report in reports:
        rejected = ", ".join(f"{count:,} with {code}" for code, count in report["rejected"].items()) or "0"
        counts = [f"{report[problem]:,}" for problem in PROBLEMS]
        seconds = f"{report['cpu_seconds']:,.0f}"
        rows.append((report["target"], f"{report['inputs']:,}", f"{report['accepted']:,}", rejected, *counts, seconds))
    sums = {key: sum(report[key] for report in reports) for key in ("inputs", "accepted", *PROBLEMS, "cpu_seconds")}
    rejected = f"{sum(count for report in reports for count in report['rejected'].values()):,}"
    counts = [f"{sums[problem]:,}" for problem in PROBLEMS]
    rows.append(
        ("all", f"{sums['inputs']:,}", f"{sums['accepted']:,}", rejected, *counts, f"{sums['cpu_seconds']:,.0f}")
    )
    return "\n".join("| " + " | ".join(row) + " |" for row in (COLUMNS, ("---",) * len(COLUMNS), *rows))


if __name__ == "__main__":
    sys.exit(main())
