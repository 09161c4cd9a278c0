"""The structure that ARCHITECTURE.md draws: imports point downwards, without cycles, and the wheel holds all of it."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the bottom to the top; a module imports only what stands before its own package here.
LAYERS = (
    "version errors messages files progress device signals threads distributed ema config_base config_optimizer "
    "config config_yaml config_reference config_file model data evaluation runs training inference export "
    "reporting experiments serve library cli __main__"
).split()


def modules() -> dict[str, Path]:
    """Dotted names of all modules of the package, and their files."""
    files = sorted((ROOT / "bidaf").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    return dict(zip(names, files, strict=True))


def imports(path: Path) -> Iterator[str]:
    """Every module of the package that a file imports, also inside functions and for type checking alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "bidaf")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bidaf":
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports; names of a module count as that module."""
    known = modules()
    return {
        name: {found if found in known else found.rpartition(".")[0] for found in imports(path)} - {"bidaf", name}
        for name, path in known.items()
        if name != "bidaf"  # re-exports on demand what users need
    }


def layer(module: str) -> str:
    return module.split(".")[1]


def test_every_module_has_its_layer(graph: dict[str, set[str]]) -> None:
    assert {layer(module) for module in graph} <= set(LAYERS)


def test_imports_point_downwards(graph: dict[str, set[str]]) -> None:
    upward = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if layer(other) != layer(module) and LAYERS.index(layer(other)) > LAYERS.index(layer(module))
    ]
    assert upward == []


def test_there_is_no_import_cycle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_the_average_knows_nothing_of_the_rest(graph: dict[str, set[str]]) -> None:
    assert {other for module, others in graph.items() if layer(module) == "ema" for other in others} <= {
        module for module in graph if layer(module) == "ema"
    }
    assert imported_packages(ROOT / "bidaf/ema/average.py") == {"torch"}


def imported_packages(path: Path) -> set[str]:
    """Top-level packages besides the standard library that a file imports."""
    import sys

    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return {name for name in found if name not in sys.stdlib_module_names}


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    distributions = {"yaml": "pyyaml", "huggingface_hub": "huggingface-hub", "pydantic_core": "pydantic"}
    declared = " ".join([*project["dependencies"], *extras]).lower()
    imported = set().union(*(imported_packages(path) for path in modules().values())) - {"bidaf"}
    missing = {name for name in imported if distributions.get(name, name).lower() not in declared}
    assert missing == set()


def test_every_package_is_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in modules().items()}
    corpora = {f"bidaf.corpora.{path.parent.name}" for path in (ROOT / "data").glob("*/train.json")}
    assert set(settings["packages"]) == packages | corpora | {"bidaf.configs"}
