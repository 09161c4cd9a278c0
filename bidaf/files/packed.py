"""Files that hold one other file: gzip, bzip2, xz, and zip archives of one member, known by how they begin.

Nothing is unpacked to the disk, so that no name in an archive can lead anywhere. The standard library alone is
imported here.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from bidaf.errors import DataError
from bidaf.files.reading import quote, read_bounded

KINDS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip"}
SUFFIXES = (".gz", ".bz2", ".xz", ".zip")
LISTED_MEMBERS = 5


def unpacked(stream: IO[bytes], where: str) -> IO[bytes]:
    """The content of a packed stream, or the stream itself, to be read within `unpacking`.

    Raises `DataError` for a zip archive of several files or of none.
    """
    stream = stream if hasattr(stream, "peek") else io.BufferedReader(cast(io.RawIOBase, stream))
    begin = cast(Any, stream).peek(8)[:8]
    kind = next((kind for magic, kind in KINDS.items() if begin.startswith(magic)), None)
    if kind == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    if kind == "bzip2":
        return cast(IO[bytes], bz2.BZ2File(stream))
    if kind == "xz":
        return cast(IO[bytes], lzma.LZMAFile(stream))
    return _only_member(stream, where) if kind == "zip" else stream


def _only_member(stream: IO[bytes], where: str) -> IO[bytes]:
    archive = zipfile.ZipFile(stream if stream.seekable() else io.BytesIO(read_bounded(stream, where)))
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        listed = ", ".join(map(quote, names[:LISTED_MEMBERS])) + (", ..." if len(names) > LISTED_MEMBERS else "")
        raise DataError(f"{where}: is a zip archive of {len(names)} files ({listed}); unpack it and name one of them")
    return archive.open(names[0])


@contextmanager
def unpacking(where: str) -> Iterator[None]:
    """Turn whatever is wrong with the packing into a `DataError`."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise DataError(f"{where}: is cut off or corrupted ({error}); fetch it again") from None
    except (NotImplementedError, RuntimeError) as error:  # a zip that is encrypted, or packed in a rare way
        raise DataError(f"{where}: can't be unpacked here ({error}); unpack it and name the file in it") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"{where}: is cut off or corrupted ({error}); fetch it again") from None  # bzip2's own
