"""Tables through Hugging Face `datasets` and Arrow: hub names, saved folders, Parquet files."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bidaf.data.schemas import KNOWN_KEYS
from bidaf.errors import DataError
from bidaf.files.reading import no_such_file

FILE_SUFFIXES = tuple(".json .jsonl .ndjson .csv .tsv .txt .parquet .arrow .gz .bz2 .xz .zip".split())
ROWS_AT_ONCE = 1_000
SQUAD_SITE = "https://rajpurkar.github.io/SQuAD-explorer/dataset"


class HubName(NamedTuple):
    """`owner/name:config`; the other parts are optional."""

    name: str
    config: str | None


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


def read_rows(name: str, place: Path | HubName, asked: str | None, split: str) -> Iterator[dict[str, Any]]:
    """The rows of a data set, by their columns; of these only the ones that questions are made of, if there are any.

    `place` is a local `.parquet` or `.arrow` file, a local folder (saved by `datasets`, or holding data files), or a
    hub name; `name` is what messages call it. The split `asked` is read, without one `split`. Raises `DataError` for
    what cannot be reached or read.
    """
    try:
        table = _read_table(name, place, asked, split)
        known = [column for column in table.column_names if column in KNOWN_KEYS]
        for batch in table.select(known or table.column_names).to_batches(max_chunksize=ROWS_AT_ONCE):
            yield from batch.to_pylist()
    except DataError:
        raise
    except Exception as error:  # pyarrow and datasets raise all kinds of errors on corrupted files
        raise DataError(f"{name}: cannot be read as a data set: {_first_line(error)}") from error


def _read_table(name: str, place: Path | HubName, asked: str | None, split: str) -> Any:
    """Return the `pyarrow.Table` of a source."""
    if isinstance(place, HubName):
        return _choose_split(_download(place, asked or split), name, split, asked)
    if not os.path.exists(place):
        raise no_such_file(place)
    if place.is_dir():
        return _choose_split(_read_folder(place), name, split, asked, only_one_will_do=True)
    return _read_arrow(place)


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
    """Choose the asked or default split; out-of-domain sets have only a test split, which serves as validation."""
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
    """Show progress bars on a terminal only."""
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
