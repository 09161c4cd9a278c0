"""Averages made during training: those that the settings name, and the map of the scores of all widths.

They are synthesised from the snapshots held at that step. The map takes at most 5 % of a run's time: what it costs is
counted in questions, not in seconds, so that a run draws the same map every time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from bidaf.config import MapConfig
from bidaf.ema.synthesis import Target
from bidaf.evaluation.evaluator import Prediction
from bidaf.evaluation.no_answer import score_predictions
from bidaf.evaluation.questions import drawn_evenly
from bidaf.runs.averages import MAX_ERROR, MAX_UPDATES, Average
from bidaf.training.run_writer import RunWriter
from bidaf.training.scored_sets import ScoredSet, synthesised_set
from bidaf.training.trainer import Trainer

HALF_LIVES, SHORTEST = 8, 10
"""Of the map: how many, and the shortest, in steps; the longest is half the run."""
SCORING_SHARE = 0.04
"""Of a run's time, for scoring the map; synthesis takes less than 1 % more."""
ANSWERING_COST = 1 / 3
"""Cost of answering a question, in training questions (2 CPU threads, squad_adam.yaml: 298 and 93 per second)."""

Answer = Callable[[str, Sequence[int]], dict[str, list[Prediction]]]
"""Name of the weight set that the model holds, numbers of dev questions -> their answers by id."""


class Averages:
    """The averages of a run in training. Each process has one; all of them work with what rank 0 synthesises."""

    def __init__(self, trainer: Trainer, writer: RunWriter, answer: Answer, say: Callable[[str], None]) -> None:
        self._trainer = trainer
        self._writer = writer
        self._answer = answer
        self._say = say
        self._settings = trainer.config.evaluation

    def named_sets(self) -> list[ScoredSet]:
        """Those of `evaluation.averages` that the snapshots allow now; reports the others."""
        targets = [Target.parse(name) for name in self._settings.averages]
        if not targets or self._trainer.ema is None:
            return []
        if self._trainer.ema.steps > MAX_UPDATES:
            names = ", ".join(map(str, targets))
            self._say(f"{names} are not scored: averages of more than {MAX_UPDATES:,} updates can't be synthesised")
            return []
        averages = {average.name: average for average in self._synthesize(targets)}
        for name in map(str, targets):
            if name not in averages:
                self._say(f"{name} is not scored: it is longer than the run so far")
            elif averages[name].tensors is None:
                error = averages[name].predicted_error
                self._say(f"{name} is not scored: its predicted error is {error:.1%}, above {MAX_ERROR:.0%}")
        run = self._writer.run.folder.name if self._writer.run else ""  # only rank 0 saves
        return [synthesised_set(self._trainer.ema, each, run) for each in averages.values() if each.tensors is not None]

    def map_column(self) -> dict[str, Any] | None:
        """Scores of each half-life on one sample of dev questions, as metrics.jsonl has them; None when not due."""
        settings, ema, features = self._settings.map, self._trainer.ema, self._trainer.dev_source.features
        if settings is None or ema is None or not map_is_due(settings, self._trainer):
            return None
        began = time.perf_counter()
        sample = drawn_evenly(features.titles, settings.questions)
        averages = self._synthesize(map_targets(self._trainer.total_steps))
        scores: dict[str, list[float | None]] = {"exact_match": [], "f1": []}
        for average in averages:
            metrics: dict[str, float] = {}
            if average.tensors is not None:
                with ema.applied(average.tensors):
                    answers = self._answer(average.name, sample)
                metrics = score_predictions(features, answers).metrics
            for name, values in scores.items():
                values.append(metrics.get(name))
        return {
            "half_lives": [Target.parse(average.name).value for average in averages],
            "predicted_error": [average.predicted_error for average in averages],
            **scores,
            "questions": len(sample),
            "seconds": round(time.perf_counter() - began, 3),
        }

    def _synthesize(self, targets: Sequence[Target]) -> list[Average]:
        """What rank 0, which has the snapshots, makes of them; the same in every process."""
        group = self._trainer.group
        made = self._writer.synthesize(self._trainer, targets, MAX_ERROR)
        averages = []
        for number, each in enumerate(group.from_first([asdict(replace(average, tensors=None)) for average in made])):
            own = made[number].tensors if made else None
            averages.append(Average(**{**each, "tensors": group.tensors_from_first(own or {}) or None}))
        return averages


def map_targets(total_steps: int) -> list[Target]:
    """The half-lives of a run's map, evenly spaced on a scale of factors."""
    longest = max(SHORTEST, total_steps // 2)
    factor = (longest / SHORTEST) ** (1 / (HALF_LIVES - 1))
    steps = dict.fromkeys(round(SHORTEST * factor**number) for number in range(HALF_LIVES))
    return [Target("half-life", float(each)) for each in steps]


def map_is_due(settings: MapConfig, trainer: Trainer) -> bool:
    """Whether the share of time for the map, since the evaluation before, pays for a column now."""
    if trainer.config.ema.snapshots is None or trainer.state.updates > MAX_UPDATES:
        return False
    cost = HALF_LIVES * min(settings.questions, len(trainer.dev_source)) * ANSWERING_COST
    per_step = SCORING_SHARE * trainer.config.training.batch_size
    return trainer.state.step * per_step // cost > trainer.state.evaluated_step * per_step // cost
