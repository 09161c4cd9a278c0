"""`--weights half-life:5` wherever a weight set is named: answers, scores, exports, and one line for what can't be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers_cli import fail, succeed, write_tiny
from safetensors.torch import load_file

import bidaf
from bidaf.errors import UsageError
from bidaf.runs.averages import resolve_weights
from bidaf.runs.checkpoint import open_checkpoint

NAME = "half-life:20"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of 20 steps that took a snapshot of each, and one that took none."""
    folder = tmp_path_factory.mktemp("synthesis")
    write_tiny(folder)
    run = ("train", "-c", "tiny.yaml", "--set", "evaluation.every_steps=10", "--run-dir")
    succeed(*run, "runs/one", "--set", "ema.snapshots.every=1", cwd=folder)
    succeed(*run, "runs/without", "--set", "ema.snapshots=null", "--set", "training.max_steps=1", cwd=folder)
    succeed(*run, "runs/raw", "--set", "ema.enabled=false", "--set", "training.max_steps=1", cwd=folder)
    return folder


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(trained, tmp_path / "home", symlinks=True)
    return tmp_path / "home"


def test_any_average_is_scored_next_to_those_that_were_kept(trained: Path) -> None:
    ran = succeed("eval", "-m", "runs/one", "-w", NAME, "-w", "ema", "-w", "tail:50%", "--json", cwd=trained)
    assert [each["weights"] for each in ran.json] == [NAME, "ema", "tail:50%"]
    for name in (NAME, "tail:50%"):
        assert f"{name}: predicted error" in ran.err
        assert "initial weights" in ran.err


def test_answers_come_from_the_weights_that_were_asked_for(trained: Path) -> None:
    ran = succeed("predict", "dev.json", "-m", "runs/one", "-w", "half-life:2e1", "--at", "10", cwd=trained)
    assert f"{NAME} weights of runs/one, step 10" in ran.err
    assert set(ran.json) == {f"dev-{paragraph}-{number}" for paragraph in range(3) for number in range(2)}


def test_an_export_says_what_it_was_made_of_and_holds_exactly_that(trained: Path, tmp_path: Path) -> None:
    succeed("export", "-m", "runs/one", "-w", NAME, "--at", "20", "-o", tmp_path / "export", cwd=trained)
    about = json.loads((tmp_path / "export" / "export.json").read_text(encoding="utf-8"))
    made = about["made"]
    assert (about["step"], made["run"], made["target"]) == (20, "one", NAME)
    assert sum(made["coefficients"].values()) == pytest.approx(1.0)
    assert {"raw", "ema", "step-000000", "step-000020"} <= made["coefficients"].keys()
    assert 0 < made["predicted_error"] < 0.05
    assert made["initial_share"] == pytest.approx(0.5)
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    assert f"({NAME})" in card
    assert "snapshots of one" in card
    assert f"{made['predicted_error']:.2%}" in card
    checkpoint = open_checkpoint(trained / "runs" / "one" / "checkpoints" / "step-000020")
    tensors, _ = resolve_weights(checkpoint, [NAME]).sets[NAME]
    exported = load_file(tmp_path / "export" / "model.safetensors")
    assert all(torch.equal(exported[name], tensor) for name, tensor in tensors.items())
    scored = ("eval", "-m", tmp_path / "export", "-d", "dev.json", "--json")
    for spelling in ((), ("-w", "half-life:2e1")):
        assert succeed(*scored, *spelling, cwd=trained).json["weights"] == NAME


def test_the_runs_own_average_by_another_name_is_the_same_weights(trained: Path) -> None:
    checkpoint = open_checkpoint(trained / "runs" / "one" / "last")
    sets = resolve_weights(checkpoint, ["decay:.98", "decay:0"]).sets
    assert list(sets) == ["decay:0.98", "decay:0"]
    for (tensors, _), kept in zip(sets.values(), ("ema", "raw"), strict=True):
        assert all(torch.equal(tensors[name], tensor) for name, tensor in checkpoint.weights(kept).items())


@pytest.mark.parametrize(
    ("model", "options", "code", "problem"),
    [
        ("runs/one", ("-w", "decay:1"), 2, "less than 1"),
        ("runs/one", ("-w", "sigma:0.3"), 2, "below 0.289"),
        ("runs/one", ("-w", "tail:21"), 2, "longer than the 20 updates"),
        ("runs/one", ("-w", "mean:3"), 2, "names no average; write raw, ema, decay"),
        ("runs/one", ("-w", NAME, "--at", "7"), 3, "no checkpoint of step 7"),
        ("runs/without", ("-w", NAME), 3, "took no snapshots"),
        ("runs/raw", ("-w", NAME), 3, "ema.enabled: false"),
        ("runs/raw", ("-w", "ema"), 3, "holds no ema weights"),
    ],
)
def test_what_can_not_be_made_is_one_line(
    trained: Path, model: str, options: tuple[str, ...], code: int, problem: str
) -> None:
    message = fail(code, "predict", "dev.json", "-m", model, *options, cwd=trained)
    assert problem in message
    assert "\n" not in message


def test_a_large_predicted_error_is_refused_unless_allowed(home: Path) -> None:
    for path in (home / "runs" / "one" / "snapshots").glob("step-0000[01][1-9]*"):
        path.unlink()
    arguments = ("predict", "dev.json", "-m", "runs/one", "-w", "tail:30%")
    message = fail(2, *arguments, cwd=home)
    assert "predicted error" in message
    assert "--allow-error" in message
    assert ".safetensors is missing" in message
    assert "more;" in message
    ran = succeed(*arguments, "--allow-error", cwd=home)
    assert "warning: tail:30%: predicted error" in ran.err
    with pytest.raises(UsageError, match="allow-error"):
        bidaf.load(home / "runs" / "one", weights="tail:30%")


def test_a_corrupted_snapshot_is_named_and_left_out(home: Path) -> None:
    path = home / "runs" / "one" / "snapshots" / "step-000004.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    ran = succeed("eval", "-m", "runs/one", "-w", NAME, cwd=home)
    assert "step-000004.safetensors is corrupted" in ran.err
    assert succeed("eval", "-m", "runs/one", "-w", "ema", cwd=home).err.count("corrupted") == 0
    open_checkpoint(home / "runs" / "one" / "last")
