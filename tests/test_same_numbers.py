"""The comparing half of `scripts/same_numbers.py`: nothing that differs escapes it, and a new name is no difference."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from same_numbers import CASES, COMMON, differences, named_as_in, read_features, read_run, write_data

from bidaf.training.micro_batches import FEWEST_TOKENS

WEIGHT: NDArray[np.float32] = np.array([0.5, -0.0, np.nan], dtype=np.float32)
SCORES = {"raw": {"f1": 50.0}, "ema": {"f1": 60.0}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run leaves of one step, in the form of checkpoint format 1."""
    return made(tmp_path / "old", ("raw", "shadow"), SCORES, elapsed=1.0)


def made(run: Path, weights: tuple[str, str], scores: dict[str, Any], elapsed: float) -> Path:
    checkpoint, predictions = run / "checkpoints/step-000001", run / "predictions"
    for folder in ((checkpoint / weights[0]).parent, predictions):
        folder.mkdir(parents=True)
    for name in weights:
        save_file({"layer.weight": WEIGHT}, checkpoint / f"{name}.safetensors")
    save_file({"layer.weight/exp_avg": WEIGHT}, checkpoint / "optimizer.safetensors")
    write_metrics(run, scores, elapsed)
    for kind in ("raw", "ema"):
        (predictions / f"step-000001.{kind}.json").write_text('{"q1": "Rome", "q2": "1204"}', encoding="utf-8")
    return run


def write_metrics(run: Path, scores: dict[str, Any], elapsed: float) -> None:
    event = {"event": "eval", "step": 1, **scores, "distance": 0.25, "elapsed": elapsed}
    (run / "metrics.jsonl").write_text(json.dumps(event) + "\n", encoding="utf-8")


def flip_a_bit(run: Path, name: str) -> None:
    path = run / "checkpoints/step-000001" / name
    [(weight, values)] = load_file(path).items()
    values.view(np.uint8)[0] ^= 1
    save_file({weight: values}, path)


def change_a_score(run: Path) -> None:
    write_metrics(run, {**SCORES, "ema": {"f1": np.nextafter(60.0, 61.0)}}, elapsed=1.0)


def lose_a_score(run: Path) -> None:
    write_metrics(run, {"raw": SCORES["raw"]}, elapsed=1.0)


def change_an_answer(run: Path) -> None:
    (run / "predictions/step-000001.ema.json").write_text('{"q1": "Rome", "q2": "1205"}', encoding="utf-8")


def lose_the_shadow(run: Path) -> None:
    (run / "checkpoints/step-000001/shadow.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda run: flip_a_bit(run, "raw.safetensors"),
            "step-000001 raw: 1 of 1 differ; largest difference .* in layer.weight",
        ),
        (lambda run: flip_a_bit(run, "shadow.safetensors"), "step-000001 shadow: 1 of 1 .*"),
        (lambda run: flip_a_bit(run, "optimizer.safetensors"), "step-000001 optimizer: 1 of 1 .*"),
        (change_a_score, r"metrics: 1 of 5 differ; largest difference 7.11e-15 in eval 1 ema.f1"),
        (lose_a_score, r"metrics: 1 of 5 differ; eval 1 ema.f1 is in the old run alone"),
        (change_an_answer, r"predictions step-000001.ema: 1 of 2 differ; q2: '1204' and '1205'"),
        (lose_the_shadow, "step-000001 shadow is in the old run alone"),
    ],
)
def test_each_change_is_found_and_told_alone(
    run: Path, tmp_path: Path, change: Callable[[Path], None], told: str
) -> None:
    other = shutil.copytree(run, tmp_path / "new")
    assert differences(read_run(run), read_run(other)) == []
    change(other)
    [line] = differences(read_run(run), read_run(other))
    assert re.fullmatch(told, line)


def test_new_names_new_groups_the_clock_and_new_figures_are_no_difference(run: Path, tmp_path: Path) -> None:
    scores = {"scores": {**SCORES, "snapshot": {"f1": 61.0}}}
    other = made(tmp_path / "new", ("weights/raw", "weights/ema"), scores, elapsed=2.0)
    assert differences(read_run(run), read_run(other)) == []


@pytest.mark.parametrize("folder", ["checkpoints/step-000001", "predictions", "checkpoints"])
def test_a_run_with_nothing_to_compare_is_not_called_the_same(run: Path, folder: str) -> None:
    shutil.rmtree(run / folder)
    with pytest.raises(RuntimeError, match="holds no"):
        read_run(run)


def test_features_in_files_of_their_own_are_compared_with_those_in_one(tmp_path: Path) -> None:
    spans: NDArray[np.int32] = np.array([[0, 1]], dtype=np.int32)
    types: NDArray[np.int32] = np.array([1, 2], dtype=np.int32)
    for split in ("train", "dev"):
        for version in ("old", "new"):
            (tmp_path / version / "key" / split).mkdir(parents=True)
        np.save(tmp_path / f"old/key/{split}/answer_spans.npy", spans)
        np.save(tmp_path / f"old/key/{split}/context_forms.npy", types)
        arrays = {"answer_spans": spans + (split == "dev"), "context_types": types}
        save_file(arrays, tmp_path / f"new/key/{split}/features.safetensors")
    [line] = differences(read_features(tmp_path / "old"), read_features(tmp_path / "new"))
    assert line == "features dev: 1 of 2 differ; largest difference 1 in answer_spans"


def test_settings_get_the_names_that_a_version_has_for_them() -> None:
    settings = {"model.variant": "paper", "ema.decay": 0.5}
    assert named_as_in({"model.form", "ema.decay"}, settings) == {"model": {"form": "paper"}, "ema": {"decay": 0.5}}
    new = named_as_in({"model.variant", "model.form", "ema.decay"}, settings)
    assert new == {"model": {"variant": "paper"}, "ema": {"decay": 0.5}}
    with pytest.raises(RuntimeError, match=r"ema\.decay"):
        named_as_in({"model.variant"}, settings)


def test_the_cases_have_every_choice_between_them_and_cut_their_batches(tmp_path: Path) -> None:
    settings = [{**COMMON, **case} for case in CASES.values()]

    def chosen(name: str) -> set[Any]:
        return {str(case.get(name)) for case in settings}

    for name in ("model.variant", "training.batching", "training.clip_norm", "training.accumulate"):
        assert len(chosen(name)) == 2, name
    assert {case["training.optimizer"]["name"] for case in settings} == {"adam", "adadelta"}
    write_data(tmp_path / "data")
    document = json.loads((tmp_path / "data/train.json").read_text(encoding="utf-8"))
    lengths = [len(page["context"].split()) for article in document["data"] for page in article["paragraphs"]]
    assert sum(lengths) / len(lengths) * COMMON["training.batch_size"] > FEWEST_TOKENS
