"""What a run writes while it trains: lines of metrics, answers and their scores, checkpoints, the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bidaf.data.features import Features
from bidaf.evaluation.evaluator import Answered
from bidaf.evaluation.squad_v1 import score_answers
from bidaf.files.writing import write_json, write_text
from bidaf.runs.checkpoint import checkpoint_name, save_checkpoint
from bidaf.runs.folder import Run
from bidaf.runs.layout import BEST, LAST, N_BEST, SNAPSHOTS
from bidaf.runs.snapshots import SnapshotWriter
from bidaf.training.trainer import Scores, Trainer

Answers = dict[str, dict[str, list[Answered]]]
"""Weights (`raw`, `ema`) -> question -> its best answers, most probable first."""

Report = Callable[[Path], object]


class Record:
    """Writes into a run's folder. Without a run, as in all processes of several but the first, it writes nothing."""

    def __init__(self, run: Run | None, report: Report, trainer: Trainer) -> None:
        self.run = run
        settings, known = trainer.config.ema.snapshots, trainer.state.snapshots
        self._snapshots = SnapshotWriter(run.folder / SNAPSHOTS, settings, known) if run and settings else None
        self._report = report
        self._report_failed = False

    def note(self, **event: Any) -> None:
        """A line of metrics.jsonl."""
        if self.run is not None:
            self.run.log_event(**event)

    def scores(self, answers: Answers, features: Features, step: int) -> Scores:
        """EM and F1 of each set of weights; the predictions they are of go into the folder."""
        if self.run is None:
            return {}
        scores: Scores = {}
        for weights, given in answers.items():
            predictions = {question: best[0].text for question, best in given.items()}
            write_json(self.run.predictions / f"step-{step:06d}.{weights}.json", predictions)
            score = score_answers(dict(zip(features.ids, features.answers, strict=True)), predictions)
            scores[weights] = {"exact_match": score.exact_match, "f1": score.f1}
        return scores

    def keep_n_best(self, answers: Answers, step: int) -> None:
        """The answers of the best evaluation as [start, end, probability], in place of those of the one before."""
        if self.run is None:
            return
        spans = {
            weights: {
                question: [[best.start, best.end, round(best.probability, 6)] for best in given]
                for question, given in of_all.items()
            }
            for weights, of_all in answers.items()
        }
        text = json.dumps({"step": step, "answers": spans}, separators=(",", ":"))
        write_text(self.run.predictions / N_BEST, text)

    def take_snapshot(self, trainer: Trainer) -> None:
        """Keep a copy of the shadow, if one of this step is due."""
        if self._snapshots and trainer.ema and self._snapshots.is_due(trainer.state.step):
            self._snapshots.take(trainer.state.step, trainer.ema.steps, trainer.ema.shadow)

    def save(self, trainer: Trainer) -> None:
        """Save a checkpoint and prune old ones."""
        if self.run is None:
            return
        state, config = trainer.state, trainer.config
        if self._snapshots:
            state.snapshots = self._snapshots.flush(state.step)
        folder = self.run.checkpoints / checkpoint_name(state.step)
        self.run.settle()
        save_checkpoint(
            folder,
            model=trainer.model,
            ema=trainer.ema,
            optimizer=trainer.optimizer,
            config=config,
            state={
                **asdict(state),
                "snapshots": [record.model_dump() for record in state.snapshots],
                "features": trainer.prepared_key,
            },
        )
        self.run.link(LAST, folder)
        if state.best_step == state.step:
            self.run.link(BEST, folder)
        self.run.prune(config)

    def close(self) -> None:
        """Wait for what is still being written."""
        if self._snapshots:
            self._snapshots.close()

    def report(self, say: Callable[[str], None]) -> None:
        """Write the page; that it can't be is told once, and ends nothing."""
        if self.run is None:
            return
        try:
            self._report(self.run.folder)
        except Exception as error:
            if not self._report_failed:
                say(f"the report can't be written: {error}; training goes on")
            self._report_failed = True
