"""The embedded corpus is what its script writes, is sound, and can't be answered without reading the question."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_cli import succeed

from bidaf.data.corpus import Corpus, read_corpus
from bidaf.data.questions import read_questions
from bidaf.data.sources import find_source
from bidaf.data.squad import Example
from bidaf.evaluation.squad_v1 import exact_match, score_answers
from bidaf.evaluation.squad_v2 import score_answers as score_v2

ROOT = Path(__file__).parent.parent
MINI, MINI2 = ROOT / "data" / "mini", ROOT / "data" / "mini2"
SCRIPT = ROOT / "scripts" / "make_mini_corpus.py"
UNANSWERABLE = ROOT / "scripts" / "make_unanswerable.py"
FILES = ("train.json", "dev.json", "questions.json")


@pytest.fixture(scope="module")
def train() -> Corpus:
    return read_corpus([find_source(str(MINI / "train.json"), "train")])


@pytest.fixture(scope="module")
def dev() -> Corpus:
    return read_corpus([find_source(str(MINI / "dev.json"), "dev")])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, bytes]]:
    """Runs the script as a user does and gives what it wrote."""

    def write(seed: int) -> dict[str, bytes]:
        folder = tmp_path_factory.mktemp("corpus") / "made" / "on demand"
        subprocess.run([sys.executable, SCRIPT, "--seed", str(seed), "-o", folder], check=True)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return write


def contexts(corpus: Corpus) -> list[str]:
    return list(dict.fromkeys(example.context for example in corpus.examples))


def test_seed_0_writes_the_files_in_the_repository_byte_for_byte(
    written: Callable[[int], dict[str, bytes]],
) -> None:
    assert written(0) == {name: (MINI / name).read_bytes() for name in FILES}


def test_another_seed_writes_other_paragraphs(written: Callable[[int], dict[str, bytes]]) -> None:
    other = written(1)
    assert sorted(other) == sorted(FILES)
    assert all(content != (MINI / name).read_bytes() for name, content in other.items())


def test_the_files_are_under_two_megabytes() -> None:
    assert sum((MINI / name).stat().st_size for name in FILES) < 2_000_000


def test_every_answer_stands_at_its_offset_and_no_question_is_dropped(train: Corpus, dev: Corpus) -> None:
    for corpus in (train, dev):
        counts = corpus.counts
        assert (counts.kept, counts.realigned, counts.dropped) == (counts.read, 0, {})
        for example in corpus.examples:
            for answer in example.answers:
                assert example.context[answer.start :].startswith(answer.text)


def test_there_are_as_many_questions_as_a_short_run_needs(train: Corpus, dev: Corpus) -> None:
    assert 3_000 <= len(train.examples) <= 4_500
    assert 400 <= len(dev.examples) <= 600
    ids = [example.id for example in train.examples + dev.examples]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"mini-(train|dev)-\d{5}", id) for id in ids)


def test_train_gives_one_answer_and_many_dev_questions_give_several(train: Corpus, dev: Corpus) -> None:
    assert {len(example.answers) for example in train.examples} == {1}
    several = [example for example in dev.examples if len(example.answers) > 1]
    assert len(several) > 100
    assert all(len({answer.text for answer in example.answers}) > 1 for example in several)


def test_contexts_and_questions_have_the_length_of_a_small_exercise(train: Corpus, dev: Corpus) -> None:
    for example in train.examples + dev.examples:
        assert 30 <= len(re.findall(r"\w+|[^\w\s]", example.context)) <= 90
        assert 6 <= len(re.findall(r"\w+|[^\w\s]", example.question)) <= 14


def invented_words(texts: list[str]) -> set[str]:
    """Names without the common word before them: large inside a sentence, and in this one text alone."""
    seen = Counter(word for text in texts for word in set(re.findall(r"(?<=[a-z0-9,] )[A-Z][a-z]+", text)))
    return {word for word, number in seen.items() if number == 1}


def test_no_full_name_and_no_invented_word_is_in_both_train_and_dev(train: Corpus, dev: Corpus) -> None:
    pairs = r"\b(?!In |On |The )[A-Z][a-z]+ [A-Z][a-z]+"  # neither "On May" nor "The Old" is a name
    train_text = "\n".join(contexts(train))
    dev_pairs = {pair for text in contexts(dev) for pair in re.findall(pairs, text)}
    assert len(dev_pairs) > 300
    assert dev_pairs.isdisjoint(re.findall(pairs, train_text))
    dev_words = invented_words(contexts(dev))
    assert len(dev_words) > 300
    assert dev_words.isdisjoint(re.findall(r"\w+", train_text))


def test_a_question_names_one_thing_that_its_context_names_once(dev: Corpus) -> None:
    for example in dev.examples:
        names = re.findall(r"[A-Z][a-z]+ [A-Z][a-z]+", example.question.split(" ", 1)[1])
        assert [example.context.count(name) for name in names] == [1]


def sort_of(text: str) -> str:
    """What an answer looks like: a number, a name or a common word."""
    return "number" if re.search(r"\d", text) else "name" if text[0].isupper() else "word"


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match.group() if match else ""


BASELINES: dict[str, Callable[[Example], str]] = {
    "the whole context": lambda example: example.context,
    "the first sentence": lambda example: example.context.split(".")[0],
    "the second sentence": lambda example: example.context.split(".")[1],
    "the last sentence": lambda example: example.context.split(".")[-2],
    "the last two words": lambda example: " ".join(words(example.context)[-2:]),
    "the first number": lambda example: first(r"\d+", example.context),
    "the first year": lambda example: first(r"\b1\d{3}\b", example.context),
    "the last number": lambda example: "".join(re.findall(r"\d+", example.context)[-1:]),
    "the first date": lambda example: first(r"\d+ [A-Z][a-z]+ \d{4}", example.context),
    "the first name": lambda example: first(r"(?<=[a-z] )[A-Z]\w+( [A-Z]\w+)?", example.context),
    "the first full name": lambda example: first(r"[A-Z]\w+ [A-Z]\w+", example.context),
    "the most frequent word": lambda example: Counter(words(example.context)).most_common(1)[0][0],
    "the question itself": lambda example: example.question,
    **{
        f"words {start} to {start + 2}": lambda example, start=start: " ".join(  # type: ignore[misc]
            words(example.context)[start : start + 2]
        )
        for start in range(8, 48, 4)
    },
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_guess_that_does_not_match_the_question_to_its_sentence_stays_under_15_f1(name: str, dev: Corpus) -> None:
    gold = {example.id: [answer.text for answer in example.answers] for example in dev.examples}
    guesses = {example.id: BASELINES[name](example) for example in dev.examples}
    assert score_answers(gold, guesses).f1 < 15


def test_an_answer_of_the_right_sort_is_seldom_the_right_one(dev: Corpus) -> None:
    rivals: Counter[tuple[str, str]] = Counter()
    sorts = [(example.context, sort_of(example.answers[0].text)) for example in dev.examples]
    rivals.update(sorts)
    assert sum(1 / rivals[sort] for sort in sorts) / len(sorts) <= 0.25
    gold = {example.id: [answer.text for answer in example.answers] for example in dev.examples}
    usual = {sort: example.answers[0].text for sort, example in zip(sorts, dev.examples, strict=True)}
    guesses = {example.id: usual[sort] for sort, example in zip(sorts, dev.examples, strict=True)}
    assert score_answers(gold, guesses).f1 < 40


def test_the_questions_for_prediction_are_on_fresh_paragraphs(train: Corpus, dev: Corpus) -> None:
    questions = read_questions(MINI / "questions.json")
    assert len(questions) == 8
    assert len({example.context for example in questions}) == 2
    known = set(words(" ".join(contexts(train) + contexts(dev))))
    fresh = invented_words([example.context for example in questions[:1]])
    assert fresh
    assert all(not exact_match(example.question, other.question) for example in questions for other in dev.examples)
    assert len(fresh & known) < len(fresh)


# ---- mini2: questions that may have no answer


@pytest.fixture(scope="module")
def mini2() -> dict[str, list[Example]]:
    return {
        split: read_corpus([find_source(str(MINI2 / f"{split}.json"), split)], unanswerable=True).examples  # type: ignore[arg-type]
        for split in ("train", "dev")
    }


@pytest.mark.parametrize("split", ["train", "dev"])
def test_the_script_makes_the_second_corpus_of_the_first_byte_for_byte(split: str, tmp_path: Path) -> None:
    made = tmp_path / "new folder" / "made.json"
    subprocess.run([sys.executable, UNANSWERABLE, MINI / f"{split}.json", "-o", made], check=True)
    assert made.read_bytes() == (MINI2 / f"{split}.json").read_bytes()


def test_a_file_that_holds_unanswerable_questions_is_refused(tmp_path: Path) -> None:
    made = tmp_path / "made.json"
    ran = subprocess.run([sys.executable, UNANSWERABLE, MINI2 / "dev.json", "-o", made], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "unanswerable questions already" in ran.stderr
    assert not made.exists()


def test_there_is_one_question_without_an_answer_for_every_two_with_one(mini2: dict[str, list[Example]]) -> None:
    for examples in mini2.values():
        impossible = [example for example in examples if example.impossible]
        assert 3 * len(impossible) == len(examples)


def test_a_question_without_an_answer_is_one_of_another_paragraph_of_its_article(
    mini2: dict[str, list[Example]],
) -> None:
    for examples in mini2.values():
        by_id = {example.id: example for example in examples}
        for example in examples:
            if example.impossible:
                asked = by_id[example.id.removesuffix("-unanswerable")]
                assert (asked.question, asked.title) == (example.question, example.title)
                assert asked.context != example.context
                assert not any(answer.text.lower() in example.context.lower() for answer in asked.answers)


def test_its_words_are_mostly_in_the_paragraph(mini2: dict[str, list[Example]]) -> None:
    """Else, a count of shared words would tell it from the others."""

    def shared(example: Example) -> float:
        asked = set(words(example.question.lower()))
        return len(asked & set(words(example.context.lower()))) / len(asked)

    means = {
        kind: sum(found) / len(found)
        for kind in (True, False)
        if (found := [shared(example) for example in mini2["dev"] if example.impossible is kind])
    }
    assert means[True] > 0.5 * means[False]


CONSTANTS: dict[str, Callable[[Example], str]] = {**BASELINES, "no answer": lambda example: ""}


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_guess_stays_under_60_f1_on_the_second_corpus(name: str, mini2: dict[str, list[Example]]) -> None:
    guess = CONSTANTS[name]
    gold = {example.id: [answer.text for answer in example.answers] for example in mini2["dev"]}
    assert score_v2(gold, {example.id: guess(example) for example in mini2["dev"]}).f1 < 60


def test_a_run_on_the_second_corpus_learns_both_to_answer_and_not_to(tmp_path: Path) -> None:
    sets = ("--set", f"data.prepared_dir={tmp_path / 'prepared'}", "--set", "training.epochs=6")  # of 14
    succeed("train", "-c", "mini2.yaml", *sets, "--run-dir", tmp_path / "run", "--device", "cpu", cwd=ROOT)
    scores = succeed("eval", "-m", tmp_path / "run", "--json", cwd=ROOT).json
    # No constant guess reaches 60, and one that is right about half of the questions is wrong about the others.
    assert scores["f1"] > 60
    assert min(scores["answerable_f1"], scores["unanswerable_f1"]) > 50
