"""The `bidaf` command: its subcommands, and how each error ends it."""

from __future__ import annotations

import os
import signal
import sys
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, TextIO, cast

import typer
from typer.core import TyperGroup

from bidaf.cli.ask import ask_command
from bidaf.cli.compare import compare_command
from bidaf.cli.config import config_app
from bidaf.cli.ensemble import ensemble_command
from bidaf.cli.eval import eval_command
from bidaf.cli.experiment import experiment_command
from bidaf.cli.explain import explain_command
from bidaf.cli.export import export_command
from bidaf.cli.predict import predict_command
from bidaf.cli.prepare import prepare_command
from bidaf.cli.report import report_command
from bidaf.cli.runs import runs_app
from bidaf.cli.score import score_command
from bidaf.cli.serve import serve_command
from bidaf.cli.sweep import sweep_command
from bidaf.cli.train import train_command
from bidaf.errors import BidafError, UsageError
from bidaf.messages import LossyStream, say
from bidaf.version import __version__


class Commands(TyperGroup):
    """The subcommands. Interrupts and broken pipes, which typer would handle itself, reach `main`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command and flush what it printed."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise Interruption("interrupted", signal.SIGINT) from None
        except Terminated:
            raise Interruption("terminated", signal.SIGTERM) from None
        except BrokenPipeError:  # of stdout: stderr drops what can't be written, and outputs raise `BidafError`
            raise typer.Exit from None  # the reader (`| head`) has ended
        return result


class Terminated(SystemExit):
    """SIGTERM, raised as Python raises Ctrl-C: half-written files are removed on the way out."""


class Interruption(BidafError):
    """Ctrl-C or SIGTERM where there is nothing to save; the exit code is 128 plus the signal's number."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


app = typer.Typer(
    cls=Commands,
    help="BiDAF on SQuAD with an exponential moving average of all weights.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    prepare_command,
    train_command,
    eval_command,
    predict_command,
    ask_command,
    score_command,
    compare_command,
    sweep_command,
    ensemble_command,
    experiment_command,
    export_command,
    report_command,
    explain_command,
    serve_command,
):
    # The overview shows the first line of the command's module.
    summary = (sys.modules[command.__module__].__doc__ or "").partition(": ")[2]
    app.command(command.__name__.removesuffix("_command"), short_help=summary)(command)
app.add_typer(runs_app, name="runs")
app.add_typer(config_app, name="config")

# The base class of all usage errors, which typer does not export.
USAGE_ERRORS: type[Exception] = typer.BadParameter.__mro__[1]

QUIET = ("--quiet", "--silent", "--no-progress")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"bidaf {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """BiDAF on SQuAD with an exponential moving average of all weights."""
    if _is_one_of_several() and "LOCAL_RANK" in os.environ and ctx.invoked_subcommand not in ("train", "predict"):
        raise UsageError(f"bidaf {ctx.invoked_subcommand} runs in one process: start it without torchrun")


def main() -> None:
    """Run the command line; every expected error is one message and its exit code, without a traceback."""
    _make_streams_ready()
    signal.signal(signal.SIGTERM, _terminate)
    # PyTorch reads it at its first allocation: large tensors in large pages. With small pages, a fifth of a step on a
    # CPU is spent on page faults.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        code = app(prog_name="bidaf", standalone_mode=False)
    except BidafError as error:
        code = _fail(error, str(error), error.exit_code)
    except USAGE_ERRORS as error:
        code = _fail(error, _explain_usage(error), 2)
    except Exception as error:
        if (message := _explain(error)) is None:
            raise
        code = _fail(error, message, 1)
    _give_up_lost_stdout()
    sys.exit(code)


def _make_streams_ready() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: `>&-`
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper) and mode == "w":  # names may hold what the terminal's encoding can't
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = cast(TextIO, LossyStream(sys.stderr))


def _give_up_lost_stdout() -> None:
    """Keep the interpreter from flushing at exit what can't be written: that would change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(128 + number)  # the exit code even where it is not caught


def _explain_usage(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "bidaf"
    if type(error).__name__ == "NoSuchOption":
        if error.option_name in QUIET:
            return (
                f"no option {error.option_name}: results are on stdout and messages on stderr, so 2>/dev/null is quiet"
            )
        # The parser suggests names that share a few letters; only a misspelling deserves a hint.
        error.possibilities = get_close_matches(error.option_name, error.possibilities or (), cutoff=0.75)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.ctx.get_help())
        return f"no command; see {command} --help"
    return f"{error.format_message().rstrip('.')}; see {command} --help"


def _explain(error: Exception) -> str | None:
    """The message for a failure of the machine rather than of the program; None for any other."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error):
        return (
            "out of memory; lower training.batch_size, raise training.accumulate, or lower evaluation.batch_tokens "
            "(with --set)"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None


def _fail(error: BaseException, message: str, code: int) -> int:
    if _is_one_of_several():
        from bidaf.distributed import speaks

        if not speaks(error):
            return code
    say(f"error: {message}")
    return code


def _is_one_of_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1"
