"""Arrays from `.npy` files that somebody else may have written: exact type, exact size, nothing else is read.

NumPy's own reader takes pickles and archives under this name too, parses the header as Python, and allocates what the
header asks for. Here the header has to be the plain one that `np.save` writes, and the file as long as it says.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidaf.files.reading import refuse_strange_files

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(rb"\{'descr': '([^']+)', 'fortran_order': False, 'shape': \(((?:\d{1,18},? ?)*)\), \} *\n")


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array so that `load_array` reads it."""
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)


def load_array(path: Path, dtype: type[np.generic], dimensions: int, *, mapped: bool = False) -> NDArray[Any]:
    """Read an array of this type and number of dimensions, into memory or mapped from the file.

    Raises `ValueError` for a file of anything else, `OSError` for one that can't be read, `DataError` for a link.
    """
    refuse_strange_files(path.parent, [path.name])
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
        header = file.read(int.from_bytes(file.read(2), "little"))
        begin, size = file.tell(), os.fstat(file.fileno()).st_size
    match = _HEADER.fullmatch(header)
    if magic != _MAGIC or match is None:
        raise ValueError("it is no plain array")
    shape = tuple(int(length) for length in match[2].replace(b",", b" ").split())
    kind, expected = match[1].decode("ascii", "replace"), np.dtype(dtype).str
    if kind != expected or len(shape) != dimensions:
        found = f"{kind} of {len(shape)} dimensions"
        raise ValueError(f"expected numbers {expected} of {dimensions} dimensions, found {found}")
    if begin + math.prod(shape) * np.dtype(dtype).itemsize != size:
        raise ValueError(f"its header says {list(shape)} numbers, and the file has {size:,} bytes")
    if not math.prod(shape):
        return np.empty(shape, dtype)
    array: NDArray[Any] = np.memmap(path, dtype, "r", begin, shape)
    return array if mapped else np.array(array)
