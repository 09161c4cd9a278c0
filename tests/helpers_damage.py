"""What happens to files on a disk: bits flip, ends are lost, files vanish, get exchanged, or come from elsewhere."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, random.Random], None]
"""Changes a file, and none other, so that what is read from it differs from what was written."""


def rewrite(change: Callable[[bytearray, random.Random], object]) -> Damage:
    """Damage to a file's bytes."""

    def damage(path: Path, rng: random.Random) -> None:
        before = path.read_bytes()
        while True:
            after = bytearray(before)
            change(after, rng)
            if after != before:
                path.unlink()  # another folder may share the file
                path.write_bytes(after)
                return

    return damage


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def shorten(data: bytearray, rng: random.Random) -> None:
    del data[-1]


def empty(data: bytearray, rng: random.Random) -> None:
    data.clear()


def lengthen(data: bytearray, rng: random.Random) -> None:
    data += rng.choice([b"\0", b" ", b"\n", b"x" * 99])


def lose_a_block(data: bytearray, rng: random.Random) -> None:
    """What a disk gives back that lost power between size and content."""
    begin = rng.randrange(0, len(data), 512)
    data[begin : begin + 512] = bytes(len(data[begin : begin + 512]))


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def make_a_folder_of_it(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "bit flipped": rewrite(flip),
    "byte overwritten": rewrite(overwrite),
    "truncated": rewrite(truncate),
    "last byte lost": rewrite(shorten),
    "emptied": rewrite(empty),
    "lengthened": rewrite(lengthen),
    "block lost": rewrite(lose_a_block),
    "missing": remove,
    "a folder": make_a_folder_of_it,
}


def exchange(path: Path, other: Path) -> None:
    """Give two files each other's name."""
    aside = path.with_name("aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


def take(path: Path, other: Path) -> None:
    """Replace a file by a copy of another one."""
    path.unlink()
    shutil.copyfile(other, path)
