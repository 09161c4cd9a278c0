"""Progress bars: on stderr if that is a terminal, of several processes by rank 0; erased when they are done."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any, TypeVar

from tqdm import tqdm
from tqdm.utils import disp_len

T = TypeVar("T")

ECHO_COLUMNS = (
    3  # kept free at the right: the `^C` that a terminal shows would wrap the line, and half of it would stay
)
# From the longest to the shortest text; the first that fits is used. None is tqdm's default.
LAYOUTS = (
    None,
    "{desc} {percentage:.0f}% {n_fmt}/{total_fmt} [{remaining}{postfix}]",
    "{desc} {n_fmt}/{total_fmt}{postfix}",
)


class Bar(tqdm):  # type: ignore[misc]
    """A bar as wide as the terminal; its text is complete at 60 columns, and closing it erases it."""

    def __str__(self) -> str:
        values = self.format_dict
        columns = values["ncols"]
        if not columns or not self.total:
            return str(super().__str__())
        values["ncols"] = columns - ECHO_COLUMNS
        for layout in LAYOUTS:
            values["bar_format"] = layout
            if disp_len(self.format_meter(**{**values, "ncols": None})) <= values["ncols"]:
                break
        return str(self.format_meter(**values))

    def close(self) -> None:
        """Erase the bar, and a `^C` behind it."""
        if not self.disable:
            self.display(" " * ((self.ncols or 1) - 1))
        super().close()


def bar(label: str, unit: str, total: int | None, **options: Any) -> Bar:
    """A bar to be updated within `with`; `options` are tqdm's."""
    disable = None if os.environ.get("RANK", "0") == "0" else True  # None: where stderr is no terminal
    return Bar(desc=label, unit=unit, total=total, disable=disable, leave=False, dynamic_ncols=True, **options)


def watched(items: Collection[T], label: str, unit: str, **options: Any) -> Iterator[T]:
    """The items one by one, with a bar that counts them."""
    with bar(label, unit, len(items), **options) as shown:
        for item in items:
            yield item
            shown.update()
