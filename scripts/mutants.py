"""Change the code in one small way at a time, and see whether the module's own tests notice.

    python scripts/mutants.py --count 250 --seed 0

A mutant is a copy of the tree in which one comparison, operator, condition, number or statement of one module is
another. The module's tests (`TESTS`) run on it until one fails. If none fails, the mutant has survived: nothing tests
that code, or the change makes no difference. One process imports PyTorch and forks a child per mutant, so that most
take a few seconds.

Results are appended to a file of JSON lines as they come. A second call with the same file, seed and count continues;
`--again` runs the survivors once more, after tests were added. Exit code 1 when a mutant survived.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "bidaf/model/spans.py": ["test_spans.py"],
    "bidaf/evaluation/squad_v1.py": ["test_official.py"],
    "bidaf/evaluation/squad_v2.py": ["test_squad_v2.py"],
    "bidaf/ema/average.py": ["test_ema.py"],
    "bidaf/training/step.py": ["test_step.py", "test_optimizer.py", "test_distributed.py"],
    "bidaf/runs/checkpoint.py": ["test_checkpoint.py", "test_durability.py"],
    "bidaf/runs/checkpoint_folders.py": ["test_checkpoint.py", "test_durability.py"],
    "bidaf/files/writing.py": ["test_writing.py", "test_durability.py"],
    "bidaf/files/reading.py": ["test_reading.py", "test_squad.py", "test_questions.py"],
    "bidaf/files/packed.py": ["test_schemas.py", "test_questions.py"],
    "bidaf/files/archives.py": ["test_vectors.py"],
    "bidaf/ema/synthesis.py": ["test_synthesis.py"],
    "bidaf/inference/predictor.py": ["test_inference.py"],
    "bidaf/files/confined.py": ["test_confined.py"],
}
"""Module -> the test files that are to notice a change to it."""

IMPORTED = [
    "hypothesis",
    "numpy.random",
    "pydantic",
    "rich.console",
    "safetensors.torch",
    "spacy",
    "torch",
    "typer",
    "yaml",
]
IMPORTED += [
    "multiprocessing.pool",
    "matplotlib.figure",
    "torch._dynamo",
    "torch.utils.checkpoint",
    "torch.nn.functional",
]
SECONDS = "seconds.json"  # of the tests, in the copy
WAITING = 300.0  # seconds for a test that waits; one that computes has a limit of processor time
ADDRESS_SPACE = 8 << 30  # a changed bound must not take the machine's memory
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
Place = tuple[int, int, int, int]  # line and byte of the begin, line and byte of the end


@dataclass(frozen=True)
class Mutant:
    """One change: the text at a place of a file, and what stands there instead."""

    file: str
    place: Place
    kind: str
    old: str
    new: str
    number: int
    """Of those in the file that are otherwise the same."""

    @property
    def name(self) -> str:
        """What tells it from all others, wherever in the file it lies."""
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file} {self.kind}: {old} -> {new}" + (f" ({self.number})" if self.number > 1 else "")

    def apply(self, source: bytes) -> bytes:
        """The file with the change."""
        lines = source.splitlines(keepends=True)
        first, begin, last, end = self.place
        rest = lines[last - 1][end:]
        return b"".join([*lines[: first - 1], lines[first - 1][:begin], self.new.encode(), rest, *lines[last:]])


class Finder(ast.NodeVisitor):
    """All mutants of a module; annotations, decorators, imports and texts stay as they are."""

    def __init__(self, file: str, source: str) -> None:
        self._file, self._source = file, source
        self.found: list[Mutant] = []
        self.visit(ast.parse(source))

    def _add(self, kind: str, node: ast.expr | ast.stmt, new: str) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        old = ast.get_source_segment(self._source, node) or ""
        place = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        number = 1 + sum((other.kind, other.old, other.new) == (kind, old, new) for other in self.found)
        self.found.append(Mutant(self._file, place, kind, old, new, number))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in (*node.args.defaults, *(each for each in node.args.kw_defaults if each)):
            self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass  # places within an f-string are not told before Python 3.12

    def visit_Assign(self, node: ast.Assign) -> None:
        if not all(isinstance(target, ast.Name | ast.Tuple) for target in node.targets):
            self._add("statement removed", node, "pass")
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._add("statement removed", node, "pass")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self._add("statement removed", node, "pass")
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add("statement removed", node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._add("nothing returned", node, "return None")
        self.generic_visit(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add("statement removed", node, "pass")

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        if not isinstance(test, ast.Compare):  # whose operator is changed anyway
            self._add("condition negated", test, f"(not ({ast.unparse(test)}))")

    def visit_Compare(self, node: ast.Compare) -> None:
        for number, operator in enumerate(node.ops):
            ops = [*node.ops[:number], COMPARISONS[type(operator)](), *node.ops[number + 1 :]]
            self._add("comparison", node, f"({ast.unparse(ast.Compare(node.left, ops, node.comparators))})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        texts = any(
            isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str))
            for part in (node.left, node.right)
        )
        if not texts and type(node.op) in OPERATORS:
            other = ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
            self._add("operator", node, f"({ast.unparse(other)})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
        self._add("and for or", node, f"({ast.unparse(other)})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub):
            self._add("sign or `not` removed", node, f"({ast.unparse(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add("constant", node, str(not node.value))
        elif isinstance(node.value, int | float):
            self._add("constant", node, str(node.value + 1))
            self._add("constant", node, f"({node.value - 1})")

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
            self._add("function", node.func, FUNCTIONS[node.func.id])
        self.generic_visit(node)


def mutants_of(file: str) -> list[Mutant]:
    """All mutants of a file that still parse."""
    source = (ROOT / file).read_text(encoding="utf-8")
    return Finder(file, source).found


class Cheapest:
    """A pytest plugin: the cheapest tests run first, and no more of them than a budget pays for."""

    def __init__(self, seconds: dict[str, float], budget: float) -> None:
        self.seconds, self._budget = seconds, budget

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sort by the processor time that each test took on the code as it is, and drop what is beyond the budget."""
        if self.seconds:
            items.sort(key=lambda item: self.seconds[item.nodeid])
            spent = itertools.accumulate(self.seconds[item.nodeid] for item in items)
            items[:] = [item for item, total in zip(items, spent, strict=True) if total <= self._budget]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Time a test with its fixtures."""
        began = processor_seconds()
        yield
        self.seconds[item.nodeid] = processor_seconds() - began


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Copy:
    """A copy of the tree, in which one mutant at a time is tested."""

    def __init__(self, folder: Path, budget: float) -> None:
        self._folder, self._budget = folder, budget
        self._seconds: dict[str, dict[str, float]] = {}
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
        for name in filter(None, listed.stdout.split("\0")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)

    def check(self, file: str) -> float:
        """Run and time the module's tests on the code as it is; returns the seconds. Exits when one fails."""
        outcome, _, output = self._test(file, {})
        if outcome != "survived":
            raise SystemExit(f"the tests of {file} fail on the code as it is ({outcome}):\n{output[-3000:]}")
        self._seconds[file] = json.loads((self._folder / SECONDS).read_text(encoding="utf-8"))
        path = self._folder / file
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()  # Python could use it for a mutant of the same size
        return sum(self._seconds[file].values())

    def test(self, mutant: Mutant) -> tuple[str, float, str]:
        """What the tests made of it (`killed`, `timeout`, `survived`), the seconds, and the first test that failed."""
        path = self._folder / mutant.file
        source = path.read_bytes()
        path.write_bytes(mutant.apply(source))
        try:
            outcome, seconds, output = self._test(mutant.file, self._seconds[mutant.file])
        finally:
            path.write_bytes(source)
        lines = [line.split(maxsplit=1) for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        return outcome, seconds, lines[0][1].split(" - ")[0] if lines else ""

    def _test(self, file: str, seconds: dict[str, float]) -> tuple[str, float, str]:
        """Without `seconds` all tests run, and are timed."""
        began = time.monotonic()
        output = self._folder / "output.txt"
        pid = os.fork()
        if not pid:
            self._run_tests(TESTS[file], seconds, output)
        code = wait(pid, began + (WAITING if seconds else 10 * WAITING))
        outcome = "survived" if code == 0 else "timeout" if code in (None, -signal.SIGXCPU) else "killed"
        return outcome, round(time.monotonic() - began, 1), output.read_text(encoding="utf-8", errors="replace")

    def _run_tests(self, tests: list[str], seconds: dict[str, float], output: Path) -> NoReturn:
        code = 70
        try:
            os.setsid()
            os.chdir(self._folder)
            handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.environ.update(PYTHONPATH=str(self._folder), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
            sys.path[0] = str(self._folder)
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            if seconds:
                limit = int(processor_seconds() + 3 * self._budget + 20)
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
                sys.dont_write_bytecode = True
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            order = Cheapest(dict(seconds), self._budget)
            options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", f"--basetemp={self._folder / 'tmp'}"]
            code = int(pytest.main([*options, *(f"tests/{test}" for test in tests)], plugins=[order]))
            if not seconds:
                Path(SECONDS).write_text(json.dumps(order.seconds), encoding="utf-8")
        finally:
            sys.stdout.flush()
            os._exit(code)


def wait(pid: int, until: float) -> int | None:
    """The exit code of a child that leads its own session; None when it was killed at that time."""
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def chosen(count: int, seed: int) -> list[Mutant]:
    """Some `count` mutants at random, of each file its share and no fewer than eight.

    A change of the code leaves most of the choice as it is.
    """
    pools = [mutants_of(file) for file in TESTS]
    for pool in pools:
        pool.sort(key=lambda mutant: hashlib.sha256(f"{seed} {mutant.name}".encode()).digest())
    total = sum(map(len, pools))
    shares = [max(min(len(pool), 8), round(count * len(pool) / total)) for pool in pools]
    return [mutant for pool, share in zip(pools, shares, strict=True) for mutant in pool[:share]]


def main() -> int:
    """Test the mutants that have no result yet, and print what came of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=220)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=8.0, help="processor seconds of tests per mutant (default 8)")
    parser.add_argument("--results", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--module", action="append", choices=sorted(TESTS), help="this module alone; repeatable")
    parser.add_argument("--again", action="store_true", help="test the survivors once more")
    parser.add_argument("--list", action="store_true", help="print the mutants, test none")
    arguments = parser.parse_args()
    files = arguments.module or list(TESTS)
    mutants = [mutant for mutant in chosen(arguments.count, arguments.seed) if mutant.file in files]
    if arguments.list:
        for mutant in mutants:
            print(mutant.name)
        return 0
    results = read_results(arguments.results)
    if arguments.again:
        results = {name: result for name, result in results.items() if result["outcome"] != "survived"}
    left = [mutant for mutant in mutants if mutant.name not in results]
    import_once()
    with tempfile.TemporaryDirectory(prefix="bidaf-mutants-") as folder, arguments.results.open("a") as log:
        copy = Copy(Path(folder).resolve(), arguments.budget)
        for file in TESTS:
            of_file = [mutant for mutant in left if mutant.file == file]
            if not of_file:
                continue
            print(f"{file}: {len(of_file)} mutants, tests of {copy.check(file):.1f} s", file=sys.stderr, flush=True)
            for mutant in of_file:
                outcome, took, failed = copy.test(mutant)
                result = {"name": mutant.name, **asdict(mutant), "outcome": outcome, "seconds": took, "by": failed}
                results[mutant.name] = result
                print(json.dumps(result), file=log, flush=True)
    wanted = [results[mutant.name] for mutant in mutants]
    print_table(wanted)
    return int(any(result["outcome"] == "survived" for result in wanted))


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The newest result of each mutant by its name."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {result["name"]: result for result in map(json.loads, lines)}


def import_once() -> None:
    """What the tests import besides the tree itself, which each child imports from its mutant."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in IMPORTED:
        importlib.import_module(name)
    import hypothesis
    import torch

    torch.set_num_threads(1)  # a fork does not carry threads along
    # A failure counts, not the smallest example of it.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile("mutants", phases=phases, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")


def print_table(results: list[dict[str, Any]]) -> None:
    """A Markdown table of the counts per module, and the survivors by name."""
    print("| module | mutants | killed | timeouts | survived |\n| --- | --- | --- | --- | --- |")
    for file in [*TESTS, "all"]:
        counts = Counter(result["outcome"] for result in results if file in (result["file"], "all"))
        if counts:
            row = (file, sum(counts.values()), counts["killed"], counts["timeout"], counts["survived"])
            print("| " + " | ".join(map(str, row)) + " |")
    for result in results:
        if result["outcome"] == "survived":
            print(f"{result['name']} (line {result['place'][0]})")


if __name__ == "__main__":
    sys.exit(main())
