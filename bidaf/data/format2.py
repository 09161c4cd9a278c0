"""Arrays of prepared folders of format 2 (version 0.1) and of exports of format 1: a `.npy` file per array.

Somebody else may have written them: nothing is read that is not of the expected type and exactly as long as its
header states.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bidaf.files.reading import refuse_strange_files

FORMAT_VERSION = 2
# Today's name -> that of format 2.
_RENAMED = {"context_types": "context_forms", "question_types": "question_forms"}


def load_arrays(folder: Path, kinds: Mapping[str, tuple[type[np.generic], int]]) -> dict[str, NDArray[Any]]:
    """The arrays of a split by today's names, each of its type and number of dimensions. Raises as `load_array`."""
    return {name: load_array(folder / f"{_RENAMED.get(name, name)}.npy", *kind) for name, kind in kinds.items()}


def load_array(path: Path, dtype: type[np.generic], dimensions: int) -> NDArray[Any]:
    """An array of this type and number of dimensions.

    Raises `ValueError` for a file of anything else, `OSError` for one that can't be read, `DataError` for a link.
    """
    refuse_strange_files(path.parent, [path.name])
    with path.open("rb") as file:
        try:
            if npy.read_magic(file) != (1, 0):
                raise ValueError
            shape, by_columns, found = npy.read_array_header_1_0(file)
        except Exception:  # crafted headers make NumPy's parser raise exceptions of every kind
            raise ValueError("it is no plain array") from None
        begin, size = file.tell(), os.fstat(file.fileno()).st_size
    if found != dtype or len(shape) != dimensions or by_columns:
        expected = f"numbers {np.dtype(dtype)} of {dimensions} dimensions"
        raise ValueError(f"expected {expected}, found {found} of {len(shape)} dimensions")
    if min(shape) < 0 or begin + math.prod(shape) * found.itemsize != size:
        raise ValueError(f"its header states {list(shape)} numbers, and the file has {size:,} bytes")
    return np.fromfile(path, dtype, offset=begin).reshape(shape)
