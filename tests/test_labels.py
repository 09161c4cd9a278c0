"""What people call runs and do with them: names and tags, sorting, deleting, TensorBoard, scores as CSV."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import events
from helpers_cli import Tiny, bidaf, fail, succeed

from bidaf.runs.labels import Labels, read_labels
from bidaf.runs.layout import TENSORBOARD


@pytest.fixture
def home(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny folder, to do anything to."""
    return Path(shutil.copytree(tiny.folder, tmp_path / "home", symlinks=True))


def labelled(home: Path, name: str, **labels: object) -> Path:
    """A copy of the tiny run with these labels."""
    run = Path(shutil.copytree(home / "runs/tiny", home / "runs" / name, symlinks=True))
    (run / "run.json").write_text(json.dumps(labels))
    return run


def scalars(run: Path) -> dict[str, dict[int, float]]:
    """The curves that TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / TENSORBOARD)).Reload()
    return {name: {each.step: each.value for each in found.Scalars(name)} for name in found.Tags()["scalars"]}


def test_name_tags_notes_and_curves_survive_a_resume(home: Path) -> None:
    short = ("-s", "evaluation.every_steps=2", "-s", "training.log_every=1", "-s", "training.tensorboard=true")
    labels = ("--name", "First try", "--tag", "a", "--tag", "b", "--notes", "Wrong\nlearning rate?")
    succeed("train", "-c", "tiny.yaml", *short, "-s", "training.max_steps=2", "--run-dir", "runs/x", *labels, cwd=home)
    run = home / "runs/x"
    assert read_labels(run) == Labels(name="First try", tags=["a", "b"], notes="Wrong\nlearning rate?")
    assert "First try" not in (run / "config.yaml").read_text()
    assert list(scalars(run)["train/loss"]) == [1, 2]
    resumed = ("--resume", "x", "-s", "training.max_steps=4", "--tag", "b", "--tag", "c", "--name", "Second try")
    succeed("train", *resumed, cwd=home)
    assert read_labels(run) == Labels(name="Second try", tags=["a", "b", "c"], notes="Wrong\nlearning rate?")
    curves = scalars(run)
    assert len(list((run / TENSORBOARD).iterdir())) == 1
    assert curves["train/loss"] == pytest.approx({each["step"]: each["loss"] for each in events(run, "train")})
    for weights in ("raw", "ema"):
        expected = {each["step"]: each["scores"][weights]["f1"] for each in events(run, "eval")}
        assert curves[f"dev/f1/{weights}"] == pytest.approx(expected)
    assert "Second try, #a, #b, #c" in succeed("runs", cwd=home).out


def test_without_its_package_tensorboard_is_refused_before_any_work(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = fail(2, "train", "-c", "tiny.yaml", "-s", "training.tensorboard=true", "--run-dir", "runs/x", cwd=home)
    assert "pip install 'bidaf[tensorboard]'" in message
    assert not (home / "runs/x/config.yaml").exists()


@pytest.mark.parametrize("tag", ["two words", "a,b", "", "x" * 65])
def test_a_tag_is_one_word(home: Path, tag: str) -> None:
    assert "one word" in fail(2, "train", "-c", "tiny.yaml", "--tag", tag, cwd=home)


def test_runs_are_sorted_and_chosen_by_tag(home: Path) -> None:
    labelled(home, "alpha", tags=["slow", "good"])
    labelled(home, "beta", tags=["good"])
    environment = home / "runs/beta/environment.json"
    environment.write_text(json.dumps({"started": "2030-01-01T00:00:00+00:00"}))
    (home / "runs/alpha/metrics.jsonl").write_text("")

    def listed(*options: str) -> list[str]:
        return [Path(run["folder"]).name for run in succeed("runs", "--json", *options, cwd=home).json]

    assert listed()[0] == "beta"
    assert listed("--sort", "name") == ["alpha", "beta", "tiny"]
    assert listed("--sort", "f1")[-1] == "alpha"
    assert listed("runs", "--sort", "steps")[-1] == "alpha"
    assert sorted(listed("--tag", "good")) == ["alpha", "beta"]
    assert listed("--tag", "good", "--tag", "slow") == ["alpha"]
    assert listed("--tag", "bad") == []
    assert "choose from age, name" in fail(2, "runs", "--sort", "beauty", cwd=home)


def test_labels_that_cannot_be_read_are_named_and_the_run_is_still_listed(home: Path) -> None:
    run = labelled(home, "alpha", tags="good")
    found = {Path(each["folder"]).name: each for each in succeed("runs", "--json", cwd=home).json}
    assert found["alpha"]["status"] == "finished"
    assert "run.json can't be read: tags" in found["alpha"]["problem"]
    assert "run.json can't be read: tags" in fail(3, "train", "--resume", run, "--tag", "x", cwd=home)


def test_deleting_runs_asks_first_and_repairs_latest(home: Path) -> None:
    labelled(home, "alpha")
    link = home / "runs/latest"
    assert os.readlink(link) == "tiny"
    for answer in (b"n\n", b"\n"):
        ran = bidaf("runs", "rm", "tiny", cwd=home, stdin=answer)
        assert (ran.code, "nothing was deleted" in ran.err) == (1, True)
    assert "--yes" in bidaf("runs", "rm", "tiny", cwd=home).err
    assert (home / "runs/tiny/config.yaml").exists()
    assert "deleted runs/tiny" in succeed("runs", "rm", "latest", cwd=home, stdin=b"y\n").err.replace(f"{home}/", "")
    assert sorted(os.listdir(home / "runs")) == ["alpha", "latest"]
    assert os.readlink(link) == "alpha"
    succeed("runs", "rm", "runs/alpha", "--yes", cwd=home)
    assert os.listdir(home / "runs") == []


def test_a_run_that_trains_is_not_deleted_nor_any_other_with_it(home: Path) -> None:
    labelled(home, "alpha")
    with (home / "runs/tiny/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "runs/tiny is training" in fail(2, "runs", "rm", "alpha", "tiny", "--yes", cwd=home)
    (home / "runs/notes").mkdir()
    assert "runs/notes is not a run folder" in fail(3, "runs", "rm", "alpha", "notes", "--yes", cwd=home)
    assert "no run nothing" in fail(3, "runs", "rm", "nothing", "--yes", cwd=home)
    assert sorted(os.listdir(home / "runs")) == ["alpha", "latest", "notes", "tiny"]


def test_a_report_as_csv_has_a_row_for_each_evaluation(home: Path) -> None:
    labelled(home, "alpha")
    rows = list(csv.DictReader(io.StringIO(succeed("report", "tiny", "alpha", "--csv", cwd=home).out)))
    expected = events(home / "runs/tiny", "eval")
    assert [(row["run"], int(row["step"])) for row in rows] == [
        (name, each["step"]) for name in ("tiny", "alpha") for each in expected
    ]
    assert float(rows[0]["ema_f1"]) == expected[0]["scores"]["ema"]["f1"]
    assert float(rows[0]["distance"]) == expected[0]["distance"]
    assert "leave out" in fail(2, "report", "tiny", "--csv", "--json", cwd=home)
