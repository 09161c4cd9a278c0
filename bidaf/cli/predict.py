"""`bidaf predict`: answers to the questions of a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidaf.cli.common import DeviceOption, ModelOption, StrictOption, print_json, questions_bar, say_report, to_json
from bidaf.cli.weights import AllowErrorOption, AtOption, UseEmaOption, WeightsOption, one_weight_set, say_notes
from bidaf.data.documents import LINES_SUFFIXES
from bidaf.errors import DataError, UsageError
from bidaf.files.writing import check_output, write_output
from bidaf.messages import say

if TYPE_CHECKING:
    from bidaf.files.growing import GrowingFile
    from bidaf.inference.predictor import Answerer
    from bidaf.progress import Bar


def predict_command(
    input: Annotated[
        str,
        typer.Argument(help="Questions with contexts: JSON, JSON lines, CSV or Parquet; - for stdin."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write here; JSON lines where it ends in .jsonl.  [default: stdout]"),
    ] = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    use_ema: UseEmaOption = None,
    at: AtOption = None,
    allow_error: AllowErrorOption = False,
    n_best: Annotated[
        int | None, typer.Option(min=1, help="Number of answers per question, with offsets and probabilities.")
    ] = None,
    max_answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="Greatest length of an answer.  [default: the model's setting]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue JSON lines that were stopped; begin where there are none.")
    ] = False,
    device: DeviceOption = "auto",
    strict: StrictOption = False,
) -> None:
    """Answer questions: {id: answer}, as the official evaluator takes it, or records with --n-best.

    Contexts may be of any length, and a question may have a list of them; every answer is cut from its context,
    character for character. JSON lines are read and written as a stream, which torchrun shares among processes.
    """
    name = one_weight_set(weights, use_ema, "predict")
    # What is wrong with either file should be known before a model is loaded.
    if output is not None:
        check_output(output)

    def load(device: str) -> Answerer:
        from bidaf.library import load

        return load(
            model,
            weights=name,
            at=at,
            allow_error=allow_error,
            max_answer_tokens=max_answer_tokens,
            device=device,
        )

    if output is not None and output.suffix.lower() in LINES_SUFFIXES:
        _predict_lines(input, output, load, n_best, device, resume=resume, strict=strict)
        return
    if resume:
        raise UsageError("--resume continues JSON lines: name the output *.jsonl")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("several processes write JSON lines: name the output *.jsonl, or start without torchrun")
    _predict(input, output, load, n_best, device, strict=strict)


def _predict(
    input: str, output: Path | None, load: Callable[[str], Answerer], n_best: int | None, device: str, *, strict: bool
) -> None:
    from bidaf.data.questions import read_questions
    from bidaf.library import predict_examples

    examples = read_questions(input, passages=True, strict=strict, on_report=say_report)
    answerer = load(device)
    _say_model(answerer)
    with _bar(len(examples), sum(len(example.passages) for example in examples)) as bar:
        answers = predict_examples(answerer, examples, n_best=n_best, on_progress=bar.update)
    if output is None:
        print_json(answers)
    else:
        write_output(output, to_json(answers))


def _predict_lines(
    input: str,
    output: Path,
    load: Callable[[str], Answerer],
    n_best: int | None,
    device: str,
    *,
    resume: bool,
    strict: bool,
) -> None:
    from bidaf.data.questions import is_stdin, stream_questions
    from bidaf.distributed import device_of, joined
    from bidaf.files.growing import growing_file
    from bidaf.inference.stream import origin_of, stream_records, to_lines

    if is_stdin(input):
        raise UsageError("the questions are read twice to write JSON lines: name a file of them, or another output")
    with joined(device) as group, growing_file(output, resume=resume) if group.is_first else nullcontext() as file:
        chosen = device_of(group, device)
        questions = stream_questions(input, strict=strict, on_report=say_report if file else lambda report: None)
        answerer = load(str(chosen))
        if file is not None:
            _say_model(answerer)
            options = {
                "n_best": n_best,
                "max_answer_tokens": answerer.max_answer_tokens,
                "no_answer_threshold": answerer.no_answer_threshold,
            }
            file.begin({"input": questions.source.identity, **origin_of(answerer.loaded), "options": options})
        start = group.from_first(file.num_lines if file else 0)
        with _bar(len(questions), questions.num_passages) as bar, _saying_how_to_continue(file):
            chunks = stream_records(answerer, questions, n_best, start=start, group=group, on_progress=bar.update)
            for records in chunks:
                assert file is not None  # rank 0 alone has records
                file.append(to_lines(records), len(records))
        if file is not None:
            if file.num_lines != len(questions):
                raise DataError(f"{input}: changed while it was read; delete {file.partial} to start over")
            file.complete()


@contextmanager
def _saying_how_to_continue(file: GrowingFile | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if file is not None and file.num_lines:
            say(f"{file.num_lines:,} answers are kept; continue with --resume")
        raise


def _bar(questions: int, passages: int) -> Bar:
    return questions_bar(passages, "question" if passages == questions else "passage")


def _say_model(answerer: Answerer) -> None:
    say_notes([answerer.loaded])
    say(f"answering with the {answerer.loaded.description}")
