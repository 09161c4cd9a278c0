"""Checkpoints whose checksums hold and whose content does not: refused with one error, and never half restored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, EMA_FILE, RAW_FILE, Configure, to_bytes
from helpers_fuzz import sign_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bidaf.config_optimizer import AdadeltaConfig, AdamConfig
from bidaf.data.cache import Prepared
from bidaf.ema.average import trained_weights
from bidaf.errors import DataError
from bidaf.runs.checkpoint import OPTIMIZER, open_checkpoint
from bidaf.runs.state import STATE
from bidaf.training.optimizer import build_optimizer, load_optimizer_tensors, optimizer_tensors
from bidaf.training.trainer import Trainer

State = dict[str, Any]
Tensors = dict[str, Tensor]
WEIGHT = "end_scorer.flow_weight"


def train_to(step: int, configure: Configure, prepared: Prepared, **sections: Any) -> Trainer:
    trainer = Trainer(configure(**sections), prepared, CPU)
    for number in range(step):
        trainer.step.run(trainer.train_source, *trainer.order.batch(number), number + 1)
    trainer.state.step = step
    return trainer


@pytest.fixture(scope="module", params=["adam", "adadelta"])
def trainer(request: pytest.FixtureRequest, configure: Configure, prepared: Prepared) -> Trainer:
    """Two steps into a run. Tests leave it as it is."""
    return train_to(2, configure, prepared, training={"optimizer": {"name": request.param}})


@pytest.fixture
def saved(trainer: Trainer, tmp_path: Path) -> Path:
    trainer.save(tmp_path / "step-000002")
    return tmp_path / "step-000002"


def refused(trainer: Trainer, folder: Path) -> str:
    """Why a checkpoint can't be restored; the trainer is as before."""
    sign_checkpoint(folder)
    before = to_bytes(trained_weights(trainer.model))
    with pytest.raises(DataError) as caught:
        trainer.restore(open_checkpoint(folder))
    assert to_bytes(trained_weights(trainer.model)) == before
    assert str(folder) in str(caught.value)
    return str(caught.value)


def change(tensors: Tensors, key: str, made: Callable[[Tensor], Tensor]) -> Tensors:
    return {name: made(tensor) if name == key else tensor for name, tensor in tensors.items()}


def holding(value: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


def without(tensors: Tensors, ending: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(ending)}


FORGED_TENSORS: dict[str, tuple[str, Callable[[Tensors], Tensors], str]] = {
    "raw weights of integers": (RAW_FILE, lambda t: {name: each.int() for name, each in t.items()}, "is torch.int32"),
    "raw weights of double precision": (RAW_FILE, lambda t: change(t, WEIGHT, Tensor.double), "is torch.float64"),
    "a raw weight short": (RAW_FILE, lambda t: without(t, WEIGHT), f"{WEIGHT} is missing"),
    "a raw weight of another shape": (RAW_FILE, lambda t: change(t, WEIGHT, lambda w: w[1:].clone()), "[31], and [32]"),
    "an infinite raw weight": (RAW_FILE, lambda t: change(t, WEIGHT, holding(float("inf"))), "not finite"),
    "a NaN in the shadow": (EMA_FILE, lambda t: change(t, WEIGHT, holding(float("nan"))), f"{WEIGHT} holds numbers"),
    "a shadow of half precision": (EMA_FILE, lambda t: change(t, WEIGHT, Tensor.half), "is torch.float16"),
    "an empty optimizer": (OPTIMIZER, lambda t: {}, "is missing"),
    "an optimizer without step counts": (OPTIMIZER, lambda t: without(t, "/step"), "/step is missing"),
    "an optimizer that lacks a weight": (
        OPTIMIZER,
        lambda t: {key: tensor for key, tensor in t.items() if not key.startswith(f"{WEIGHT}/")},
        f"{WEIGHT}/step is missing",
    ),
    "an optimizer of another weight": (OPTIMIZER, lambda t: {**t, "x/step": torch.tensor(2.0)}, "x/step is unknown"),
    "an optimizer with a name of no weight": (OPTIMIZER, lambda t: {**t, "x": torch.tensor(2.0)}, "x is unknown"),
    "a negative step": (OPTIMIZER, lambda t: change(t, f"{WEIGHT}/step", holding(-1.0)), "-1 to 2 updates, not 2"),
    "a step of another checkpoint": (OPTIMIZER, lambda t: change(t, f"{WEIGHT}/step", holding(9.0)), "to 9 updates"),
    "a step that is no scalar": (OPTIMIZER, lambda t: change(t, f"{WEIGHT}/step", lambda s: s[None]), "/step is [1]"),
    "a step of whole numbers": (OPTIMIZER, lambda t: change(t, f"{WEIGHT}/step", Tensor.long), "is torch.int64"),
    "an endless step": (OPTIMIZER, lambda t: change(t, f"{WEIGHT}/step", holding(float("nan"))), "not finite"),
}


@pytest.mark.parametrize("forgery", FORGED_TENSORS)
def test_forged_tensors_are_refused_by_name(trainer: Trainer, saved: Path, forgery: str) -> None:
    file, forge, said = FORGED_TENSORS[forgery]
    save_file(forge(load_file(saved / file)), saved / file)
    assert said in refused(trainer, saved)


@pytest.mark.parametrize("change_of", ["shape", "type", "value"])
def test_an_optimizer_field_that_does_not_fit_its_weight_is_refused(
    trainer: Trainer, saved: Path, change_of: str
) -> None:
    tensors = load_file(saved / OPTIMIZER)
    forge = {"shape": lambda t: t.flatten()[:-1].clone(), "type": Tensor.double, "value": holding(float("inf"))}
    for field in {key.rsplit("/", 1)[1] for key in tensors} - {"step"}:
        save_file(change(tensors, f"{WEIGHT}/{field}", forge[change_of]), saved / OPTIMIZER)
        assert f"{WEIGHT}/{field}" in refused(trainer, saved)


def test_an_optimizer_of_another_kind_is_refused(
    trainer: Trainer, saved: Path, configure: Configure, prepared: Prepared
) -> None:
    other = "adadelta" if trainer.config.training.optimizer.name == "adam" else "adam"
    taken = train_to(0, configure, prepared, training={"optimizer": {"name": other}})
    assert "do not fit this model" in refused(taken, saved)


@pytest.mark.parametrize("file", [OPTIMIZER, STATE])
def test_files_of_two_checkpoints_are_not_one(
    trainer: Trainer, saved: Path, configure: Configure, prepared: Prepared, tmp_path: Path, file: str
) -> None:
    """Each of them is valid, and so are the checksums."""
    name = trainer.config.training.optimizer.name
    train_to(3, configure, prepared, training={"optimizer": {"name": name}}).save(tmp_path / "other")
    (saved / file).write_bytes((tmp_path / "other" / file).read_bytes())
    assert "updates" in refused(trainer, saved.rename(tmp_path / "mixed"))


HUGE = "9" * 400
FORGED_STATES: dict[str, tuple[Callable[[State], object], str]] = {
    "no training state": (lambda s: s.pop("training"), "training"),
    "no step": (lambda s: s["training"].pop("step"), "in 0 updates"),
    "no best score": (lambda s: s["training"].pop("best_f1"), "training.best_f1: is missing"),
    "a negative step": (lambda s: s["training"].update(step=-2), "training.step"),
    "a step that is a text": (lambda s: s["training"].update(step="2"), "training.step"),
    "a step of 400 digits": (lambda s: s["training"].update(step=int(HUGE)), "training.step"),
    "skipped steps that were not made": (lambda s: s["training"].update(skipped=3), "skipped"),
    "a later evaluation": (lambda s: s["training"].update(evaluated_step=3), "evaluated_step"),
    "a best score that is none": (lambda s: s["training"].update(best_f1=float("nan")), "training.best_f1"),
    "losses that are none": (lambda s: s["training"].update(interval_losses=[float("inf")]), "interval_losses"),
    "scores without metrics": (lambda s: s["training"].update(scores={"raw": {}}), "exact_match, f1"),
    "scores of the shadow alone": (
        lambda s: s["training"].update(scores={"ema": {"exact_match": 1.0, "f1": 1.0}}),
        "raw weights are missing",
    ),
    "scores that are a list": (lambda s: s["training"].update(scores=[1, 2]), "training.scores"),
    "no raw weights": (lambda s: s["weights"].pop("raw"), "raw is missing"),
    "an average of nothing": (lambda s: s["weights"].update(ema=None), "weights.ema"),
    "an average that is raw": (lambda s: s["weights"].update(ema={"kind": "raw"}), "ema can't be of the kind raw"),
    "an average without settings": (lambda s: s["weights"].update(ema={"kind": "ema"}), "weights.ema.ema.decay"),
    "an average of another decay": (lambda s: s["weights"]["ema"].update(decay=0.5), "decay is 0.999 here and 0.5"),
    "an average of no decay": (lambda s: s["weights"]["ema"].update(decay=2.0), "weights.ema.ema.decay"),
    "400 digits of updates": (lambda s: s["weights"]["ema"].update(steps=int(HUGE)), "weights.ema.ema.steps"),
    "updates of another step": (lambda s: s["weights"]["ema"].update(steps=5), "ema was updated 5 times"),
    "a set without a file": (
        lambda s: s["weights"].update(
            {
                "tail:2": {
                    "kind": "synthesis",
                    "target": "tail:2",
                    "coefficients": {},
                    "predicted_error": 0.0,
                    "initial_share": 0.0,
                    "run": "x",
                }
            }
        ),
        "has no weights/tail-2.safetensors",
    ),
    "a set that is a path": (lambda s: s["weights"].update({"../raw": {"kind": "raw"}}), "weights"),
    "no sets": (lambda s: s.update(weights=[]), "weights"),
    "a path for features": (lambda s: s.update(features="../x"), "features"),
    "a format that is a text": (lambda s: s.update(format="2"), "format '2'"),
    "a format of 400 digits": (lambda s: s.update(format=int(HUGE)), "format 999"),
}


@pytest.mark.parametrize("forgery", FORGED_STATES)
def test_a_forged_state_is_refused_by_name(trainer: Trainer, saved: Path, forgery: str) -> None:
    forge, said = FORGED_STATES[forgery]
    state = json.loads((saved / STATE).read_bytes())
    forge(state)
    (saved / STATE).write_text(json.dumps(state), encoding="utf-8")
    message = refused(trainer, saved)
    assert said in message
    assert len(message) < 1_000


@pytest.mark.parametrize("text", ["", "null", "[]", "[" * 100_000, '{"format": 2}', "\xff"])
def test_a_state_that_is_none_is_refused(trainer: Trainer, saved: Path, text: str) -> None:
    (saved / STATE).write_text(text, encoding="latin-1")
    assert STATE in refused(trainer, saved)


def test_a_file_that_the_state_does_not_name_is_refused(trainer: Trainer, saved: Path) -> None:
    (saved / "weights" / "other.safetensors").write_bytes((saved / RAW_FILE).read_bytes())
    assert "unexpected files: weights/other.safetensors" in refused(trainer, saved)


@pytest.mark.parametrize("config", [AdamConfig(), AdadeltaConfig()])
def test_the_optimizer_is_restored_by_name_wherever_a_weight_stands(config: AdamConfig | AdadeltaConfig) -> None:
    """Frozen parameters before the trained ones, and another order of these."""

    class Part(nn.Module):
        def __init__(self, order: str, *, frozen: bool) -> None:
            super().__init__()
            if frozen:
                self.before = nn.Parameter(torch.ones(5), requires_grad=False)
            for name in order:
                self.register_parameter(name, nn.Parameter(torch.full((2,), float(ord(name)))))

    one, other = Part("abc", frozen=False), Part("cab", frozen=True)
    first, second = build_optimizer(one, config), build_optimizer(other, config)
    for number, name in enumerate("abc"):
        getattr(one, name).grad = torch.full((2,), float(number + 1))
    first.step()
    state = optimizer_tensors(one, first)
    load_optimizer_tensors(other, second, state)
    assert to_bytes(optimizer_tensors(other, second)).items() == to_bytes(state).items()
    assert len(state) == 9
