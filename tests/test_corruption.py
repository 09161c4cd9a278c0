"""Whatever happens to a checkpoint on the disk is found, and the one before it is used."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CPU, EMA_FILE, RAW_FILE, Configure

from bidaf.errors import DataError
from bidaf.runs.checkpoint import CONFIG, OPTIMIZER, CorruptedCheckpoint, open_checkpoint, open_or_suggest
from bidaf.runs.checkpoint_folders import COMPLETE, remove_checkpoint
from bidaf.runs.folder import Run
from bidaf.runs.state import STATE
from bidaf.training.launch import newest_valid_checkpoint, start_run

FILES = (RAW_FILE, EMA_FILE, OPTIMIZER, STATE, CONFIG, COMPLETE)
GOOD, VICTIM = "step-000006", "step-000012"

Damage = Callable[[Path, str, random.Random], None]


def rewrite(change: Callable[[bytearray, random.Random], object]) -> Damage:
    """Damage to a file's bytes."""

    def damage(folder: Path, name: str, rng: random.Random) -> None:
        before = (folder / name).read_bytes()
        while True:
            after = bytearray(before)
            change(after, rng)
            if after != before:
                (folder / name).write_bytes(after)
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


def remove(folder: Path, name: str, rng: random.Random) -> None:
    (folder / name).unlink()


def make_a_folder_of_it(folder: Path, name: str, rng: random.Random) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()


def swap(folder: Path, name: str, rng: random.Random) -> None:
    other = rng.choice([other for other in FILES if other != name])
    (folder / name).rename(folder / "aside")
    (folder / other).rename(folder / name)
    (folder / "aside").rename(folder / other)


def take_from_another(folder: Path, name: str, rng: random.Random) -> None:
    """Of a checkpoint of the same run. All have the same settings: that file is replaced by its neighbour's."""
    shutil.copyfile(folder.with_name(GOOD) / (STATE if name == CONFIG else name), folder / name)


def add(folder: Path, name: str, rng: random.Random) -> None:
    (folder / f"{name}.orig").write_bytes((folder / name).read_bytes())


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
    "swapped": swap,
    "of another checkpoint": take_from_another,
    "extra file": add,
}


@pytest.fixture(scope="module")
def whole(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    start_run(configure(), folder, CPU, lambda message: None)
    return folder


def check(whole: Path, folder: Path, damage: str, name: str, seed: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder, symlinks=True)
    run = Run.open(folder)
    victim = run.checkpoints / VICTIM
    DAMAGES[damage](victim, name, random.Random(f"{damage} {name} {seed}"))
    trial = f"{damage}: {name}, seed {seed}"
    with pytest.raises(CorruptedCheckpoint, match=VICTIM):
        print(trial, open_checkpoint(victim))
    with pytest.raises(CorruptedCheckpoint, match=rf"this one is valid: .*{GOOD}\)"):
        open_or_suggest(folder / "last")
    said: list[str] = []
    found = newest_valid_checkpoint(run, said.append)
    assert found is not None, trial
    assert found.folder.name == GOOD, trial
    assert len(said) == 1, trial
    assert VICTIM in said[0], trial


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_found_and_the_one_before_it_used(
    whole: Path, tmp_path: Path, damage: str, name: str
) -> None:
    check(whole, tmp_path / "run", damage, name, seed=0)


@pytest.mark.slow
def test_500_damages_are_500_found(whole: Path, tmp_path: Path) -> None:
    for trial in range(500):
        rng = random.Random(trial)
        check(whole, tmp_path / "run", rng.choice(list(DAMAGES)), rng.choice(FILES), trial)


def test_checkpoints_that_changed_places_are_found(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, symlinks=True)
    good, victim = run / "checkpoints" / GOOD, run / "checkpoints" / VICTIM
    remove_checkpoint(victim)
    good.rename(victim)
    with pytest.raises(CorruptedCheckpoint, match="it holds the checkpoint of step 6; rename it back"):
        open_checkpoint(victim)
    assert open_checkpoint(victim.rename(run / "mine")).step == 6  # any other name says nothing of a step


@pytest.mark.parametrize(("old", "new"), [(b"\n", b"\r\n"), (b"\n", b"\r"), (b"{", b"\xef\xbb\xbf{")])
def test_other_line_ends_and_a_byte_order_mark_are_found(whole: Path, tmp_path: Path, old: bytes, new: bytes) -> None:
    folder = shutil.copytree(whole / "checkpoints" / GOOD, tmp_path / GOOD)
    marker = folder / COMPLETE
    marker.write_bytes(marker.read_bytes().replace(old, new))
    with pytest.raises(CorruptedCheckpoint):
        open_checkpoint(folder)


def test_hidden_files_of_the_system_are_no_damage(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "checkpoints" / GOOD, tmp_path / GOOD)
    (tmp_path / GOOD / ".DS_Store").write_bytes(b"x")
    assert open_checkpoint(tmp_path / GOOD).step == 6


def test_without_a_sound_one_nothing_is_suggested(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "checkpoints" / GOOD, tmp_path / GOOD)
    (tmp_path / GOOD / RAW_FILE).write_bytes(b"")
    with pytest.raises(DataError, match=r"use another one$"):
        open_or_suggest(tmp_path / GOOD)
