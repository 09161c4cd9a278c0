"""The `bidaf` command: its subcommands, and how each error ends it."""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from bidaf.cli.ask import ask_command
from bidaf.cli.config import config_app
from bidaf.cli.eval import eval_command
from bidaf.cli.explain import explain_command
from bidaf.cli.export import export_command
from bidaf.cli.predict import predict_command
from bidaf.cli.prepare import prepare_command
from bidaf.cli.report import report_command
from bidaf.cli.runs import runs_command
from bidaf.cli.score import score_command
from bidaf.cli.train import train_command
from bidaf.errors import BidafError, UsageError
from bidaf.version import __version__


class Commands(TyperGroup):
    """The subcommands, with the two ends that typer would take for its own brought to `main`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it printed has left the process, or has no reader, when this returns."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise Interruption("interrupted", signal.SIGINT) from None
        except Terminated:
            raise Interruption("terminated", signal.SIGTERM) from None
        except BrokenPipeError:
            # The reader (`| head`) has what it wanted; the interpreter must not try to flush the pipe again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from None
        return result


class Terminated(SystemExit):
    """SIGTERM, raised as Python raises Ctrl-C: what is half written is removed on the way out."""


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
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("prepare")(prepare_command)
app.command("train")(train_command)
app.command("eval")(eval_command)
app.command("predict")(predict_command)
app.command("ask")(ask_command)
app.command("score")(score_command)
app.command("export")(export_command)
app.command("report")(report_command)
app.command("explain")(explain_command)
app.command("runs")(runs_command)
app.add_typer(config_app, name="config")

# What a parser finds wrong has one ancestor, which typer itself does not name and keeps in changing places.
USAGE_ERRORS: type[Exception] = typer.BadParameter.__mro__[1]


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
    if _is_one_of_several() and "LOCAL_RANK" in os.environ and ctx.invoked_subcommand != "train":
        raise UsageError(f"bidaf {ctx.invoked_subcommand} runs in one process: start it without torchrun")


def main() -> None:
    """Run the command line; every foreseen error is one message and its exit code, without a traceback."""
    _make_streams_ready()
    signal.signal(signal.SIGTERM, _terminate)
    # PyTorch reads it at its first allocation: large tensors in large pages, or a fifth of a step on a CPU goes into
    # having the system hand out small ones.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        sys.exit(app(prog_name="bidaf", standalone_mode=False))
    except BidafError as error:
        sys.exit(_fail(error, str(error), error.exit_code))
    except USAGE_ERRORS as error:
        sys.exit(_fail(error, _explain_usage(error), 2))
    except Exception as error:
        if (message := _explain(error)) is None:
            raise
        sys.exit(_fail(error, message, 1))


def _make_streams_ready() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: `>&-`
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):  # names and settings may hold what the terminal's encoding can't
            stream.reconfigure(errors="backslashreplace")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(128 + number)  # the exit code even where nobody catches it


def _explain_usage(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "bidaf"
    # Without arguments the message is the help, and typer has printed that already.
    message = "no command" if type(error).__name__ == "NoArgsIsHelpError" else error.format_message().rstrip(".")
    return f"{message}; see {command} --help"


def _explain(error: Exception) -> str | None:
    """Failures of the machine rather than of the program."""
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
        from bidaf.training.distributed import speaks

        if not speaks(error):
            return code
    # Text from data may hold what a terminal can't show, or would obey: it comes escaped.
    shown = "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in message)
    print(f"error: {shown}", file=sys.stderr)
    return code


def _is_one_of_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1"
