"""RUN/data: vocabulary, vectors and dev questions, so that a run answers from any folder.

Only training needs the prepared training features. Runs of format 1 have no RUN/data until they are resumed.
"""

from __future__ import annotations

from pathlib import Path

from bidaf.data.cache import Prepared, open_by_key, open_prepared
from bidaf.errors import BidafError, DataError
from bidaf.files.confined import ConfinedFolder
from bidaf.runs.layout import DATA


def keep_data(run: Path, prepared: Prepared) -> None:
    """Give a run its RUN/data, unless it has it intact. Raises `BidafError` when it can't be written."""
    files = ConfinedFolder(run)
    try:
        kept = open_prepared(files.path(DATA))
        kept.verify()
        if kept.key == prepared.key:
            return
    except DataError:  # there is none, or it is corrupted
        pass
    try:
        files.remove(DATA)
        prepared.keep(files.path(DATA))
    except OSError as error:
        raise BidafError(f"{run / DATA} can't be written: {error.strerror or error}") from None


def open_data(run: Path, key: str, prepared_dir: str) -> Prepared:
    """The features of this key: of the run, or else prepared ones. Raises `DataError` when neither is there."""
    try:
        kept = open_prepared(run / DATA)
        if kept.key == key:
            return kept
        problem = f"{run / DATA} holds the features {kept.key}"
    except DataError as error:
        problem = str(error)
    try:
        return open_by_key(prepared_dir, key)
    except DataError as error:
        raise DataError(f"{problem}, and {error}") from None
