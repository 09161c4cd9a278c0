"""What a run writes while it trains: metrics, answers and their scores, checkpoints, the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bidaf.data.features import Features
from bidaf.ema.average import trained_weights
from bidaf.ema.synthesis import Target
from bidaf.evaluation.evaluator import Prediction
from bidaf.evaluation.no_answer import ScoredAnswers, score_predictions
from bidaf.runs.averages import Average, decays_of, readers_of, sources_of, synthesize
from bidaf.runs.checkpoint_folders import checkpoint_name
from bidaf.runs.folder import Run
from bidaf.runs.layout import BEST, CHECKPOINTS, LAST, PREDICTIONS, SNAPSHOTS, n_best_file, predictions_file
from bidaf.runs.snapshots import SnapshotWriter
from bidaf.training.tensorboard import EventFiles
from bidaf.training.trainer import Trainer

Answers = dict[str, dict[str, list[Prediction]]]
"""Weight set -> question -> its best answers, most probable first."""

Report = Callable[[Path], object]


class RunWriter:
    """Writes into a run's folder. Without a run, as in every process but rank 0, it writes nothing."""

    def __init__(self, run: Run | None, report: Report, trainer: Trainer) -> None:
        self.run = run
        settings, known = trainer.config.ema.snapshots, trainer.state.snapshots
        self._snapshots = SnapshotWriter(run.files, settings, known) if run and settings else None
        self._events = EventFiles(run) if run and trainer.config.training.tensorboard else None
        self._report = report
        self._report_failed = False

    def event(self, **event: Any) -> None:
        """Append a line to metrics.jsonl."""
        if self.run is not None:
            self.run.log_event(**event)
        if self._events:
            self._events.follow()

    def score(self, predictions: Answers, features: Features, step: int) -> dict[str, ScoredAnswers]:
        """What each weight set answers, and its score; the answers are written to predictions/."""
        if self.run is None:
            return {}
        scored = {name: score_predictions(features, given) for name, given in predictions.items()}
        for name, each in scored.items():
            texts = {question: best.text for question, (best, *_) in each.answers.items()}
            self.run.files.write_json(f"{PREDICTIONS}/{predictions_file(step, name)}", texts)
        return scored

    def keep_n_best(self, scored: Mapping[str, ScoredAnswers], step: int) -> None:
        """The answers of an evaluation better than those before it, as [start, end, probability]."""
        if self.run is None:
            return
        spans = {
            name: {
                question: [[best.start, best.end, round(best.probability, 6)] for best in given]
                for question, given in each.answers.items()
            }
            for name, each in scored.items()
        }
        text = json.dumps({"step": step, "answers": spans}, separators=(",", ":"))
        self.run.files.write_text(f"{PREDICTIONS}/{n_best_file(step)}", text)

    def take_snapshot(self, trainer: Trainer) -> None:
        """Keep a copy of the shadow, if one of this step is due."""
        if self._snapshots is None or trainer.ema is None:
            return
        self._snapshots.advance()
        if self._snapshots.is_due(trainer.state.step):
            self._snapshots.take(trainer.state.step, trainer.ema.steps, trainer.ema.shadow)

    def synthesize(self, trainer: Trainer, targets: Sequence[Target], max_error: float) -> list[Average]:
        """Averages of the run as it is now, from the snapshots held so far; those longer than the run are left out."""
        if self._snapshots is None or trainer.ema is None or self.run is None:
            return []
        ema, folder = trainer.ema, self.run.folder / SNAPSHOTS
        decays = decays_of(ema.decay, ema.warmup, ema.steps)
        snapshots = readers_of(folder, self._snapshots.flush(trainer.state.step))
        sources = sources_of(decays, snapshots, lambda: ema.shadow, lambda: dict(trained_weights(trainer.model)))
        fitting = [target for target in targets if target.kind != "tail" or target.percent or target.value <= ema.steps]
        return synthesize(fitting, sources, decays, max_error=max_error)[0]

    def save(self, trainer: Trainer) -> None:
        """Save a checkpoint and prune old ones."""
        if self.run is None:
            return
        state = trainer.state
        if self._snapshots:
            state.snapshots = self._snapshots.flush(state.step)
        folder = self.run.files.path(f"{CHECKPOINTS}/{checkpoint_name(state.step)}")
        self.run.settle()
        trainer.save(folder)
        self.run.link(LAST, folder)
        if state.best_step == state.step:
            self.run.link(BEST, folder)
        self.run.prune(trainer.config)

    def close(self) -> None:
        """Wait for what is still being written."""
        if self._snapshots:
            self._snapshots.close()
        if self._events:
            self._events.close()

    def report(self, say: Callable[[str], None]) -> None:
        """Write the report. That it can't be written is reported once, and ends nothing."""
        if self.run is None:
            return
        try:
            self._report(self.run.folder)
        except Exception as error:
            if not self._report_failed:
                say(f"the report can't be written: {error}; training continues")
            self._report_failed = True
