"""Bad input by the thousand: the commands it is given to, and how each one's word about it is checked.

`TARGETS` has one entry a kind of input. The suite draws some of each (test_bad_input.py), `scripts/fuzz.py` as many as
asked for. What is generated stands in `strategies_fuzz.py`.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import strategies_fuzz as made
import torch
import yaml
from helpers_cli import DEV, Ran, bidaf, sign_export, squad, succeed, train_tiny, write_sealed
from hypothesis.strategies import SearchStrategy
from oracle import asked_in, unpack

from bidaf.config_file import REMOVED
from bidaf.data.cache import MANIFEST_FILE
from bidaf.files.reading import sha256_of
from bidaf.inference.loading import find_checkpoint
from bidaf.runs.checkpoint_folders import COMPLETE, list_checkpoints
from bidaf.runs.state import WEIGHTS, read_state

TINY_STEPS = 20  # of the run that `train_tiny` makes
CPU_SECONDS, SECONDS = 20.0, 60.0
"""What one input may take; the second is for waiting, and long because the machine may be busy."""

GOLD = {question["id"]: question for page in squad(DEV, "dev")["data"][0]["paragraphs"] for question in page["qas"]}


@dataclass(frozen=True)
class Home:
    """A folder with a trained run, an export of it, and a place for each target to write."""

    folder: Path
    run: Path
    export: Path

    def copy(self, source: Path, *names: str) -> Path:
        """A fresh copy of a folder, to be damaged."""
        target = self.folder.joinpath("fuzz", *names)
        shutil.rmtree(self.folder / "fuzz" / names[0], ignore_errors=True)
        shutil.copytree(source, target, symlinks=True)
        return target

    def features(self, place: str) -> tuple[Path, Path, Path]:
        """A copy of the run, the features that it answers with, and the folder to ask it in.

        The features are its own (`place` is `run`), or `prepared` ones, as runs of format 1 use them.
        """
        run = self.copy(self.run, "run")
        if place == "run":
            return run, run / "data", run
        shutil.rmtree(run / "data")
        [sound] = (self.folder / "prepared").glob("[0-9a-f]*")
        folder = self.copy(sound, "features", "prepared", sound.name)
        return run, folder, folder.parents[1]


@functools.cache
def make_home(base: Path) -> Home:
    """The home that all targets of a session share."""
    folder, export = base / "fuzz-home", base / "fuzz-export"
    tiny = train_tiny(base)
    shutil.copytree(tiny.folder, folder, symlinks=True)  # others read that one
    run = folder / tiny.run.relative_to(tiny.folder)
    succeed("export", "-m", run, "-o", export, cwd=folder)
    torch.set_flush_denormal(False)
    (folder / "fuzz").mkdir()
    (folder / "questions.json").write_text(json.dumps(squad(DEV, "dev")), encoding="utf-8")
    (folder / "empty.json").write_text("{}")
    return Home(folder, run, export)


class Loss(Exception):
    """The command took the input, and something of it went missing without a word."""


class Hang(BaseException):
    """The command did not come to an end."""


@dataclass(frozen=True)
class Outcome:
    """How a command took one input."""

    code: int | None
    """Exit code; None when it had none."""
    problem: str = ""
    """`traceback`, `hang`, `loss` or `code`; empty when all is well."""
    detail: str = ""


@dataclass(frozen=True)
class Target:
    """One kind of input, the command that reads it, and the exit codes it may end with."""

    name: str
    strategy: SearchStrategy[Any]
    run: Callable[[Home, Any], Ran]
    codes: frozenset[int]

    def judge(self, home: Home, value: Any) -> Outcome:
        """Give one input to the command. Nothing that goes wrong escapes."""
        try:
            with _limits():
                ran = self.run(home, value)
        except Loss as loss:
            return Outcome(0, "loss", str(loss))
        except Hang as hang:
            return Outcome(None, "hang", str(hang))
        except Exception:
            return Outcome(None, "traceback", traceback.format_exc())
        if "Traceback" in ran.err or "Warning:" in ran.err:
            return Outcome(ran.code, "traceback", ran.err)
        one_message = ("\n" + ran.err).count("\nerror: ") == (1 if ran.code else 0)
        if ran.code not in self.codes or not one_message or (ran.code and ran.out):
            return Outcome(ran.code, "code", f"exit code {ran.code}, stdout {ran.out[:200]!r}, stderr {ran.err!r}")
        return Outcome(ran.code)


@contextmanager
def _limits() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang("".join(traceback.format_stack(frame)))

    before = [signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)  # which commands set, and hypothesis can't draw floats with
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)


def _expect(holds: bool, problem: str) -> None:
    if not holds:
        raise Loss(problem)


# Questions: counted here by the standard library alone

READ, SKIPPED = re.compile(r": [\w ]+, questions: ([\d,]+)"), re.compile(r": skipped ([\d,]+) of ([\d,]+)")


def _count(match: re.Match[str] | None) -> int:
    return int(match[1].replace(",", "")) if match else 0


def _write(home: Home, file: made.QuestionFile) -> Path:
    path = home.folder / "fuzz" / file.name
    path.write_bytes(file.content)
    return path


def _reported(ran: Ran, asked: int) -> tuple[int, int]:
    """The numbers of records read and skipped, as the command reports them."""
    read, skipped = _count(READ.search(ran.err)), _count(SKIPPED.search(ran.err))
    _expect(read >= asked, f"{read} read of {asked}")
    return read, skipped


def prepare_questions(home: Home, file: made.QuestionFile) -> Ran:
    """Training data: every record is kept, or counted with the reason why not."""
    path, prepared = _write(home, file), home.folder / "fuzz" / "prepared"
    shutil.rmtree(prepared, ignore_errors=True)
    options = (f"data.train={path}", f"data.prepared_dir={prepared}")
    ran = bidaf("prepare", "-c", "tiny.yaml", "--json", *(f"--set={each}" for each in options), cwd=home.folder)
    if ran.code == 0:
        asked = asked_in(file.name, file.content)
        counts = ran.json["counts"]["train"]
        dropped = [id for ids_of_reason in counts["dropped"].values() for id in ids_of_reason]
        skipped = sum(entry["count"] for entry in counts["skipped"].values())
        _expect(counts["read"] >= len(asked), f"{counts['read']} read of {len(asked)}")
        left_out = counts["unanswerable"] + len(dropped) + skipped
        _expect(counts["kept"] + left_out == counts["read"], f"{counts} of {len(asked)}")
    path.unlink()
    return ran


def eval_questions(home: Home, file: made.QuestionFile) -> Ran:
    """Data to be scored on: every question with an answer counts, the others are counted and reported."""
    path = _write(home, file)
    ran = bidaf("eval", "-m", home.export, "-d", path, "--json", cwd=home.folder)
    if ran.code == 0:
        read, skipped = _reported(ran, len(asked_in(file.name, file.content)))
        left_out = _count(re.search(r"([\d,]+) unanswerable questions are left out", ran.err))
        _expect(ran.json["questions"] + left_out + skipped == read, f"{ran.json['questions']} scored of {read}")
        answers = home.folder / "empty.json"
        scored = bidaf("score", path, answers, "--answerable-only", "--json", cwd=home.folder)
        _expect(scored.code == 0, scored.err)
        _expect(scored.json["questions"] == ran.json["questions"], "eval and score count other questions")
    path.unlink()
    return ran


def predict_questions(home: Home, file: made.QuestionFile) -> Ran:
    """Questions in every schema: each is answered out of its own context, or counted and reported."""
    path = _write(home, file)
    ran = bidaf("predict", path, "-m", home.export, "--n-best", 2, cwd=home.folder)
    if ran.code == 0:
        asked = asked_in(file.name, file.content)
        read, skipped = _reported(ran, len(asked))
        _expect(len(ran.json) + skipped == read, f"{len(ran.json)} answered and {skipped} skipped of {read}")
        _expect(len({answered["id"] for answered in ran.json}) == len(ran.json), "an id twice")
        contexts: dict[str, list[str]] = {}
        for each in asked:
            contexts.setdefault(str(each.question), []).append(str(each.context))
        for answered in ran.json:
            _expect(bool(answered["answers"]), "a question without an answer")
            for best in answered["answers"]:
                _expect(0 <= best["probability"] <= 1.000001, f"a probability of {best['probability']}")
                cut = [context[best["start"] : best["end"]] for context in contexts[answered["question"]]]
                _expect(best["text"] in cut and best["text"] != "", "an answer not in its context")
        missing = sum(each.good for each in asked) - len(ran.json)
        _expect(missing <= skipped, f"{missing} good questions are missing, {skipped} were skipped")
    path.unlink()
    return ran


def score_predictions(home: Home, content: bytes) -> Ran:
    """Prediction files: every question counts, and every id without a place is told of."""
    file = home.folder / "fuzz" / "predictions.json"
    file.write_bytes(content)
    ran = bidaf("score", "dev.json", file, "--json", cwd=home.folder)
    if ran.code == 0:
        given = json.loads(unpack(content).decode("utf-8-sig"))
        _expect(ran.json["questions"] == len(GOLD), "questions of the data went missing")
        _expect(ran.json["missing"] == [id for id in GOLD if id not in given], "missing ids")
        _expect(ran.json["unknown"] == [id for id in given if id not in GOLD], "unknown ids")
    return ran


def read_glove(home: Home, wrapped: tuple[str, bytes, bytes]) -> Ran:
    """Word vectors, plain and packed: every word has a row."""
    name, content, plain = wrapped
    file, prepared = home.folder / "fuzz" / name, home.folder / "fuzz" / "prepared"
    file.write_bytes(content)
    shutil.rmtree(prepared, ignore_errors=True)
    options = (f"data.vectors={file}", f"data.prepared_dir={prepared}")
    ran = bidaf("prepare", "-c", "tiny.yaml", "--json", *(f"--set={each}" for each in options), cwd=home.folder)
    file.unlink()
    if ran.code == 0:
        lines = [line.rstrip() for line in plain.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
        if len(fields := lines[0].split()) == 2 and all(field.isdigit() for field in fields):
            lines = lines[1:]
        # The first line decides the width; here it is the fewest blanks, which a word with blanks can't make fewer.
        width = min(line.count(b" ") for line in lines if line)
        words = {line.rsplit(b" ", width)[0] for line in lines if line}
        found = ran.json["counts"]["vocabulary"]["fixed_words"]
        _expect(found == len(words), f"{found} of {len(words)} words")
    return ran


# Settings: what a config says is what comes out


def _leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*place, str(key)))
    elif place:
        yield place, value


def _expect_settings(said: Any, shown: Any) -> None:
    for place, value in _leaves(said):
        if ".".join(place) in REMOVED:
            continue
        found = shown
        for key in place:
            found = found.get(key, Loss) if isinstance(found, dict) else Loss
        same = found == value or found == [value] or (isinstance(value, str) and str(found) == str(_number(value)))
        _expect(same, f"{'.'.join(place)} is {found!r}, not {value!r}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def show_config(home: Home, content: bytes) -> Ran:
    """Config files: every setting in the file is in force."""
    file = home.folder / "fuzz" / "fuzz.yaml"
    file.write_bytes(content)
    ran = bidaf("config", "show", file, "--json", cwd=home.folder)
    if ran.code == 0:
        _expect_settings(yaml.safe_load(content.decode("utf-8-sig")), ran.json)
    return ran


def set_settings(home: Home, overrides: list[str]) -> Ran:
    """`--set`: the last word on each key holds."""
    options = [f"--set={override}" for override in overrides]
    ran = bidaf("config", "show", "tiny.yaml", "--json", *options, cwd=home.folder)
    if ran.code == 0 and overrides:
        key, _, value = overrides[-1].partition("=")
        said = yaml.safe_load(value)
        for part in reversed(key.strip().split(".")):
            said = {part: said}
        _expect_settings(said, ran.json)
    return ran


# Folders: damaged is refused; made so is refused, or does what any folder of its kind does


def _answers(home: Home, model: Path, cwd: Path) -> Ran:
    ran = bidaf("predict", home.folder / "questions.json", "-m", model, "--n-best", 1, cwd=cwd)
    if ran.code == 0:
        _expect([answered["id"] for answered in ran.json] == list(GOLD), "not every question has its answer")
        probabilities = [best["probability"] for answered in ran.json for best in answered["answers"]]
        _expect(all(0 <= probability <= 1.000001 for probability in probabilities), f"probabilities {probabilities}")
    return ran


@functools.cache
def _sound_answers(home: Home, model: Path) -> str:
    return _answers(home, model, home.folder).out


def open_export(home: Home, damage: made.Damage) -> Ran:
    """An export that somebody damaged, or made so."""
    folder = home.copy(home.export, "export")
    damage.apply(folder, sign=sign_export)
    ran = _answers(home, folder, home.folder)
    if ran.code == 0 and not damage.signed:
        _expect(ran.out == _sound_answers(home, home.export), "damage changed an answer")
    return ran


def sign_checkpoint(folder: Path) -> None:
    """Write the checksums of the files as they are now into the marker."""
    if not (folder / COMPLETE).is_file():  # a pipe, say
        return
    parts = [path for path in sorted(folder.rglob("*")) if path.name not in (COMPLETE, WEIGHTS)]
    files = {path.relative_to(folder).as_posix(): sha256_of(path) if path.is_file() else "0" * 64 for path in parts}
    (folder / COMPLETE).write_text(json.dumps(files, indent=2) + "\n", encoding="utf-8")


def open_checkpoint(home: Home, damage: made.Damage) -> Ran:
    """A checkpoint that somebody damaged, or made so."""
    sound = find_checkpoint(home.run)
    folder = home.copy(sound, "checkpoint", sound.name)
    damage.apply(folder, sign=sign_checkpoint)
    ran = _answers(home, folder, home.folder)
    if ran.code == 0 and not damage.signed:
        _expect(ran.out == _sound_answers(home, sound), "damage changed an answer")
    return ran


def resume_run(home: Home, damage: made.Damage) -> Ran:
    """A run whose only checkpoint is corrupted or forged: it trains one more step, or says why not."""
    run = home.copy(home.run, "resume")
    *others, newest = list_checkpoints(run / "checkpoints")
    for other in others:
        shutil.rmtree(other)
    damage.apply(newest, sign=sign_checkpoint)
    longer = ("training.max_steps=21", "training.epochs=21")
    ran = bidaf("train", "--resume", run, *(f"--set={each}" for each in longer), cwd=home.folder)
    if ran.code == 0:
        _expect(read_state(run / "last")[0].training.step == 21, "the step was not made")
    return ran


def sign_prepared(folder: Path) -> None:
    """Write the checksums of the files as they are now into the manifest."""
    if not (folder / MANIFEST_FILE).is_file():  # a link to an endless file, say
        return
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="ascii"))
    files = {name: folder / name for name in manifest["files"]}
    manifest["files"] = {name: sha256_of(path) if path.is_file() else "0" * 64 for name, path in files.items()}
    write_sealed(folder / MANIFEST_FILE, manifest)


@functools.cache
def _sound_scores(home: Home) -> dict[str, Any]:
    scores: dict[str, Any] = bidaf("eval", "-m", home.run, "--json", cwd=home.folder).json
    return {**scores, "model": None}


def open_features(home: Home, damage: made.Damage, *, place: str) -> Ran:
    """Features that somebody changed: a run's own, or prepared ones; unless signed, they change no score."""
    run, folder, here = home.features(place)
    damage.apply(folder, sign=sign_prepared)
    ran = bidaf("eval", "-m", run, "--json", cwd=here)
    if ran.code == 0 and not damage.signed:
        _expect({**ran.json, "model": None} == _sound_scores(home), f"damage changed the scores to {ran.json}")
    return ran


# A run's folder that somebody put things into: nothing outside of it changes, nothing hangs


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def open_run(home: Home, meddling: made.Meddling) -> Ran:
    """Links, pipes, devices and spoiled lines in a run: it is listed, reported, scored or resumed, or refused."""
    run = home.copy(home.run, "meddled", "runs", "run")
    folder = run.parents[1]
    for name in ("runs/other", "others/folder"):
        shutil.copytree(home.run, folder / name, symlinks=True)
    (folder / "others" / "file").write_text("another's", encoding="utf-8")
    made.make_device(folder / "others" / "zero")
    before = _contents(folder / "others")
    meddling.apply(run, folder / "others")
    commands = {
        "list": ("runs", "runs", "--json"),
        "report": ("report", run),
        "score": ("eval", "-m", run, "--json"),
        "resume": ("train", "--resume", run, "--device", "cpu", "--set", f"training.max_steps={TINY_STEPS + 1}"),
    }
    ran = bidaf(*commands[meddling.command], cwd=folder)
    _expect(_contents(folder / "others") == before, "something outside of the run changed")
    if meddling.command == "list" and ran.code == 0:
        _expect("other" in [Path(each["folder"]).name for each in ran.json], "another run is not listed")
    return ran


DATA, CONFIG = frozenset({0, 3}), frozenset({0, 2})
TARGETS = [
    Target("prepare", made.question_files(), prepare_questions, DATA),
    Target("eval", made.question_files(), eval_questions, DATA),
    Target("predict-json", made.question_files(formats=("json",)), predict_questions, DATA),
    Target("predict-lines", made.question_files(formats=("jsonl", "csv", "tsv")), predict_questions, DATA),
    Target("score", made.prediction_files, score_predictions, DATA),
    Target("glove", made.glove_files(), read_glove, DATA),
    Target("config", made.config_files, show_config, CONFIG),
    Target("set", made.overrides, set_settings, CONFIG),
    Target("export", made.damages, open_export, DATA),
    Target("checkpoint", made.damages, open_checkpoint, DATA),
    # 1: weights that diverged, 2: settings that are not the run's.
    Target("resume", made.damages, resume_run, frozenset({0, 1, 2, 3})),
    Target("prepared", made.damages, functools.partial(open_features, place="prepared"), DATA),
    Target("run-data", made.damages, functools.partial(open_features, place="run"), DATA),
    # 1: a report that can't be written, 2: settings that are not the run's.
    Target("run", made.meddlings, open_run, frozenset({0, 1, 2, 3})),
]
