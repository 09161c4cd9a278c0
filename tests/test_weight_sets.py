"""Named weight sets in every command that answers: which are chosen, how they are loaded, and a further one."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU
from helpers_cli import DEV, Tiny, fail, succeed
from torch import Tensor

from bidaf.cli.weights import one_weight_set, weight_sets
from bidaf.data.features import Features
from bidaf.data.vocabulary import Vocabulary
from bidaf.errors import DataError, UsageError
from bidaf.inference import loading
from bidaf.inference.loading import load_model, load_weight_sets
from bidaf.runs.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from bidaf.runs.weight_sets import Synthesis, WeightSet

TAIL = "tail:25%"


@pytest.fixture
def home(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny folder, to do anything to."""
    return shutil.copytree(tiny.folder, tmp_path / "home", symlinks=True)


def rewrite(run: Path, change: Callable[[dict[str, tuple[WeightSet, dict[str, Tensor]]]], None]) -> Checkpoint:
    """Write the checkpoint of step 20 again, after a change of its weight sets."""
    old = open_checkpoint(run / "checkpoints" / "step-000020")
    weights = {name: (made, old.weights(name)) for name, made in old.weight_sets.items()}
    change(weights)
    optimizer, state = old.tensors("optimizer.safetensors"), old.saved.training
    save_checkpoint(
        old.folder, weights=weights, optimizer=optimizer, config=old.config, state=state, features=old.features
    )
    return open_checkpoint(old.folder)


# Which are chosen


@pytest.mark.parametrize(
    ("weights", "use_ema", "both", "names"),
    [
        (None, None, False, None),
        (["raw"], None, False, ["raw"]),
        (["b", "a", "b"], None, False, ["b", "a"]),
        (None, True, False, ["ema"]),
        (None, False, False, ["raw"]),
        (None, None, True, ["raw", "ema"]),
        (["ema"], True, False, ["ema"]),
        (["ema", "raw"], None, True, ["ema", "raw"]),
    ],
)
def test_options_name_weight_sets(
    weights: list[str] | None, use_ema: bool | None, both: bool, names: list[str] | None
) -> None:
    assert weight_sets(weights, use_ema, both=both) == names


@pytest.mark.parametrize(
    ("weights", "use_ema", "both"),
    [
        (["raw"], True, False),
        (["ema"], False, False),
        (["raw", "ema"], True, False),
        (["raw"], None, True),
        (["decay:0.9"], True, False),
        (None, True, True),
        (None, False, True),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    weights: list[str] | None, use_ema: bool | None, both: bool
) -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        weight_sets(weights, use_ema, both=both)


def test_several_where_one_is_needed_are_refused_by_the_name_of_the_command() -> None:
    assert one_weight_set(["a", "a"], None, "predict") == "a"
    with pytest.raises(UsageError, match="bidaf predict takes one weight set, not 2"):
        one_weight_set(["a", "b"], None, "predict")


def test_the_default_is_the_set_that_ranks_the_checkpoints(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert load_model(None, device=CPU).weights == "ema"
    config = home / "runs" / "tiny" / "checkpoints" / "step-000020" / "config.yaml"
    assert "rank_by: ema" in config.read_text()

    def keep_raw(weights: dict[str, Any]) -> None:
        del weights["ema"]

    rewrite(home / "runs" / "tiny", keep_raw)
    assert load_model(None, device=CPU).weights == "raw"
    with pytest.raises(DataError, match="holds no ema weights, only raw"):
        load_model(None, weights="ema", device=CPU)


def test_a_step_names_a_checkpoint_of_the_run(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.folder)
    best = "runs/tiny/checkpoints/step-000020"
    assert str(load_model("tiny", at=20, device=CPU).origin) == best
    assert str(load_model(best, at=20, device=CPU).origin) == best
    with pytest.raises(DataError, match="no checkpoint of step 7; it holds step-0000"):
        load_model("tiny", at=7, device=CPU)
    with pytest.raises(DataError, match="is of step 20, not of step 7"):
        load_model(best, at=7, device=CPU)
    assert succeed("eval", "--at", 20, "--json", cwd=tiny.folder).json["model"] == best


# How they are loaded


def test_several_are_loaded_and_scored_with_all_that_they_share_read_once(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counter[str]()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            read[f"{owner.__name__}.{name}"] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    count(loading, "open_or_suggest")
    count(loading, "find_features")
    count(loading, "build_model")
    count(Features, "load")
    count(Vocabulary, "load")
    monkeypatch.chdir(tiny.folder)
    results = succeed("eval", "--both", "--json", cwd=tiny.folder).json
    assert set(read.values()) == {1}, read
    assert len(read) == 5
    assert {each["weights"]: each["f1"] for each in results} == {
        name: scores["f1"] for name, scores in tiny.last_scores().items()
    }


def test_loaded_sets_are_models_of_their_own_that_share_the_word_vectors(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.folder)
    raw, ema = load_weight_sets("tiny", None, CPU)
    assert (raw.weights, ema.weights) == ("raw", "ema")
    (vectors,), (same_vectors,) = raw.model.buffers(), ema.model.buffers()
    assert vectors.data_ptr() == same_vectors.data_ptr()
    assert not raw.model.training
    assert not ema.model.training
    checkpoint = open_checkpoint(raw.origin)
    for loaded in (raw, ema):
        saved = checkpoint.weights(loaded.weights)
        held = loaded.model.state_dict()
        assert held.keys() == saved.keys()
        assert all(torch.equal(held[name], saved[name]) for name in saved)


# One more


def test_a_further_set_is_scored_explained_and_exported_by_its_name_alone(home: Path) -> None:
    run = home / "runs" / "tiny"
    made = Synthesis(
        target=TAIL, coefficients={"raw": 0.25, "ema": 0.75}, predicted_error=0.0012, initial_share=0.0, run="tiny"
    )

    def add(weights: dict[str, tuple[WeightSet, dict[str, Tensor]]]) -> None:
        (_, raw), (_, ema) = weights["raw"], weights["ema"]
        weights[TAIL] = (made, {name: 0.25 * raw[name] + 0.75 * ema[name] for name in raw})

    rewrite(run, add)
    results = succeed("eval", "-w", TAIL, "-w", "raw", "--json", cwd=home).json
    assert [each["weights"] for each in results] == [TAIL, "raw"]
    assert TAIL in succeed("eval", "-w", TAIL, cwd=home).out
    predicted = succeed("predict", "dev.json", "-w", TAIL, cwd=home)
    assert f"{TAIL} weights of runs/tiny, step 20" in predicted.err

    succeed("explain", "dev-0-0", "--png", "image.png", cwd=home)
    data = re.findall(r'id="data">(.*?)</script>', (home / "explain.html").read_text(encoding="utf-8"))
    explanations = json.loads(data[0])[0]["explanations"]
    assert [each["weights"] for each in explanations] == ["raw", "ema", TAIL]
    assert len({each["tone"] for each in explanations}) == 3
    assert (home / "image.png").stat().st_size > 10_000

    info = succeed("export", "-w", TAIL, "-o", "model", "--json", cwd=home).json
    assert (info["weights"], info["made"]) == (TAIL, made.model_dump())
    assert "an average (tail:25%) synthesised after training" in (home / "model" / "README.md").read_text()
    assert succeed("predict", "dev.json", "-m", "model", cwd=home).json == predicted.json
    assert succeed("eval", "-m", "model", "-d", "dev.json", "--json", cwd=home).json["weights"] == TAIL


# What has diverged


@pytest.mark.parametrize(
    "command",
    [
        ("eval",),
        ("eval", "--data", "dev.json"),
        ("predict", "dev.json"),
        ("predict", "dev.json", "--n-best", "3"),
        ("ask", "-c", "passage.txt", "-q", "Where?"),
        ("explain", "dev-0-0"),
        ("explain", "-c", "passage.txt", "-q", "Where?", "--png", "image.png"),
        ("export", "-o", "model"),
    ],
)
@pytest.mark.parametrize("value", [3e38, 1e30])
def test_finite_weights_that_score_nan_are_one_error_that_names_them(
    home: Path, command: tuple[str, ...], value: float
) -> None:
    def diverge(weights: dict[str, tuple[WeightSet, dict[str, Tensor]]]) -> None:
        made, ema = weights["ema"]
        weights["ema"] = (made, {name: torch.full_like(tensor, value) for name, tensor in ema.items()})

    rewrite(home / "runs" / "tiny", diverge)
    (home / "passage.txt").write_text(DEV[0][0], encoding="utf-8")
    message = fail(1, *command, cwd=home)
    assert "the ema weights of runs/tiny, step 20 diverged" in message
    assert not (home / "model").exists()
    assert not (home / "explain.html").exists()
    assert succeed("eval", "-w", "raw", "--json", cwd=home).json["weights"] == "raw"


# Files that are written


WRITING = [
    ("predict", "dev.json", "-o"),
    ("eval", "-p"),
    ("explain", "dev-0-0", "-o"),
    ("explain", "dev-0-0", "--png"),
    ("report", "-o"),
]
NO_FILES = ["dev.json/out", "x" * 300, "runs"]


@pytest.mark.parametrize(
    ("command", "path"),
    [
        *itertools.product([*WRITING, ("export", "-o")], NO_FILES),
        *itertools.product(WRITING, ["nope/out"]),  # an export makes the folders above it
    ],
)
def test_an_output_that_can_not_be_written_is_found_before_a_model_is_loaded(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], path: str
) -> None:
    def load(*arguments: object, **options: object) -> object:
        raise AssertionError("a model was loaded first")

    for name in ("_open_source", "find_run"):
        monkeypatch.setattr(loading, name, load)
    message = fail(2, *command, path, cwd=tiny.folder)
    assert "can't be" in message or "exists and is not empty" in message


def test_exported_weights_are_as_readable_as_the_files_next_to_them(tiny: Tiny, tmp_path: Path) -> None:
    succeed("export", "-o", tmp_path / "model", cwd=tiny.folder)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
    assert set(modes.values()) == {modes["config.yaml"]}
    assert modes["model.safetensors"] & 0o044 == 0o044
