"""Write the embedded corpus: SQuAD v1.1 files about invented places, made by a small grammar.

A paragraph tells six facts of two things: three of one sort, such as the years in which a bridge was opened and a
mill repaired, and three of another. The type of the answer leaves a choice among them, and so does its position; the
question has to be matched to its sentence. No name is given twice, so every name in dev is new to a model that
has read train.

    python scripts/make_mini_corpus.py --seed 0 -o data/mini

The same seed gives the same bytes on every platform and Python version.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

FACTS_A_SORT = 3
TRAIN_ARTICLES, DEV_ARTICLES, PARAGRAPHS_AN_ARTICLE = 64, 9, 9
NEW_PARAGRAPHS, QUESTIONS_A_NEW_PARAGRAPH = 2, 4

NAMING_SHARE = 0.15
"""The share of facts that are asked the other way round: the fact is given, the thing is asked for."""

MONTHS = "January February March April May June July August September October November December"


class Names:
    """Invented names, each given once; names drawn near each other begin with different letters."""

    ONSETS = "B Br C D Dr F Fl G Gr H J K L M N P Pr R S Sk St T Tr V W Y Z"
    MIDDLES = "b bd d ff g gl k ld lk lm lv m mb n nd ng p pt r rd rn rv sk st t v vr x z"
    ENDINGS = "a e i o u an el or in us"

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._recent: deque[str] = deque(maxlen=10)

    def draw(self, random: Random) -> str:
        while True:
            parts = [self.ONSETS, "a e i o u", self.MIDDLES, self.ENDINGS]
            name = "".join(random.choice(part.split()) for part in parts)
            if name not in self._used and name[0] not in self._recent:
                self._used.add(name)
                self._recent.append(name[0])
                return name


class Value(NamedTuple):
    """What a fact says: the text, shorter texts that are right as well, and the preposition a time takes."""

    text: str
    shorter: tuple[str, ...] = ()
    at: str = ""


Draw = Callable[[Random, Names], Value]


def person(random: Random, names: Names) -> Value:
    surname = names.draw(random)
    return Value(f"{names.draw(random)} {surname}", (surname,))


def place(random: Random, names: Names) -> Value:
    return Value(names.draw(random))


def date(random: Random, names: Names) -> Value:
    day, month, year = random.randint(1, 28), random.choice(MONTHS.split()), str(random.randint(1690, 1930))
    text, at = random.choice([(f"{day} {month} {year}", "on"), (f"{month} {year}", "in"), (year, "in")])
    return Value(text, (year,) if text != year else (), at)


def amount(unit: str, low: int, high: int, step: int = 1) -> Draw:
    def draw(random: Random, names: Names) -> Value:
        number = f"{random.randrange(low, high, step):,}"
        return Value(f"{number} {unit}", (number,))

    return draw


def one_of(phrases: str) -> Draw:
    return lambda random, names: Value(random.choice(phrases.split(" | ")))


@dataclass(frozen=True)
class Relation:
    """One kind of fact with the ways to say it and to ask for it, alternatives separated by " | ".

    `{e}` is the thing, `{a}` the value, `{at}` its preposition. A predicate follows a subject; clauses and
    questions are whole.
    """

    draw: Draw
    predicates: str
    clauses: str
    questions: str


def made_of(parts: str) -> Relation:
    return Relation(
        one_of("granite | brick | oak | steel | limestone | slate | marble | copper | pine | bronze | clay"),
        f"has {parts} of {{a}} | is known for its {parts} of {{a}}",
        f"the {parts} of {{e}} are made of {{a}}",
        f"What are the {parts} of {{e}} made of? | Of what material are the {parts} of {{e}}?",
    )


def measured(adjective: str, noun: str, high: int) -> Relation:
    return Relation(
        amount("metres", 12, high),
        f"is {{a}} {adjective} | has a {noun} of {{a}}",
        f"the {noun} of {{e}} is {{a}}",
        f"How {adjective} is {{e}}? | What is the {noun} of {{e}}? | How many metres {adjective} is {{e}}?",
    )


def counted(things: str, low: int, high: int, step: int = 1) -> Relation:
    return Relation(
        amount(things, low, high, step),
        "has {a} | counts {a}",
        "there are {a} in {e}",
        f"How many {things} are in {{e}}? | How many {things} does {{e}} have?",
    )


def sent(goods: str) -> Relation:
    return Relation(
        place,
        f"got its {goods} from {{a}} | owes its {goods} to the town of {{a}}",
        f"the town of {{a}} sent the {goods} for {{e}}",
        f"Where did {{e}} get its {goods}? | Which town sent the {goods} for {{e}}?",
    )


def dated(participle: str, past: str) -> Relation:
    """Something that the people of the town did with the thing once."""
    return Relation(
        date,
        f"was {participle} {{at}} {{a}} | was finally {participle} {{at}} {{a}}",
        f"{{at}} {{a}} the town {past} {{e}}",
        f"When was {{e}} {participle}? | In which year was {{e}} {participle}?",
    )


def done_by(trade: str, participle: str, past: str) -> Relation:
    """Something that one person did with the thing."""
    return Relation(
        person,
        f"was {participle} by {{a}} | was {participle} by the {trade} {{a}}",
        f"{{a}} {past} {{e}}",
        f"Who {past} {{e}}? | Which {trade} {past} {{e}}? | By whom was {{e}} {participle}?",
    )


@dataclass(frozen=True)
class Family:
    """Things with the same sorts of facts: what to call them, their kinds, pronouns, and facts grouped by sort."""

    things: str
    kinds: str
    form: str
    named_by: Draw
    pronouns: tuple[str, ...]
    facts: tuple[tuple[Relation, ...], ...]


# fmt: off
FAMILIES = (
    Family("buildings", "bridge tower mill chapel school theatre museum market inn castle", "the {name} {kind}", place,
           ("it",), (
        (dated("opened", "opened"), dated("repaired", "repaired"),
         dated("painted", "painted"), dated("sold", "sold"), dated("closed", "closed")),
        (done_by("architect", "designed", "designed"), done_by("merchant", "bought", "bought"),
         done_by("artist", "painted", "painted"), done_by("mayor", "opened", "opened"),
         done_by("engineer", "repaired", "repaired")),
        (made_of("walls"), made_of("stairs"), made_of("doors"), made_of("floors"), made_of("pillars")),
        (measured("high", "height", 140), measured("long", "length", 600), measured("wide", "width", 90)),
        (counted("rooms", 4, 190), counted("windows", 8, 290), counted("lamps", 15, 700), counted("steps", 9, 99)),
        (sent("stone"), sent("bells"), sent("timber"), sent("clock"), sent("glass")),
    )),
    Family("people", "painter doctor baker poet judge singer farmer sailor", "the {kind} {name}", person,
           ("he", "she"), (
        (Relation(date, "was born {at} {a} | came into the world {at} {a}", "{at} {a} {e} was born",
            "When was {e} born? | In which year was {e} born? | When did {e} come into the world?"),
         Relation(date, "married {at} {a} | celebrated a marriage {at} {a}", "{at} {a} {e} married",
            "When did {e} marry? | In which year did {e} marry? | When did {e} celebrate a marriage?"),
         Relation(date, "won a prize {at} {a} | received a prize {at} {a}", "{at} {a} {e} won a prize",
            "When did {e} win a prize? | In which year did {e} win a prize? | When did {e} receive a prize?"),
         Relation(date, "died {at} {a} | died in old age {at} {a}", "{at} {a} {e} died",
            "When did {e} die? | In which year did {e} die? | In which year did the town mourn for {e}?")),
        (Relation(place, "grew up in {a} | spent a happy childhood in {a}", "{a} is the town where {e} grew up",
            "Where did {e} grow up? | In which town did {e} grow up? | Where did {e} spend a happy childhood?"),
         Relation(place, "worked in {a} | found work in {a}", "{a} is the town where {e} worked",
            "Where did {e} work? | In which town did {e} work? | Where did {e} find work?"),
         Relation(place, "often travelled to {a} | travelled every summer to {a}", "{a} is a place where {e} travelled",
            "Where did {e} travel every summer? | To which town did {e} often travel?"),
         Relation(place, "is buried in {a} | has a grave in {a}", "{a} is the town where {e} is buried",
            "Where is {e} buried? | In which town is {e} buried? | Where does {e} have a grave?")),
        (Relation(one_of("botany | geometry | music | astronomy | grammar | medicine | chemistry | logic"),
            "taught {a} | gave lessons in {a}", "children heard {e} teach {a}",
            "What did {e} teach? | Which subject did {e} teach? | In what did {e} give lessons?"),
         Relation(one_of("clocks | maps | coins | masks | dolls | violins | swords | carpets | stamps"),
            "collected {a} | had a collection of {a}", "guests came to see {e} and a collection of {a}",
            "What did {e} collect? | Of what did {e} have a collection?"),
         Relation(one_of("plum cake | bean soup | smoked eel | honey bread | fried cheese | onion pie | roast goose"),
            "liked to eat {a} | was fond of {a}", "friends of {e} often cooked {a}",
            "What did {e} like to eat? | What was {e} fond of? | Which food did {e} like to eat?"),
         Relation(one_of("goats | horses | bees | owls | geese | rabbits | pigeons | donkeys | turtles"),
            "bred {a} | kept {a} in the garden", "children visited {e} to see the {a}",
            "Which animals did {e} breed? | What did {e} keep in the garden? | Which animals did {e} keep?")),
        (Relation(person, "studied under {a} | was a pupil of {a}", "{a} was the teacher of {e}",
            "Under whom did {e} study? | Whose pupil was {e}? | Who was the teacher of {e}?"),
         Relation(person, "was a friend of {a} | had a close friend in {a}", "{a} was the best friend of {e}",
            "Whose friend was {e}? | Who was a close friend of {e}? | Who was the best friend of {e}?"),
         Relation(person, "was a rival of {a} | had a bitter rival in {a}", "{a} was the great rival of {e}",
            "Whose rival was {e}? | Who was a bitter rival of {e}? | Who was the great rival of {e}?")),
    )),
    Family("ships", "steamer cutter barge yacht schooner trawler", "the {kind} {name}", place, ("it",), (
        (dated("launched", "launched"), dated("painted", "painted"),
         dated("sold", "sold"), dated("rebuilt", "rebuilt")),
        (done_by("captain", "commanded", "commanded"), done_by("engineer", "designed", "designed"),
         done_by("merchant", "bought", "bought"), done_by("pirate", "stolen", "stole")),
        (measured("long", "length", 190), measured("wide", "width", 40), measured("high", "height", 60)),
        (counted("cabins", 3, 190), counted("sailors", 5, 290), counted("barrels", 12, 900), counted("lamps", 6, 80)),
        (sent("sails"), sent("timber"), sent("anchor"), sent("ropes")),
    )),
)
# fmt: on

OPENINGS = (
    "the history of {town} names two {things}",
    "travellers who come to {town} ask about two {things}",
    "two {things} made the region of {town} famous",
    "old records from {town} describe two {things}",
    "two {things} are part of the story of {town}",
)


@dataclass(frozen=True)
class Fact:
    kind: str
    thing: str
    relation: Relation
    value: Value

    def word(self, random: Random, templates: str, thing: str = "") -> str:
        """One of the templates, filled in."""
        return random.choice(templates.split(" | ")).format(e=thing, a=self.value.text, at=self.value.at)


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def describe(random: Random, facts: list[Fact], pronoun: str) -> list[str]:
    """The sentences on one thing: the first names it, the others say "it", so its name stands there once."""
    subject = facts[0].thing
    sentences: list[str] = []
    left = list(facts)
    while left:
        size = random.choice([1, 2])
        told, left = left[:size], left[size:]
        predicates = [fact.word(random, fact.relation.predicates) for fact in told]
        text = f"{subject} {' and '.join(predicates)}"
        if not sentences and len(told) == 1 and random.random() < 0.5:
            text = told[0].word(random, told[0].relation.clauses, subject)
        elif not sentences and len(told) == 2 and random.random() < 0.5:
            text = f"{subject}, {'which' if pronoun == 'it' else 'who'} {predicates[0]}, {predicates[1]}"
        sentences.append(sentence(text))
        subject = pronoun
    return sentences


def ask(random: Random, fact: Fact) -> tuple[str, tuple[str, ...]]:
    """A question on the fact and the texts that answer it, the best one first."""
    if random.random() < NAMING_SHARE:
        return f"Which {fact.kind} {fact.word(random, fact.relation.predicates)}?", (fact.thing,)
    question = fact.word(random, fact.relation.questions, fact.thing)
    answers = (fact.value.text, *fact.value.shorter)
    return question, answers[::-1] if question.startswith(("In which year", "How many")) else answers


def find(text: str, context: str) -> list[re.Match[str]]:
    """The places of the text as whole words; it may be written larger where it opens a sentence."""
    return list(re.finditer(rf"\b{re.escape(text)}\b", context, re.IGNORECASE))


def write_paragraph(random: Random, names: Names, town: str, family: Family) -> dict[str, Any]:
    """A context with one question on each fact; drawn again until every value stands in the context once.

    Two things are told of, with several facts of the same sorts - three dates, three people - and no fact is told of
    both: a question names the thing and the fact, and its sort of answer alone leaves a choice among three.
    """
    while True:
        kinds = random.sample(family.kinds.split(), 2)
        opening = random.choice(OPENINGS).format(town=town, things=family.things)
        sentences, facts = [sentence(opening)], []
        sorts = random.sample(family.facts, 2)
        relations = [relation for sort in sorts for relation in random.sample(sort, FACTS_A_SORT)]
        random.shuffle(relations)
        for number, kind in enumerate(kinds):
            thing = family.form.format(kind=kind, name=family.named_by(random, names).text)
            own = [Fact(kind, thing, relation, relation.draw(random, names)) for relation in relations[number::2]]
            sentences += describe(random, own, random.choice(family.pronouns))
            facts += own
        context = " ".join(sentences)
        texts = [text for fact in facts for text in (fact.thing, fact.value.text, *fact.value.shorter)]
        if all(len(find(text, context)) == 1 for text in texts):
            break
    qas = []
    for fact in facts:
        question, accepted = ask(random, fact)
        found = [match for text in accepted for match in find(text, context)]
        answers = [{"answer_start": match.start(), "text": match.group()} for match in found]
        qas.append({"question": question, "answers": answers})
    return {"context": context, "qas": qas}


def write_articles(random: Random, names: Names, split: str, count: int) -> dict[str, Any]:
    """A SQuAD v1.1 document of `count` articles; train keeps the best answer alone, as SQuAD's own does."""
    articles, number = [], 0
    for _ in range(count):
        town = names.draw(random)
        families = [random.choice(FAMILIES) for _ in range(PARAGRAPHS_AN_ARTICLE)]
        paragraphs = [write_paragraph(random, names, town, family) for family in families]
        for qa in (qa for paragraph in paragraphs for qa in paragraph["qas"]):
            qa["id"] = f"mini-{split}-{number:05d}"
            number += 1
            if split == "train":
                del qa["answers"][1:]
        articles.append({"title": town, "paragraphs": paragraphs})
    return {"version": "1.1", "data": articles}


def write_questions(random: Random, names: Names) -> list[dict[str, str]]:
    """Questions without answers, in the plain form that `bidaf predict` takes as well."""
    questions: list[dict[str, str]] = []
    for family in random.sample(FAMILIES, NEW_PARAGRAPHS):
        paragraph = write_paragraph(random, names, names.draw(random), family)
        for qa in random.sample(paragraph["qas"], QUESTIONS_A_NEW_PARAGRAPH):
            identity = f"mini-new-{len(questions):05d}"
            questions.append({"id": identity, "context": paragraph["context"], "question": qa["question"]})
    return questions


def write_corpus(seed: int, folder: Path) -> None:
    """Write `train.json`, `dev.json` and `questions.json` into the folder."""
    random, names = Random(seed), Names()
    files: dict[str, Any] = {
        "train.json": write_articles(random, names, "train", TRAIN_ARTICLES),
        "dev.json": write_articles(random, names, "dev", DEV_ARTICLES),
        "questions.json": write_questions(random, names),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
        (folder / name).write_text(f"{text}\n", encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the embedded corpus.")
    parser.add_argument("--seed", type=int, default=0, help="the corpus in the repository is seed 0")
    parser.add_argument("-o", "--output", type=Path, default=Path("data/mini"), help="folder to write into")
    arguments = parser.parse_args()
    write_corpus(arguments.seed, arguments.output)


if __name__ == "__main__":
    main()
