"""Checkpoints: whole or not there, checked byte for byte, never written from the shadow, never a pickle."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, EMA_FILE, RAW_FILE, Configure, to_bytes
from safetensors import SafetensorError
from safetensors.torch import load_file

from bidaf.config import Config
from bidaf.data.cache import Prepared
from bidaf.ema.average import trained_weights
from bidaf.errors import BidafError, DataError
from bidaf.files.reading import sha256_of
from bidaf.files.writing import write_json
from bidaf.model.weights import load_weights
from bidaf.runs import checkpoint as checkpoints
from bidaf.runs.checkpoint import CONFIG, OPTIMIZER, CorruptedCheckpoint, open_checkpoint, open_or_suggest
from bidaf.runs.checkpoint_folders import (
    COMPLETE,
    checkpoint_name,
    clean_checkpoints,
    list_checkpoints,
    remove_checkpoint,
)
from bidaf.runs.state import STATE
from bidaf.training.trainer import Trainer

FILES = (RAW_FILE, EMA_FILE, OPTIMIZER, STATE, CONFIG, COMPLETE)


def save(trainer: Trainer, folder: Path) -> Path:
    trainer.save(folder)
    return folder


def make_trainer(config: Config, prepared: Prepared, steps: int = 2) -> Trainer:
    trainer = Trainer(config, prepared, CPU)
    for step in range(steps):
        trainer.step.run(trainer.train_source, *trainer.order.batch(step), step + 1)
    trainer.state.step = steps
    return trainer


@pytest.fixture(scope="module")
def trained(configure: Configure, prepared: Prepared) -> Trainer:
    """Two steps into a run. Tests leave it as it is."""
    return make_trainer(configure(), prepared)


@pytest.fixture
def saved(trained: Trainer, tmp_path: Path) -> Path:
    return save(trained, tmp_path / "checkpoints" / checkpoint_name(2))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rewrite(folder: Path, name: str, text: str) -> None:
    """Replace a file and its checksum, as another version of the program might have written it."""
    (folder / name).write_text(text, encoding="utf-8")
    sums = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
    sums[name] = sha256_of(folder / name)
    write_json(folder / COMPLETE, sums)


def test_a_checkpoint_holds_these_files_and_nothing_beside_it(saved: Path) -> None:
    assert set(contents(saved)) == set(FILES)
    assert [path.name for path in saved.parent.iterdir()] == ["step-000002"]
    assert set(json.loads((saved / COMPLETE).read_text(encoding="utf-8"))) == set(FILES) - {COMPLETE}


@pytest.mark.parametrize("optimizer", ["adam", "adadelta"])
def test_what_was_saved_comes_back_bit_for_bit(
    configure: Configure, prepared: Prepared, tmp_path: Path, optimizer: str
) -> None:
    config = configure(training={"optimizer": {"name": optimizer}})
    trainer = make_trainer(config, prepared)
    checkpoint = open_checkpoint(save(trainer, tmp_path / "step-000002"))
    assert checkpoint.step == 2
    assert checkpoint.config == config
    other = make_trainer(config, prepared, steps=0)
    other.restore(checkpoint)
    assert trainer.ema is not None
    assert other.ema is not None
    assert to_bytes(trained_weights(other.model)) == to_bytes(trained_weights(trainer.model))
    assert to_bytes(other.ema.shadow) == to_bytes(trainer.ema.shadow)
    assert other.ema.steps == 2
    states = [one.optimizer.state_dict()["state"] for one in (other, trainer)]
    ours, theirs = ({number: to_bytes(fields) for number, fields in state.items()} for state in states)
    assert ours == theirs
    assert all(fields["step"].dtype == torch.float32 for fields in states[0].values())
    # And both go on alike.
    results = [one.step.run(one.train_source, *one.order.batch(2), 3) for one in (other, trainer)]
    assert len({(one.loss, one.grad_norm, one.updated) for one in results}) == 1
    assert to_bytes(other.ema.shadow) == to_bytes(trainer.ema.shadow)


def test_a_checkpoint_of_no_step_comes_back(configure: Configure, prepared: Prepared, tmp_path: Path) -> None:
    trainer = make_trainer(configure(), prepared, steps=0)
    checkpoint = open_checkpoint(save(trainer, tmp_path / "step-000000"))
    trainer.restore(checkpoint)
    assert trainer.optimizer.state_dict()["state"] == {}


def test_the_frozen_vectors_are_not_in_it(saved: Path, trained: Trainer) -> None:
    names = {name for name, _ in trained_weights(trained.model)}
    assert set(load_file(saved / RAW_FILE)) == set(load_file(saved / EMA_FILE)) == names
    assert [tuple(buffer.shape) for buffer in trained.model.buffers()] == [(10, 4)]
    assert all(tensor.shape != (10, 4) for tensor in load_file(saved / RAW_FILE).values())


# ---- what is damaged


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found_and_its_file_named(saved: Path, name: str) -> None:
    original = (saved / name).read_bytes()
    rng = random.Random(name)
    for _ in range(12):
        damaged = bytearray(original)
        place = rng.randrange(len(damaged))
        damaged[place] ^= 1 << rng.randrange(8)
        (saved / name).write_bytes(damaged)
        # A flip in the list of checksums shows as a file that is not the one listed, or as no list at all.
        with pytest.raises(DataError, match="step-000002" if name == COMPLETE else f"is corrupted: {name} changed"):
            open_checkpoint(saved)
    (saved / name).write_bytes(original)
    assert open_checkpoint(saved).step == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("length", [0, 1, -1])
def test_a_file_cut_short_is_found(saved: Path, name: str, length: int) -> None:
    cut = (saved / name).read_bytes()[:length].rstrip(b"\n}" if name == COMPLETE else b"")
    (saved / name).write_bytes(cut)
    with pytest.raises(DataError, match="step-000002"):
        open_checkpoint(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_makes_it_incomplete(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(DataError, match=f"step-000002 is not a complete checkpoint: it has no {name}"):
        open_checkpoint(saved)


@pytest.mark.parametrize("text", ["{}", "[]", "null", '"raw"', '{"state.json": 3}', "\ufeff{}"])
def test_a_marker_that_lists_something_else_is_refused(saved: Path, text: str) -> None:
    (saved / COMPLETE).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="step-000002"):
        open_checkpoint(saved)


def test_a_file_that_is_lost_with_its_checksum_is_missing(saved: Path) -> None:
    sums = json.loads((saved / COMPLETE).read_text(encoding="utf-8"))
    write_json(saved / COMPLETE, {name: sums[name] for name in sums if name != RAW_FILE})
    (saved / RAW_FILE).unlink()
    with pytest.raises(CorruptedCheckpoint, match=f"is not a complete checkpoint: it has no {RAW_FILE}"):
        open_checkpoint(saved)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}'])
def test_a_state_that_is_none_is_corrupted(saved: Path, text: str) -> None:
    rewrite(saved, STATE, text)
    with pytest.raises(CorruptedCheckpoint, match=f"can't be read as a checkpoint: {STATE}"):
        open_checkpoint(saved)


def test_a_marker_elsewhere_is_none(saved: Path, tmp_path: Path) -> None:
    (saved / COMPLETE).rename(tmp_path / "marker")
    (saved / COMPLETE).symlink_to(tmp_path / "marker")
    with pytest.raises(CorruptedCheckpoint, match="is a link"):
        open_checkpoint(saved)


def test_scores_are_those_of_its_own_step(configure: Configure, prepared: Prepared, tmp_path: Path) -> None:
    trainer = make_trainer(configure(), prepared)
    scores = {"raw": {"exact_match": 1.0, "f1": 2.0}, "ema": {"exact_match": 3.0, "f1": 4.0}}
    trainer.state.scores, trainer.state.evaluated_step = scores, 2
    assert open_checkpoint(save(trainer, tmp_path / "step-000002")).scores == scores
    trainer.state.evaluated_step = 1
    assert open_checkpoint(save(trainer, tmp_path / "step-000002")).scores is None


def test_a_folder_that_is_not_there_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a complete checkpoint"):
        open_checkpoint(tmp_path / "step-000001")


def test_another_format_is_refused_with_both_numbers(saved: Path) -> None:
    state = json.loads((saved / STATE).read_text(encoding="utf-8"))
    rewrite(saved, STATE, json.dumps({**state, "format": 99}))
    with pytest.raises(DataError, match="has checkpoint format 99; this version reads formats 1 and 2"):
        open_checkpoint(saved)


def test_a_folder_of_another_step_is_refused_and_any_other_name_is_not(saved: Path) -> None:
    with pytest.raises(DataError, match="holds the checkpoint of step 2; rename it back"):
        open_checkpoint(saved.rename(saved.with_name("step-000003")))
    assert open_checkpoint(saved.with_name("step-000003").rename(saved.with_name("mine"))).step == 2


def test_weights_that_it_does_not_hold_and_files_that_are_none_are_data_errors(saved: Path) -> None:
    checkpoint = open_checkpoint(saved)
    with pytest.raises(DataError, match=r"no tail weights, only .*raw"):
        checkpoint.weights("tail")
    (saved / RAW_FILE).write_bytes(b"x")
    with pytest.raises(DataError, match=r"raw\.safetensors can't be read"):
        checkpoint.weights("raw")


def test_settings_of_another_version_are_a_data_error(saved: Path) -> None:
    rewrite(saved, CONFIG, "nonesuch: 1\n")
    with pytest.raises(DataError, match="written by another version"):
        open_checkpoint(saved)


def test_the_newest_valid_checkpoint_is_suggested_for_a_corrupted_one(saved: Path) -> None:
    for name in ("step-000001", "step-000003", "step-000004"):
        shutil.copytree(saved, saved.with_name(name))
    for name in ("step-000001", "step-000003", "step-000004"):
        (saved.with_name(name) / COMPLETE).unlink()
    with pytest.raises(CorruptedCheckpoint, match=rf"\(this one is valid: {saved}\)"):
        open_or_suggest(saved.with_name("step-000003"))


def test_weights_of_another_model_are_refused_with_each_difference(
    configure: Configure, prepared: Prepared, trained: Trainer, tmp_path: Path
) -> None:
    other = make_trainer(configure(model={"hidden_size": 3, "score_bias": False}), prepared, steps=0)
    before = to_bytes(trained_weights(other.model))
    weights = {name: weight.detach() for name, weight in trained_weights(trained.model)}
    with pytest.raises(DataError) as caught:
        load_weights(other.model, weights, "the weights of origin")
    message = str(caught.value)
    assert "origin do not fit this model" in message
    assert "start_scorer.bias is unknown to this model" in message
    assert "modeling.0.weight_ih is [2, 16, 32], and [2, 12, 24] in this model" in message
    assert to_bytes(trained_weights(other.model)) == before


# ---- what can't be written


def no_space(*arguments: Any, **options: Any) -> None:
    raise OSError(28, "No space left on device")


def library_fails(*arguments: Any, **options: Any) -> None:
    raise SafetensorError("I/O error: No space left on device (os error 28)")


def only(name: str, fail: Callable[..., None], original: Callable[..., None]) -> Callable[..., None]:
    """Fails for the file of that name, after the others were written."""

    def write(*arguments: Any, **options: Any) -> None:
        (fail if any(str(each).endswith(name) for each in arguments) else original)(*arguments, **options)

    return write


@pytest.mark.parametrize("there_is_an_older_one", [True, False])
@pytest.mark.parametrize(
    ("function", "file", "fail"),
    [
        ("save_tensors", EMA_FILE, no_space),
        ("save_tensors", OPTIMIZER, library_fails),
        ("write_json", STATE, no_space),
        ("write_text", CONFIG, no_space),
        ("sync", RAW_FILE, no_space),
        ("write_json", COMPLETE, no_space),
    ],
)
def test_a_full_disk_leaves_the_older_checkpoint_and_no_half_of_one(
    trained: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    file: str,
    fail: Callable[..., None],
    there_is_an_older_one: bool,
) -> None:
    folder = tmp_path / "step-000002"
    if there_is_an_older_one:
        save(trained, folder)
    before = contents(tmp_path)
    monkeypatch.setattr(checkpoints, function, only(file, fail, getattr(checkpoints, function)))
    with pytest.raises(BidafError, match=r"step-000002 can't be written: .*No space left") as caught:
        save(trained, folder)
    assert caught.value.exit_code == 1
    assert contents(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == there_is_an_older_one


def test_a_checkpoint_is_replaced_whole(configure: Configure, prepared: Prepared, saved: Path) -> None:
    before = contents(saved)
    other = make_trainer(configure(training={"seed": 1}), prepared)
    save(other, saved)
    assert to_bytes(open_checkpoint(saved).weights("raw")) == to_bytes(trained_weights(other.model))
    assert contents(saved)[RAW_FILE] != before[RAW_FILE]
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_the_shadow_is_never_saved_as_the_raw_weights(trained: Trainer, saved: Path) -> None:
    assert trained.ema is not None
    before = contents(saved.parent)
    with trained.ema.applied(), pytest.raises(RuntimeError, match="the shadow is applied"):
        save(trained, saved)
    with trained.ema.applied(), pytest.raises(RuntimeError, match="the shadow is applied"):
        save(trained, saved.with_name("step-000003"))
    assert contents(saved.parent) == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_what_a_crash_left_half_written_is_removed_and_nothing_else(saved: Path) -> None:
    parent = saved.parent
    stale = [parent / f".step-000004.{pid}.tmp" for pid in (1, os.getpid())]
    for folder in stale:
        shutil.copytree(saved, folder)
    for other in (".step-notes", "step-12", "notes.tmp"):
        (parent / other).mkdir()
    clean_checkpoints(parent)
    assert sorted(path.name for path in parent.iterdir()) == [".step-notes", "notes.tmp", "step-000002", "step-12"]
    clean_checkpoints(parent / "nowhere")


def test_checkpoints_are_listed_by_their_number(tmp_path: Path) -> None:
    for step in (1_000_000, 20, 999_999, 3):
        (tmp_path / checkpoint_name(step)).mkdir()
    (tmp_path / "other").mkdir()
    found = [path.name for path in list_checkpoints(tmp_path)]
    assert found == ["step-000003", "step-000020", "step-999999", "step-1000000"]
    assert list_checkpoints(tmp_path / "nowhere") == []


def test_what_an_interrupted_removal_leaves_is_no_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
        remove_checkpoint(saved)
    with pytest.raises(DataError, match=f"it has no {COMPLETE}"):
        open_checkpoint(saved)
    remove_checkpoint(saved)
    assert not saved.exists()
