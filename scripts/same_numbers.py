"""Say whether today's code trains to the same numbers as the code of another commit, bit for bit.

    python scripts/same_numbers.py COMMIT                     # all cases, about a minute on one core
    python scripts/same_numbers.py COMMIT --case paper-adam

For changes that are to move, rename and shorten code and not to change what it computes. Each case is a short run on
a part of the embedded corpus, of batches that are long enough to run in parts, on one thread of the processor. It is
made twice, by the commit's code and by the working tree's, each in processes of its own.

Compared are, bit for bit, all arrays of the prepared features, raw weights, shadow and optimizer of every checkpoint,
all predictions, and all of metrics.jsonl but the clock, the machine and the settings. What one version calls otherwise
than another stands in the tables at the top. Figures that today's metrics alone have are new, and no difference;
figures that went are one.

Exit code 0 when all is the same, 1 when something differs or does not train, 2 for a commit that can't be read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]

# ---- What versions call otherwise: today's name first, older ones behind it. What is not listed keeps its name.
SETTINGS = {"model.variant": ("model.variant", "model.form")}
CHECKPOINT_FILES = {
    "raw": ("weights/raw.safetensors", "raw.safetensors"),
    "shadow": ("weights/ema.safetensors", "shadow.safetensors"),
    "optimizer": ("optimizer.safetensors",),
}
FEATURE_ARRAYS = {"context_forms": "context_types", "question_forms": "question_types"}  # older name -> today's
# Groups in a line of metrics whose values stood in the line itself before.
METRIC_GROUPS = ("scores",)
# What a line of metrics says of the clock, the machine, the settings and the name of a folder.
NOT_COMPARED = {"elapsed", "seconds", "questions_per_second", "memory_bytes", "config", "features"}

# ---- What is trained
STEPS, STOP = 14, 7  # an epoch has 12: the order of the second one counts too
COMMON: dict[str, Any] = {
    "data.train": "../data/train.json",
    "data.dev": "../data/dev.json",
    "data.vectors": "../data/vectors.txt",
    "data.min_word_count": 2,
    "data.min_char_count": 2,
    "data.max_word_chars": 8,
    "model.hidden_size": 6,
    "model.char_channels": 8,
    "model.char_embedding_size": 4,
    "ema.decay": 0.98,
    "training.max_steps": STEPS,
    "training.batch_size": 60,
    "training.log_every": 1,
    "training.save_every": 5,
    "training.keep_last": 99,
    "training.deterministic": True,
    "evaluation.every_steps": STOP,
}
ADAM, ADADELTA = {"name": "adam", "lr": 0.01}, {"name": "adadelta"}
CASES: dict[str, dict[str, Any]] = {
    "paper-adadelta": {"training.optimizer": ADADELTA},
    "paper-adam": {
        "ema.warmup": "ramp",
        "training.optimizer": ADAM,
        "training.batching": "bucketed",
        "training.clip_norm": 1.0,
    },
    "released-adadelta": {
        "model.variant": "released",
        "ema.warmup": "power",
        "training.optimizer": ADADELTA,
        "training.batching": "bucketed",
        "training.clip_norm": 1.0,
        "training.accumulate": 3,
    },
    "released-adam": {
        "model.variant": "released",
        "model.share_phrase_lstm": False,
        "model.context_dropout": False,
        "ema.decay": None,
        "ema.half_life": 5.0,
        "training.optimizer": ADAM,
        "training.accumulate": 3,
        "training.reshuffle": False,
        "evaluation.max_answer_tokens": 10,
    },
    "no-shadow": {"ema.enabled": False, "model.projection_size": 6, "training.optimizer": ADAM},
    "resumed": {"ema.warmup": "ramp", "training.optimizer": ADAM, "training.accumulate": 3},
}
RESUMED = {"resumed"}

Values = Mapping[str, Any]
"""What a file holds, by name: arrays or plain values."""


@dataclass(frozen=True)
class Version:
    """The code of a commit or of the working tree, and the folder that its runs are made in."""

    name: str
    code: Path
    folder: Path

    def train(self, case: str, settings: Mapping[str, Any]) -> Path:
        """The folder of a finished run. Raises `RuntimeError` with what the program said when it fails."""
        config, run = self.folder / f"{case}.yaml", Path("runs", case)
        config.write_text(json.dumps(named_as_in(self.settings(), settings)), encoding="utf-8")
        first = ["--set", f"training.max_steps={STOP}"] if case in RESUMED else []
        self._python("-m", "bidaf", "train", "-c", config.name, "--run-dir", run, "--device", "cpu", *first)
        if case in RESUMED:
            more = f"training.max_steps={STEPS}"
            self._python("-m", "bidaf", "train", "--resume", run, "--device", "cpu", "--set", more)
        return self.folder / run

    def settings(self) -> set[str]:
        """The names of all settings, with their section. Raises `RuntimeError` when the code is not the one meant."""
        ask = """import json, bidaf.config
sections = bidaf.config.Config.model_fields
names = [f"{name}.{field}" for name, section in sections.items() for field in section.annotation.model_fields]
print(json.dumps([bidaf.config.__file__, names]))"""
        file, names = json.loads(self._python("-c", ask))
        if not Path(file).resolve().is_relative_to(self.code.resolve()):
            raise RuntimeError(f"asked for the code in {self.code}, and got {file}")
        return set(names)

    def _python(self, *arguments: object) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.code), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *map(str, arguments)]
        ran = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        if ran.returncode != 0:
            raise RuntimeError(f"the code of {self.name} ended with code {ran.returncode}: {ran.stderr[-800:].strip()}")
        return ran.stdout


def named_as_in(names: set[str], settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings, by section, under the names that a version has. Raises `RuntimeError` where it has none."""
    sections: dict[str, dict[str, Any]] = {}
    for setting, value in settings.items():
        found = [name for name in SETTINGS.get(setting, (setting,)) if name in names]
        if not found:
            raise RuntimeError(f"there is no setting {setting}, nor one of its older names")
        section, name = found[0].split(".")
        sections.setdefault(section, {})[name] = value
    return sections


def write_data(folder: Path) -> None:
    """The first pages of the embedded corpus, and vectors for every other of its frequent words."""
    folder.mkdir()
    words: Counter[str] = Counter()
    for split, articles in (("train", 20), ("dev", 3)):
        document = json.loads((ROOT / f"data/mini/{split}.json").read_text(encoding="utf-8"))
        document["data"] = document["data"][:articles]
        (folder / f"{split}.json").write_text(json.dumps(document), encoding="utf-8")
        paragraphs = [paragraph for article in document["data"] for paragraph in article["paragraphs"]]
        words.update(word for paragraph in paragraphs for word in paragraph["context"].lower().split())
    draw = random.Random(0)
    rows = ([word, *(f"{draw.gauss(0, 1):.4f}" for _ in range(8))] for word, _ in words.most_common(200)[::2])
    (folder / "vectors.txt").write_text("".join(" ".join(row) + "\n" for row in rows), encoding="utf-8")


def read_run(run: Path) -> dict[str, Values]:
    """All that is compared, file by file. Raises `RuntimeError` for a run in which there is nothing to compare."""
    found: dict[str, Values] = {}
    for checkpoint in sorted((run / "checkpoints").glob("step-*")):
        for kind, names in CHECKPOINT_FILES.items():
            if file := next((checkpoint / name for name in names if (checkpoint / name).exists()), None):
                found[f"{checkpoint.name} {kind}"] = load_file(file)
    found["metrics"] = dict(metrics(run / "metrics.jsonl"))
    for path in sorted((run / "predictions").glob("*.json")):
        # Answers with probabilities: of the best evaluation so far, once without its step. The newest counts.
        name = "n_best" if path.stem.endswith("n_best") else path.stem
        found[f"predictions {name}"] = json.loads(path.read_bytes())
    kinds = {name.split()[-1] if name.startswith("step") else name.split()[0] for name in found if found[name]}
    if missing := {"raw", "optimizer", "metrics", "predictions"} - kinds:
        raise RuntimeError(f"{run} holds no {', '.join(sorted(missing))}")
    return found


def read_features(prepared: Path) -> dict[str, Values]:
    """The arrays of both splits, which versions write in one file or in a file per array."""
    found: dict[str, Values] = {}
    for split in ("train", "dev"):
        [folder] = prepared.glob(f"*/{split}")
        if (file := folder / "features.safetensors").exists():
            found[f"features {split}"] = load_file(file)
        else:
            found[f"features {split}"] = arrays = {}
            for path in folder.glob("*.npy"):
                with path.open("rb") as array:
                    arrays[FEATURE_ARRAYS.get(path.stem, path.stem)] = np.lib.format.read_array(array)
    return found


def metrics(path: Path) -> Iterator[tuple[str, Any]]:
    """The values of metrics.jsonl by event, step and name, the names as the versions have them in common."""
    for line in path.read_bytes().splitlines():
        event = json.loads(line)
        for name, value in flat(event):
            if name.split(".")[0] not in NOT_COMPARED:
                yield f"{event['event']} {event['step']} {name}", value


def flat(values: Values, above: str = "") -> Iterator[tuple[str, Any]]:
    """Values of groups within groups, their names joined by dots; `METRIC_GROUPS` leave no name."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, above if name in METRIC_GROUPS else f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def differences(old: Mapping[str, Values], new: Mapping[str, Values]) -> list[str]:
    """One line for each file that is not the same, with the value that is furthest off."""
    lines = []
    for file in sorted(old.keys() | new.keys()):
        if file not in old or file not in new:
            lines.append(f"{file} {alone(file in old)}")
        elif found := differing(old[file], new[file], new_names_count=file != "metrics"):
            lines.append(f"{file}: {len(found)} of {len(old[file])} differ; {furthest(found, old[file], new[file])}")
    return lines


def differing(old: Values, new: Values, *, new_names_count: bool = True) -> list[str]:
    """The names of values that are not the same, or not in both; with a choice whether what is new is one of them."""
    names = old.keys() | new.keys() if new_names_count else old.keys()
    return sorted(name for name in names if name not in old or name not in new or not is_same(old[name], new[name]))


def furthest(names: list[str], old: Values, new: Values) -> str:
    """Which of these values is furthest off, and by how much. What can't be subtracted goes before what can."""
    for name in names:
        if name not in old or name not in new:
            return f"{name} {alone(name in old)}"
    size, name = max((distance(old[name], new[name]), name) for name in names)
    if size == np.inf:
        return f"{name}: {old[name]!r:.60} and {new[name]!r:.60}"
    return f"largest difference {size:.3g} in {name}"


def alone(is_old: bool) -> str:
    return f"is in the {'old' if is_old else 'new'} run alone"


def is_same(old: Any, new: Any) -> bool:
    """Whether two values are the same to the last bit, of which NaN and -0.0 are no exceptions."""
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        return (old.shape, old.dtype, old.tobytes()) == (new.shape, new.dtype, new.tobytes())
    return json.dumps(old) == json.dumps(new)


def distance(old: Any, new: Any) -> float:
    """The largest difference of two numbers or arrays; infinite for texts, other shapes, and NaN in one alone."""
    ours, theirs = np.asarray(old), np.asarray(new)
    if ours.shape != theirs.shape or not all(np.issubdtype(each.dtype, np.number) for each in (ours, theirs)):
        return np.inf
    gap = np.where(np.isnan(ours) & np.isnan(theirs), 0.0, np.abs(ours.astype(np.float64) - theirs))
    return float(np.nan_to_num(gap, nan=np.inf).max())


def unpack(commit: str, folder: Path) -> str | None:
    """Put the program of a commit into a folder; its short name, or None when there is no such commit."""
    git = ["git", "-C", str(ROOT)]
    known = subprocess.run([*git, "rev-parse", "--short", "--verify", f"{commit}^{{commit}}"], capture_output=True)
    packed = subprocess.run([*git, "archive", "--format=tar", commit, "--", "bidaf"], capture_output=True)
    if known.returncode or packed.returncode:
        return None
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return known.stdout.decode().strip()


def compare(case: str, old: Version, new: Version) -> list[str]:
    """What sets the runs of a case apart, line by line."""
    try:
        runs = [read_run(version.train(case, {**COMMON, **CASES[case]})) for version in (old, new)]
    except RuntimeError as error:
        return [str(error)]
    features = [read_features(version.folder / "prepared") for version in (old, new)]
    return differences({**features[0], **runs[0]}, {**features[1], **runs[1]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="whose numbers are to be met")
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="this one alone; may be given again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        if (short := unpack(options.commit, base / "code")) is None:
            parser.error(f"no program of a commit {options.commit} in {ROOT}")
        old = Version(short, base / "code", base / "old")
        new = Version("the working tree", ROOT, base / "new")
        write_data(base / "data")
        for version in (old, new):
            version.folder.mkdir()
        failed = False
        for case in options.case or CASES:
            found = compare(case, old, new)
            print(f"{case}: {'differs' if found else 'the same'}", *found, sep="\n    ", flush=True)
            failed |= bool(found)
    sys.exit(failed)


if __name__ == "__main__":
    main()
