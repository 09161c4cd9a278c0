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
from bidaf.runs.checkpoint import checkpoint_name, save_checkpoint
from bidaf.runs.folder import Run
from bidaf.runs.layout import BEST, CHECKPOINTS, LAST, N_BEST, PREDICTIONS
from bidaf.training.trainer import Scores, Trainer

Answers = dict[str, dict[str, list[Answered]]]
"""Weights (`raw`, `ema`) -> question -> its best answers, most probable first."""

Report = Callable[[Path], object]


class Record:
    """Writes into a run's folder. Without a run, as in all processes of several but the first, it writes nothing."""

    def __init__(self, run: Run | None, report: Report) -> None:
        self.run = run
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
            self.run.files.write_json(f"{PREDICTIONS}/step-{step:06d}.{weights}.json", predictions)
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
        self.run.files.write_text(f"{PREDICTIONS}/{N_BEST}", text)

    def save(self, trainer: Trainer) -> None:
        """A checkpoint of now; old ones go."""
        if self.run is None:
            return
        state, config = trainer.state, trainer.config
        folder = self.run.files.path(f"{CHECKPOINTS}/{checkpoint_name(state.step)}")
        self.run.settle()
        save_checkpoint(
            folder,
            model=trainer.model,
            ema=trainer.ema,
            optimizer=trainer.optimizer,
            config=config,
            state={**asdict(state), "features": trainer.prepared_key},
        )
        self.run.link(LAST, folder)
        if state.best_step == state.step:
            self.run.link(BEST, folder)
        self.run.prune(config.training.keep_last, config.training.keep_best)

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
