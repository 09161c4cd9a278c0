"""What comes with the project besides code: the configs and the embedded corpora.

A wheel holds them inside the package, a checkout next to it.
"""

from __future__ import annotations

from pathlib import Path

from bidaf.errors import DataError

_PACKAGE = Path(__file__).parents[1]
# Folder in a wheel, and in a checkout.
CONFIGS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
CORPORA = (_PACKAGE / "corpora", _PACKAGE.parent / "data")
EMBEDDED = "embedded:"


def shipped_configs() -> Path:
    """The folder of the configs that come with the project."""
    return _existing(CONFIGS)


def embedded_file(source: str, split: str) -> Path | None:
    """The file of a split (`train`, `dev`) of the source `embedded:NAME`; None for any other source.

    Raises `DataError` naming the corpora that exist when there is none of that name.
    """
    if not source.startswith(EMBEDDED):
        return None
    corpora = _existing(CORPORA)
    name = source.removeprefix(EMBEDDED)
    known = sorted(path.parent.name for path in corpora.glob("*/train.json"))
    if name not in known:
        raise DataError(f"no embedded corpus {name!r}; there are: {', '.join(EMBEDDED + each for each in known)}")
    return corpora / name / f"{split}.json"


def _existing(places: tuple[Path, Path]) -> Path:
    return next((place for place in places if place.is_dir()), places[0])
