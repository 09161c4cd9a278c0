"""Commands as they are typed: what they print where, what they leave behind, and the code each error ends with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers_cli import DEV, Tiny, bidaf, fail, squad, succeed, write_tiny

from bidaf.inference import loading
from bidaf.runs import checkpoint
from bidaf.runs.folder import Run
from bidaf.training.step import StepResult, TrainingStep


@pytest.fixture
def home(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny folder, to do anything to."""
    folder = tmp_path / "home"
    shutil.copytree(tiny.folder, folder, symlinks=True)
    return folder


TINY = ("-c", "tiny.yaml")


# Train


def test_a_run_prints_to_stderr_alone_and_leaves_a_folder_that_tells_everything(tiny: Tiny) -> None:
    assert tiny.trained.out == ""
    assert "in runs/tiny\n" in tiny.trained.err
    names = {path.name for path in tiny.run.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.jsonl", "log.txt", "checkpoints", "best", "last"} <= names
    assert os.readlink(tiny.folder / "runs" / "latest") == "tiny"


def test_training_again_gives_the_same_weights_and_prepares_nothing_again(tiny: Tiny, home: Path) -> None:
    for source in ("train.json", "dev.json", "vectors.txt"):
        (home / source).unlink()
    [folder] = (home / "prepared").iterdir()
    ran = succeed("train", *TINY, "--prepared", folder, "--run-dir", "again", cwd=home)
    assert "questions\n" not in ran.err
    ours, theirs = (
        {path.name: path.read_bytes() for path in (run / "checkpoints" / "step-000020").rglob("*.safetensors")}
        for run in (home / "again", tiny.run)
    )
    assert len(ours) == 3
    assert ours == theirs


def test_an_interrupted_run_is_saved_and_goes_on_to_the_same_end(
    tiny: Tiny, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrainingStep.run

    def interrupted_step(self: TrainingStep, *args: Any) -> StepResult:
        if args[3] == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(TrainingStep, "run", interrupted_step)
    ran = bidaf("train", *TINY, "--run-dir", "runs/stopped", cwd=home)
    assert (ran.code, ran.out) == (130, "")
    assert "interrupted and saved; resume with: bidaf train --resume runs/stopped" in ran.err
    assert "Traceback" not in ran.err
    monkeypatch.undo()
    assert Run.open(home / "runs" / "stopped").last_checkpoint().name == "step-000007"
    assert "at step 7 of 20" in succeed("train", "--resume", cwd=home).err
    last = "checkpoints/step-000020/weights/ema.safetensors"
    assert (home / "runs" / "stopped" / last).read_bytes() == (tiny.run / last).read_bytes()


def test_training_says_what_it_does_where_and_prints_its_scores(home: Path) -> None:
    ran = succeed("train", *TINY, "--run-dir", "new", "--device", "cpu", "--json", cwd=home)
    where, sizes, *_ = ran.err.splitlines()
    assert re.fullmatch(r"run new on cpu, \d+ threads?", where)
    assert sizes == "3,075 parameters; 20 steps, 1 per epoch of batches of 6"
    assert ran.json["scores"].keys() == {"raw", "ema"}
    logged = next(event for event in reversed(Run.open(home / "new").events()) if event["event"] == "eval")
    assert ran.json["scores"] == logged["scores"]
    assert (ran.json["run"], ran.json["step"]) == ("new", 20)


def test_a_finished_run_says_what_would_resume_it(home: Path) -> None:
    assert "raise training.epochs" in succeed("train", "--resume", "tiny", cwd=home).err
    settings = ["--set", "training.max_steps=20"]
    assert "raise training.max_steps" in succeed("train", "--resume", "tiny", *settings, cwd=home).err


def test_data_next_to_the_config_is_named(home: Path) -> None:
    (home / "elsewhere").mkdir()
    for command in ("train", "prepare"):
        message = fail(3, command, "-c", "../tiny.yaml", cwd=home / "elsewhere")
        assert f"{home}/elsewhere/train.json: no such file" in message
        assert "data.train: paths are relative to the current folder" in message
        assert message.endswith("../vectors.txt")
    assert "next to" not in fail(3, "train", *TINY, "-s", "data.train=none.json", cwd=home)
    assert sorted(path.name for path in home.iterdir() if path.name in ("runs", "elsewhere")) == ["elsewhere", "runs"]


def test_a_finished_run_goes_on_when_it_is_given_more_epochs(home: Path) -> None:
    ran = succeed("train", "--resume", "tiny", "--set", "training.epochs=22", "--run-dir", "longer", cwd=home)
    assert "at step 20 of 22" in ran.err
    assert Run.open(home / "longer").last_checkpoint().name == "step-000022"
    assert Run.open(home / "runs" / "tiny").last_checkpoint().name == "step-000020"


# Prepare, eval, score


def test_prepare_counts_every_question_and_finds_its_work_again(tiny: Tiny) -> None:
    first = succeed("prepare", *TINY, "--json", cwd=tiny.folder)
    assert first.err == ""
    assert first.json["counts"]["train"]["kept"] == first.json["counts"]["dev"]["kept"] == 6
    assert (tiny.folder / first.json["folder"] / "manifest.json").is_file()
    assert "vocabulary: 17 words with fixed vectors" in succeed("prepare", *TINY, cwd=tiny.folder).out


@pytest.mark.parametrize(("weights", "flag"), [("ema", "--use-ema"), ("raw", "--no-use-ema")])
def test_eval_gives_the_score_that_the_run_logged_for_these_weights(tiny: Tiny, weights: str, flag: str) -> None:
    result = succeed("eval", flag, "--json", cwd=tiny.folder).json
    assert list(result) == ["exact_match", "f1", "questions", "rule", "weights", "model", "data"]
    logged = tiny.last_scores()
    assert {key: result[key] for key in ("exact_match", "f1")} == logged[weights]
    assert (result["questions"], result["weights"], result["data"]) == (6, weights, ["dev.json"])
    assert result["model"] == "runs/tiny/checkpoints/step-000020"


def test_raw_and_shadow_weights_answer_differently(tiny: Tiny, tmp_path: Path) -> None:
    answers = []
    for flag in ("--use-ema", "--no-use-ema"):
        succeed("eval", flag, "-p", tmp_path / flag, cwd=tiny.folder)
        answers.append(json.loads((tmp_path / flag).read_text()))
    assert answers[0].keys() == answers[1].keys()
    assert answers[0] != answers[1]
    for weights, given in zip(("ema", "raw"), answers, strict=True):
        assert given == json.loads((tiny.run / "predictions" / f"step-000020.{weights}.json").read_text())


@pytest.mark.parametrize("flag", ["--use-ema", "--no-use-ema"])
def test_a_model_has_one_score_by_whatever_way_it_is_asked(tiny: Tiny, tmp_path: Path, flag: str) -> None:
    export, answers, dev = tmp_path / "model", tmp_path / "answers.json", tiny.folder / "dev.json"
    succeed("export", flag, "-o", export, cwd=tiny.folder)
    results = [
        succeed("eval", flag, "--json", "-p", answers, cwd=tiny.folder).json,
        succeed("eval", flag, "--json", "-m", "tiny", "--data", "dev.json", cwd=tiny.folder).json,
        succeed("eval", flag, "--json", "-m", tiny.run / "best", cwd=tiny.folder).json,
        succeed("eval", flag, "--json", "-m", export, cwd=tiny.folder).json,
        succeed("eval", flag, "--json", "-m", export, "--data", dev, cwd=tmp_path).json,
        succeed("score", dev, answers, "--json", cwd=tmp_path).json,
    ]
    succeed("predict", dev, "-m", export, flag, "-o", answers, cwd=tmp_path)
    results.append(succeed("score", dev, answers, "--json", cwd=tmp_path).json)
    assert len({(result["exact_match"], result["f1"], result["questions"]) for result in results}) == 1


def test_eval_on_another_file_scores_that_file(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(squad(DEV[:1], "dev")))
    result = succeed("eval", "--data", tmp_path / "one.json", "--json", cwd=tiny.folder).json
    assert (result["questions"], result["data"]) == (2, [str(tmp_path / "one.json")])


def test_tables_and_json_tell_the_same_score(tiny: Tiny) -> None:
    result = succeed("eval", "--no-use-ema", "--json", cwd=tiny.folder).json
    table = succeed("eval", "--no-use-ema", cwd=tiny.folder).out
    row = next(line for line in table.splitlines() if "raw" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["raw", f"{result['exact_match']:.2f}", f"{result['f1']:.2f}", "6"]


def test_score_says_which_questions_have_no_prediction(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "answers.json").write_text('{"dev-0-0": "in Rome", "stranger": "x"}')
    ran = succeed("score", "dev.json", "answers.json", "--json", cwd=tmp_path)
    assert ran.json["exact_match"] == pytest.approx(100 / 6)
    assert len(ran.json["missing"]) == 5
    assert ran.json["unknown"] == ["stranger"]
    assert "5 questions have no prediction and score 0" in ran.err


# Errors

Arrange = Callable[[Path], object]
Case = tuple[list[str], Arrange, str]


def nothing(home: Path) -> None:
    pass


def write(name: str, content: str | bytes) -> Arrange:
    return lambda home: (home / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def forget(*names: str) -> Arrange:
    def arrange(home: Path) -> None:
        for name in names:
            shutil.rmtree(home / name)

    return arrange


def damage_checkpoint(home: Path) -> None:
    path = home / "runs" / "tiny" / "checkpoints" / "step-000020" / "weights" / "raw.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def train_on(source: str) -> list[str]:
    return ["train", *TINY, "--set", f"data.train={source}", "--run-dir", "new"]


ANSWER = '{"data": [{"paragraphs": [{"context": "a b", "qas": [{"id": "1", "question": "?", "answers": '

USAGE: dict[str, Case] = {
    "unknown command": (["traain"], nothing, "No such command 'traain'. Did you mean 'train'?; see bidaf --help"),
    "run folder on a file": (["train", *TINY, "--run-dir", "dev.json"], nothing, "dev.json can't be made"),
    "run folder in a file": (["train", *TINY, "--run-dir", "dev.json/run"], nothing, "dev.json/run can't be made"),
    "unknown option": (["train", "--qq"], nothing, "No such option: --qq; see bidaf train --help"),
    "missing argument": (["score", "dev.json"], nothing, "Missing argument 'predictions'"),
    "missing option": (["export"], nothing, "Missing option '--output'"),
    "not a number": (["predict", "dev.json", "--n-best", "x"], nothing, "Invalid value for '--n-best'"),
    "number too small": (["predict", "dev.json", "--n-best", "0"], nothing, "Invalid value for '--n-best'"),
    "no config": (["train"], nothing, "name a config, as in: bidaf train --config squad.yaml"),
    "config not there": (["train", "-c", "squda.yaml"], nothing, "did you mean squad.yaml?"),
    "config a folder": (["train", "-c", "runs"], nothing, "runs is a folder"),
    "config not YAML": (["train", "-c", "x.yaml"], write("x.yaml", "data: ["), "x.yaml is not a YAML config"),
    "config binary": (["train", "-c", "x.yaml"], write("x.yaml", b"\xff\xfe"), "x.yaml is not UTF-8 text"),
    "misspelt setting": (["train", *TINY, "-s", "training.bach_size=3"], nothing, "did you mean training.batch_size?"),
    "setting without value": (["train", *TINY, "-s", "ema.decay"], nothing, "write it as section.key=value"),
    "setting of a wrong type": (["train", *TINY, "-s", "ema.decay=high"], nothing, "ema.decay (--set)"),
    "setting out of range": (["train", *TINY, "-s", "ema.decay=1"], nothing, "should be less than 1"),
    "unknown device": (["train", *TINY, "--device", "gpu"], nothing, "unknown device 'gpu'"),
    "device not there": (["eval", "--device", "cuda:99"], nothing, "no device cuda:99"),
    "run folder in use": (["train", *TINY, "--run-dir", "runs/tiny"], nothing, "runs/tiny already holds a run"),
    "a resumed run tried out": (["train", "--resume", "--dry-run"], nothing, "--dry-run tries out a new run"),
    "run without --resume": (["train", "tiny"], nothing, "bidaf train --resume tiny"),
    "config in the place of a run": (["train", "tiny.yaml"], nothing, "bidaf train --config tiny.yaml"),
    "config with another ending": (["train", "-c", "tiny.yml"], nothing, "did you mean tiny.yaml?"),
    "scores of no run": (["train", *TINY, "--dry-run", "--json"], nothing, "--dry-run has none"),
    "resume with other settings": (["train", "--resume", "tiny", "-s", "training.seed=9"], nothing, "training.seed"),
    "resume into a folder": (["train", "--resume", "tiny", "--run-dir", "prepared"], nothing, "prepared exists"),
    "output not writable": (["predict", "dev.json", "-o", "no/folder/x.json"], nothing, "no/folder/x.json can't be"),
    "output without a name": (["predict", "dev.json", "-o", "."], nothing, ". can't be written"),
    "name too long": (["export", "-o", "x" * 300], nothing, "File name too long"),
    "predictions not writable": (["eval", "-p", "runs"], nothing, "runs can't be written"),
    "export not possible": (["export", "-o", "dev.json/model"], nothing, "dev.json/model can't be made"),
    "an option like no other": (["train", *TINY, "--seed", "1"], nothing, "No such option: --seed; see bidaf train"),
    "an option misspelt": (["predict", "dev.json", "--n_best", "3"], nothing, "(Possible options: --n-best); see"),
    "quiet": (["eval", "--quiet"], nothing, "2>/dev/null is quiet"),
    "two choices of weights": (["eval", "-w", "raw", "--use-ema"], nothing, "contradict each other"),
    "both and one of them": (["eval", "--both", "--no-use-ema"], nothing, "contradict each other"),
    "one set to predict with": (["predict", "dev.json", "-w", "raw", "-w", "ema"], nothing, "takes one weight set"),
    "one set to ask": (["ask", "-c", "dev.json", "-q", "Who?", "-w", "raw", "-w", "ema"], nothing, "takes one weight"),
    "one set to export": (["export", "-o", "model", "-w", "raw", "-w", "ema"], nothing, "takes one weight set"),
    "predictions of two sets": (["eval", "--both", "-p", "x.json"], nothing, "takes the answers of one weight set"),
}
DATA: dict[str, Case] = {
    "missing file": (train_on("trian.json"), nothing, "did you mean train.json?"),
    "directory": (train_on("runs"), nothing, "runs"),
    "empty file": (train_on("x.json"), write("x.json", ""), "x.json: is empty"),
    "truncated JSON": (train_on("x.json"), write("x.json", ANSWER), "x.json: is not JSON at line 1, column"),
    "not JSON": (train_on("x.json"), write("x.json", "Dear user"), "x.json: is not JSON at line 1, column 1"),
    "not text": (train_on("x.json"), write("x.json", b"\x89PNG\xff"), "x.json: is not UTF-8"),
    "zip archive": (train_on("x.json"), write("x.json", b"PK\x03\x04\xff"), "x.json: is cut off or corrupted"),
    "tar archive": (train_on("x.json"), write("x.json", b"x" * 257 + b"ustar"), "x.json: is a tar archive; unpack it"),
    "vectors in an archive": (
        ["train", *TINY, "-s", "data.vectors=x.txt"],
        write("x.txt", b"7z\xbc\xaf\x27\x1c\0\x04"),
        "x.txt: is a 7z archive; unpack it",
    ),
    "a list": (train_on("x.json"), write("x.json", "[]"), "x.json: no question can be used"),
    "wrong nesting": (
        train_on("x.json"),
        write("x.json", '{"data": [{"paragraphs": {}}]}'),
        "x.json: has no known schema",
    ),
    "answers of a wrong type": (
        train_on("x.json"),
        write("x.json", ANSWER + '[{"text": 3, "answer_start": 0}]}]}]}]}'),
        "no usable answer is given (1): data[0].paragraphs[0].qas[0]",
    ),
    "no usable question": (train_on("x.json"), write("x.json", ANSWER + "[]}]}]}]}"), "no question can be used"),
    "vectors missing": (["train", *TINY, "-s", "data.vectors=x.txt"], nothing, "x.txt: no such file"),
    "vectors ragged": (["train", *TINY, "-s", "data.vectors=x.txt"], write("x.txt", "a 1 2\nb 1\n"), "x.txt, line 2"),
    "unknown run": (["eval", "-m", "nowhere"], nothing, "no run nowhere, neither as a path nor in runs/"),
    "no run at all": (["eval"], forget("runs"), "no run yet in runs/"),
    "nothing to resume": (["train", "--resume"], forget("runs"), "no run yet"),
    "folder that is no run": (["predict", "dev.json", "-m", "prepared"], nothing, "prepared is not a run folder"),
    "run without checkpoint": (["eval", "-m", "tiny"], forget("runs/tiny/checkpoints"), "holds no checkpoint yet"),
    "resume without checkpoint": (["train", "--resume"], forget("runs/tiny/checkpoints"), "holds no valid checkpoint"),
    "damaged checkpoint": (["eval", "-m", "tiny"], damage_checkpoint, "is corrupted: weights/raw.safetensors changed"),
    "resume from damage alone": (["train", "--resume"], damage_checkpoint, "holds no valid checkpoint"),
    "data gone": (["eval", "-m", "tiny"], forget("prepared", "runs/tiny/data"), "needs its vocabulary"),
    "eval on nothing": (["eval", "-d", "x.json"], nothing, "x.json: no such file"),
    "predict on nothing": (["predict", "dve.json"], nothing, "did you mean dev.json?"),
    "predict on a folder": (["predict", "runs"], nothing, "runs: cannot be read as a data set"),
    "predictions missing": (["score", "dev.json", "x.json"], nothing, "x.json: no such file"),
    "predictions a text": (["score", "dev.json", "x.json"], write("x.json", '"Rome"'), "x.json"),
    "predictions numbers": (["score", "dev.json", "x.json"], write("x.json", '{"dev-0-0": 1}'), "dev-0-0"),
}
FAILED: dict[str, Case] = {
    "loss not finite": (
        ["train", *TINY, "-s", "data.vectors=x.txt"],
        write("x.txt", "in 3e38 -3e38\nthe 3e38 3e38\n"),
        "is not finite; no weight",
    ),
}
ERRORS = {1: FAILED, 2: USAGE, 3: DATA}


@pytest.mark.parametrize(
    ("code", "args", "arrange", "problem"),
    [pytest.param(code, *case, id=f"{code} {name}") for code, cases in ERRORS.items() for name, case in cases.items()],
)
def test_an_error_is_one_message_and_its_code(
    home: Path, code: int, args: list[str], arrange: Arrange, problem: str
) -> None:
    arrange(home)
    assert problem in fail(code, *args, cwd=home)
    assert not (home / "new").exists()


@pytest.mark.parametrize("command", [("eval",), ("predict", "dev.json"), ("export", "-o", "model")])
def test_ctrl_c_outside_of_training_is_one_message(
    home: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def press_ctrl_c(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "open_or_suggest", press_ctrl_c)
    monkeypatch.setattr(checkpoint, "open_checkpoint", press_ctrl_c)
    assert fail(130, *command, cwd=home) == "interrupted"
    assert not (home / "model").exists()


def test_a_machine_without_memory_is_told_what_to_lower(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TrainingStep, "run", allocate)
    assert fail(1, "train", *TINY, cwd=home).startswith("out of memory; lower training.batch_size")


def test_without_arguments_the_help_is_shown_as_a_usage_error(tmp_path: Path) -> None:
    for command in ((), ("config",)):
        ran = bidaf(*command, cwd=tmp_path)
        assert ran.code == 2
        assert "Usage: bidaf" in ran.out
        assert ran.err.startswith("error: no command; see bidaf")


COMMANDS = """prepare, train, eval, predict, ask, score, compare, sweep, ensemble, experiment, export, report, explain,
serve, runs list, runs rm, config show, config describe, config validate, config diff"""


@pytest.mark.parametrize("command", re.split(r",\s", COMMANDS))
def test_each_command_explains_itself_and_names_no_file_that_only_a_checkout_has(tmp_path: Path, command: str) -> None:
    explained = succeed(*command.split(), "-h", cwd=tmp_path).out
    assert f"Usage: bidaf {command}" in explained
    assert not re.search(r"\b(configs|docs|scripts)/", explained)
    assert command.split()[0] in succeed("--help", cwd=tmp_path).out


def test_the_module_runs_as_the_command_does_and_its_output_may_be_cut_short(home: Path) -> None:
    bash = f"set -o pipefail; {sys.executable} -m bidaf score dev.json answers.json --json | true"
    many = {f"stranger-{number}": "x" for number in range(20_000)}
    (home / "answers.json").write_text(json.dumps(many))
    child = subprocess.run(["bash", "-c", bash], cwd=home, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert "Traceback" not in child.stderr
    assert "Exception ignored" not in child.stderr
