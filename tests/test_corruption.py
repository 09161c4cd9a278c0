"""Whatever happens to a checkpoint on the disk is found, and the one before it is used."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import helpers_damage
import pytest
from conftest import CPU, EMA_FILE, RAW_FILE, Configure
from corruptions import make_parts
from helpers_damage import DAMAGES, exchange, take

from bidaf.errors import DataError
from bidaf.runs.checkpoint import CONFIG, OPTIMIZER, CorruptedCheckpoint, open_checkpoint, open_or_suggest
from bidaf.runs.checkpoint_folders import COMPLETE, remove_checkpoint
from bidaf.runs.folder import Run
from bidaf.runs.state import STATE
from bidaf.training.launch import newest_valid_checkpoint, start_run

FILES = (RAW_FILE, EMA_FILE, OPTIMIZER, STATE, CONFIG, COMPLETE)
GOOD, VICTIM = "step-000006", "step-000012"

Damage = Callable[[Path, str, random.Random], None]


def swap(folder: Path, name: str, rng: random.Random) -> None:
    exchange(folder / name, folder / rng.choice([other for other in FILES if other != name]))


def take_from_another(folder: Path, name: str, rng: random.Random) -> None:
    """Of a checkpoint of the same run. All have the same settings: that file is replaced by its neighbour's."""
    take(folder / name, folder.with_name(GOOD) / (STATE if name == CONFIG else name))


def of_file(damage: helpers_damage.Damage, folder: Path, name: str, rng: random.Random) -> None:
    damage(folder / name, rng)


def add(folder: Path, name: str, rng: random.Random) -> None:
    (folder / f"{name}.orig").write_bytes((folder / name).read_bytes())


WAYS: dict[str, Damage] = {
    **{name: partial(of_file, damage) for name, damage in DAMAGES.items()},
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
    WAYS[damage](victim, name, random.Random(f"{damage} {name} {seed}"))
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
@pytest.mark.parametrize("damage", WAYS)
def test_a_damaged_checkpoint_is_found_and_the_one_before_it_used(
    whole: Path, tmp_path: Path, damage: str, name: str
) -> None:
    check(whole, tmp_path / "run", damage, name, seed=0)


def test_corruptions_of_everything_that_a_run_keeps_are_found(tmp_path: Path) -> None:
    """The short form of `scripts/corruptions.py`."""
    parts = make_parts(tmp_path)
    for number in range(120):
        part = parts[number % len(parts)]
        what, found = part.corrupt(random.Random(number))
        assert found, (part.name, what, number)


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
