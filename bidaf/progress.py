"""Progress bars: on stderr where that is a terminal, nowhere else; gone when they are done."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")


def bar(label: str, unit: str, total: int | None, **options: Any) -> tqdm[None]:
    """A bar as wide as the terminal, to be updated within `with`; `options` are tqdm's."""
    from tqdm import tqdm

    return tqdm(desc=label, unit=unit, total=total, disable=None, leave=False, dynamic_ncols=True, **options)


def watched(items: Collection[T], label: str, unit: str, **options: Any) -> Iterator[T]:
    """The items, one after the other, with a bar that counts them."""
    with bar(label, unit, len(items), **options) as shown:
        for item in items:
            yield item
            shown.update()
