"""The embedded corpus: what it promises to those who train on it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from bidaf.data.squad import Example, read_squad
from bidaf.evaluation.official import read_gold, score_answers

ROOT = Path(__file__).parents[1]
MINI = ROOT / "data" / "mini"
CAPITALISED = re.compile(r"[A-Z]\w+(?: [A-Z]\w+)*")
NUMBER = re.compile(r"\d[\d,]*")


@pytest.fixture(scope="module")
def train() -> list[Example]:
    return read_squad(MINI / "train.json").examples


@pytest.fixture(scope="module")
def dev() -> list[Example]:
    return read_squad(MINI / "dev.json").examples


def test_the_script_writes_the_very_bytes_of_the_repository(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "make_mini_corpus.py"), "--seed", "0", "-o", str(tmp_path)]
    subprocess.run(command, check=True)
    for name in ("train.json", "dev.json", "questions.json"):
        assert (tmp_path / name).read_bytes() == (MINI / name).read_bytes()


def test_another_seed_writes_another_corpus(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "make_mini_corpus.py"), "--seed", "1", "-o", str(tmp_path)]
    subprocess.run(command, check=True)
    assert (tmp_path / "train.json").read_bytes() != (MINI / "train.json").read_bytes()


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in MINI.iterdir()) < 2_000_000


def test_sizes_are_those_of_the_readme() -> None:
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for name in ("train", "dev"):
        examples = read_squad(MINI / f"{name}.json").examples
        paragraphs = len({example.context for example in examples})
        assert f"| `mini/{name}.json` | {paragraphs:,} | {len(examples):,} |" in readme
    questions = json.loads((MINI / "questions.json").read_text(encoding="utf-8"))
    assert f"| `mini/questions.json` | {len({q['context'] for q in questions})} | {len(questions)} |" in readme


@pytest.mark.parametrize("name", ["train", "dev"])
def test_every_answer_stands_at_its_offset(name: str) -> None:
    counts = read_squad(MINI / f"{name}.json").counts
    assert counts.kept == counts.read
    assert counts.realigned == 0


def test_dev_accepts_several_answers_to_some_questions(dev: list[Example]) -> None:
    assert sum(len(example.answers) > 1 for example in dev) > len(dev) / 4


def test_no_name_of_dev_or_questions_occurs_in_train(train: list[Example], dev: list[Example]) -> None:
    new: list[dict[str, Any]] = json.loads((MINI / "questions.json").read_text(encoding="utf-8"))
    seen = names(example.context for example in train)
    assert len(seen) > 1_000
    assert not seen & names(example.context for example in dev)
    assert not seen & names(question["context"] for question in new)


# Words that are only ever written large, for they open sentences or name months.
OPENERS = set("Two Old Travellers It He She There Friends Guests Children".split())
MONTHS = set("January February March April May June July August September October November December".split())


def names(contexts: Iterable[str]) -> set[str]:
    """Words that are never written small."""
    text = " ".join(set(contexts))
    small = set(re.findall(r"\b[a-z]\w+", text))
    return {word for word in re.findall(r"\b[A-Z]\w+", text) if word.lower() not in small} - MONTHS - OPENERS


def first(pattern: re.Pattern[str], skip: int = 0) -> Callable[[Example], str]:
    def guess(example: Example) -> str:
        found = pattern.findall(example.context)
        return found[min(skip, len(found) - 1)] if found else ""

    return guess


def words_at(position: int, count: int) -> Callable[[Example], str]:
    return lambda example: " ".join(example.context.split()[position : position + count])


def most_common_word(example: Example) -> str:
    return Counter(example.context.split()).most_common(1)[0][0]


GUESSES: dict[str, Callable[[Example], str]] = {
    "the first number": first(NUMBER),
    "the second number": first(NUMBER, 1),
    "the first year": first(re.compile(r"\b1[6-9]\d\d\b")),
    "the first name": first(CAPITALISED),
    "the third name": first(CAPITALISED, 2),
    "the last name": lambda example: CAPITALISED.findall(example.context)[-1],
    "the most common word": most_common_word,
    "the first sentence": lambda example: example.context.split(". ")[0],
    "the second sentence": lambda example: example.context.split(". ")[1],
    "the whole context": lambda example: example.context,
    **{f"{count} words from word {place}": words_at(place, count) for place in range(0, 45, 3) for count in (1, 2)},
}


@pytest.mark.parametrize("name", GUESSES)
def test_a_constant_guess_scores_under_15(name: str, dev: list[Example]) -> None:
    predictions = {example.id: GUESSES[name](example) for example in dev}
    assert score_answers(read_gold(MINI / "dev.json"), predictions).f1 < 15.0
