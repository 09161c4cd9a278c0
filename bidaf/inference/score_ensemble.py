"""What `bidaf ensemble` scores: models and n-best files by name, on one set of questions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bidaf.data.features import Features
from bidaf.data.questions import OnReport, read_questions, warn
from bidaf.data.squad import Example
from bidaf.device import choose_device
from bidaf.ema.average import mismatches, trained_weights
from bidaf.errors import UsageError
from bidaf.evaluation.ensemble import Candidates, EnsembleScore, Rule, number_of_ensembles, score_sizes
from bidaf.evaluation.n_best import NBestFile, read_n_best
from bidaf.evaluation.questions import GoldQuestion, questions_of_examples, questions_of_features
from bidaf.inference.ensemble import Ensemble, expand, load_members, one_each
from bidaf.inference.ensemble_predictor import EnsemblePredictor
from bidaf.inference.loading import LoadedModel
from bidaf.inference.predictor import Predictor
from bidaf.model.weights import load_weights
from bidaf.progress import bar


@dataclass(frozen=True)
class ScoredEnsemble:
    """An ensemble, and what it answers and scores."""

    score: EnsembleScore
    ensemble: Ensemble | None
    """Its models; None where a member is an n-best file."""
    questions: list[GoldQuestion]
    data: str
    """Where the questions are from."""


def score_ensemble(
    names: Sequence[str],
    *,
    weights: Sequence[str] = (),
    data: str | None = None,
    rule: Rule = "sum",
    device: str = "auto",
    allow_error: bool = False,
    strict: bool = False,
    on_report: OnReport = warn,
) -> ScoredEnsemble:
    """Score the ensemble of these members, and smaller ones, on `data` or on the dev questions of the first run.

    A name is that of a model, of an experiment or an ensemble (`expand`), or of an n-best file. `weights` names a
    weight set for all models, or one for each. Raises `UsageError` where that gives fewer than two members or no
    questions, `DataError` for members that can't be joined.
    """
    sources = _open(names)
    models = [each for each in sources if isinstance(each, str)]
    if weights and not models:
        raise UsageError("n-best files have no weight sets: leave out --weights")
    wanted = one_each(weights, len(models))
    # What is wrong with the questions should be known before a model is loaded.
    examples = None
    if data is not None:
        examples = read_questions(data, need_answers=True, strict=strict, on_report=on_report)
    predictor = None
    if models:
        loaded = load_members(models, wanted, rule=rule, allow_error=allow_error, device=choose_device(device))
        predictor = EnsemblePredictor(loaded)
    features, questions = _asked(predictor, examples, sources)
    of_files = {str(each.path): each.candidates(questions) for each in sources if isinstance(each, NBestFile)}
    of_models: dict[str, Candidates] = {}
    no_mean: Candidates | str = "n-best files have no weights"
    if predictor is not None and features is not None:
        with bar("answer", "question", len(features)) as shown:
            answered = predictor.candidates(features, on_progress=shown.update)
        of_models = dict(zip(predictor.loaded.names, answered, strict=True))
        if len(models) == len(sources):
            no_mean = _answers_of_mean(predictor, features)
    names_of_models = iter(of_models)
    in_order = [str(each.path) if isinstance(each, NBestFile) else next(names_of_models) for each in sources]
    found = {name: (of_files | of_models)[name] for name in in_order}
    with bar("combine", "ensemble", number_of_ensembles(len(found))) as shown:
        score = score_sizes(questions, found, rule, no_mean, on_progress=shown.update)
    return ScoredEnsemble(
        score=score,
        ensemble=predictor.loaded if predictor and len(models) == len(sources) else None,
        questions=questions,
        data=data or (", ".join(predictor.loaded.config.data.dev) if predictor else ""),
    )


def _open(names: Sequence[str]) -> list[str | NBestFile]:
    """Names of models, and n-best files. Raises `UsageError` for fewer than two, and for a file named twice."""
    files: dict[Path, str] = {}
    found: list[str | NBestFile] = []
    for name in names:
        path = Path(name)
        if path.is_dir() or not (path.is_file() or path.suffix in (".json", ".jsonl")):
            found += expand([name])
            continue
        if path.resolve() in files:
            raise UsageError(f"{path} is a member twice; name it once")
        files[path.resolve()] = name
        found.append(read_n_best(path))
    if len(found) < 2:
        raise UsageError(f"an ensemble takes two members or more, found {len(found)}")
    return found


def _asked(
    predictor: EnsemblePredictor | None, examples: Sequence[Example] | None, sources: Sequence[str | NBestFile]
) -> tuple[Features | None, list[GoldQuestion]]:
    """The questions as models read them (None without a model), and with their gold answers.

    Those without an answer are for members that know "no answer".
    """
    if examples is not None:
        knows = any(isinstance(each, NBestFile) and each.knows_no_answer for each in sources)
        if not (predictor.loaded.config.model.no_answer if predictor else knows):
            examples = [example for example in examples if not example.impossible]
        return predictor.features(examples) if predictor else None, questions_of_examples(examples)
    features = predictor.loaded.dev_features() if predictor else None
    if features is None:
        raise UsageError("n-best files and exports do not hold the questions: name these with --data")
    return features, questions_of_features(features)


def _answers_of_mean(predictor: EnsemblePredictor, features: Features) -> Candidates | str:
    """What the model with the mean of the members' weights answers, or why there is none."""
    mean = mean_weights(predictor.loaded.members)
    if isinstance(mean, str):
        return mean
    own = predictor.members(features)[0].features  # all have one vocabulary
    with bar("answer with the mean", "question", len(features)) as shown:
        return Predictor(mean).predict(own, on_progress=shown.update)


def mean_weights(members: Sequence[LoadedModel]) -> LoadedModel | str:
    """One model with the mean of the members' weights, or why they have none."""
    first = members[0]
    tensors = [dict(trained_weights(member.model)) for member in members]
    for member, own in zip(members, tensors, strict=True):
        if member.vocabulary != first.vocabulary:
            return "the members' vocabularies differ"
        if member.config.model != first.config.model or mismatches(tensors[0], own):
            return "the members' networks differ"
    mean = {name: torch.stack([own[name].double() for own in tensors]).mean(0).float() for name in tensors[0]}
    model = copy.deepcopy(first.model, {id(buffer): buffer for buffer in first.model.buffers()})
    load_weights(model, mean, "the mean of the weights")
    return replace(first, model=model, weights="mean")
