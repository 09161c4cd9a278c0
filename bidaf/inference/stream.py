"""Answering more questions than memory can hold, in one process or several: one chunk after the other, in order.

A chunk is answered as `answer_records` answers a file, its batches sorted by length. Where chunks begin depends on the
questions alone, and a chunk is answered by one process. So the answers are the same with any number of processes, and
when another process continues after any chunk, as long as each has the same number of threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice

from bidaf.data.squad import Example
from bidaf.device import return_freed_memory
from bidaf.distributed import ALONE, Group
from bidaf.inference.ensemble import Ensemble, Loaded
from bidaf.inference.predictor import Answerer, OnProgress
from bidaf.inference.records import Record, answer_records

CHUNK_CHARACTERS = 1 << 20
"""Characters of the texts of a chunk: some 1,200 questions of SQuAD."""


def stream_records(
    answerer: Answerer,
    questions: Iterable[Example],
    n_best: int | None = None,
    *,
    start: int = 0,
    group: Group = ALONE,
    on_progress: OnProgress = lambda passages: None,
) -> Iterator[list[Record]]:
    """The records of all questions but the first `start`, a chunk at a time; of several processes rank 0 has them all.

    All processes of the group have to iterate to the end. `on_progress` gets the number of passages that are done,
    those that `start` left out included. Raises as `answer_records`, and `LostProcess`.
    """
    left = iter(questions)
    for example in islice(left, start):
        on_progress(len(example.passages))
    for chunk in _share(_chunks(left), group):
        records = answer_records(answerer, chunk, n_best, on_progress) if chunk else []
        shares = group.gather([records, sum(len(example.passages) for example in chunk)])
        on_progress(sum(passages for rank, (_, passages) in enumerate(shares) if rank != group.rank))
        if group.is_first:
            yield from (found for found, _ in shares if found)
        return_freed_memory()


def to_lines(records: Iterable[Record]) -> bytes:
    """JSON lines, in UTF-8."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def origin_of(loaded: Loaded) -> dict[str, str]:
    """Hashes of what decides the answers: settings, vocabulary and vectors as `model`, the rest as `weights`."""
    hashes = {"model": hashlib.sha256(), "weights": hashlib.sha256()}
    rule = loaded.rule if isinstance(loaded, Ensemble) else None
    for member in loaded.members if isinstance(loaded, Ensemble) else [loaded]:
        config, data = member.config, member.config.data
        settings = {
            "model": config.model.model_dump(mode="json"),
            "tokenizer": [data.second_split, data.split_questions, data.language],
            "precision": config.training.precision,
            "max_answer_tokens": config.evaluation.max_answer_tokens,
            "vocabulary": asdict(member.vocabulary),
            "rule": rule,
        }
        hashes["model"].update(json.dumps(settings).encode())
        for name, tensors in (("weights", member.model.parameters()), ("model", member.model.buffers())):
            for tensor in tensors:
                hashes[name].update(tensor.detach().cpu().contiguous().flatten().numpy().data)
    return {name: digest.hexdigest() for name, digest in hashes.items()}


def _chunks(questions: Iterable[Example]) -> Iterator[list[Example]]:
    chunk: list[Example] = []
    size = 0
    for example in questions:
        chunk.append(example)
        size += len(example.question) + sum(map(len, example.passages))
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _share(chunks: Iterable[list[Example]], group: Group) -> Iterator[list[Example]]:
    """Of each round of one chunk per process, this process's; an empty one where there is none left for it."""
    own: list[Example] = []
    number = -1
    for number, chunk in enumerate(chunks):
        if number % group.size == group.rank:
            own = chunk
        if number % group.size == group.size - 1:
            yield own
            own = []
    if (number + 1) % group.size:
        yield own
