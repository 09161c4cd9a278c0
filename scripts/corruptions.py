"""Corrupt what a run keeps on the disk, by the thousand; each time it must be found.

    python scripts/corruptions.py --count 20000 --seed 0

A small run is trained and exported. Then, over and over, one file is damaged (tests/helpers_damage.py), exchanged with
another one of its folder, or replaced by its counterpart of another moment:

- of a checkpoint: it must be found, and the checkpoint before it be the one that a resumed run continues from;
- a snapshot, a file of the prepared features, of RUN/data or of an export: it must be found;
- metrics.jsonl: every line that is still whole must be read as it was, and every other one be an event or be counted
  as unread. (What a changed digit was before is written nowhere.)

Exit code 1 when one was missed.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crash_test import write_data

from bidaf.data.cache import open_prepared
from bidaf.errors import DataError
from bidaf.inference.exported import INFO, PARTS, open_export
from bidaf.runs.checkpoint import CorruptedCheckpoint, open_checkpoint
from bidaf.runs.checkpoint_folders import list_checkpoints
from bidaf.runs.events import load_event
from bidaf.runs.folder import Run
from bidaf.runs.layout import DATA, METRICS
from bidaf.runs.log import read_events, read_run
from bidaf.runs.snapshots import CorruptedSnapshot, read_snapshot, snapshot_path
from bidaf.training.launch import newest_valid_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers_damage import DAMAGES, exchange, take

EXCHANGED, OF_ANOTHER = "exchanged", "of another moment"


@dataclass(frozen=True)
class Part:
    """Files that lie together, and what must find damage to one of them."""

    name: str
    files: Sequence[Path]
    is_found: Callable[[Path], bool]
    others: Callable[[Path], Path | None] = lambda path: None
    """The counterpart of a file, of another moment."""
    can_exchange: bool = True

    def corrupt(self, rng: random.Random) -> tuple[str, bool]:
        """Damage one file, look, and make it whole again: what was done, and whether it was found."""
        path = rng.choice(self.files)
        ways = [*DAMAGES, *([EXCHANGED] if self.can_exchange else []), *([OF_ANOTHER] if self.others(path) else [])]
        way = rng.choice(ways)
        other = path
        if way == EXCHANGED:
            other = rng.choice([each for each in self.files if each != path and each.parent == path.parent] or [path])
            way = way if other != path else "bit flipped"
        intact = {each: each.read_bytes() for each in {path, other}}
        if way == EXCHANGED:
            exchange(path, other)
        elif way == OF_ANOTHER:
            counterpart = self.others(path)
            assert counterpart is not None
            take(path, counterpart)
        else:
            DAMAGES[way](path, rng)
        if all(each.is_file() and each.read_bytes() == content for each, content in intact.items()):
            return self.corrupt(rng)  # both held the same
        try:
            return f"{way}: {path.name}", self.is_found(path)
        finally:
            for each, content in intact.items():
                if each.is_dir():
                    each.rmdir()
                each.unlink(missing_ok=True)
                each.write_bytes(content)


def raises(error: type[Exception], work: Callable[[], object]) -> bool:
    """Whether it ends in this error."""
    try:
        work()
    except error:
        return True
    return False


def make_parts(folder: Path) -> list[Part]:
    """Train and export; what is then on the disk."""
    write_data(folder)
    train = "train --config crash.yaml --run-dir run --device cpu"
    for command in (train, "export -m run -o export"):
        full = [sys.executable, "-m", "bidaf", *command.split()]
        made = subprocess.run(full, cwd=folder, capture_output=True, text=True)
        if made.returncode:
            raise SystemExit(f"bidaf {command} ended with {made.returncode}\n{made.stderr}")
    export = folder / "export"
    (prepared,) = (path for path in (folder / "prepared").iterdir() if path.is_dir() and path.name[0] != ".")
    run = Run.open(folder / "run")
    return [
        checkpoint_part(run),
        snapshot_part(run),
        features_part("prepared features", prepared),
        features_part("RUN/data", run.folder / DATA),
        Part(
            "export",
            [export / name for name in (INFO, *PARTS["safetensors"])],
            lambda path: raises(DataError, lambda: open_export(export)),
        ),
        metrics_part(run.folder),
    ]


def checkpoint_part(run: Run) -> Part:
    """The newest checkpoint; the one before it is what a resumed run must find."""
    *_, before, newest = list_checkpoints(run.checkpoints)

    def is_found(path: Path) -> bool:
        said: list[str] = []
        found = newest_valid_checkpoint(run, said.append)
        named = len(said) == 1 and newest.name in said[0]
        return found is not None and found.folder == before and named and raises(CorruptedCheckpoint, open_newest)

    def open_newest() -> object:
        return open_checkpoint(newest)

    files = [path for path in newest.rglob("*") if path.is_file()]
    return Part("checkpoint", files, is_found, lambda path: before / path.relative_to(newest))


def snapshot_part(run: Run) -> Part:
    """All snapshots that the newest checkpoint names."""
    *_, newest = list_checkpoints(run.checkpoints)
    folder = run.folder / "snapshots"
    records = {snapshot_path(folder, record.step): record for record in open_checkpoint(newest).state.snapshots}
    files = list(records)

    def is_found(path: Path) -> bool:
        return raises(CorruptedSnapshot, lambda: read_snapshot(folder, records[path]))

    return Part("snapshot", files, is_found, lambda path: files[files.index(path) - 1])


def features_part(name: str, folder: Path) -> Part:
    """Prepared features."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Part(name, files, lambda path: raises(DataError, lambda: open_prepared(folder).verify()))


def metrics_part(run: Path) -> Part:
    """The file of metrics."""
    path = run / METRICS
    whole = {line: load_event(line) for line in path.read_bytes().splitlines()}

    def is_found(path: Path) -> bool:
        if not path.is_file():
            return raises(DataError, lambda: read_run(run))
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
        events = read_events(run)
        kept = [whole[line] for line in lines if line in whole]
        unread = len(lines) - len(events)
        with suppress(DataError):  # no line is left
            unread = min(unread, read_run(run).unread)
        return all(event in events for event in kept) and unread == len(lines) - len(events)

    return Part("metrics", [path], is_found, can_exchange=False)


def main() -> int:
    """Print what was corrupted, what was missed, and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="over all parts together (default 20000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bidaf-corruptions-") as name:
        parts = make_parts(Path(name))
        counts, missed = Counter[str](), Counter[str]()
        for number in range(options.count):
            part = parts[number % len(parts)]
            what, found = part.corrupt(random.Random(f"{options.seed} {number}"))
            counts[part.name] += 1
            if not found:
                missed[part.name] += 1
                print(f"missed: {part.name}, {what}, number {number}", file=sys.stderr)
    print("| of | corrupted | missed |\n|---|---|---|")
    for each in parts:
        print(f"| {each.name} | {counts[each.name]:,} | {missed[each.name]} |")
    print(f"| all | {counts.total():,} | {missed.total()} |")
    return int(missed.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
