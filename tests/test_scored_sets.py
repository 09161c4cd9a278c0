"""Weight sets: one more takes its definition, and is scored, ranked, saved, logged and resumed like the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, Configure, events, to_bytes
from torch import Tensor

from bidaf.ema.average import ExponentialMovingAverage, trained_weights
from bidaf.model.bidaf import Bidaf
from bidaf.runs.checkpoint import open_checkpoint
from bidaf.runs.log import read_run
from bidaf.runs.state import ranking_f1
from bidaf.runs.weight_sets import Synthesis, file_stem
from bidaf.training import trainer
from bidaf.training.launch import resume_run, start_run
from bidaf.training.scored_sets import ScoredSet, scored_sets

pytestmark = pytest.mark.usefixtures("prepared")

NAME = "tail:50%"
MADE = Synthesis(target=NAME, coefficients={"raw": 0.5, "ema": 0.5}, predicted_error=0.25, initial_share=0.0, run="run")


def middle(model: Bidaf, ema: ExponentialMovingAverage) -> ScoredSet:
    """A weight set half way between the raw weights and the shadow: all that there is to its definition."""

    def tensors() -> Mapping[str, Tensor]:
        return {name: (weight.detach() + ema.shadow[name]) / 2 for name, weight in trained_weights(model)}

    @contextmanager
    def applied() -> Iterator[None]:
        raw = {name: weight.detach().clone() for name, weight in trained_weights(model)}
        put(tensors())
        try:
            yield
        finally:
            put(raw)

    @torch.no_grad()
    def put(weights: Mapping[str, Tensor]) -> None:
        for name, weight in trained_weights(model):
            weight.copy_(weights[name])

    return ScoredSet(NAME, applied, tensors, lambda: MADE)


def add_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_more(model: Bidaf, ema: ExponentialMovingAverage | None) -> list[ScoredSet]:
        assert ema is not None
        return [*scored_sets(model, ema), middle(model, ema)]

    monkeypatch.setattr(trainer, "scored_sets", one_more)


def silent(message: str) -> None:
    pass


def predictions(run: Path) -> dict[str, Any]:
    return {path.name: json.loads(path.read_bytes()) for path in (run / "predictions").iterdir()}


def test_another_weight_set_takes_its_definition_alone(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, run = tmp_path / "plain", tmp_path / "run"
    start_run(configure(), plain, CPU, silent)
    add_one(monkeypatch)
    state = start_run(configure(), run, CPU, silent)

    # Scored, logged, its answers stored.
    assert list(state.scores or {}) == ["raw", "ema", NAME]
    assert [list(line["scores"]) for line in events(run, "eval")] == [["raw", "ema", NAME]] * 2
    assert [list(evaluation.scores) for evaluation in read_run(run).evaluations] == [["raw", "ema", NAME]] * 2
    assert f"{NAME} EM" in (run / "log.txt").read_text(encoding="utf-8")
    stored = predictions(run)
    files = {f"step-{step:06d}.{each}.json" for step in (6, 12) for each in ("raw", "ema", "tail-50pct")}
    n_best = {name for name in stored if name.endswith(".n_best.json")}
    assert set(stored) - n_best == files
    assert all(set(stored[name]["answers"]) == {"raw", "ema", NAME} for name in n_best)
    assert n_best

    # Saved with how it was made.
    checkpoint = open_checkpoint(run / "last")
    assert checkpoint.weight_sets[NAME] == MADE
    raw, ema, own = (checkpoint.weights(name) for name in ("raw", "ema", NAME))
    assert to_bytes(own) == to_bytes({name: (raw[name] + ema[name]) / 2 for name in raw})
    assert (checkpoint.folder / "weights" / "tail-50pct.safetensors").is_file()

    # And nothing else is another.
    other = open_checkpoint(plain / "last")
    for name in ("raw", "ema"):
        assert to_bytes(checkpoint.weights(name)) == to_bytes(other.weights(name))
        assert stored[f"step-000012.{name}.json"] == predictions(plain)[f"step-000012.{name}.json"]


def test_a_run_with_another_weight_set_resumes_as_if_it_had_not_stopped(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_one(monkeypatch)
    start_run(configure(), tmp_path / "whole", CPU, silent)
    start_run(configure(training={"epochs": 1}), tmp_path / "run", CPU, silent)
    resume_run(tmp_path / "run", CPU, silent, config=configure())
    whole, run = (open_checkpoint(tmp_path / name / "last") for name in ("whole", "run"))
    assert run.scores == whole.scores
    assert to_bytes(run.weights(NAME)) == to_bytes(whole.weights(NAME))
    assert predictions(tmp_path / "run") == predictions(tmp_path / "whole")


@pytest.mark.parametrize(("rank_by", "ranked"), [("raw", "raw"), ("ema", "ema")])
def test_the_configured_set_ranks_checkpoints(configure: Configure, tmp_path: Path, rank_by: str, ranked: str) -> None:
    config = configure(
        training={"keep_last": 1}, evaluation={"every_steps": 1, "rank_by": rank_by}, model={"dropout": 0.0}
    )
    state = start_run(config, tmp_path, CPU, silent)
    scores = [line["scores"] for line in events(tmp_path, "eval")]
    best = max(range(12), key=lambda number: (scores[number][ranked]["f1"], -number))
    assert (state.best_step, state.best_f1) == (best + 1, scores[best][ranked]["f1"])
    assert open_checkpoint(tmp_path / "best").step == best + 1
    assert len({max(range(12), key=lambda n: (scores[n][each]["f1"], -n)) for each in ("raw", "ema")}) == 2


def test_a_run_without_an_average_ranks_by_the_raw_weights(configure: Configure, tmp_path: Path) -> None:
    state = start_run(configure(ema={"enabled": False}), tmp_path, CPU, silent)
    best = max(line["scores"]["raw"]["f1"] for line in events(tmp_path, "eval"))
    assert state.best_f1 == best
    assert open_checkpoint(tmp_path / "best").state.best_f1 == best


def test_ranking_takes_the_set_of_that_name_or_the_raw_one() -> None:
    scores = {"raw": {"f1": 1.0}, "ema": {"f1": 2.0}, "tail:25%": {"f1": 3.0}}
    assert [ranking_f1(scores, name) for name in ("raw", "ema", "tail:25%", "decay:0.9")] == [1.0, 2.0, 3.0, 1.0]


def test_file_names_hold_no_character_that_some_system_refuses() -> None:
    names = ["raw", "ema", "decay:0.9995:debias", "half-life:1000", "sigma:0.07", "tail:25%"]
    assert [file_stem(name) for name in names] == [
        *("raw", "ema", "decay-0.9995-debias", "half-life-1000", "sigma-0.07", "tail-25pct")
    ]
