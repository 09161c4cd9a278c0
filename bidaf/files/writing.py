"""Writing files and folders: a crash or a second process leaves the old content or the new one, never a part.

What is being written has a name of its own until it is complete, and its writer holds a lock on it. The system drops
the lock with the process, so leftovers of a killed process are recognized without its id, which containers reuse.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bidaf.errors import BidafError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

NAME_CHARACTERS = 50  # of the final name within the temporary one: up to 4 bytes each, of 255 in a file system
# `temporary_sibling`, and as versions before 0.2 named them.
TEMPORARY = re.compile(r"\.(.+?)\.(?:\d+(?:-[0-9a-f]{8})?\.)?tmp")


def write_text(path: Path, text: str) -> None:
    """Write a file of ours at once; where `path` is a link, the link is replaced. Raises `OSError`."""
    _replace(path, _encode(text))


def write_json(path: Path, value: Any) -> None:
    """Write a value as `json_text` has it."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Readable JSON, floats at full precision."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_output(path: Path, content: str | bytes) -> None:
    """Write the file that a user named. Raises `BidafError` when that fails.

    A link is followed, a device or pipe is written to, and a regular file is replaced at once, keeping its mode.
    """
    try:
        data = _encode(content) if isinstance(content, str) else content
        mode = _mode_of(path)
        if (stream := _standard_stream(path)) is not None:
            with os.fdopen(os.dup(stream), "wb") as file:
                file.write(data)
        elif mode is None or stat.S_ISREG(mode):
            _replace(Path(os.path.realpath(path)), data, mode)
        else:
            with path.open("wb") as file:
                file.write(data)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character, or without a name
        raise BidafError(f"{path} can't be written: {getattr(error, 'strerror', None) or error}") from None


def check_output(path: Path) -> None:
    """Raise `UsageError` where `write_output` is bound to fail, before hours of work go into the content."""
    try:
        mode = _mode_of(path)
        folder = os.path.dirname(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be written: {getattr(error, 'strerror', None) or error}") from None
    problem = None
    if mode is not None and stat.S_ISDIR(mode):
        problem = "it is a folder; name a file"
    elif mode is not None and not os.access(path, os.W_OK):
        problem = os.strerror(errno.EACCES)
    elif mode is not None and not stat.S_ISREG(mode):
        return
    elif not os.path.isdir(folder):
        problem = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem = f"the folder {folder} can't be written to"
    if problem:
        raise UsageError(f"{path} can't be written: {problem}")


def check_folder(folder: Path) -> bool:
    """Whether anything of this name exists. Raises `UsageError` where nothing does and no folder can be made."""
    try:
        folder.lstat()
        return True
    except FileNotFoundError:
        parent = next(each for each in folder.absolute().parents if os.path.lexists(each))
        if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
            raise UsageError(f"{folder} can't be made: no folder can be made in {parent}") from None
        return False
    except (OSError, ValueError) as error:  # a file on the way to it, a name too long, a NUL character
        raise UsageError(f"{folder} can't be made: {getattr(error, 'strerror', None) or error}") from None


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a new safetensors file; its mode follows the umask, as that of every other file does.

    Raises `OSError` or `SafetensorError`.
    """
    from safetensors.torch import save_file

    if not is_utf8(path):
        raise OSError(errno.EILSEQ, "the name is not UTF-8, which safetensors files need", str(path))
    with path.open("xb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(mode)  # the library makes files of mode 0600


def is_utf8(path: Path) -> bool:
    """Whether a name can be written in UTF-8; those that the system took from other bytes can't."""
    return not any("\ud800" <= char <= "\udfff" for char in str(path))


def point_link(link: Path, target: str) -> None:
    """Make the symbolic link `link` name `target` (relative to the link's folder), replacing an older link at once."""
    temporary = temporary_sibling(link)
    temporary.symlink_to(target)
    try:
        temporary.replace(link)
    except OSError:
        temporary.unlink()
        raise


def temporary_sibling(path: Path) -> Path:
    """A unique name next to `path`, for a file that will be renamed to it."""
    return path.with_name(f".{_stem(path)}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


@contextmanager
def claim_folder(target: Path) -> Iterator[Path]:
    """A new folder next to `target`, to be filled and put in its place by `put_folder`; else removed at the end.

    Leftovers of killed processes with the same target are removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(target.parent, glob.escape(_stem(target)))
    folder, handle = _claim(target, Path.mkdir)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def put_folder(folder: Path, target: Path) -> bool:
    """Rename `folder` to `target`; False where something other than an empty folder has that name."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    sync(target.parent)
    return True


def remove_stale(folder: Path, names: str) -> None:
    """Remove what killed processes left half written in `folder`, of the final names that match the glob `names`."""
    for path in folder.glob(".*.tmp"):
        match = TEMPORARY.fullmatch(path.name)
        if not match or not fnmatchcase(match[1], names):
            continue
        if path.is_symlink():
            path.unlink(missing_ok=True)
            continue
        with suppress(OSError):  # its writer, or another cleaner, was faster
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
            finally:
                os.close(handle)


def remove(path: Path) -> None:
    """Delete a file, a folder with all in it, or a link itself; nothing happens where none is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes, mode: int | None = None) -> None:
    temporary, handle = _claim(path, lambda new: new.touch(exist_ok=False))
    try:
        with temporary.open("wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def _claim(target: Path, make: Callable[[Path], object]) -> tuple[Path, int]:
    """Make and lock a temporary file or folder next to `target`; its path, and the handle that holds the lock."""
    while True:
        path = temporary_sibling(target)
        make(path)
        with suppress(FileNotFoundError):  # before it was locked, `remove_stale` of another process took it for stale
            handle = os.open(path, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks, where nothing is ever removed as stale
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.path.lexists(path):
                return path, handle
            os.close(handle)


def _encode(text: str) -> bytes:
    """UTF-8; a file name that is none comes escaped, as JSON and YAML read it back."""
    return text.encode("utf-8", "backslashreplace")


def _stem(path: Path) -> str:
    return path.name[:NAME_CHARACTERS]


def _mode_of(path: Path) -> int | None:
    """Type and permissions of what `path` leads to; None where that is to be made."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _standard_stream(path: Path) -> int | None:
    """Standard output or error, where `path` (as /dev/stdout) is the file that it is open on: not to be replaced."""
    for number in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(number)):
                return number
    return None
