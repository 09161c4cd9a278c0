"""TensorBoard's event files, RUN/tensorboard, written from the run's metrics.jsonl."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from bidaf.errors import UsageError
from bidaf.files.reading import open_regular
from bidaf.runs.events import Evaluation, Interval, load_event, parse_event
from bidaf.runs.folder import Run
from bidaf.runs.layout import METRICS, TENSORBOARD
from bidaf.runs.log import read_environment

TRAINING = ("loss", "grad_norm", "learning_rate", "ema_decay", "questions_per_second", "memory_bytes")


def require_tensorboard() -> None:
    """Raise `UsageError` where the package is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UsageError(
            "training.tensorboard needs the package tensorboard: pip install 'bidaf[tensorboard]', or set it to false"
        ) from None


class EventFiles:
    """Follows metrics.jsonl: what a session before this one wrote is written again, so that both say the same."""

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        run.files.remove(TENSORBOARD)
        self._log = run.folder / METRICS
        self._writer = SummaryWriter(str(run.files.make_folder(TENSORBOARD)))  # type: ignore[no-untyped-call]
        self._read = 0
        started = read_environment(run.folder).get("started")
        self._began = datetime.fromisoformat(started).timestamp() if isinstance(started, str) else 0.0
        self.follow()

    def follow(self) -> None:
        """Write what has come to the log since the last call."""
        with open_regular(self._log) as file:
            file.seek(self._read)
            for line in file:
                self._read += len(line)
                if event := load_event(line):
                    time = self._began + (event.get("elapsed") or 0.0)
                    for name, value in scalars(line):
                        self._writer.add_scalar(name, value, event["step"], walltime=time)  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Nothing more comes."""
        self._writer.close()  # type: ignore[no-untyped-call]


def scalars(line: bytes) -> Iterator[tuple[str, float]]:
    """The names and values of curves in one line of the log."""
    event = parse_event(line)
    if isinstance(event, Interval):
        values = load_event(line) or {}
        yield from ((f"train/{name}", values[name]) for name in TRAINING if values.get(name) is not None)
    if isinstance(event, Evaluation):
        for weights, metrics in event.scores.items():
            yield from ((f"dev/{metric}/{weights}", value) for metric, value in metrics.items())
        if event.distance is not None:
            yield "ema/distance", event.distance
