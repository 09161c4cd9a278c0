"""What bad input is made of: good input with anything wrong about its text, its structure, its bytes or its folder."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from helpers_cli import DEV, TRAIN, VECTOR_WORDS, squad
from hypothesis import strategies as st

from bidaf.config_reference import setting_names


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any], share: int = 5) -> st.SearchStrategy[Any]:
    """The usual, and once in `share + 1` the odd (`one_of` counts an alternative that is given twice once)."""
    return st.sampled_from([usual] * share + [odd]).flatmap(lambda chosen: chosen)


# Text

CHARACTERS = (
    "\ufeff\u200b\u2060\u00a0\u2003\u0085\u2028\t\n\r\0\x1b\x7f"  # blanks of all kinds, and what a terminal obeys
    "e\u0301a\u0308\u0323\u200d\u20e3"  # combining
    "\u05e2\u05d1\u05e8\u0627\u0644\u202e\u2066"  # right to left
    "\U0001f469\u200d\U0001f467\U0001f3f4\U000e0067\ufe0f\U0001d518\U0010ffff"  # beyond the basic plane
    "\ud83d\ude00\udcff"  # halves
    "\u0130\u00df\u1e9e\ufb01\u01c5"  # that change length with case
    "<>&\"'\\/{}[]:,;=#%-—~°"
)
words = st.sampled_from([*VECTOR_WORDS, "Oslo", "Rome", "1815", "can't", "e.g.", "http://a.b/c?d=e", "x" * 300])
# Halves of surrogate pairs are refused wherever they stand: not in every text, or nothing else would be met.
whole_characters = CHARACTERS.translate(dict.fromkeys(range(0xD800, 0xE000)))
odd_texts = st.lists(
    st.one_of(words, words, st.sampled_from(whole_characters), st.text(max_size=3)), min_size=1, max_size=12
).map(" ".join)
halves = st.text(st.sampled_from(CHARACTERS) | st.characters(), max_size=6)
texts = mostly(odd_texts, halves, 40)
said = st.builds("{} {}".format, words, odd_texts)  # never blank, which would have the whole file refused
huge_numbers = st.sampled_from([0, -1, 10**5, 2**31, 2**63, 10**20, 10**400, -(10**18)])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 60),
    huge_numbers,
    st.floats(),
    texts,
    st.sampled_from(["", " ", "dev-0-0"]),
)
KEYS = "version data title paragraphs context qas id question answers text answer_start is_impossible".split()
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | texts, inner, max_size=4),
    max_leaves=8,
)


# Documents: a good one, then some of its values changed, then some of its bytes

answers = st.fixed_dictionaries({"text": texts | words, "answer_start": st.integers(0, 40) | st.just(-1)})


@st.composite
def pages(draw: st.DrawFn) -> dict[str, Any]:
    """A context with questions, most of whose answers stand in it somewhere."""
    context = draw(said)
    asked = []
    for number in range(draw(st.integers(0, 3))):
        start, length = draw(st.integers(0, max(0, len(context) - 1))), draw(st.integers(1, 9))
        standing = {"text": context[start : start + length], "answer_start": start + draw(st.sampled_from([0, 0, 1]))}
        given = draw(st.lists(mostly(st.just(standing), answers), max_size=2))
        id = draw(mostly(st.just(f"{draw(st.integers())}-{number}"), texts, 15))
        asked.append({"id": id, "question": draw(said), "answers": given})
    return {"context": context, "qas": asked}


squads = st.fixed_dictionaries(
    {"data": st.lists(st.fixed_dictionaries({"paragraphs": st.lists(pages(), max_size=2)}), min_size=1, max_size=2)}
)
good_squads = st.sampled_from([squad(TRAIN, "train"), squad(DEV, "dev")])
records = st.fixed_dictionaries(
    {"context": said | scalars, "question": said | scalars},
    optional={
        "id": texts | scalars,
        "answers": st.lists(answers, max_size=2) | json_values,
        "title": texts | scalars,
        "is_impossible": scalars,
    },
)
good_records = st.fixed_dictionaries(
    {"context": said, "question": said},
    optional={
        "id": words | st.integers(0, 99),
        "answers": st.lists(answers, max_size=1)
        | st.lists(words, max_size=2)
        | st.builds(lambda text, start: {"text": [text], "answer_start": [start]}, words, st.integers(-1, 40))
        | words,
        "title": odd_texts,
        "is_impossible": st.booleans(),
    },
)


@st.composite
def changed(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> Any:
    """A document with up to two values, at any depth, replaced, removed or repeated."""
    document = json.loads(json.dumps(draw(documents)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
        node = document
        while isinstance(node, (dict, list)) and node:
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            if isinstance(node[key], (dict, list)) and node[key] and draw(st.integers(0, 3)):
                node = node[key]
                continue
            kind = draw(st.integers(0, 3))
            if kind == 0:
                del node[key]
            elif kind == 1 and isinstance(node, list):
                node.append(node[key])
            else:
                node[key] = draw(json_values)
            break
    return document


ENCODINGS = [*["utf-8"] * 16, *["utf-8-sig"] * 4, "utf-16", "utf-16-le", "utf-32", "latin-1"]


def encoded(text: str, encoding: str, newline: str, zipped: bool) -> bytes:
    """Text as bytes, whatever it holds."""
    content = text.replace("\n", newline).encode(encoding, "surrogatepass" if "utf" in encoding else "replace")
    return gzip.compress(content, mtime=0) if zipped else content


def files(text: st.SearchStrategy[str], *, packed: bool = True) -> st.SearchStrategy[bytes]:
    """Files of such text, one in six with some bytes wrong."""
    newlines, zipped = st.sampled_from(["\n", "\n", "\r\n"]), st.sampled_from([False, False, False, packed])
    whole = st.builds(encoded, text, st.sampled_from(ENCODINGS), newlines, zipped)
    return mostly(whole, st.builds(damaged, whole, st.lists(spoilings, min_size=1, max_size=3)))


@dataclass(frozen=True)
class Spoiling:
    """One change to some bytes."""

    kind: str
    where: float
    """0..1, of the length."""
    payload: bytes

    def __call__(self, content: bytes) -> bytes:
        at = int(self.where * len(content))
        if self.kind == "cut":
            return content[:at]
        if self.kind == "flip":
            return (
                content[:at]
                + bytes(byte ^ 1 << len(self.payload) % 8 for byte in content[at : at + 1])
                + content[at + 1 :]
            )
        if self.kind == "insert":
            return content[:at] + self.payload + content[at:]
        if self.kind == "drop":
            return content[:at] + content[at + 1 + len(self.payload) :]
        if self.kind == "repeat":
            return content[:at] + content[at : at + 40] * 3 + content[at + 40 :]
        return self.payload


class Trap:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, ("unpickled",)


PICKLE = pickle.dumps(Trap(), protocol=2)
PAYLOADS = [
    *(
        b"",
        b"\0",
        b"\0\0\0\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\x1f\x8b",
        b"\x1f\x8b\x08\0\0\0\0\0\0\3",
        b"PK\3\4",
        PICKLE,
    ),
    *(
        b"{}",
        b"[]",
        b"null",
        b"0",
        b'""',
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
    ),
    *(b'{"data": []}', b'{"data": null}', b'{"format": 1}', b'{"__metadata__": {}}', b"\x93NUMPY\x01\x00"),
    *(
        b"a: &a [*a]",
        b"!!python/object/apply:os.mkdir [unpickled]",
        b"a: [" * 500,
        b"\\ud800",
        b"\xed\xa0\x80",
        b"\x1b[2J",
    ),
]
spoilings = st.builds(
    Spoiling,
    st.sampled_from(["cut", "flip", "flip", "insert", "insert", "drop", "repeat", "replace"]),
    st.floats(0, 1),
    st.sampled_from(PAYLOADS) | st.binary(max_size=8),
)


def damaged(content: bytes, changes: list[Spoiling]) -> bytes:
    """Bytes after some changes."""
    for change in changes:
        content = change(content)
    return content


# Questions in every schema, format and packing


def nest(schema: str, rows: list[dict[str, Any]]) -> list[Any]:
    """Rows in a schema: the documents of a file."""

    def split(row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        outer = {key: value for key, value in row.items() if key in ("context", "title")}
        return outer, {key: value for key, value in row.items() if key not in outer}

    if schema == "rows":
        return rows
    if schema == "rows in data":
        return [{"data": rows}]
    if schema == "columns":
        return [{key: [row.get(key) for row in rows] for key in {key: 0 for row in rows for key in row}}]
    key = "questions" if schema == "contexts with questions" else "qas"
    pages = [{**outer, key: [inner]} for outer, inner in map(split, rows)]
    if schema == "MRQA":
        return [{"header": {"dataset": "fuzz"}}, *pages]
    articles = [{"title": "t", "paragraphs": [page]} for page in pages]
    if schema == "SQuAD articles":
        return articles
    return [{"data": articles}] if schema == "SQuAD" else pages


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("questions", content)
    return buffer.getvalue()


NESTED = ["rows", "rows in data", "columns", "MRQA", "contexts with questions", "SQuAD", "SQuAD articles"]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zip": zipped,
}


def tabled(rows: list[dict[str, Any]], delimiter: str) -> str:
    """Rows as CSV; what is no text stands in its cell as JSON."""
    columns = list({key: 0 for row in rows for key in row})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()})
    return text.getvalue()


@dataclass(frozen=True)
class QuestionFile:
    """A file of questions; its name says what is in it."""

    name: str
    content: bytes


@st.composite
def question_files(draw: st.DrawFn, formats: tuple[str, ...] = ("json", "jsonl", "csv", "tsv")) -> QuestionFile:
    """Questions in any schema and format, some of them with anything wrong, packed or not."""
    format, packing = draw(st.sampled_from(formats)), draw(st.sampled_from([*[""] * 8, *PACKED]))
    rows = draw(st.lists(mostly(good_records, records), min_size=draw(st.sampled_from([0, 1, 1, 1, 1])), max_size=4))
    if format in ("csv", "tsv"):
        text = tabled(rows, "," if format == "csv" else "\t")
    else:
        nested = st.builds(nest, st.sampled_from(NESTED), st.just(rows))
        documents = draw(changed(mostly(nested, st.tuples(squads | good_squads).map(list), 3)))
        escaped = draw(st.booleans())
        if format == "jsonl" and isinstance(documents, list):
            lines = [json.dumps(document, ensure_ascii=escaped) for document in documents]
            text = "\n".join(lines + draw(st.lists(st.sampled_from(["", " ", "{}", "null", "[]", "{"]), max_size=2)))
        else:
            alone = isinstance(documents, list) and len(documents) == 1 and draw(st.booleans())
            value = documents[0] if alone else documents
            text = json.dumps(value, ensure_ascii=escaped, indent=draw(st.sampled_from([None, 1])))
    content = draw(files(st.just(text), packed=False))
    return QuestionFile(f"questions.{format}{packing}", PACKED[packing](content))


GOLD_IDS = [question["id"] for page in squad(DEV, "dev")["data"][0]["paragraphs"] for question in page["qas"]]
prediction_files = files(
    st.builds(
        json.dumps,
        changed(st.dictionaries(st.sampled_from(GOLD_IDS) | texts, mostly(odd_texts, texts | scalars, 12), max_size=6)),
        ensure_ascii=st.booleans(),
    )
)


# Word vectors

numbers = st.floats(-9, 9, width=16).map(lambda value: f"{value:.3g}")
odd_numbers = st.sampled_from(
    ["nan", "inf", "-Infinity", "1e99", "1e-99", "0x10", "1_0", "٣", "", "1,5", "+1", ".5", "5."]
)
odd_words = texts | st.sampled_from(["", "a b", ". . .", "1 2", "5", "the", "\u00a0", "\u0085", "\ufeff"])
lines = st.builds(
    lambda word, row: " ".join([word, *row]),
    words | words | odd_words,
    st.lists(numbers, min_size=4, max_size=4) | st.lists(numbers | odd_numbers, min_size=3, max_size=5),
)
good_lines = st.builds(lambda word, row: " ".join([word, *row]), words, st.lists(numbers, min_size=4, max_size=4))
headers = st.sampled_from(["", "", "", "3 4\n", "5 3\n", "\n", "99999999999999999999 4\n"])
glove_texts = st.builds(
    lambda header, body, end: header + "\n".join(body) + end,
    headers,
    mostly(st.lists(good_lines, max_size=5), st.lists(good_lines | lines, max_size=6), 2),
    st.sampled_from(["\n", "", "\n\n"]),
)


@st.composite
def glove_files(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """Name, content, and the bytes that were packed in it."""
    plain = draw(files(glove_texts))
    spoiled = draw(st.lists(spoilings, max_size=1))
    wrapping = draw(st.sampled_from(["txt", "txt", "gz", "zip"]))
    if wrapping == "txt":
        return "v.txt", plain, plain
    if wrapping == "gz":
        return "v.gz", damaged(gzip.compress(plain, mtime=0), spoiled), plain
    packed = io.BytesIO()
    with zipfile.ZipFile(
        packed, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
    ) as zip:
        zip.writestr(draw(st.sampled_from(["v.txt", "../../v.txt", "/etc/v.txt", "v.bin"])), plain)
    return "v.zip", damaged(packed.getvalue(), spoiled), plain


# Settings

pieces = st.sampled_from(
    [
        *"&*!|>?-:,[]{}#'\"%@`=~<\n\t \0\ufeff\x85😀",
        *("\n  ", ": ", "- ", "<<", "!!", "---", "...", "null", "yes", "int ", "timestamp ", "bool ", "set "),
        *("data", "train", "dev", "model", "training", "optimizer", "name", "adam", "lr", "decay", "ema", "seed"),
        *("1e5", ".nan", ".inf", "2001-01-01", "0x_", "1:99", "0x" + "f" * 5000, "9" * 5000, "1e400", "!!binary "),
    ]
)
yaml_scraps = st.one_of(st.text(max_size=20), st.lists(pieces, max_size=30).map("".join))
LAST_NAMES = sorted({name.rpartition(".")[2] for name in setting_names()})
yaml_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(0, 20), huge_numbers, st.floats(), st.text(max_size=5), st.dates()
)
yaml_values = st.recursive(
    yaml_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(LAST_NAMES), inner, max_size=3),
    max_leaves=4,
)
likely_values = st.sampled_from([True, False, None, 1, 5, 7, 16, 20, 0.5, 0.9, "paper", "none", "plain", "skip", "x"])
GOOD: dict[str, dict[str, Any]] = {
    "model": {"hidden_size": 4, "variant": "released", "projection_size": 7},
    "ema": {"decay": 0.9, "warmup": "ramp"},
    "training": {"seed": 3, "optimizer": {"name": "adam", "lr": 0.01}, "batching": "bucketed"},
    "evaluation": {"patience": 2},
}


@st.composite
def configs(draw: st.DrawFn) -> str:
    """A config of good sections, some of whose settings are anything."""
    document: dict[str, Any] = {"data": {"train": "a.json", "dev": ["b.json"]}}
    for section in draw(st.lists(st.sampled_from(sorted(GOOD)), unique=True)):
        document[section] = dict(GOOD[section])
    for name in draw(st.lists(st.sampled_from(setting_names()), max_size=2)):
        section, key = name.split(".")[0], name.split(".")[-1]
        document.setdefault(section, {})[key] = draw(mostly(likely_values, yaml_values))
    text = yaml.safe_dump(document, allow_unicode=draw(st.booleans()), default_flow_style=draw(st.booleans()))
    return text + str(draw(mostly(st.just(""), yaml_scraps)))


config_files = files(mostly(configs(), yaml_scraps), packed=False)
setting_values = st.one_of(
    yaml_scraps,
    yaml_scalars.map(repr),
    st.sampled_from(["true", "null", "[a, b]", "{name: adam}", "0.5", "7", "released"]),
)
settings = st.builds("{}={}".format, st.sampled_from(setting_names()), likely_values.map(json.dumps))
odd_settings = st.one_of(
    st.builds("{}={}".format, st.sampled_from(setting_names()), setting_values),
    st.builds(
        "{}={}".format, st.sampled_from(["", ".", "data", "model.", "a.b.c", "training.optimizer"]), setting_values
    ),
    yaml_scraps,
)
overrides = st.lists(mostly(settings, odd_settings), min_size=1, max_size=3)


# Folders


@dataclass(frozen=True)
class Damage:
    """Changes to files of a folder; `signed` renews its checksums, as somebody would who wants no damage noticed."""

    changes: list[tuple[int, str, Spoiling, Any]]
    signed: bool

    def apply(self, folder: Path, sign: Callable[[Path], None]) -> None:
        """Change the folder."""
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        for number, kind, spoiling, value in self.changes:
            path = found[number % len(found)]
            if not path.is_file() or path.is_symlink():
                continue
            content = path.read_bytes()
            if kind == "remove":
                path.unlink()
            elif kind == "link":
                path.unlink()
                path.symlink_to(value if isinstance(value, str) and value and "\0" not in value else "/dev/zero")
            elif kind == "folder":
                path.unlink()
                path.mkdir()
            elif kind == "pipe":
                path.unlink()
                os.mkfifo(path)
            elif kind == "value" and path.suffix == ".json" and (document := _parsed(content)) is not None:
                path.write_text(json.dumps(_with_value(document, spoiling.where, value)), encoding="utf-8")
            elif kind == "value" and path.suffix == ".yaml":
                text = content.decode(errors="replace")
                path.write_text(_yaml_with_value(text, spoiling.where, value), encoding="utf-8")
            elif kind == "value":
                path.write_bytes(_header_with_value(content, spoiling))
            else:
                path.write_bytes(spoiling(content))
        if self.signed:
            try:
                sign(folder)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                return  # what keeps the checksums is itself damaged


def _parsed(content: bytes) -> Any:
    """The document, or None where the first change has left none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _with_value(document: Any, where: float, value: Any) -> Any:
    """The document with one of its values, at the top or one below, replaced."""
    if not isinstance(document, dict) or not document:
        return value
    place = where * len(document)
    key = sorted(document)[min(int(place), len(document) - 1)]
    inner = document[key]
    if isinstance(inner, dict) and inner and int(place * 10) % 2:
        return {**document, key: _with_value(inner, place % 1, value)}
    if isinstance(inner, list) and inner and int(place * 10) % 2:
        at = int(place % 1 * len(inner))
        return {**document, key: [*inner[:at], value, *inner[at + 1 :]]}
    return {**document, key: value}


def _yaml_with_value(text: str, where: float, value: Any) -> str:
    """The config with the value of one line replaced."""
    rows = text.split("\n")
    at = min(int(where * len(rows)), len(rows) - 1)
    key = rows[at].partition(":")[0]
    rows[at] = f"{key}: {json.dumps(value)}"
    return "\n".join(rows)


NUMBERS = [b"0", b"1", b"-1", b"99999999999", b"4611686018427387904", b"18446744073709551616", b"3, 3", b"", b"1.5"]


def _header_with_value(content: bytes, spoiling: Spoiling) -> bytes:
    """An `.npy` or safetensors file with one number of its header replaced; the length before the header follows."""
    begin = 10 if content.startswith(b"\x93NUMPY") else 8
    size = content[8:10] if begin == 10 else content[:8]
    end = begin + int.from_bytes(size, "little")
    header = content[begin:end]
    digits = [at for at in range(len(header)) if header[at : at + 1].isdigit()]
    if not digits:
        return content
    at = digits[min(int(spoiling.where * len(digits)), len(digits) - 1)]
    header = header[:at] + NUMBERS[len(spoiling.payload) % len(NUMBERS)] + header[at + 1 :]
    length = len(header).to_bytes(len(size), "little")
    return content[: begin - len(size)] + length + header + content[end:]


KINDS = ["bytes", "bytes", "bytes", "value", "value", "value", "remove", "link", "folder", "pipe"]
folder_values = st.one_of(
    scalars,
    json_values,
    st.sampled_from(
        ["../../x", "/etc/passwd", "/dev/zero", ".", "step-000001", 10**9, 65_536, 1_000, 64, -5, 0.5, [0] * 9]
    ),
)
damages = st.builds(
    Damage,
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(KINDS), spoilings, folder_values), min_size=1, max_size=2),
    st.booleans(),
)


@dataclass(frozen=True)
class Meddling:
    """Things put into a run's folder, and what is then asked of the run."""

    changes: list[tuple[str, str, str, Spoiling, Any]]
    command: str

    def apply(self, run: Path, others: Path) -> None:
        """Change the folder. Links lead to names in `others` alone: what follows one must not reach the system."""
        for name, kind, target, spoiling, value in self.changes:
            path = run / name
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            if not path.parent.is_dir() or path.parent.is_symlink():
                continue  # an earlier change was to the folder
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            if kind == "link":
                path.symlink_to(others / target)
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind == "device":
                make_device(path)
            elif kind == "folder":
                path.mkdir()
            elif kind == "line":
                lines = content.split(b"\n")
                at = int(spoiling.where * (len(lines) - 1))
                lines[at] = _spoiled_line(lines[at], spoiling, value)
                path.write_bytes(b"\n".join(lines))
            elif kind == "bytes":
                path.write_bytes(spoiling(content))


def make_device(path: Path) -> None:
    """A device without an end, as /dev/zero is; nothing where only root may make one."""
    if os.geteuid() == 0:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


def _spoiled_line(line: bytes, spoiling: Spoiling, value: Any) -> bytes:
    """A line of JSON with one of its values replaced, or of other bytes."""
    if len(spoiling.payload) % 3 and (document := _parsed(line)) is not None:
        return json.dumps(_with_value(document, spoiling.where * 7 % 1, value)).encode()
    return spoiling(line)


RUN_PLACES = (
    *("metrics.jsonl", "metrics.jsonl", "log.txt", ".lock", "config.yaml", "environment.json", "report.html"),
    *("checkpoints", "predictions", "data", "snapshots", "sweeps", "best", "last"),
    "checkpoints/step-000010",
    "checkpoints/step-000020",
    "checkpoints/step-000020/state.json",
    "checkpoints/step-000020/weights",
    "checkpoints/step-000021",
    "checkpoints/.step-000020.replaced",
    "checkpoints/.step-000021.1-00000000.tmp",
    "predictions/step-000020.raw.json",
    "predictions/step-000021.ema.json",
    "predictions/step-000020.n_best.json",
    "predictions/.step-000020.n_best.json.1.tmp",
    "data/manifest.json",
    "data/dev",
    ".metrics.jsonl.1-00000000.tmp",
    ".report.html.tmp",
)
TARGETS_OF_LINKS = (
    *("nothing", "zero", "file", "folder", "folder/checkpoints", "folder/predictions", "folder/data"),
    *("folder/checkpoints/step-000020", "folder/metrics.jsonl", "folder/predictions/step-000020.n_best.json"),
)
MEDDLINGS = ["link", "link", "link", "pipe", "device", "folder", "remove", "line", "line", "bytes"]
meddlings = st.builds(
    Meddling,
    st.lists(
        st.tuples(
            st.sampled_from(RUN_PLACES),
            st.sampled_from(MEDDLINGS),
            st.sampled_from(TARGETS_OF_LINKS),
            spoilings,
            folder_values,
        ),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["list", "report", "score", "resume", "resume"]),
)


def remove_unpickled(folder: Path) -> bool:
    """Whether a planted pickle ran in this folder; leaves none behind."""
    found = (folder / "unpickled").exists()
    shutil.rmtree(folder / "unpickled", ignore_errors=True)
    return found
