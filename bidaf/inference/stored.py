"""The answers of a run's models: those its evaluations stored, so that a comparison does not make them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bidaf.data.features import Features
from bidaf.data.squad import Example
from bidaf.device import choose_device
from bidaf.ema.synthesis import canonical
from bidaf.evaluation.predictions import read_predictions
from bidaf.evaluation.questions import GoldQuestion, questions_of_features
from bidaf.inference.ensemble import load_named
from bidaf.inference.ensemble_folder import is_ensemble
from bidaf.inference.ensemble_predictor import predictor_for
from bidaf.inference.exported import is_export
from bidaf.inference.loading import default_weights, find_checkpoint, find_features
from bidaf.messages import say
from bidaf.progress import bar
from bidaf.runs.checkpoint import Checkpoint, open_or_suggest
from bidaf.runs.finding import find_run
from bidaf.runs.layout import CHECKPOINTS, PREDICTIONS, predictions_file


@dataclass(frozen=True)
class StoredModel:
    """A checkpoint, an export or an ensemble, and one of its weight sets; loaded when it has to answer."""

    folder: Path
    weights: str | None
    checkpoint: Checkpoint | None
    """None for what was exported, which holds neither questions nor answers."""

    @classmethod
    def open(cls, name: str | None, weights: str | None) -> StoredModel:
        """What `load_named` finds under a name. Raises `DataError` where that is nothing."""
        folder = find_run(name)
        weights = canonical(weights) if weights else None
        if is_export(folder) or is_ensemble(folder):
            return cls(folder, weights, None)
        checkpoint = open_or_suggest(find_checkpoint(folder))
        return cls(checkpoint.folder, weights or default_weights(checkpoint), checkpoint)

    def __str__(self) -> str:
        """For people, such as `ema of runs/squad/checkpoints/step-000500`."""
        return f"{self.weights} of {self.folder}" if self.weights else str(self.folder)

    @cached_property
    def _dev(self) -> tuple[Features, list[GoldQuestion]] | None:
        if self.checkpoint is None:
            return None
        features = find_features(self.checkpoint).features("dev")
        return features, questions_of_features(features)

    def dev_questions(self) -> list[GoldQuestion] | None:
        """The dev questions of the run; None for an export."""
        return self._dev[1] if self._dev else None

    def answers(self, questions: Sequence[GoldQuestion], device: str, allow_error: bool) -> dict[str, str]:
        """Its answer to every question by id: stored ones where the questions are the run's own, else made now.

        `allow_error` as for `load_named`.
        """
        own = self._dev is not None and _same_texts(questions, self._dev[1])
        if own and (stored := self.stored_answers()) is not None:
            return stored
        loaded = load_named(
            str(self.folder), weights=self.weights, allow_error=allow_error, device=choose_device(device)
        )
        for note in loaded.notes:
            say(note)
        predictor = predictor_for(loaded)
        if own and self._dev:
            features = self._dev[0]
        else:
            features = predictor.features([Example(each.id, each.question, each.context, ()) for each in questions])
        with bar("answer", "question", len(features)) as progress:
            return {id: best.text for id, (best,) in predictor.answer(features, on_progress=progress.update).items()}

    def stored_answers(self) -> dict[str, str] | None:
        """The answers to the dev questions that the evaluation of this checkpoint left in its run; None without one."""
        checkpoints = self.folder.resolve().parent
        if self.checkpoint is None or checkpoints.name != CHECKPOINTS:
            return None
        path = checkpoints.parent / PREDICTIONS / predictions_file(self.checkpoint.step, str(self.weights))
        return read_predictions(path) if path.is_file() else None


def _same_texts(questions: Sequence[GoldQuestion], dev: Sequence[GoldQuestion]) -> bool:
    """Whether stored answers are answers to these: an id alone may name a changed question."""

    def texts(asked: Sequence[GoldQuestion]) -> list[tuple[str, str, str]]:
        return [(each.id, each.question, each.context) for each in asked]

    return texts(questions) == texts(dev)
