"""Writing and deleting inside one folder and nowhere else: no link in it is followed.

A run folder may come from somebody else, or from an archive. A link in it to a file elsewhere would let a resumed run
overwrite or delete that file; a pipe would block it forever.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from bidaf.errors import DataError
from bidaf.files.writing import json_text, point_link, remove, sync, write_text

_NEW_FILE = 0o666  # less what the umask takes away


class ConfinedFolder:
    """A folder, given by path, whose content is written through these methods; names are relative to it.

    Every method raises `DataError` where a folder on the way is a link or no folder, and `OSError` for what the system
    refuses.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Where `name` lies. A link that has the name itself is the caller's to replace or remove."""
        path = self.root / name
        for folder in reversed(path.relative_to(self.root).parents[:-1]):
            self._refuse_other_than_folder(self.root / folder)
        return path

    def make_folder(self, name: str) -> Path:
        """The folder of this name, which may be there already."""
        path = self.path(name)
        self._refuse_other_than_folder(path)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def entries(self, name: str) -> list[Path]:
        """What the folder of this name holds, by name; nothing where there is none."""
        path = self.path(name)
        self._refuse_other_than_folder(path)
        return sorted(path.iterdir()) if path.is_dir() else []

    def write_text(self, name: str, text: str) -> None:
        """Write or replace a file at once."""
        write_text(self.path(name), text)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as `json_text` has it."""
        self.write_text(name, json_text(value))

    def append(self, name: str, text: str) -> None:
        """Append to a file; one that is not there is made."""
        handle = self.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a regular file. Raises `DataError` for a link, pipe or device."""
        path = self.path(name)
        try:
            handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, _NEW_FILE)
        except OSError:
            if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
                raise _strange(path, "file") from None
            raise
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise _strange(path, "file")
        return handle

    def link(self, name: str, target: Path) -> None:
        """Point the link `name` at something in this folder; replaces an older link at once."""
        path = self.path(name)
        point_link(path, os.path.relpath(target, path.parent))

    def remove(self, name: str) -> None:
        """Delete a file, a folder with all in it, or a link itself."""
        remove(self.path(name))

    def sync(self, name: str = "") -> None:
        """Flush a file's content, or a folder's entries, to the disk, if it is there."""
        path = self.path(name)
        if path.is_file() or path.is_dir():
            sync(path)

    def _refuse_other_than_folder(self, path: Path) -> None:
        if os.path.lexists(path) and not stat.S_ISDIR(path.lstat().st_mode):
            raise _strange(path, "folder")


def _strange(path: Path, wanted: str) -> DataError:
    """What to say of something in a run's folder that is not written to."""
    kind = "a link" if path.is_symlink() else f"no {wanted}"
    return DataError(f"{path} is {kind} and is not written to; put a {wanted} of its own there, or remove it")
