"""What answers under one name or several: a model, or an ensemble of models with one rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bidaf.config import Config
from bidaf.data.features import Features
from bidaf.errors import DataError, UsageError
from bidaf.evaluation.ensemble import RULES, Rule
from bidaf.inference.ensemble_folder import EnsembleInfo, is_ensemble, member_folder, open_ensemble
from bidaf.inference.loading import LoadedModel, load_model, load_weight_sets
from bidaf.messages import say
from bidaf.model.embedding import WordEmbedding
from bidaf.runs.finding import find_run
from bidaf.runs.layout import CHECKPOINTS, EXPERIMENT, find_runs
from bidaf.runs.summary import summarize


@dataclass(frozen=True)
class Ensemble:
    """Models that answer together, read alike but may differ in vocabulary, and the rule that joins their answers."""

    members: tuple[LoadedModel, ...]
    names: tuple[str, ...]
    """Of the members, no two alike."""
    rule: Rule
    folder: Path | None = None
    """Where it lies, if it was exported."""
    info: EnsembleInfo | None = None
    """What its folder says of it."""

    @property
    def config(self) -> Config:
        """All settings of the first member."""
        return self.members[0].config

    @property
    def weights(self) -> str:
        """The names of the members' weight sets, each once."""
        return ", ".join(dict.fromkeys(member.weights for member in self.members))

    @property
    def origin(self) -> Path | str:
        """Its folder, or the members' names."""
        return self.folder or " + ".join(self.names)

    @property
    def description(self) -> str:
        """What it is, in words."""
        where = f" {self.folder}" if self.folder else ""
        return f"ensemble{where} of {len(self.members)} models ({self.rule} rule): {', '.join(self.names)}"

    @property
    def step(self) -> int:
        """The step of the member that was trained for the most steps."""
        return max(member.step for member in self.members)

    @property
    def no_answer_threshold(self) -> float | None:
        """The probability of no answer above which that is the answer, chosen when the ensemble was scored."""
        return self.info.no_answer_threshold if self.info else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about synthesised weights."""
        return tuple(note for member in self.members for note in member.notes)

    def dev_features(self) -> Features | None:
        """The dev questions of the first member that has them, in that member's rows."""
        return next((found for member in self.members if (found := member.dev_features()) is not None), None)


Loaded = LoadedModel | Ensemble


def load_named(
    name: str | Sequence[str] | None,
    *,
    weights: str | None = None,
    at: int | None = None,
    allow_error: bool = False,
    rule: Rule | None = None,
    device: torch.device,
) -> Loaded:
    """The model of this name, as `load_model` finds it; the ensemble of a folder; or that of several names.

    `rule` is for several names and by default `sum`. Raises what `load_model` raises, `UsageError` for a rule or
    weights that an ensemble's folder settles itself, and `DataError` for members that read text differently.
    """
    if rule not in (None, *RULES):
        raise UsageError(f"no rule {rule!r}; choose {' or '.join(RULES)}")
    if name is not None and not isinstance(name, str):
        if at is not None:
            raise UsageError("a step is that of one model; name the checkpoints themselves")
        if len(names := expand(name)) < 2:
            raise UsageError(f"an ensemble takes two members or more, found {len(names)}")
        return load_members(names, [weights] * len(names), rule=rule or "sum", allow_error=allow_error, device=device)
    folder = find_run(name)
    if rule is not None:
        raise UsageError("a rule joins several models: name them in a list; an ensemble's folder holds its own rule")
    if not is_ensemble(folder):
        return load_model(name, weights=weights, at=at, allow_error=allow_error, device=device)
    if weights is not None or at is not None:
        raise UsageError(
            f"{folder} is an ensemble, and its members hold one weight set each; leave out --weights and --at"
        )
    info = open_ensemble(folder)
    members = [load_model(str(member_folder(folder, number)), device=device) for number in range(len(info.members))]
    ensemble = _ensemble(members, [member.name for member in info.members], info.rule)
    return replace(ensemble, folder=folder, info=info)


def load_named_sets(
    name: str | None,
    names: Sequence[str] | None,
    device: torch.device,
    *,
    at: int | None = None,
    allow_error: bool = False,
) -> Sequence[Loaded]:
    """Several weight sets of the model of this name, as `load_weight_sets` finds them, or an ensemble by itself."""
    if is_ensemble(find_run(name)):
        return [load_named(name, weights=names[0] if names else None, at=at, device=device)]
    return load_weight_sets(name, names, device, at=at, allow_error=allow_error)


def load_members(
    names: Sequence[str],
    weights: Sequence[str | None],
    *,
    rule: Rule,
    allow_error: bool = False,
    device: torch.device,
) -> Ensemble:
    """An ensemble of one model or more, each with its weight set; `UsageError` for one that is named twice."""
    members = [
        load_model(name, weights=wanted, allow_error=allow_error, device=device)
        for name, wanted in zip(names, weights, strict=True)
    ]
    return _ensemble(members, [_name(member) for member in members], rule)


def expand(names: Sequence[str]) -> list[str]:
    """The names themselves, with each experiment's folder replaced by its runs, and each ensemble's by its members.

    Runs of an experiment that are not finished are reported. Raises `DataError` for an experiment without a run.
    """
    found: list[str] = []
    for name in names:
        folder = find_run(name)
        if is_ensemble(folder):
            found += [str(member_folder(folder, number)) for number in range(len(open_ensemble(folder).members))]
        elif (folder / EXPERIMENT).is_file():
            if not (runs := find_runs(folder)):
                raise DataError(f"the experiment {folder} has no run yet")
            for run in map(summarize, runs):
                if run.status != "finished":
                    say(f"warning: {run.folder} is a member, and not finished ({run.status} at step {run.step:,})")
            found += map(str, runs)
        else:
            found.append(name)
    return found


def one_each(weights: Sequence[str], members: int) -> Sequence[str | None]:
    """A weight set for each member: None for its own default. Raises `UsageError` unless they are one or as many."""
    if len(weights) in (0, 1):
        return [weights[0] if weights else None] * members
    if len(weights) != members:
        raise UsageError(f"--weights takes one name for all members or one for each: {members}, not {len(weights)}")
    return weights


def _ensemble(members: Sequence[LoadedModel], names: Sequence[str], rule: Rule) -> Ensemble:
    first = members[0]
    for number, member in enumerate(members):
        if any(_same(member, other) for other in members[:number]):
            raise UsageError(f"the {member.description} is a member twice; name it once")
        if differences := _differences(first, member):
            raise DataError(
                f"{first.origin} and {member.origin} can't answer together: they differ in {'; '.join(differences)}"
            )
    _share_vectors(members)
    return Ensemble(tuple(members), tuple(_unique(names)), rule)


def _same(a: LoadedModel, b: LoadedModel) -> bool:
    return a.weights == b.weights and a.origin.resolve() == b.origin.resolve()


def _differences(a: LoadedModel, b: LoadedModel) -> list[str]:
    """Settings by which two models split text into different words, or only one of them knows "no answer"."""
    names = ["language", "second_split"]
    if a.config.data.second_split and b.config.data.second_split:  # otherwise questions have no second split either
        names.append("split_questions")
    pairs = {f"data.{name}": (getattr(a.config.data, name), getattr(b.config.data, name)) for name in names}
    pairs["model.no_answer"] = a.config.model.no_answer, b.config.model.no_answer
    return [f"{name} ({ours} and {theirs})" for name, (ours, theirs) in pairs.items() if ours != theirs]


def _share_vectors(members: Sequence[LoadedModel]) -> None:
    """Hold equal word vectors in memory once: they are far larger than all the weights."""
    kept: list[torch.Tensor] = []
    for member in members:
        for module in member.model.modules():
            if isinstance(module, WordEmbedding):
                module.fixed = next((each for each in kept if torch.equal(each, module.fixed)), module.fixed)
                kept.append(module.fixed)


def _name(member: LoadedModel) -> str:
    """The folder of the run or export."""
    folder = member.origin.resolve()
    return (folder.parent.parent if folder.parent.name == CHECKPOINTS else folder).name


def _unique(names: Sequence[str]) -> list[str]:
    """The names, those that are alike with their number among the members."""
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]
