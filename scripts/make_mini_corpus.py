"""Write the embedded corpus: SQuAD v1.1 files about invented places, made by a small grammar.

A paragraph tells four to six facts of one sort, such as the years in which five bridges were opened. What tells
the right one apart is the name of the thing, its kind, or what happened to it. Neither the type of the answer nor
its position gives it away: the question has to be matched to its sentence. No name is given twice, so every full
name in dev is new to a model that has read train.

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

TRAIN_ARTICLES, DEV_ARTICLES, NEW_PARAGRAPHS = 100, 14, 2
PARAGRAPHS_AN_ARTICLE = 9
QUESTIONS_A_PARAGRAPH = 4

MONTHS = "January February March April May June July August September October November December"
EPITHETS = (
    "Upper Lower Inner Outer Great Little Old New North South East West "
    "Royal High Long Red White Black Green Blue Grey Golden Silver Iron"
)
FIRST_NAMES = (
    "Adam Anna Bruno Clara Dora Edwin Emma Felix Frida Gustav Hanna Henry Irma Jonas "
    "Julia Karl Laura Leo Maria Max Nora Oscar Paul Rosa Simon Theo Vera Walter"
)


class Names:
    """Invented names, each given once; what is drawn within one paragraph differs in its beginning."""

    ONSETS = "B Br C D Dr F Fl G Gr H J K L M N P Pr R S Sk St T Tr V W Y Z"
    VOWELS = "a e i o u"
    MIDDLES = "b bd d ff g gl k ld lk lm lv m mb n nd ng p pt r rd rn rv sk st t v vr x z"
    ENDINGS = "ak eck elm esk eth ib ilk ilm iv olk omb osk uck ulm und ush ant erk"

    def __init__(self, random: Random) -> None:
        self._random = random
        self._given: set[str] = set()
        self._recent: deque[str] = deque(maxlen=12)

    def draw(self) -> str:
        """A name of one word."""
        while True:
            parts = (self.ONSETS, self.VOWELS, self.MIDDLES, self.ENDINGS)
            name = "".join(self._random.choice(part.split()) for part in parts)
            if name not in self._given and name[0] not in self._recent:
                self._given.add(name)
                self._recent.append(name[0])
                return name

    def draw_after(self, words: str) -> str:
        """A name of two words: one of the common words given, then an invented one."""
        word = self._random.choice([word for word in words.split() if word not in self._recent])
        self._recent.append(word)
        return f"{word} {self.draw()}"


class Value(NamedTuple):
    """What a fact says: the text, shorter texts that are right as well, and the preposition a time takes."""

    text: str
    shorter: tuple[str, ...] = ()
    at: str = ""


Draw = Callable[[Random, Names], Value]


def person(random: Random, names: Names) -> Value:
    name = names.draw_after(FIRST_NAMES)
    return Value(name, (name.split()[1],))


def place(random: Random, names: Names) -> Value:
    return Value(names.draw())


def date(random: Random, names: Names) -> Value:
    day, month, year = random.randint(1, 28), random.choice(MONTHS.split()), str(random.randint(1820, 1899))
    text, at = random.choice([(f"{day} {month} {year}", "on"), (f"{month} {year}", "in"), (year, "in")])
    return Value(text, (year,) if text != year else (), at)


def amount(unit: str, low: int, high: int) -> Draw:
    def draw(random: Random, names: Names) -> Value:
        number = str(random.randrange(low, high))
        return Value(f"{number} {unit}", (number,))

    return draw


def one_of(phrases: str) -> Draw:
    return lambda random, names: Value(random.choice(phrases.split(" | ")))


@dataclass(frozen=True)
class Relation:
    """One kind of fact with the ways to say it and to ask for it, the usual way first, separated by " | ".

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


def counted(things: str, low: int, high: int) -> Relation:
    return Relation(
        amount(things, low, high),
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


def dated(done: str, do: str) -> Relation:
    """Something that the people of the town did with the thing once."""
    return Relation(
        date,
        f"was {done} {{at}} {{a}} | was finally {done} {{at}} {{a}}",
        f"{{at}} {{a}} the town {done} {{e}}",
        f"When was {{e}} {done}? | In which year was {{e}} {done}? | When did the town {do} {{e}}?",
    )


def done_by(trade: str, done: str, did: str) -> Relation:
    """Something that one person did with the thing."""
    return Relation(
        person,
        f"was {done} by {{a}} | was {done} by the {trade} {{a}}",
        f"{{a}} {did} {{e}}",
        f"Who {did} {{e}}? | Which {trade} {did} {{e}}? | By whom was {{e}} {done}?",
    )


@dataclass(frozen=True)
class Family:
    """Things with the same sorts of facts: what to call them, their kinds and names, and facts grouped by sort."""

    things: str
    kinds: str
    form: str
    first_words: str
    facts: tuple[tuple[Relation, ...], ...]


# fmt: off
FAMILIES = (
    Family(
        "buildings", "bridge tower mill chapel school theatre museum market inn castle",
        "the {name} {kind}", EPITHETS, (
        (dated("enlarged", "enlarge"), dated("repaired", "repair"),
         dated("painted", "paint"), dated("sold", "sell"), dated("closed", "close")),
        (done_by("architect", "designed", "designed"), done_by("merchant", "bought", "bought"),
         done_by("artist", "painted", "painted"), done_by("mayor", "opened", "opened"),
         done_by("engineer", "repaired", "repaired")),
        (made_of("walls"), made_of("stairs"), made_of("doors"), made_of("floors"), made_of("pillars")),
        (measured("high", "height", 140), measured("long", "length", 600), measured("wide", "width", 90)),
        (counted("rooms", 4, 190), counted("windows", 8, 290), counted("lamps", 15, 700), counted("steps", 9, 99)),
        (sent("stone"), sent("bells"), sent("timber"), sent("clock"), sent("glass")),
    )),
    Family(
        "people", "painter doctor baker poet judge singer farmer sailor",
        "the {kind} {name}", FIRST_NAMES, (
        (Relation(date, "won a prize {at} {a} | received a prize {at} {a}", "{at} {a} {e} won a prize",
            "When did {e} win a prize? | In which year did {e} win a prize? | When did {e} receive a prize?"),
         Relation(date, "bought a house {at} {a} | found a house {at} {a}", "{at} {a} {e} bought a house",
            "When did {e} buy a house? | In which year did {e} buy a house? | When did {e} find a house?"),
         Relation(date, "met the king {at} {a} | was a guest of the king {at} {a}", "{at} {a} {e} met the king",
            "When did {e} meet the king? | In which year did {e} meet the king? | When did the king receive {e}?"),
         Relation(date, "broke a leg {at} {a} | had a fall and broke a leg {at} {a}", "{at} {a} {e} broke a leg",
            "When did {e} break a leg? | In which year did {e} break a leg? | When did {e} have a fall?")),
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
    Family(
        "ships", "steamer cutter barge yacht schooner trawler",
        "the {kind} {name}", EPITHETS, (
        (dated("insured", "insure"), dated("painted", "paint"),
         dated("sold", "sell"), dated("rebuilt", "rebuild")),
        (done_by("captain", "commanded", "commanded"), done_by("engineer", "designed", "designed"),
         done_by("merchant", "bought", "bought"), done_by("pirate", "stolen", "stole")),
        (measured("long", "length", 190), measured("wide", "width", 40), measured("high", "height", 60)),
        (counted("cabins", 3, 190), counted("sailors", 5, 290), counted("barrels", 12, 900), counted("lamps", 6, 80)),
        (sent("sails"), sent("timber"), sent("anchor"), sent("ropes")),
    )),
)
# fmt: on

OPENINGS = (
    "the history of {town} names {count} {things}",
    "travellers who come to {town} ask about {count} {things}",
    "{count} {things} made the region of {town} famous",
    "old records from {town} describe {count} {things}",
    "{count} {things} are part of the story of {town}",
)
CLOSINGS = (
    "many stories are told about them",
    "songs and poems keep their memory alive",
    "people in the region are proud of them to this day",
    "there is a book about all of them",
)
COUNTS = {2: "two", 4: "four", 5: "five"}


@dataclass(frozen=True)
class Fact:
    """A relation that holds of one thing, with its value."""

    thing: str
    relation: Relation
    value: Value

    def word(self, random: Random, templates: str, subject: str = "") -> str:
        """One of the templates, most often the usual one, filled in."""
        usual, *others = templates.split(" | ")
        template = random.choice(others) if others and random.random() < 0.3 else usual
        return template.format(e=subject, a=self.value.text, at=self.value.at)


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def pronoun_of(person_name: str) -> str:
    """The women among the first names are those that end in a."""
    return "she" if person_name.split()[0].endswith("a") else "he"


def describe(random: Random, facts: list[Fact], pronoun: str) -> list[str]:
    """The sentences on one thing: the first names it, the others say "it", so its name stands there once."""
    subject = facts[0].thing
    sentences: list[str] = []
    while facts:
        size = random.choice([1, 2])
        told, facts = facts[:size], facts[size:]
        predicates = [fact.word(random, fact.relation.predicates) for fact in told]
        text = f"{subject} {' and '.join(predicates)}"
        if not sentences and len(told) == 1 and random.random() < 0.15:
            text = told[0].word(random, told[0].relation.clauses, subject)
        elif not sentences and len(told) == 2 and random.random() < 0.5:
            text = f"{subject}, {'which' if pronoun == 'it' else 'who'} {predicates[0]}, {predicates[1]}"
        sentences.append(sentence(text))
        subject = pronoun
    return sentences


def ask(random: Random, fact: Fact) -> tuple[str, tuple[str, ...]]:
    """A question on the fact and the texts that answer it, the best one first."""
    question = fact.word(random, fact.relation.questions, fact.thing)
    texts = (fact.value.text, *fact.value.shorter)
    return question, texts[::-1] if question.startswith(("In which year", "How many")) else texts


def find(text: str, context: str) -> list[re.Match[str]]:
    """The places of the text as whole words; it may be written larger where it opens a sentence."""
    return list(re.finditer(rf"\b{re.escape(text)}\b", context, re.IGNORECASE))


def choose_plan(random: Random, family: Family) -> list[tuple[str, list[Relation]]]:
    """The kind of each thing and what is told of it, all of one sort.

    Things that differ in everything teach a small model to match words at all, within its first few hundred
    steps; only then does it come to tell things apart by name alone, or the facts of one thing.
    """
    kinds, group = family.kinds.split(), random.choice(family.facts)
    match random.choices(["everything", "name", "fact"], weights=[45, 30, 25])[0]:
        case "everything":
            relations = random.sample(group, len(group)) * 2
            return [(kind, [relation]) for kind, relation in zip(random.sample(kinds, 5), relations, strict=False)]
        case "name":
            return [(random.choice(kinds), [random.choice(group)])] * random.choice([4, 5])
        case _:
            return [(kind, random.sample(group, 3)) for kind in random.sample(kinds, 2)]


def write_paragraph(random: Random, names: Names, town: str, family: Family) -> dict[str, Any]:
    """A context with questions; drawn again until every value stands in the context once."""
    while True:
        plan = choose_plan(random, family)
        things = family.things if plan[0][0] != plan[1][0] else f"{plan[0][0]}s"
        opening = random.choice(OPENINGS).format(town=town, count=COUNTS[len(plan)], things=things)
        sentences, facts = [sentence(opening)], []
        for kind, relations in plan:
            name = names.draw_after(family.first_words)
            thing = family.form.format(kind=kind, name=name)
            told = [Fact(thing, relation, relation.draw(random, names)) for relation in relations]
            sentences += describe(random, told, pronoun_of(name) if family.things == "people" else "it")
            facts += told
        sentences.append(sentence(random.choice(CLOSINGS)))
        context = " ".join(sentences)
        values = [text for fact in facts for text in (fact.value.text, *fact.value.shorter)]
        if all(len(find(text, context)) == 1 for text in values):
            break
    qas = []
    for fact in random.sample(facts, QUESTIONS_A_PARAGRAPH):
        question, texts = ask(random, fact)
        found = [match for text in texts for match in find(text, context)]
        answers = [{"answer_start": match.start(), "text": match.group()} for match in found]
        qas.append({"question": question, "answers": answers})
    return {"context": context, "qas": qas}


def write_articles(random: Random, names: Names, split: str, count: int) -> dict[str, Any]:
    """A SQuAD v1.1 document of `count` articles; train keeps the best answer alone, as SQuAD's own does."""
    articles, number = [], 0
    for _ in range(count):
        town = names.draw()
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
    families = random.sample(FAMILIES, NEW_PARAGRAPHS)
    paragraphs = [write_paragraph(random, names, names.draw(), family) for family in families]
    pairs = [(paragraph["context"], qa["question"]) for paragraph in paragraphs for qa in paragraph["qas"]]
    return [
        {"id": f"mini-new-{number:05d}", "context": context, "question": question}
        for number, (context, question) in enumerate(pairs)
    ]


def write_corpus(seed: int, folder: Path) -> None:
    """Write `train.json`, `dev.json` and `questions.json` into the folder."""
    random = Random(seed)
    names = Names(random)
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
