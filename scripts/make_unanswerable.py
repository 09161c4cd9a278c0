"""Make a SQuAD v2.0 file of a v1.1 file: one question without an answer for every two with one.

    python scripts/make_unanswerable.py train-v1.1.json -o train-with-unanswerable.json

A question is asked again on another paragraph of its article: the one that has most of its words, weighted by how rare
they are in the article, and none of its gold answers. Each article gets those of its questions that fit best, so that
matching words does not separate them from the others. The questions of SQuAD v2.0 were written by people; these are
easier, a substitute where its training file is not available. The same file gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ANSWERED_PER_UNANSWERABLE = 2
SUFFIX = "-unanswerable"


class Candidate(NamedTuple):
    """A question that could be asked on another paragraph of its article."""

    fit: float
    """Share of the question's words that the paragraph has, by their weight."""
    order: int
    question: dict[str, Any]
    paragraph: int


def words_of(text: str) -> set[str]:
    """Distinct words in lower case."""
    return set(re.findall(r"\w+", text.lower()))


def add_unanswerable(document: dict[str, Any]) -> dict[str, Any]:
    """The document as SQuAD v2.0, with the new questions behind those of their paragraphs."""
    articles = [{**article, "paragraphs": _with_unanswerable(article["paragraphs"])} for article in document["data"]]
    return {"version": "v2.0", "data": articles}


def _with_unanswerable(paragraphs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    contexts = [paragraph["context"].lower() for paragraph in paragraphs]
    words = [words_of(context) for context in contexts]
    frequency = Counter(word for each in words for word in each)
    weight = {word: math.log(1 + len(paragraphs) / count) for word, count in frequency.items()}
    rarest = math.log(1 + len(paragraphs))  # of a word that no paragraph has
    candidates: list[Candidate] = []
    answered = 0
    for own, paragraph in enumerate(paragraphs):
        for question in paragraph["qas"]:
            answered += 1
            if not (asked := words_of(question["question"])):
                continue
            answers = [answer["text"].lower() for answer in question["answers"]]
            total = math.fsum(weight.get(word, rarest) for word in asked)
            fits = [
                (math.fsum(weight[word] for word in asked & words[other]) / total, -other)
                for other in range(len(paragraphs))
                if other != own and not any(answer in contexts[other] for answer in answers)
            ]
            if fits:
                fit, other = max(fits)
                candidates.append(Candidate(fit, answered, question, -other))
    candidates.sort(key=lambda each: (-each.fit, each.order))
    added: list[list[dict[str, Any]]] = [[] for _ in paragraphs]
    for each in sorted(candidates[: answered // ANSWERED_PER_UNANSWERABLE], key=lambda each: each.order):
        new = {"id": f"{each.question['id']}{SUFFIX}", "question": each.question["question"]}
        added[each.paragraph].append({**new, "answers": [], "is_impossible": True})
    return [
        {**paragraph, "qas": [*({**qa, "is_impossible": False} for qa in paragraph["qas"]), *extra]}
        for paragraph, extra in zip(paragraphs, added, strict=True)
    ]


def write_document(document: dict[str, Any], path: Path) -> None:
    """Write it with one article per line."""
    articles = ",\n".join(json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in document["data"])
    text = f'{{"version": {json.dumps(document["version"])}, "data": [\n{articles}\n]}}\n'
    path.write_text(text, encoding="utf-8", newline="\n")


def questions_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every question with its answers, in the order of the file."""
    return [qa for article in document["data"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="a SQuAD v1.1 file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file to write")
    options = parser.parse_args()
    document = json.loads(options.input.read_text(encoding="utf-8"))
    if any(qa.get("is_impossible") for qa in questions_of(document)):
        parser.error(f"{options.input} holds unanswerable questions already")
    made = add_unanswerable(document)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_document(made, options.output)
    questions = questions_of(made)
    unanswerable = sum(qa["is_impossible"] for qa in questions)
    print(f"{options.output}: {len(questions):,} questions, {unanswerable:,} of them unanswerable")


if __name__ == "__main__":
    main()
