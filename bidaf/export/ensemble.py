"""Writing an ensemble: one folder with an export of each member."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from bidaf.data.vocabulary import VECTORS_FILE, VOCABULARY_FILE
from bidaf.errors import BidafError, UsageError
from bidaf.evaluation.metrics import METRIC_LABELS
from bidaf.export.write import check_export, write_parts
from bidaf.files.reading import sha256_of
from bidaf.files.writing import claim_folder, put_folder, write_json, write_text
from bidaf.inference.ensemble import Ensemble
from bidaf.inference.ensemble_folder import ENSEMBLE, MEMBERS, MOST_MEMBERS, EnsembleInfo, MemberInfo, member_folder
from bidaf.inference.exported import CARD, INFO
from bidaf.inference.score_ensemble import ScoredEnsemble
from bidaf.version import __version__

RULES = {
    "sum": "the answer with the highest sum of confidences over the members, as in the paper",
    "product": "the span with the highest product of probabilities over the members",
}


def export_ensemble(scored: ScoredEnsemble, folder: Path) -> None:
    """Write the models of a scored ensemble to a new folder.

    Raises `UsageError` for n-best files among the members and for a folder that is not empty, `BidafError` for what
    can't be written.
    """
    check_export(folder, "safetensors")
    if (ensemble := scored.ensemble) is None:
        raise UsageError("an n-best file can't be exported: it holds answers and no model; name models alone")
    if len(ensemble.members) > MOST_MEMBERS:
        raise UsageError(f"an ensemble of more than {MOST_MEMBERS} models can't be exported")
    try:
        with claim_folder(folder) as unfinished:
            info = EnsembleInfo(
                version=__version__,
                rule=ensemble.rule,
                members=_write_members(ensemble, unfinished),
                no_answer_threshold=scored.score.no_answer_threshold,
                scores=scored.score.scores,
                data=scored.data,
                questions=scored.score.questions,
            )
            write_text(unfinished / CARD, ensemble_card(info))
            write_json(unfinished / ENSEMBLE, info.model_dump())
            if not put_folder(unfinished, folder):
                raise UsageError(f"{folder} was written by another process in the meantime; name a new folder")
    except (OSError, SafetensorError) as error:
        raise BidafError(f"the ensemble {folder} can't be written: {error}") from None


def _write_members(ensemble: Ensemble, folder: Path) -> list[MemberInfo]:
    (folder / MEMBERS).mkdir()
    written: dict[str, Path] = {}
    members = []
    for number, (name, member) in enumerate(zip(ensemble.names, ensemble.members, strict=True)):
        own = member_folder(folder, number)
        own.mkdir()
        files = write_parts(member, own).files
        for shared in (VOCABULARY_FILE, VECTORS_FILE):  # equal ones take their space once, where links can be made
            first = written.setdefault(files[shared], own / shared)
            if first != own / shared:
                with suppress(OSError):
                    _link(first, own / shared)
        members.append(MemberInfo(name=name, checksum=sha256_of(own / INFO)))
    return members


def _link(existing: Path, path: Path) -> None:
    temporary = path.with_suffix(".link")
    os.link(existing, temporary)
    temporary.replace(path)


def ensemble_card(info: EnsembleInfo) -> str:
    """Markdown on what an ensemble is, and how it is used."""
    names = "\n".join(f"| {number} | {member.name} |" for number, member in enumerate(info.members, 1))
    scores = ", ".join(f"{METRIC_LABELS.get(name, name)} {value:.2f}" for name, value in info.scores.items())
    return f"""# BiDAF ensemble of {len(info.members)} models

Answers with {RULES[info.rule]}. {scores} on {info.data} ({info.questions:,} questions).

| folder in members/ | model |
|---|---|
{names}

    bidaf ask --model THIS_FOLDER --context passage.txt --question "Who wrote it?"
    bidaf predict questions.json --model THIS_FOLDER

or in Python `bidaf.load("THIS_FOLDER")`. Each member is an export of its own: its README.md says what it was trained on
and under which licences that is. Made by bidaf {info.version}.
"""
