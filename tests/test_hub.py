"""Data sets of the SQuAD columns: local tables and folders, hub names, and a hub that cannot be reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow
import pytest

from bidaf.data import hub
from bidaf.data.corpus import Corpus, read_corpus
from bidaf.data.hub import HubName, locate, parse_hub_name
from bidaf.data.sources import Use, find_source
from bidaf.data.squad import GoldAnswer
from bidaf.errors import DataError

CONTEXT = "The cat sat on the mat."


def row(id: str, text: str = "cat", start: int = 4, **changed: Any) -> dict[str, Any]:
    answers = {"text": [text], "answer_start": [start]}
    return {"id": id, "title": "Pets", "context": CONTEXT, "question": "Who sat?", "answers": answers, **changed}


def read(*names: str, use: Use = "train") -> Corpus:
    return read_corpus([find_source(name, use) for name in names], on_report=lambda report: None)


def identity(name: str) -> dict[str, Any]:
    return find_source(name, "train").identity


def table(*rows: dict[str, Any]) -> Any:
    return datasets.Dataset.from_list(list(rows or [row("a"), row("b", start=7)]))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def parquet(folder: Path, *rows: dict[str, Any], name: str = "part.parquet") -> str:
    folder.mkdir(exist_ok=True)
    table(*rows).to_parquet(folder / name)
    return str(folder / name)


def arrow_stream(folder: Path) -> str:
    table().save_to_disk(folder)
    return str(next(folder.glob("*.arrow")))


def arrow_file(folder: Path) -> str:
    folder.mkdir()
    data = table().with_format("arrow")[:]
    with pyarrow.ipc.new_file(folder / "part.arrow", data.schema) as writer:
        writer.write_table(data)
    return str(folder / "part.arrow")


def saved_dataset(folder: Path) -> str:
    table().save_to_disk(folder)
    return str(folder)


def saved_splits(folder: Path) -> str:
    datasets.DatasetDict(train=table(), validation=table(row("v"))).save_to_disk(folder)
    return str(folder)


def folder_of_parquet(folder: Path) -> str:
    parquet(folder)
    return str(folder)


@pytest.mark.parametrize("make", [parquet, arrow_stream, arrow_file, saved_dataset, saved_splits, folder_of_parquet])
def test_every_local_form_gives_the_same_corpus(tmp_path: Path, make: Any) -> None:
    corpus = read(make(tmp_path / "squad"))
    first, second = corpus.examples
    assert (first.id, first.question, first.title) == ("a", "Who sat?", "Pets")
    assert first.answers == second.answers == (GoldAnswer("cat", 4),)
    assert first.context is second.context
    assert (corpus.counts.read, corpus.counts.kept, corpus.counts.realigned) == (2, 2, 1)


def test_rows_are_counted_as_questions_of_a_file_are(tmp_path: Path) -> None:
    empty = row("u", answers={"text": [], "answer_start": []})
    counts = read(parquet(tmp_path, row("a"), empty, row("d", "bird"))).counts
    assert (counts.read, counts.kept, counts.unanswerable) == (3, 1, 1)
    assert counts.dropped == {"answer not in context": ["d"]}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"question": None}, "question is missing or empty"),
        ({"context": " "}, "context is empty"),
        ({"answers": None}, "no usable answer is given"),
        ({"id": "a"}, "id is already that of another question"),
    ],
)
def test_a_bad_row_is_skipped_and_named_by_its_number(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    source = parquet(tmp_path, row("a"), {**row("b"), **changed})
    corpus = read(source)
    assert [example.id for example in corpus.examples] == ["a"]
    assert corpus.counts.skipped == {reason: {"count": 1, "first": f"{source}: row 1"}}


def test_answers_without_offsets_are_aligned(tmp_path: Path) -> None:
    without = {"text": ["cat", "mat"], "answer_start": [4]}
    (example,) = read(parquet(tmp_path, row("b", answers=without))).examples
    assert example.answers == (GoldAnswer("cat", 4), GoldAnswer("mat", 19))


def test_a_table_without_questions_names_its_columns(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"identity": "a", "text": "x"}]).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no known schema, it holds an object with 'identity', 'text'"):
        read(str(tmp_path / "x.parquet"))


def test_a_folder_of_squad_json_is_read_like_its_file(tmp_path: Path) -> None:
    (tmp_path / "squad").mkdir()
    asked = {"id": "a", "question": "Who sat?", "answers": [{"text": "cat", "answer_start": 4}]}
    document = {"data": [{"title": "Pets", "paragraphs": [{"context": CONTEXT, "qas": [asked]}]}], "version": "1.1"}
    (tmp_path / "squad" / "train.json").write_text(json.dumps(document))
    assert read(str(tmp_path / "squad")).examples == read(str(tmp_path / "squad" / "train.json")).examples


def test_the_title_may_be_missing(tmp_path: Path) -> None:
    untitled = {key: value for key, value in row("a").items() if key != "title"}
    assert read(parquet(tmp_path, untitled)).examples[0].title is None


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
@pytest.mark.parametrize("content", [b"", b"PAR1nonsense", b"ARROW1\0\0nonsense"])
def test_a_damaged_table_is_one_message(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a data set"):
        read(str(tmp_path / name))


def test_a_table_with_text_that_is_not_utf8_is_one_message(tmp_path: Path) -> None:
    questions = pyarrow.array([b"Who sat?", b"\xff"], pyarrow.binary()).view(pyarrow.string())
    table = pyarrow.table({"question": questions, "context": [CONTEXT, CONTEXT]})
    with pyarrow.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="cannot be read as a data set: 'utf-8'"):
        read(str(tmp_path / "x.arrow"))


def test_an_empty_folder_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be read as a data set"):
        read(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("suffix", "split", "ids"),
    [("", "train", ["a", "b"]), ("", "dev", ["v"]), ("@validation", "train", ["v"])],
)
def test_a_folder_with_splits_gives_the_asked_one(tmp_path: Path, suffix: str, split: Use, ids: list[str]) -> None:
    source = saved_splits(tmp_path / "squad") + suffix
    assert [example.id for example in read(source, use=split).examples] == ids


def test_the_only_split_of_a_folder_is_read_whatever_its_name(tmp_path: Path) -> None:
    assert read(folder_of_parquet(tmp_path / "squad"), use="dev").counts.kept == 2


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    source = saved_splits(tmp_path / "squad")
    with pytest.raises(
        DataError, match=r"has no split 'test' \(it has: train, validation\); name one as .*squad@SPLIT"
    ):
        read(source + "@test")


def test_the_split_asked_of_a_folder_is_part_of_its_identity(tmp_path: Path) -> None:
    source = saved_splits(tmp_path / "squad")
    assert identity(source + "@train") != identity(source + "@validation")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("squad", ("squad", None, None)),
        ("rajpurkar/squad", ("rajpurkar/squad", None, None)),
        ("squadshifts:new_wiki", ("squadshifts", "new_wiki", None)),
        ("google/xquad:xquad.en@validation", ("google/xquad", "xquad.en", "validation")),
        ("a/b/c", None),
        ("a b", None),
        ("squad:", None),
        ("squad@", None),
        ("-squad", None),
        ("/squad", None),
        ("squäd", None),
    ],
)
def test_hub_names_have_an_optional_config_and_split(source: str, parts: tuple[str | None, ...] | None) -> None:
    expected = parts and (HubName(str(parts[0]), parts[1]), parts[2])
    assert parse_hub_name(source) == expected
    assert isinstance(locate(source)[0], HubName) == (parts is not None)


class FakeHub:
    """Stands in for the hub: what it has, whether it answers, and how it was asked."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, splits: dict[str, Any], trouble: Exception | None = None
    ) -> None:
        self.loads: list[tuple[str, str | None, bool]] = []

        def dataset_info(api: Any, name: str, *, timeout: float) -> None:
            assert timeout <= 10
            if trouble:
                raise trouble

        def load_dataset(name: str, config: str | None) -> Any:
            self.loads.append(
                (name, config, datasets.config.HF_HUB_OFFLINE and huggingface_hub.constants.HF_HUB_OFFLINE)
            )
            if not splits:
                raise ConnectionError("Couldn't reach it\nin many lines")
            return datasets.DatasetDict(splits)

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)


@pytest.mark.parametrize(
    ("source", "split", "ids"),
    [
        ("o/squad", "train", ["t"]),
        ("o/squad:plain", "dev", ["v"]),
        ("o/squad@validation", "train", ["v"]),
    ],
)
def test_a_hub_name_gives_the_asked_split(
    monkeypatch: pytest.MonkeyPatch, source: str, split: Use, ids: list[str]
) -> None:
    fake = FakeHub(monkeypatch, {"train": table(row("t")), "validation": table(row("v"))})
    assert [example.id for example in read(source, use=split).examples] == ids
    assert fake.loads == [("o/squad", "plain" if ":" in source else None, False)]


def test_a_lone_test_split_serves_as_validation_but_never_as_training(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeHub(monkeypatch, {"test": table(row("s"))})
    assert read("squadshifts:new_wiki", use="dev").examples[0].id == "s"
    with pytest.raises(DataError, match=r"no split 'train' \(it has: test\); name one as squadshifts:new_wiki@SPLIT"):
        read("squadshifts:new_wiki")
    FakeHub(monkeypatch, {"test": table(row("s")), "train": table(row("t"))})
    with pytest.raises(DataError, match="no split 'validation'"):
        read("squadshifts:new_wiki", use="dev")


def test_a_file_and_a_hub_name_make_one_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    FakeHub(monkeypatch, {"train": table(row("a"))})
    corpus = read("o/squad", parquet(tmp_path, row("p")))
    assert [example.id for example in corpus.examples] == ["a", "p"]


def test_an_unreachable_hub_is_not_asked_again_but_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHub(monkeypatch, {"train": table(row("cached"))}, trouble=OSError("Name or service not known"))
    assert read("o/squad").examples[0].id == "cached"
    assert fake.loads == [("o/squad", None, True)]
    assert not datasets.config.HF_HUB_OFFLINE
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("source", "split", "remedy"),
    [
        ("rajpurkar/squad", "train", "/train-v1.1.json and name the file instead: data.train: path/to/train-v1.1.json"),
        ("squad", "dev", "/dev-v1.1.json and name the file instead: data.dev: path/to/dev-v1.1.json"),
        ("o/other@test", "dev", "download its test split as SQuAD JSON or Parquet"),
    ],
)
def test_without_a_hub_or_cache_the_message_says_which_file_to_fetch(
    monkeypatch: pytest.MonkeyPatch, source: str, split: Use, remedy: str
) -> None:
    FakeHub(monkeypatch, {}, trouble=OSError("Name or service not known\nand more"))
    with pytest.raises(DataError) as caught:
        read(source, use=split)
    assert "could not be had from the Hugging Face hub (Name or service not known); " in str(caught.value)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="needs the package 'datasets'; get it with: pip install datasets"):
        read("o/squad")


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_are_silent_unless_a_terminal_watches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shown: bool
) -> None:
    seen = []
    monkeypatch.setattr(sys, "stderr", type("Stream", (), {"isatty": lambda self: shown})())
    with hub._quiet(datasets):
        seen.append(not datasets.utils.are_progress_bars_disabled())
    assert seen == [shown]
    assert not datasets.utils.are_progress_bars_disabled()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_offline_mode_is_honoured_at_once_and_without_a_traceback(tmp_path: Path, variable: str) -> None:
    program = (
        "from bidaf.data.questions import read_questions\nfrom bidaf.data.sources import find_source\n"
        "from bidaf.errors import DataError\n"
        "try:\n    read_questions(find_source('rajpurkar/squad', 'train'))\n"
        "except DataError as error:\n    print(error)\n"
    )
    environment = {**os.environ, variable: "1", "HF_HOME": str(tmp_path)}
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 20
    assert "OfflineModeIsEnabled" in done.stdout or "offline mode is enabled" in done.stdout
    assert "data.train: path/to/train-v1.1.json" in done.stdout
    assert done.stderr == ""


def test_reading_files_imports_no_heavy_library(tmp_path: Path) -> None:
    program = (
        "import sys\nimport bidaf.data.sources, bidaf.data.questions\n"
        "assert bidaf.data.sources.find_source(sys.executable, 'dev').identity\n"
        "print([name for name in ('datasets', 'huggingface_hub', 'pyarrow', 'spacy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
