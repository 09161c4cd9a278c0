"""What `bidaf compare` is asked to compare: prediction files and models by name, and the answers they give.

PyTorch is imported for models alone: two prediction files are compared without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bidaf.data.questions import OnReport, read_questions, warn
from bidaf.errors import UsageError
from bidaf.evaluation.comparison import Comparison, System, compare
from bidaf.evaluation.predictions import read_predictions
from bidaf.evaluation.questions import GoldQuestion, questions_of_examples

if TYPE_CHECKING:
    from bidaf.inference.stored import StoredModel

WEIGHTS_OF_ONE = ("raw", "ema")
"""What is compared where one model alone is named."""


@dataclass(frozen=True)
class Pair:
    """Names of both sides, one for each seed, and their weight sets; None is the default of each model."""

    a: tuple[str | None, ...]
    b: tuple[str | None, ...]
    weights_a: str | None
    weights_b: str | None


def pair_names(a: Sequence[str], b: Sequence[str], weights: Sequence[str]) -> Pair:
    """Who is compared with whom. Without a name it is the newest run; without `b` two weight sets of the same models.

    One of `weights` is for the models of both sides, two are for A's and B's. Raises `UsageError` where that leaves
    nothing to compare, and for a weight set of prediction files, which have none.
    """
    if len(weights) > 2:
        raise UsageError(f"--weights takes one name for both sides, or A's and B's; found {len(weights)}")
    if b and len(a) != len(b):
        raise UsageError(f"seeds are compared in pairs; found {len(a)} for A and {len(b)} for B")
    if b:
        sides = [a, b] if len(weights) == 2 else [[*a, *b]]
        if weights and (files := next((side for side in sides if all(map(_is_file, side))), None)):
            raise UsageError(
                f"{' and '.join(files)}: a prediction file has no weight sets; name that of a model once, or leave out "
                "--weights"
            )
        first, last = (weights[0], weights[-1]) if weights else (None, None)
        return Pair(tuple(a), tuple(b), first, last)
    if files := [name for name in a if _is_file(name)]:
        raise UsageError(f"{files[0]}: a prediction file has nothing to be compared with; name a second one or a model")
    if len(weights) == 1:
        raise UsageError("one model has nothing to be compared with: name a second one, or two --weights")
    first, last = weights or WEIGHTS_OF_ONE
    models = tuple(a) or (None,)
    return Pair(models, models, first, last)


def compare_named(
    pair: Pair,
    *,
    data: str | None,
    device: str = "auto",
    answerable_only: bool = False,
    allow_error: bool = False,
    on_report: OnReport = warn,
) -> Comparison:
    """Compare two systems on the questions of `data`, or on the dev questions of the first run that is named.

    `answerable_only` is that of `bidaf.evaluation.comparison.compare`. Answers that an evaluation of the run has stored
    are read; others are made now, on `device`, by averages with large predicted errors only with `allow_error`. Raises
    `UsageError` where there are no questions, and `DataError` as `compare` does.
    """
    a = [_open(name, pair.weights_a) for name in pair.a]
    b = [_open(name, pair.weights_b) for name in pair.b]
    questions = _questions(data, [*a, *b], on_report)

    def system(side: Sequence[Path | StoredModel]) -> System:
        answers = [_answers(each, questions, device, allow_error) for each in side]
        return System(", ".join(map(str, side)), answers)

    return compare(questions, system(a), system(b), answerable_only=answerable_only)


def _open(name: str | None, weights: str | None) -> Path | StoredModel:
    if name is not None and _is_file(name):
        return Path(name)
    from bidaf.inference.stored import StoredModel

    return StoredModel.open(name, weights)


def _is_file(name: str) -> bool:
    """Whether the name is that of a prediction file, there or missing; else it is that of a model."""
    path = Path(name)
    return not path.is_dir() and (path.suffix == ".json" or path.is_file())


def _questions(data: str | None, systems: Sequence[Path | StoredModel], on_report: OnReport) -> list[GoldQuestion]:
    if data is not None:
        return questions_of_examples(read_questions(data, need_answers=True, on_report=on_report))
    for system in systems:
        if not isinstance(system, Path) and (questions := system.dev_questions()):
            return questions
    raise UsageError("prediction files and exports do not hold the questions: name these with --data")


def _answers(
    system: Path | StoredModel, questions: Sequence[GoldQuestion], device: str, allow_error: bool
) -> dict[str, str]:
    return read_predictions(system) if isinstance(system, Path) else system.answers(questions, device, allow_error)
