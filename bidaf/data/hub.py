"""The SQuAD schema through Hugging Face `datasets` and Arrow: hub names, saved folders, Parquet files."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, model_validator

from bidaf.data.records import NonBlank, Offset, Strict, Text, validate
from bidaf.data.squad import Corpus, Example, GoldAnswer, collect
from bidaf.errors import DataError
from bidaf.files.reading import no_such_file

FILE_SUFFIXES = (".json", ".jsonl", ".gz", ".zip", ".txt", ".parquet", ".arrow")
COLUMNS = ("id", "context", "question", "answers")
SQUAD_SITE = "https://rajpurkar.github.io/SQuAD-explorer/dataset"


class HubName(NamedTuple):
    """`owner/name:config`, of which only the name is needed."""

    name: str
    config: str | None


class AnswerColumns(Strict):
    text: list[Text]
    answer_start: list[Offset]

    @model_validator(mode="after")
    def _same_length(self) -> AnswerColumns:
        if len(self.text) != len(self.answer_start):
            raise ValueError(f"{len(self.text)} texts but {len(self.answer_start)} offsets")
        return self


class Row(Strict):
    id: NonBlank
    question: NonBlank
    context: NonBlank
    answers: AnswerColumns
    title: Text | None = None


_ROWS = TypeAdapter(list[Row])


def parse_hub_name(source: str) -> tuple[HubName, str | None] | None:
    """Read `owner/name:config@split` as a hub name and a split, or return None when it cannot be one."""
    part = r"[A-Za-z0-9][\w.-]*"
    match = re.fullmatch(rf"({part}(?:/{part})?)(?::([^@:/\\\s]+))?(?:@([\w.-]+))?", source, re.ASCII)
    return (HubName(match[1], match[2]), match[3]) if match else None


def locate(source: str) -> tuple[Path | HubName, str | None]:
    """Return the local path or the hub name that a source names, and the split it asks for (`folder@split`).

    The path need not exist: what cannot be a hub name, ends like a file, or starts with a folder that is there
    is meant as a path.
    """
    whole = os.path.expanduser(source)
    base, _, split = whole.rpartition("@")
    if base and not os.path.exists(whole) and os.path.isdir(base):
        return Path(base), split
    hub = parse_hub_name(source)
    top, slash, _ = whole.partition("/")
    is_path = os.path.exists(whole) or source.lower().endswith(FILE_SUFFIXES) or (slash and os.path.isdir(top))
    return (Path(whole), None) if hub is None or is_path else hub


def read_hub(name: str, place: Path | HubName, asked: str | None, split: str) -> Corpus:
    """Read a data set of the SQuAD columns (id, title, context, question, answers{text[], answer_start[]}).

    `place` is a local `.parquet` or `.arrow` file, a local folder (saved by `datasets`, or holding data files), or a
    hub name; `name` is what messages call it. The split `asked` is read, without one `split`. Raises `DataError` for
    what cannot be reached or read, and for rows that are not of this schema.
    """
    table = _read_table(name, place, asked, split)
    missing = [column for column in COLUMNS if column not in table.column_names]
    if missing:
        has = ", ".join(table.column_names) or "no column"
        hint = "; name SQuAD JSON by its file, not its folder" if "data" in table.column_names else ""
        raise DataError(f"{name}: lacks the column {', '.join(missing)} of the SQuAD schema; it has {has}{hint}")
    rows = table.select([*COLUMNS, *({"title"} & set(table.column_names))]).to_pylist()
    records = validate(_ROWS, rows, name, name_item="row {}".format)
    placed = []
    for number, row in enumerate(records):
        pairs = zip(row.answers.text, row.answers.answer_start, strict=True)
        answers = tuple(GoldAnswer(text, start) for text, start in pairs)
        placed.append(((f"row {number}",), Example(row.id, row.question, row.context, answers, row.title or None)))
    return collect(placed, name)


def _read_table(name: str, place: Path | HubName, asked: str | None, split: str) -> Any:
    """Return the `pyarrow.Table` of a source."""
    if isinstance(place, HubName):
        return _choose_split(_download(place, asked or split), name, split, asked)
    if not os.path.exists(place):
        raise no_such_file(place)
    try:
        if place.is_dir():
            return _choose_split(_read_folder(place), name, split, asked, only_one_will_do=True)
        return _read_arrow(place)
    except DataError:
        raise
    except Exception as error:  # pyarrow and datasets raise of every kind on damaged files
        raise DataError(f"{name}: cannot be read as a data set: {_first_line(error)}") from error


def _read_folder(folder: Path) -> dict[str, Any]:
    """Return the splits of a folder by name; what was saved without splits has the empty name."""
    datasets = _library("datasets")
    with _quiet(datasets):
        if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(str(folder))
        else:
            # The files that are here, by name: the folder's README could list addresses for the library to fetch.
            files = datasets.data_files.get_data_patterns(str(folder.absolute()))
            saved = datasets.load_dataset(str(folder), data_files=files)
    return dict(saved) if isinstance(saved, datasets.DatasetDict) else {"": saved}


def _read_arrow(path: Path) -> Any:
    if path.suffix.lower() == ".parquet":
        return _library("pyarrow.parquet").read_table(path)
    ipc = _library("pyarrow.ipc")
    with path.open("rb") as file:
        is_file_format = file.read(6) == b"ARROW1"
        file.seek(0)
        return (ipc.open_file(file) if is_file_format else ipc.open_stream(file)).read_all()


def _choose_split(
    splits: dict[str, Any], name: str, split: str, asked: str | None, *, only_one_will_do: bool = False
) -> Any:
    """Choose the asked or default split; out-of-domain sets have but a test split, which serves as validation."""
    chosen = asked or split
    if chosen not in splits and not asked:
        only = next(iter(splits)) if len(splits) == 1 else None
        if only is not None and (only_one_will_do or (only, split) == ("test", "validation")):
            chosen = only
    if chosen not in splits:
        names = ", ".join(filter(None, splits)) or "none"
        base = name.rpartition("@")[0] or name
        raise DataError(f"{name}: has no split {chosen!r} (it has: {names}); name one as {base}@SPLIT")
    return splits[chosen].with_format("arrow")[:]


def _download(hub: HubName, split: str) -> dict[str, Any]:
    """Fetch a data set, or take it from the local cache when the hub does not answer."""
    datasets, huggingface_hub = _library("datasets"), _library("huggingface_hub")
    trouble: Exception | None = None
    if not datasets.config.HF_HUB_OFFLINE:
        try:  # one short question first: the library itself retries an unreachable hub for half a minute
            huggingface_hub.HfApi().dataset_info(hub.name, timeout=5)
        except Exception as error:
            trouble = error
    with _quiet(datasets), _cache_only(datasets, huggingface_hub, wanted=trouble is not None):
        try:
            return dict(datasets.load_dataset(hub.name, hub.config))
        except Exception as error:
            reason = _first_line(trouble or error)
            if isinstance(trouble, huggingface_hub.errors.RepositoryNotFoundError):
                reason = "it has no public data set of that name"
            raise DataError(
                f"{hub.name}: could not be had from the Hugging Face hub ({reason}); {_remedy(hub, split)}"
            ) from error


def _remedy(hub: HubName, split: str) -> str:
    key = "train" if split == "train" else "dev"
    if hub.name.lower() in ("squad", "rajpurkar/squad"):
        file = f"{key}-v1.1.json"
        return f"download {SQUAD_SITE}/{file} and name the file instead: data.{key}: path/to/{file}"
    wanted = f"its {split} split as SQuAD JSON or Parquet"
    return f"download {wanted} where there is a network and name the file instead: data.{key}: path/to/FILE"


@contextmanager
def _cache_only(datasets: Any, huggingface_hub: Any, *, wanted: bool) -> Iterator[None]:
    """Keep both libraries off the network, as their environment variables do when set before the start."""
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    if wanted:
        datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Show no progress bars where nobody watches them."""
    silence = not sys.stderr.isatty() and not datasets.utils.are_progress_bars_disabled()
    if silence:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            datasets.enable_progress_bars()


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise DataError(f"this data needs the package {package!r}; get it with: pip install {package}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
