"""N-best files: several answers to each question, with offsets and probabilities (`bidaf predict --n-best`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bidaf.data.documents import Unreadable, read_documents
from bidaf.data.sources import Source
from bidaf.errors import DataError
from bidaf.evaluation.ensemble import Candidates
from bidaf.evaluation.evaluator import Prediction
from bidaf.evaluation.questions import GoldQuestion
from bidaf.files.reading import quote, show_place

SCHEMA = '{"id", "question", "answers": [{"text", "start", "end", "probability"}, ...]}'
LISTED_IDS = 3

Offset = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Answer(_Part):
    text: str
    start: Offset
    end: Offset
    probability: Probability


class _Record(_Part):
    id: str
    question: str | None = None
    answers: list[_Answer] = Field(min_length=1)
    no_answer: Probability | None = None
    """The probability of "no answer", which need not be among the answers."""

    @property
    def candidates(self) -> list[Prediction]:
        found = [Prediction(each.text, each.start, each.end, each.probability) for each in self.answers]
        if self.no_answer is not None and not any(each.is_empty for each in found):
            found.append(Prediction("", 0, 0, self.no_answer))
        return found


@dataclass(frozen=True)
class NBestFile:
    """The answers of a system that need not be a model of ours."""

    path: Path
    records: dict[str, _Record]

    @property
    def knows_no_answer(self) -> bool:
        """Whether it gives the probability of no answer."""
        return any(each.is_empty for record in self.records.values() for each in record.candidates)

    def candidates(self, questions: Sequence[GoldQuestion]) -> Candidates:
        """Its answers to these questions, by id.

        Raises `DataError` where the file does not answer all of them, or answers another question or another context
        under one of these ids.
        """
        if missing := [each.id for each in questions if each.id not in self.records]:
            listed = ", ".join(quote(id) for id in missing[:LISTED_IDS])
            more = ", ..." if len(missing) > LISTED_IDS else ""
            raise DataError(
                f"{self.path} answers other questions: {len(missing):,} of {len(questions):,} are not among them "
                f"({listed}{more})"
            )
        found = {}
        for each in questions:
            record = self.records[each.id]
            if record.question not in (None, each.question):
                raise DataError(f"{self.path} answers other questions: {quote(each.id)} asks something else there")
            for answer in record.answers:
                if each.context[answer.start : answer.end] != answer.text:
                    raise DataError(
                        f"{self.path} answers other questions: the context of {quote(each.id)} does not hold "
                        f"{quote(answer.text)} at its offsets"
                    )
            found[each.id] = record.candidates
        return found


def read_n_best(path: Path) -> NBestFile:
    """Read what `bidaf predict --n-best` wrote, in a list or one record per line.

    Raises `DataError` for a file that can't be read, holds anything else, or answers an id twice or with no span.
    """
    records: dict[str, _Record] = {}
    for place, document in read_documents(Source(str(path), path, None, "dev")):
        where = f"{path}: {show_place(place)}" if place else str(path)
        record = _record(document, where)
        if record.id in records:
            raise DataError(f"{where}: {quote(record.id)} is already answered; keep one of the two")
        if all(each.is_empty for each in record.candidates):  # of `--n-best 1`, where that is the answer
            raise DataError(f"{where}: {quote(record.id)} has the empty answer alone; list two or more (--n-best 2)")
        records[record.id] = record
    return NBestFile(path, records)


def _record(document: Any, where: str) -> _Record:
    if isinstance(document, Unreadable):
        raise DataError(f"{where}: {document.reason}")
    try:
        return _Record.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg'].lower()}"
        raise DataError(f"{where}: expected {SCHEMA}, as `bidaf predict --n-best` writes; {problem}") from None
