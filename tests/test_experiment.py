"""`bidaf experiment`: files, runs in subprocesses, and the table made of their folders."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from conftest import events
from helpers_browser import Browser
from helpers_cli import DEV, fail, squad, succeed, write_tiny
from helpers_cli import bidaf as run_bidaf

from bidaf.config_file import differences
from bidaf.errors import UsageError
from bidaf.experiments import runner
from bidaf.experiments.definition import find_experiment, plan, read_experiment
from bidaf.experiments.runner import Resources
from bidaf.files.shipped import shipped_configs
from bidaf.runs.layout import LOCK
from bidaf.runs.log import is_training

ROOT = Path(__file__).parents[1]
FILE = """\
config: tiny.yaml
settings: {training.epochs: 4, evaluation.every_steps: null, training.keep_last: 1}
seeds: [0, 1]
variants:
  full:
    paper: {exact_match: 67.7, f1: 77.3}
  no-char:
    settings: {model.embeddings: word}
"""
RUNS = ["full-seed0", "no-char-seed0", "full-seed1", "no-char-seed1"]


def write_home(folder: Path) -> None:
    """The tiny data with six dev articles, and the experiment's file."""
    write_tiny(folder)
    pages = [squad(DEV, f"dev{copy}")["data"][0]["paragraphs"] for copy in range(2)]
    articles = [{"title": page["qas"][0]["id"], "paragraphs": [page]} for copy in pages for page in copy]
    (folder / "dev.json").write_text(json.dumps({"version": "1.1", "data": articles}))
    (folder / "small.yaml").write_text(FILE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all runs of the experiment are finished; they were trained in this process."""
    home = tmp_path_factory.mktemp("experiment")
    write_home(home)
    for job in plan_in(home):
        succeed("train", "--run-dir", job.folder, *job.arguments, cwd=home)
    return home


def plan_in(home: Path) -> list[Any]:
    before = Path.cwd()
    os.chdir(home)
    try:
        return plan(read_experiment(Path("small.yaml")), Path("small.yaml"), Path("runs/small"))
    finally:
        os.chdir(before)


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy, to do anything to."""
    return Path(shutil.copytree(finished, tmp_path / "home", symlinks=True))


def last_scores(run: Path) -> dict[str, dict[str, float]]:
    best = [event for event in events(run, "eval") if event["best"]]
    scores: dict[str, dict[str, float]] = best[-1]["scores"]
    return scores


def test_the_table_is_made_of_finished_runs_and_trains_nothing(finished: Path) -> None:
    ran = succeed("experiment", "small.yaml", "--json", cwd=finished)
    assert "started" not in ran.err
    full, no_char = ran.json["variants"]
    runs = finished / "runs/small"
    for variant, name in ((full, "full"), (no_char, "no-char")):
        scores = [last_scores(runs / f"{name}-seed{seed}") for seed in (0, 1)]
        for weights in ("raw", "ema"):
            for metric in ("exact_match", "f1"):
                values = [each[weights][metric] for each in scores]
                assert variant["scores"][weights][metric] == {"mean": fmean(values), "spread": stdev(values)}
    assert full["paper"] == {"exact_match": 67.7, "f1": 77.3}
    assert full["difference"] is None
    difference = no_char["difference"]["f1"]
    means = [variant["scores"]["ema"]["f1"]["mean"] for variant in (full, no_char)]
    assert difference["value"] == pytest.approx(means[1] - means[0])
    low, high = difference["interval"]
    assert low <= difference["value"] <= high
    assert difference["seeds"]["degrees_of_freedom"] == 1
    assert ran.json["failed"] == {}
    assert (runs / "experiment.yaml").read_text() == FILE


def test_table_csv_and_page_show_the_same_figures(finished: Path) -> None:
    found = succeed("experiment", "small.yaml", "--table", "--json", cwd=finished).json["variants"]
    (full, no_char) = csv.DictReader(io.StringIO(succeed("experiment", "small.yaml", "--csv", cwd=finished).out))
    assert float(full["raw_f1"]) == found[0]["scores"]["raw"]["f1"]["mean"]
    assert float(no_char["difference_f1_low"]) == found[1]["difference"]["f1"]["interval"][0]
    assert (full["difference_f1"], full["paper_f1"], no_char["paper_f1"]) == ("", "77.3", "")
    shown = succeed("experiment", "small.yaml", cwd=finished).out
    page = (finished / "runs/small/report.html").read_text()
    for text in (shown, page):
        assert f"{found[1]['scores']['ema']['f1']['mean']:.1f}±" in text
        assert "77.3" in text
    assert "no-char (2 seeds)" in page
    assert "no-char (B) against full (A)" in page


def test_everybody_can_read_the_page(browser: Browser, finished: Path) -> None:
    succeed("experiment", "small.yaml", cwd=finished)
    for dark, width in ((False, 1200), (True, 360)):
        browser.open(finished / "runs/small/report.html", dark=dark, width=width)
        assert browser.inaccessible() == []
        assert browser.low_contrast() == []
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.complaints() == []


def test_what_is_missing_is_trained_to_the_same_table_and_a_failure_is_named(home: Path) -> None:
    before = succeed("experiment", "small.yaml", "--json", cwd=home).json["variants"]
    runs = home / "runs/small"
    shutil.rmtree(runs / "no-char-seed1")
    shutil.rmtree(runs / "full-seed1")
    (runs / "full-seed1").write_text("in the way")
    ran = run_bidaf("experiment", "small.yaml", "--jobs", "2", "--json", cwd=home)
    assert ran.code == 1
    assert list(ran.json["failed"]) == ["full-seed1"]
    assert "Traceback" not in ran.err
    assert "failed: full-seed1: " in ran.err
    full, no_char = ran.json["variants"]
    assert [each["seed"] for each in full["seeds"]] == [0]
    assert no_char["scores"] == before[1]["scores"]
    assert "run" in (runs / "output/no-char-seed1.txt").read_text()


def test_a_variant_whose_data_is_missing_fails_alone(home: Path) -> None:
    runs = home / "runs/small"
    shutil.rmtree(runs / "full-seed1")
    (home / "small.yaml").write_text(FILE + "  moved:\n    settings: {data.train: moved.json}\n")
    ran = run_bidaf("experiment", "small.yaml", "--json", cwd=home)
    assert ran.code == 1
    assert list(ran.json["failed"]) == ["moved-seed0", "moved-seed1"]
    assert "moved.json: no such file" in ran.json["failed"]["moved-seed0"]
    assert "failed: moved-seed0: data.train: " in ran.err
    assert [len(each["seeds"]) for each in ran.json["variants"]] == [2, 2, 0]
    assert "moved.json: no such file" in fail(3, "experiment", "small.yaml", "--only", "moved", cwd=home)


def test_a_run_that_another_process_trains_is_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    job = plan_in(home)[0]
    lock = (job.folder / LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    too_early = [True]  # what an experiment that was killed left behind is still preparing its data
    monkeypatch.setattr(
        runner, "is_training", lambda folder: not (too_early and too_early.pop()) and is_training(folder)
    )
    said: list[str] = []

    def echo(message: str) -> None:
        said.append(message)
        if "waiting" in message:
            lock.close()

    assert runner.train([job], Resources("cpu", threads=1, processes=1, at_once=1), echo) == {}
    assert [each.removeprefix("full-seed0: ") for each in said if each.startswith("full-seed0")] == [
        "resumed",
        "waiting for another process that is training it",
        "resumed",
        "finished; 0 left",
    ]


def test_a_run_of_other_settings_is_never_taken_for_one_of_these(home: Path) -> None:
    (home / "small.yaml").write_text(FILE.replace("training.epochs: 4", "training.optimizer.lr: 0.2"))
    message = fail(2, "experiment", "small.yaml", cwd=home)
    assert "full-seed0 was trained with other settings" in message
    assert "training.optimizer.lr: 0.1 -> 0.2" in message


def test_longer_training_resumes_runs_that_were_finished(home: Path) -> None:
    (home / "small.yaml").write_text(FILE.replace("training.epochs: 4", "training.epochs: 5"))
    listed = succeed("experiment", "small.yaml", "--list", "--json", cwd=home).json
    assert [(Path(each["run"]).name, each["status"]) for each in listed] == [(name, "interrupted") for name in RUNS]
    first = succeed("experiment", "small.yaml", "--commands", "--only", "full", cwd=home).out.splitlines()[0]
    threads, *command = shlex.split(first)
    assert threads == "OMP_NUM_THREADS=1"
    assert command[:4] == ["bidaf", "train", "--resume", "runs/small/full-seed0"]
    succeed(*command[1:], cwd=home)
    listed = succeed("experiment", "small.yaml", "--list", "--json", cwd=home).json
    assert [each["status"] for each in listed] == ["finished", *["interrupted"] * 3]
    full, no_char = succeed("experiment", "small.yaml", "--table", "--json", cwd=home).json["variants"]
    assert [len(full["seeds"]), len(no_char["seeds"])] == [1, 0]  # shorter runs do not count


def test_runs_that_trained_longer_do_not_stand_for_shorter_ones(home: Path) -> None:
    (home / "small.yaml").write_text(FILE.replace("training.epochs: 4", "training.epochs: 3"))
    message = fail(2, "experiment", "small.yaml", "--list", cwd=home)
    assert "full-seed0 was trained for 4 steps, and the file asks for 3" in message


def test_a_run_of_other_evaluations_does_not_stand_for_the_file_s(home: Path) -> None:
    def list_with(every_steps: str = "null", patience: str = "null") -> tuple[str, ...]:
        settings = f"evaluation.every_steps: {every_steps}, evaluation.patience: {patience}"
        (home / "small.yaml").write_text(FILE.replace("evaluation.every_steps: null", settings))
        return ("experiment", "small.yaml", "--list")

    metrics = home / "runs/small/full-seed0/metrics.jsonl"
    worse = [event | {"best": event["step"] == 1} if "best" in event else event for event in events(metrics.parent)]
    metrics.write_text("".join(json.dumps(event) + "\n" for event in worse))
    message = fail(2, *list_with(every_steps="2"), cwd=home)
    assert "full-seed0 was evaluated every 1 steps, and the file asks for every 2" in message
    assert "beyond 2 evaluations without a better F1" in fail(2, *list_with(patience="2"), cwd=home)
    for same in ({"every_steps": "1"}, {"patience": "3"}):
        assert succeed(*list_with(**same), cwd=home).out.count("interrupted") == 4


def test_the_list_tells_what_a_run_takes_on_disk(finished: Path, tmp_path: Path) -> None:
    listed = succeed("experiment", "small.yaml", "--list", "--json", cwd=finished).json
    assert [each["status"] for each in listed] == ["finished"] * 4
    for each in listed:
        files = [*(finished / each["run"]).glob("checkpoints/*/**/*.safetensors")]
        files += [*(finished / each["run"]).glob("snapshots/*")]
        taken = sum(path.stat().st_size for path in files)
        assert 0.5 * taken < each["disk_bytes"] < taken  # of tensors this small, their names take as much
    write_home(tmp_path)
    ran = succeed("experiment", "small.yaml", "--list", cwd=tmp_path)
    assert ran.out.count("missing") == 4
    assert not (tmp_path / "runs").exists()
    advised = ran.err.partition("bidaf prepare ")[2]
    succeed("prepare", *shlex.split(advised), cwd=tmp_path)
    listed = succeed("experiment", "small.yaml", "--list", "--json", cwd=tmp_path).json
    assert all(each["disk_bytes"] for each in listed)


def test_a_run_over_several_devices_is_a_command_of_torchrun(tmp_path: Path) -> None:
    write_home(tmp_path)
    (tmp_path / "small.yaml").write_text(FILE + "processes: 4\nthreads: 3\n")
    lines = succeed("experiment", "small.yaml", "--commands", "-o", "out", cwd=tmp_path).out.splitlines()
    assert len(lines) == 4
    command = "OMP_NUM_THREADS=3 torchrun --standalone --nproc-per-node=4 -m bidaf train --run-dir out/full-seed0 "
    assert lines[0].startswith(command)
    assert (tmp_path / "out/experiment.yaml").exists()


def test_gpus_are_shared_out_in_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_home(tmp_path)
    (tmp_path / "small.yaml").write_text(FILE + "processes: 2\n")
    experiment = read_experiment(tmp_path / "small.yaml")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,5,7,8")
    monkeypatch.setattr(runner, "choose_device", lambda name: torch.device("cuda", 0))
    resources = Resources.of(experiment, "auto", None)
    assert resources.at_once == 2
    assert [resources.environment(place)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["0,2", "5,7", "0,2"]
    assert Resources.of(experiment, "cuda:1", 3).gpus == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(UsageError, match="takes 2 processes, and there are 1 GPUs"):
        Resources.of(experiment, "auto", None)
    succeed("experiment", "small.yaml", "--commands", cwd=tmp_path)  # for other machines


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("model.embeddings: word", "model.embedings: word"), ["variant no-char", "did you mean model.embeddings"]),
        (("model.embeddings: word", "model: {embeddings: word}"), ["variant no-char", "model is a section"]),
        (("model.embeddings: word", "training.seed: 3"), ["variant no-char", "under seeds"]),
        (("  no-char:", "  full:"), ["variants.full is given twice"]),
        (("  no-char:", "  no/char:"), ["variants.no/char", "pattern"]),
        (("[0, 1]", "[0, 0]"), ["line 3", "seeds", "twice"]),
        (("[0, 1]", "[]"), ["line 3", "seeds"]),
        (("seeds:", "seed:"), ["line 3", "seed: is no key"]),
        (("config: tiny.yaml\n", ""), ["config: is required"]),
        (("config: tiny.yaml", "config: tinny.yaml"), ["no config tinny.yaml", "tiny.yaml"]),
        (("variants:", "variants: []\nothers:"), ["variants", "others"]),
        (("training.epochs: 4", "training.epochs: four"), ["variant full", "variant no-char", "training.epochs"]),
    ],
)
def test_a_bad_file_is_one_message(tmp_path: Path, change: tuple[str, str], words: list[str]) -> None:
    write_home(tmp_path)
    assert change[0] in FILE
    (tmp_path / "small.yaml").write_text(FILE.replace(*change))
    message = fail(2, "experiment", "small.yaml", cwd=tmp_path)
    for word in words:
        assert word in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("small.yaml", "--only", "no-chars"), "no variant no-chars; there are full, no-char"),
        (("small.yaml", "--list", "--commands"), "exclude each other"),
        (("small.yaml", "--csv", "--json"), "leave out"),
        (("mini_ablatoin.yaml",), "did you mean mini_ablation.yaml?"),
        (("small.yaml", "--device", "tpu"), "unknown device"),
    ],
)
def test_a_bad_command_line_is_one_message(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    write_home(tmp_path)
    assert words in fail(2, "experiment", *arguments, cwd=tmp_path)


@pytest.mark.parametrize("name", ["ablation.yaml", "mini_ablation.yaml"])
def test_each_shipped_ablation_changes_one_setting_which_fidelity_names(name: str, tmp_path: Path) -> None:
    path = find_experiment(name)
    assert path.resolve().parent == (shipped_configs() / "experiments").resolve()
    jobs = {job.variant: job for job in plan(read_experiment(path), path, tmp_path) if job.seed == 0}
    assert list(jobs) == ["full", "no-char", "no-word", "no-c2q", "no-q2c", "dynamic"]
    page = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")
    for variant in list(jobs)[1:]:
        (difference,) = differences(jobs["full"].config, jobs[variant].config)
        assert f"| `{variant}` | `{difference.key}: {difference.theirs}` |" in page


def test_table_1b_has_the_papers_numbers() -> None:
    experiment = read_experiment(find_experiment("ablation.yaml"))
    paper = {name: variant.paper for name, variant in experiment.variants.items()}
    assert {name: (each.exact_match, each.f1) for name, each in paper.items() if each} == {
        "full": (67.7, 77.3),
        "no-char": (65.0, 75.4),
        "no-word": (55.5, 66.8),
        "no-c2q": (57.2, 67.7),
        "no-q2c": (63.6, 73.7),
        "dynamic": (63.5, 73.6),
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_saves_all_runs_and_the_same_command_ends_in_the_same_table(
    tmp_path: Path, number: signal.Signals
) -> None:
    write_home(tmp_path)
    longer = "training.epochs: 200, evaluation.every_steps: 100"
    changed = FILE.replace("training.epochs: 4, evaluation.every_steps: null", longer).replace("[0, 1]", "[0]")
    (tmp_path / "small.yaml").write_text(changed)
    command = (sys.executable, "-m", "bidaf", "experiment", "small.yaml", "--jobs", "2", "--json")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(output: str) -> subprocess.Popen[str]:
        arguments = (*command, "-o", output)
        return subprocess.Popen(
            arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    interrupted = start("runs/a")
    running = [tmp_path / "runs/a" / name for name in RUNS[:2]]
    deadline = time.monotonic() + 120
    while not all((run / "metrics.jsonl").is_file() and events(run, "train") for run in running):
        assert interrupted.poll() is None, interrupted.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    interrupted.send_signal(number)
    _, messages = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 128 + number, messages
    for run in running:
        (end,) = events(run, "end")
        assert end["status"] == "interrupted"
        assert list((run / "checkpoints").glob("step-*"))
    tables = []
    for output in ("runs/a", "runs/b"):
        process = start(output)
        table, messages = process.communicate(timeout=600)
        assert process.returncode == 0, messages
        tables.append(table.replace(output, ""))
    assert tables[0] == tables[1]
    assert [len(variant["seeds"]) for variant in json.loads(tables[0])["variants"]] == [1, 1]
