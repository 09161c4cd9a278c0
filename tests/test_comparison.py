"""Two systems on the same questions: their difference, its interval, the verdict and the breakdowns."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from conftest import Configure

from bidaf.data.cache import Prepared
from bidaf.data.questions import read_questions
from bidaf.data.squad import Example, GoldAnswer
from bidaf.errors import DataError
from bidaf.evaluation.breakdowns import group, kinds_of, question_word
from bidaf.evaluation.comparison import Comparison, System, compare
from bidaf.evaluation.questions import GoldQuestion, drawn_evenly, questions_of_examples, questions_of_features
from bidaf.evaluation.statistics import estimate

CONTEXT = "Anna lives in Oslo with two cats."


def dev(articles: int = 8, each: int = 5) -> list[GoldQuestion]:
    return [
        GoldQuestion(f"{article}-{number}", f"article {article}", "Where does Anna live?", CONTEXT, ("Oslo",), 14)
        for article in range(articles)
        for number in range(each)
    ]


def answered(name: str, questions: Sequence[GoldQuestion], *right: set[int]) -> System:
    """A system whose seeds are right on these numbers."""
    return System(
        name,
        [{q.id: "Oslo" if number in of_seed else "two" for number, q in enumerate(questions)} for of_seed in right],
    )


def of(questions: Sequence[GoldQuestion], a: set[int], b: set[int]) -> Comparison:
    return compare(questions, answered("a", questions, a), answered("b", questions, b))


def test_the_difference_is_that_of_the_questions_paired() -> None:
    questions = dev()
    a, b = {0, 1, 5, 12, 30}, {0, 6, 12, 31, 32, 39}
    found = of(questions, a, b)
    f1 = found.metrics["f1"]
    assert (f1.a.value, f1.b.value) == pytest.approx((100 * 5 / 40, 100 * 6 / 40))
    paired = [100.0 * ((n in b) - (n in a)) for n in range(40)]
    assert f1.difference == estimate([paired], [str(question.article) for question in questions])
    assert found.metrics["exact_match"] == f1
    assert [(m.only_a, m.only_b) for m in found.mcnemar] == [(3, 4)]
    assert (found.questions, found.articles, found.missing, found.unknown) == (40, 8, 0, 0)


def test_the_verdict_says_who_is_better_or_that_nobody_can_tell() -> None:
    questions = dev()
    worse, better = set(range(0, 40, 5)), set(range(0, 40, 2))
    assert (of(questions, worse, better).better, of(questions, worse, better).verdict) == ("B", "B is better")
    assert of(questions, better, worse).verdict == "A is better"
    assert of(questions, {0, 1, 2}, {7, 20}).verdict == "not distinguishable on these 8 articles"
    assert of(questions, better, better).verdict == "not distinguishable on these 8 articles"


def test_without_known_articles_or_with_few_there_is_no_interval() -> None:
    for questions, why in (
        (dev(articles=5), "5 articles, fewer than 6"),
        ([GoldQuestion(q.id, None, q.question, q.context, q.answers, q.start) for q in dev()], "is unknown"),
    ):
        found = of(questions, set(), set(range(20)))
        assert found.metrics["f1"].difference.interval is None
        assert found.better is None
        assert found.verdict.startswith("no verdict: ")
        assert why in found.verdict


def test_seeds_are_averaged_and_their_part_stands_apart() -> None:
    questions = dev()
    a = answered("a", questions, set(range(0, 40, 5)), set(range(0, 40, 4)))
    b = answered("b", questions, set(range(0, 40, 2)), set(range(0, 40, 4)))
    found = compare(questions, a, b)
    difference = found.metrics["f1"].difference
    assert found.seeds == 2
    assert difference.value == pytest.approx(100 * (12 + 0) / 40 / 2)
    assert difference.seeds is not None
    assert difference.seeds.standard_error == pytest.approx(15.0)  # 30 points with one seed, 0 with the other
    assert [(m.only_a, m.only_b) for m in found.mcnemar] == [(4, 16), (0, 0)]
    assert found.verdict == "not distinguishable on these 8 articles"


def test_different_questions_are_refused_with_the_difference() -> None:
    questions = dev()
    whole = answered("whole", questions, {1})
    part = System("part", [{q.id: "Oslo" for q in questions[4:]} | {"other": "Oslo"}])
    with pytest.raises(DataError, match=r"whole and part answer different questions: 4 .*'0-0'.* 1 .*'other'"):
        compare(questions, whole, part)
    seeds = System("seeds", [*whole.answers, *part.answers])
    with pytest.raises(DataError, match="different questions"):
        compare(questions, seeds, seeds)
    with pytest.raises(DataError, match="no question of this data"):
        compare([GoldQuestion("z", "t", "Who?", "Bob.", ("Bob",), 0)], whole, whole)


def test_questions_that_neither_answers_count_as_wrong_and_are_counted() -> None:
    questions = dev()
    some = answered("some", questions[:30], set(range(30)))
    found = compare(questions, some, System("same", [{**some.answers[0]}]))
    assert found.metrics["f1"].a.value == 75.0
    assert (found.questions, found.missing, found.unknown) == (40, 10, 0)
    few = compare(questions[:10], some, some)
    assert (few.questions, few.missing, few.unknown) == (10, 0, 20)


def test_questions_without_an_answer_count_by_v2_or_are_left_out() -> None:
    questions = [*dev(), *(GoldQuestion(f"none-{n}", f"article {n}", "Who?", CONTEXT, (), None) for n in range(8))]
    texts = {question.id: "two cats" for question in questions}
    a, b = System("a", [texts]), System("b", [texts | {"none-0": "", "none-1": ""}])
    found = compare(questions, a, b)
    assert (found.rule, found.questions, found.unanswerable) == ("SQuAD v2.0", 48, 0)
    values = {name: (metric.a.value, metric.b.value) for name, metric in found.metrics.items()}
    assert values["unanswerable_f1"] == (0.0, 25.0)
    assert values["answerable_f1"][0] == values["answerable_f1"][1]
    assert found.metrics["f1"].difference.value == pytest.approx(100 * 2 / 48)
    assert found.metrics["unanswerable_f1"].difference.interval is not None
    left_out = compare(questions, a, b, answerable_only=True)
    assert (left_out.rule, left_out.questions, left_out.unknown, left_out.unanswerable) == ("SQuAD v1.1", 40, 0, 8)
    assert left_out.metrics.keys() == {"exact_match", "f1"}


def test_rows_add_up_to_the_whole() -> None:
    questions = [
        *dev(),
        GoldQuestion("long", "article 0", "How many cats does she have?", CONTEXT, ("two cats", "with two cats"), 19),
    ]
    found = of(questions, {0, 1, 40}, {0, 2, 3, 9})
    for rows in found.breakdowns.values():
        assert sum(row.questions for row in rows) == 41
        for which in ("a", "b"):
            total = sum(getattr(row, which) * row.questions for row in rows)
            assert total / 41 == pytest.approx(getattr(found.metrics["f1"], which).value)
    assert [row.label for row in found.breakdowns["question word"]] == ["where", "how many"]
    assert [row.label for row in found.breakdowns["answer length"]] == ["1", "2"]
    assert [row.label for row in found.breakdowns["answer position"]] == ["40–60"]


def test_its_plain_form_is_json_with_every_figure() -> None:
    found = of(dev(), {0}, set(range(0, 40, 2)))
    plain = json.loads(json.dumps(found.to_dict()))
    difference = plain["metrics"]["f1"]["difference"]
    assert difference["interval"] == list(found.metrics["f1"].difference.interval or ())
    assert difference["articles"]["degrees_of_freedom"] == 7
    assert plain["mcnemar"][0]["p_value"] == found.mcnemar[0].p_value
    assert (plain["better"], plain["verdict"]) == ("B", "B is better")
    assert plain["breakdowns"]["question word"][0]["difference"]["interval"] == difference["interval"]


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("How many cats?", "how many"),
        ("How did it end?", "how"),
        ("In what year did Who tour?", "what"),
        ("WHOSE cat is it?", "whose"),
        ("Name the river.", "other"),
        ("", "other"),
    ],
)
def test_the_first_question_word_counts(question: str, word: str) -> None:
    assert question_word(question) == word


def test_kinds_at_their_bounds() -> None:
    def kind(*, answers: tuple[str, ...], start: int | None, context: str = "x " * 50) -> dict[str, str]:
        return kinds_of(GoldQuestion("", None, "Who?", context, answers, start))

    assert kind(answers=("a b c", "a"), start=0)["answer length"] == "1"
    assert kind(answers=("a b c d",), start=0)["answer length"] == "4–5"
    assert kind(answers=("a " * 11,), start=0)["answer length"] == "over 10"
    assert [kind(answers=("a",), start=at)["answer position"] for at in (0, 19, 20, 99)] == [
        "0–20", "0–20", "20–40", "80–100",
    ]  # fmt: skip
    assert [kind(answers=("a",), start=at)["answer position"] for at in (None, -1, 100)] == ["unknown"] * 3
    assert kind(answers=(), start=None)["answer position"] == "no answer"
    assert [kind(answers=(), start=None, context="x " * n)["context length"] for n in (50, 51, 401)] == [
        "1–50", "51–75", "over 400",
    ]  # fmt: skip


def test_rows_go_from_short_to_long_and_from_frequent_to_rare() -> None:
    lengths = ["over 10", "1", "no answer", "6–10"]
    kinds = [
        {"question word": word, "answer length": length}
        for word, length in zip(["who", "what", "what", "why"], lengths, strict=True)
    ]
    grouped = group(kinds)
    assert list(grouped["answer length"]) == ["1", "6–10", "over 10", "no answer"]
    assert grouped["question word"] == {"what": [1, 2], "who": [0], "why": [3]}


def test_features_and_their_file_have_the_same_questions(configure: Configure, prepared: Prepared) -> None:
    (source,) = configure().data.dev
    of_file = questions_of_examples(read_questions(source))
    of_features = questions_of_features(prepared.features("dev"))
    for one, other in zip(of_file, of_features, strict=True):
        assert one == other


def test_a_title_is_the_article() -> None:
    gold = (GoldAnswer("Bob", 0), GoldAnswer("B", -1))
    examples = [Example("1", "Who?", "Bob.", gold, "T"), Example("2", "Who?", "B.", ())]
    one, other = questions_of_examples(examples)
    assert (one.article, one.start, one.answers) == ("T", 0, ("Bob", "B"))
    assert (other.article, other.start, other.answers) == (None, None, ())


@pytest.mark.parametrize(
    ("sizes", "count", "drawn"),
    [
        ((4, 4, 4), 6, (2, 2, 2)),
        ((1, 10, 10), 9, (1, 4, 4)),
        ((3, 3), 100, (3, 3)),
        ((5, 5, 5), 2, (0, 1, 1)),
        ((7,), 3, (3,)),
    ],
)
def test_questions_are_drawn_evenly_over_the_articles(
    sizes: tuple[int, ...], count: int, drawn: tuple[int, ...]
) -> None:
    articles = [f"article {number}" for number, size in enumerate(sizes) for _ in range(size)]
    numbers = drawn_evenly(articles, count)
    assert numbers == sorted(set(numbers)) == drawn_evenly(articles, count)
    found = [articles[number] for number in numbers]
    assert sorted(found.count(article) for article in dict.fromkeys(articles)) == sorted(drawn)
    assert len(drawn_evenly([None] * 10, 4)) == 4
