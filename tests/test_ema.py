"""The shadow is the average it claims to be, and the model's own weights come back from every swap, bit for bit."""

from __future__ import annotations

import ast
import copy
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional as F

import bidaf.ema.average
from bidaf.ema.average import DEFAULT_DECAY, WARMUPS, ExponentialMovingAverage, trained_weights


class Small(nn.Module):
    """Trained weights of two shapes, a frozen table, a floating-point buffer and a counter."""

    running: Tensor
    seen: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(5, 3, dtype=dtype)
        self.table.weight.requires_grad_(False)
        self.hidden = nn.Linear(3, 4, dtype=dtype)
        self.dropout = nn.Dropout(0.5)
        self.out = nn.Linear(4, 2, dtype=dtype)
        self.register_buffer("running", torch.zeros(3, dtype=dtype))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, rows: Tensor) -> Tensor:
        hidden = torch.tanh(self.hidden(self.table(rows)))
        scores: Tensor = self.out(self.dropout(hidden))
        return scores


TRAINED = ["hidden.weight", "hidden.bias", "out.weight", "out.bias"]
ROWS = torch.tensor([0, 3, 1, 4])


def move(model: nn.Module, seed: int) -> None:
    """Give every trained weight new values, as an optimizer step would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, weight in trained_weights(model):
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def shadow_of(ema: ExponentialMovingAverage) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in ema.shadow.items()}


def assert_identical(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def moved_average(model: nn.Module, steps: int = 3, **settings: Any) -> ExponentialMovingAverage:
    """An average that differs from the model's weights everywhere."""
    ema = ExponentialMovingAverage(model, **({"decay": 0.9} | settings))
    for step in range(steps):
        move(model, step)
        ema.update()
    return ema


# --- the average itself ---


@pytest.mark.parametrize("warmup", ["none", "ramp", "power"])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_shadow_is_the_closed_form_of_the_weights_it_saw(decay: float, warmup: str) -> None:
    """Computed independently: sum over all weights, each with its own share times what every later step kept of it."""
    model = nn.Linear(3, 2, dtype=torch.float64)
    ema = ExponentialMovingAverage(model, decay=decay, warmup=warmup)
    warm: dict[str, Callable[[int], float]] = {
        "none": lambda n: decay,
        "ramp": lambda n: min(decay, (1 + n) / (10 + n)),
        "power": lambda n: min(decay, 1 - math.pow(1 + n, -2 / 3)),
    }
    seen, kept = [model.weight.detach().clone()], [0.0]
    for step in range(1, 13):
        move(model, step)
        ema.update()
        seen.append(model.weight.detach().clone())
        kept.append(warm[warmup](step))
    expected = torch.zeros_like(model.weight)
    for index, weight in enumerate(seen):
        expected += weight * (1 - kept[index]) * math.prod(kept[index + 1 :])
    torch.testing.assert_close(ema.shadow["weight"], expected, rtol=1e-13, atol=1e-14)
    assert ema.initial_share == pytest.approx(math.prod(kept[1:]), abs=1e-11)


def test_without_decay_the_shadow_is_the_weights() -> None:
    model = Small()
    ema = moved_average(model, decay=0.0)
    assert_identical(shadow_of(ema), {name: weight.detach() for name, weight in trained_weights(model)})


def test_a_decay_near_one_hardly_leaves_the_initial_weights() -> None:
    model = nn.Linear(3, 2, dtype=torch.float64)
    first = model.weight.detach().clone()
    ema = moved_average(model, decay=1 - 1e-12)
    gap = (ema.shadow["weight"] - first).abs()
    assert 0 < gap.max() < 1e-10


def test_the_decay_is_the_papers_when_nothing_is_said() -> None:
    assert ExponentialMovingAverage(Small()).decay == DEFAULT_DECAY == 0.999


def test_a_half_life_is_the_number_of_steps_that_halve_the_first_weights_share() -> None:
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(model.weight)
    ema = ExponentialMovingAverage(model, half_life=7)
    nn.init.zeros_(model.weight)
    for _ in range(7):
        ema.update()
    assert ema.shadow["weight"].item() == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("warmup", "step", "decay"),
    [("ramp", 80, 0.9), ("ramp", 890, 0.99), ("ramp", 8_990, 0.999), ("power", 999, 0.99), ("power", 31_622, 0.999)],
)
def test_a_warmup_reaches_a_decay_after_the_documented_step(warmup: str, step: int, decay: float) -> None:
    assert WARMUPS[warmup](step) == pytest.approx(decay, rel=1e-7)
    ema = ExponentialMovingAverage(Small(), decay=decay, warmup=warmup)
    assert ema.decay_at(step // 2) < decay
    assert ema.decay_at(2 * step) == decay


def test_the_shadow_of_weights_that_stand_still_never_moves() -> None:
    model = Small()
    before = snapshot(model)
    ema = ExponentialMovingAverage(model)
    for _ in range(1000):
        ema.update()
    assert_identical(shadow_of(ema), {name: before[name] for name in TRAINED})


# --- what it leaves alone ---


def train(steps: int, *, average: bool, evaluate: bool) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and final state of a small run with dropout, all of whose random numbers come from one generator."""
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    ema = ExponentialMovingAverage(model) if average else None
    torch.manual_seed(1)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(ROWS), ROWS % 2)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if ema is not None:
            ema.update()
            if evaluate:
                with ema.applied(), torch.no_grad():
                    model.eval()(ROWS)
                model.train()
    return losses, snapshot(model)


@pytest.mark.parametrize("evaluate", [False, True])
def test_a_training_run_is_bit_identical_with_and_without_the_average(evaluate: bool) -> None:
    losses, weights = train(25, average=False, evaluate=False)
    assert len(set(losses)) == 25
    averaged_losses, averaged_weights = train(25, average=True, evaluate=evaluate)
    assert averaged_losses == losses
    assert_identical(averaged_weights, weights)


def test_an_update_reads_the_weights_and_never_writes_them() -> None:
    model = Small()
    ema = ExponentialMovingAverage(model, decay=0.5)
    move(model, 1)
    before = snapshot(model)
    versions = [weight._version for weight in model.parameters()]
    ema.update()
    assert_identical(snapshot(model), before)
    assert [weight._version for weight in model.parameters()] == versions


def test_the_shadow_shares_no_memory_with_the_weights() -> None:
    model = Small()
    ema = ExponentialMovingAverage(model)
    weights = {weight.data_ptr() for weight in model.parameters()}
    assert weights.isdisjoint(shadow.data_ptr() for shadow in ema.shadow.values())


def test_frozen_weights_are_shared_and_not_averaged() -> None:
    model = Small()
    address = model.table.weight.data_ptr()
    ema = moved_average(model)
    assert list(ema.shadow) == TRAINED
    with ema.applied():
        assert model.table.weight.data_ptr() == address


def test_buffers_are_the_models_own_and_move_on_inside_the_block() -> None:
    model = Small()
    ema = ExponentialMovingAverage(model)
    for _ in range(3):
        model.running += 1.0
        model.seen += 1
        ema.update()
    with ema.applied():
        assert model.seen.item() == 3
        assert model.running.tolist() == [3.0, 3.0, 3.0]
        model.seen += 1
    assert model.seen.item() == 4


def test_tied_weights_are_one_weight() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    first, second = model
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    second.weight = first.weight
    ema = moved_average(model)
    assert list(ema.shadow) == ["0.weight", "0.bias", "1.bias"]
    before = snapshot(model)
    with ema.applied():
        assert second.weight is first.weight
        assert torch.equal(second.weight, ema.shadow["0.weight"])
    assert_identical(snapshot(model), before)


def test_neither_evaluation_nor_a_copy_of_the_model_moves_the_shadow() -> None:
    model = Small()
    ema = moved_average(model)
    before, steps = shadow_of(ema), ema.steps
    with ema.applied():
        kept = copy.deepcopy(model)
        for _ in range(5):
            model.eval()(ROWS).sum().backward()
    move(kept, 9)
    assert_identical(shadow_of(ema), before)
    assert ema.steps == steps


# --- the swap ---


def test_the_model_holds_the_shadow_inside_and_its_own_weights_after() -> None:
    model = Small()
    ema = moved_average(model)
    raw, shadow = snapshot(model), shadow_of(ema)
    assert not any(torch.equal(raw[name], shadow[name]) for name in shadow)
    for _ in range(2):
        with ema.applied():
            assert ema.is_applied
            assert_identical({name: snapshot(model)[name] for name in shadow}, shadow)
        assert not ema.is_applied
        assert_identical(snapshot(model), raw)
        assert_identical(shadow_of(ema), shadow)


def test_before_the_first_update_the_shadow_is_the_initial_weights() -> None:
    model = Small()
    raw = snapshot(model)
    with ExponentialMovingAverage(model).applied():
        assert_identical(snapshot(model), raw)


def test_what_is_written_into_the_model_inside_the_block_reaches_neither_set() -> None:
    model = Small()
    ema = moved_average(model)
    raw, shadow = snapshot(model), shadow_of(ema)
    with ema.applied():
        move(model, 99)
    assert_identical(snapshot(model), raw)
    assert_identical(shadow_of(ema), shadow)


def test_weights_stay_where_they_are_in_memory() -> None:
    model = Small()
    ema = moved_average(model)
    parameters = [(parameter, parameter.data_ptr()) for parameter in model.parameters()]

    def unmoved() -> bool:
        return all(
            now is then and now.data_ptr() == address
            for now, (then, address) in zip(model.parameters(), parameters, strict=True)
        )

    with ema.applied():
        assert unmoved()
    assert unmoved()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_error_inside_the_block_restores_the_weights_and_passes_on(error: type[BaseException]) -> None:
    model = Small()
    ema = moved_average(model)
    raw, shadow = snapshot(model), shadow_of(ema)
    with pytest.raises(error), ema.applied():
        raise error
    assert_usable(ema, model, raw, shadow)


def test_a_generator_closed_inside_the_block_restores_the_weights() -> None:
    model = Small()
    ema = moved_average(model)
    raw, shadow = snapshot(model), shadow_of(ema)

    def batches() -> Iterator[Tensor]:
        with ema.applied():
            while True:
                yield model(ROWS)

    stream = batches()
    next(stream)
    assert ema.is_applied
    stream.close()  # type: ignore[attr-defined]
    assert_usable(ema, model, raw, shadow)


def assert_usable(
    ema: ExponentialMovingAverage, model: nn.Module, raw: dict[str, Tensor], shadow: dict[str, Tensor]
) -> None:
    """Both sets are what they were, and the average can be applied again."""
    assert not ema.is_applied
    assert_identical(snapshot(model), raw)
    assert_identical(shadow_of(ema), shadow)
    with ema.applied():
        assert_identical({name: snapshot(model)[name] for name in shadow}, shadow)
    assert_identical(snapshot(model), raw)


@contextmanager
def failing_copies(monkeypatch: pytest.MonkeyPatch, failures: dict[int, type[BaseException]]) -> Iterator[list[int]]:
    """Tensor copies, of which those with these numbers (0 is the first) fail half way through the tensor."""
    copy_, done = Tensor.copy_, [0]

    def copy_or_fail(target: Tensor, source: Tensor) -> Tensor:
        number, done[0] = done[0], done[0] + 1
        if number in failures:
            copy_(target[:1], source[:1])
            raise failures[number](f"copy {number}")
        return copy_(target, source)

    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "copy_", copy_or_fail)
        yield done


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("number", range(len(TRAINED)))
def test_a_failure_at_any_tensor_of_the_swap_restores_the_weights(
    monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException]
) -> None:
    model = Small()
    ema = moved_average(model)
    raw, shadow = snapshot(model), shadow_of(ema)
    with (
        failing_copies(monkeypatch, {number: error}),
        pytest.raises(error, match=f"copy {number}"),
        ema.applied(),
    ):
        pytest.fail("the block ran on a half swapped model")
    assert_usable(ema, model, raw, shadow)


def test_a_failure_while_the_raw_weights_are_set_aside_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Small()
    ema = moved_average(model)
    raw, shadow = snapshot(model), shadow_of(ema)
    clone = Tensor.clone
    for number in range(len(TRAINED)):
        copies = itertools.count()

        def clone_or_fail(tensor: Tensor, copies: Iterator[int] = copies, number: int = number) -> Tensor:
            if next(copies) == number:
                raise MemoryError
            return clone(tensor)

        with monkeypatch.context() as patch:
            patch.setattr(Tensor, "clone", clone_or_fail)
            with pytest.raises(MemoryError), ema.applied():
                pytest.fail("the block ran without a copy of the raw weights")
        assert_usable(ema, model, raw, shadow)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("number", range(len(TRAINED)))
def test_interrupts_while_the_weights_are_put_back_wait_for_the_last_one(
    monkeypatch: pytest.MonkeyPatch, number: int, times: int
) -> None:
    model = Small()
    ema = moved_average(model)
    raw, shadow = snapshot(model), shadow_of(ema)
    restart = number + 1  # copies until an attempt fails
    failures: dict[int, type[BaseException]] = {
        len(TRAINED) + number + attempt * restart: KeyboardInterrupt for attempt in range(times)
    }
    with failing_copies(monkeypatch, failures) as done, pytest.raises(KeyboardInterrupt), ema.applied():
        assert done == [len(TRAINED)]
    assert done == [len(TRAINED) + times * restart + len(TRAINED)]
    assert_usable(ema, model, raw, shadow)


def test_weights_that_can_not_be_put_back_are_never_trained_or_saved_as_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    ema = moved_average(Small())
    with (
        failing_copies(monkeypatch, {len(TRAINED): RuntimeError}),
        pytest.raises(RuntimeError, match="copy"),
        ema.applied(),
    ):
        pass
    assert ema.is_applied
    for action in (ema.update, ema.state_dict):
        with pytest.raises(RuntimeError, match="applied"):
            action()


ACTIONS: dict[str, Callable[[ExponentialMovingAverage], Any]] = {
    "apply it again": lambda ema: ema.applied().__enter__(),
    "update": lambda ema: ema.update(),
    "measure its distance": lambda ema: ema.distance(),
    "save it": lambda ema: ema.state_dict(),
    "load it": lambda ema: ema.load_state_dict({}),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_inside_the_block_it_refuses(action: str) -> None:
    model = Small()
    ema = moved_average(model)
    raw, shadow, steps = snapshot(model), shadow_of(ema), ema.steps
    with ema.applied():
        with pytest.raises(RuntimeError, match=f"leave applied.. before you {action}"):
            ACTIONS[action](ema)
        assert_identical({name: snapshot(model)[name] for name in shadow}, shadow)
    assert_usable(ema, model, raw, shadow)
    assert ema.steps == steps


def test_it_refuses_to_swap_inside_autocast_whose_casts_are_cached() -> None:
    model = Small()
    ema = moved_average(model)
    raw, shadow = snapshot(model), shadow_of(ema)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError, match="outside of autocast"), ema.applied():
            pytest.fail("swapped inside autocast")
    assert_usable(ema, model, raw, shadow)


def test_autocast_inside_the_block_computes_with_the_shadow() -> None:
    model = Small().eval()
    ema = moved_average(model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        raw = model(ROWS)
    with ema.applied(), torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        averaged = model(ROWS)
    assert averaged.dtype == torch.bfloat16
    assert not torch.equal(averaged, raw)


def test_a_swap_inside_inference_mode_leaves_the_next_one_possible() -> None:
    model = Small()
    ema = moved_average(model)
    raw, shadow = snapshot(model), shadow_of(ema)
    with torch.inference_mode(), ema.applied():
        model.eval()(ROWS)
    assert_usable(ema, model, raw, shadow)
    model.train()(ROWS).sum().backward()
    ema.update()


# --- two averages of one model ---


PARTS: dict[str, Callable[[Small], nn.Module]] = {
    "the same model": lambda model: model,
    "a part of it": lambda model: model.hidden,
    "a model that holds it": lambda model: nn.Sequential(model, nn.Linear(2, 2)),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("action", ACTIONS)
def test_an_average_never_treats_the_shadow_of_another_as_raw_weights(action: str, part: str) -> None:
    model = Small()
    ema = moved_average(model)
    other = moved_average(PARTS[part](model), decay=0.5)
    raw, shadow, others_shadow = snapshot(model), shadow_of(ema), shadow_of(other)
    with ema.applied():
        with pytest.raises(RuntimeError, match=rf"another average is applied.*leave its applied.. before you {action}"):
            ACTIONS[action](other)
        with pytest.raises(RuntimeError, match="another average is applied"):
            ExponentialMovingAverage(PARTS[part](model))
    assert_identical(snapshot(model), raw)
    assert_identical(shadow_of(other), others_shadow)
    assert_usable(ema, model, raw, shadow)
    with other.applied():
        assert other.is_applied
    other.update()


def test_averages_of_different_models_can_be_applied_at_once() -> None:
    first, second = moved_average(Small()), moved_average(Small())
    with first.applied(), second.applied():
        assert first.is_applied
        assert second.is_applied


# --- types, wrappers, and models that change ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_model_has_an_fp32_shadow_that_follows(dtype: torch.dtype) -> None:
    """At decay 0.999 a 16-bit shadow would not move at all towards a weight twice as large."""
    model = nn.Linear(2, 2, bias=False, dtype=dtype)
    nn.init.ones_(model.weight)
    ema = ExponentialMovingAverage(model)
    nn.init.constant_(model.weight, 1.125)
    for _ in range(1000):
        ema.update()
    shadow = ema.shadow["weight"]
    assert shadow.dtype == torch.float32
    torch.testing.assert_close(shadow, torch.full((2, 2), 1.125 - 0.125 * 0.999**1000), rtol=1e-4, atol=0)
    with ema.applied():
        assert torch.equal(model.weight, shadow.to(dtype))
    assert torch.equal(model.weight, torch.full((2, 2), 1.125, dtype=dtype))


def test_weights_of_several_types_are_averaged_each_in_its_own() -> None:
    model = nn.ModuleDict(
        {
            "wide": nn.Linear(2, 2, dtype=torch.float64),
            "usual": nn.Linear(2, 2),
            "narrow": nn.Linear(2, 2, dtype=torch.bfloat16),
        }
    )
    first = {name: weight.detach().clone() for name, weight in trained_weights(model)}
    ema = ExponentialMovingAverage(model, decay=0.75)
    move(model, 1)
    ema.update()
    for name, weight in trained_weights(model):
        precise = torch.float64 if name.startswith("wide") else torch.float32
        expected = 0.75 * first[name].to(precise) + 0.25 * weight.detach().to(precise)
        torch.testing.assert_close(ema.shadow[name], expected, rtol=1e-6, atol=1e-7)
    raw = snapshot(model)
    with ema.applied():
        pass
    assert_identical(snapshot(model), raw)


def test_a_model_wrapped_for_several_devices_has_plain_names() -> None:
    model = Small()
    ema = moved_average(nn.DataParallel(model))
    assert list(ema.shadow) == TRAINED
    with ema.applied():
        assert torch.equal(model.out.weight, ema.shadow["out.weight"])


def test_a_compiled_model_has_plain_names_and_sees_the_swap() -> None:
    model = Small().eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert isinstance(compiled, nn.Module)
    ema = moved_average(nn.DataParallel(compiled))
    assert list(ema.shadow) == TRAINED
    with torch.no_grad():
        raw = compiled(ROWS)
        with ema.applied():
            averaged, plain = compiled(ROWS), model(ROWS)
        assert torch.equal(averaged, plain)
        assert not torch.equal(averaged, raw)
        assert torch.equal(compiled(ROWS), raw)


def test_it_follows_weights_that_get_new_storage() -> None:
    """`model.to()` and the fused LSTM give a parameter new memory: an average of the old one would stand still."""
    model = Small()
    ema = ExponentialMovingAverage(model, decay=0.5)
    model.double()
    move(model, 1)
    raw, before = snapshot(model), shadow_of(ema)
    ema.update()
    torch.testing.assert_close(ema.shadow["out.bias"], (before["out.bias"] + model.out.bias.float()) / 2)
    with ema.applied():
        assert torch.equal(model.out.weight, ema.shadow["out.weight"].double())
    assert_identical(snapshot(model), raw)


def test_a_compiled_or_checkpointed_part_of_a_model_has_plain_names() -> None:
    model = Small()
    model.hidden = torch.compile(model.hidden, backend="eager")  # type: ignore[assignment]
    model.out = checkpoint_wrapper(model.out)  # type: ignore[assignment]
    ema = moved_average(model)
    assert list(ema.shadow) == TRAINED
    ema.load_state_dict(copy.deepcopy(moved_average(Small(), steps=2).state_dict()))
    with ema.applied():
        assert torch.equal(model.hidden.weight, ema.shadow["hidden.weight"])
    ema.update()


def unfreeze(model: Small) -> str:
    model.table.weight.requires_grad_(True)
    return "table.weight"


def replace(model: Small) -> str:
    model.out.bias = nn.Parameter(torch.zeros(2))
    return "out.bias"


@pytest.mark.parametrize("change", [unfreeze, replace])
def test_weights_that_are_not_in_the_average_are_named_before_it_is_used(change: Callable[[Small], str]) -> None:
    model = Small()
    ema = moved_average(model)
    name = change(model)
    raw = snapshot(model)
    with pytest.raises(RuntimeError, match=f"not in the average: {name} "), ema.applied():
        pytest.fail("applied a part of the average")
    with pytest.raises(RuntimeError, match=f"not in the average: {name} "):
        ema.state_dict()
    assert_identical(snapshot(model), raw)


@pytest.mark.parametrize("tied", [False, True], ids=["plain", "tied"])
@pytest.mark.parametrize("action", [name for name in ACTIONS if name != "load it"])
def test_every_use_notices_weights_that_loading_replaced(action: str, tied: bool) -> None:
    """`load_state_dict(assign=True)` gives the model new parameters: the old ones would be averaged forever."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    if tied:
        model[1].weight = model[0].weight
    ema = moved_average(model)
    model.load_state_dict(snapshot(model), assign=True)
    before, steps = shadow_of(ema), ema.steps
    with pytest.raises(RuntimeError, match=r"not in the average: 0\.weight, 0\.bias, "):
        ACTIONS[action](ema)
    assert_identical(shadow_of(ema), before)
    assert ema.steps == steps
    ExponentialMovingAverage(model).update()


def test_the_averaged_model_is_a_copy_that_neither_training_nor_the_average_moves() -> None:
    model = Small()
    ema = moved_average(model)
    raw = snapshot(model)
    averaged = ema.averaged_model()
    assert not averaged.training
    assert model.training
    with ema.applied():
        expected = model.eval()(ROWS)
    assert_identical(snapshot(model.train()), raw)
    move(model, 9)
    ema.update()
    assert torch.equal(averaged(ROWS), expected)


def test_its_repr_says_what_it_holds() -> None:
    ema = moved_average(Small(), decay=0.5, warmup="ramp")
    for fact in ("decay=0.5", "'ramp'", "3 updates", "4 tensors", "26 weights", f"{2 / 11 * 3 / 12 * 4 / 13:.2%} init"):
        assert fact in repr(ema)
    with ema.applied():
        assert "applied" in repr(ema)


def test_a_weight_that_is_frozen_later_stays_in_the_average() -> None:
    model = Small()
    ema = ExponentialMovingAverage(model, decay=0.0)
    model.hidden.requires_grad_(False)
    move(model, 1)
    ema.update()
    assert list(ema.state_dict()["shadow"]) == TRAINED
    with ema.applied():
        assert torch.equal(model.hidden.weight, ema.shadow["hidden.weight"])


# --- the state ---


def test_a_state_restores_shadow_and_counter_bit_for_bit() -> None:
    settings: dict[str, Any] = {"decay": 0.9, "warmup": "ramp"}
    model, other = Small(), Small()
    ema = moved_average(model, steps=5, **settings)
    resumed = ExponentialMovingAverage(other, **settings)
    resumed.load_state_dict(copy.deepcopy(ema.state_dict()))
    assert resumed.steps == 5
    assert_identical(shadow_of(resumed), shadow_of(ema))
    for step in range(5, 9):
        for average, averaged in ((ema, model), (resumed, other)):
            move(averaged, step)
            average.update()
    assert_identical(shadow_of(resumed), shadow_of(ema))
    assert resumed.decay_at(resumed.steps) == ema.decay_at(ema.steps)


def test_loading_writes_into_the_shadow_and_keeps_no_tensor_of_the_state() -> None:
    model = Small()
    ema = moved_average(model)
    addresses = [shadow.data_ptr() for shadow in ema.shadow.values()]
    raw, state = snapshot(model), copy.deepcopy(ema.state_dict())
    move(model, 50)
    ema.update()
    ema.load_state_dict(state)
    assert [shadow.data_ptr() for shadow in ema.shadow.values()] == addresses
    assert snapshot(model)["out.bias"].tolist() != raw["out.bias"].tolist()
    assert_identical(shadow_of(ema), state["shadow"])


def test_a_state_holds_plain_settings_and_the_shadow_alone() -> None:
    state = moved_average(Small(), warmup="power").state_dict()
    shadow = state.pop("shadow")
    assert state == {"decay": 0.9, "warmup": "power", "steps": 3}
    assert list(shadow) == TRAINED


def without(state: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != name}


WRONG_STATES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], list[str]]] = {
    "settings": (
        lambda state: state | {"decay": 0.5, "warmup": "ramp"},
        ["decay is 0.9 here and 0.5", "warmup is 'none' here and 'ramp'"],
    ),
    "missing setting": (lambda state: without(state, "decay"), ["decay is 0.9 here and None"]),
    "no counter": (lambda state: without(state, "steps"), ["steps is None in the state"]),
    "negative counter": (lambda state: state | {"steps": -1}, ["steps is -1 in the state"]),
    "no shadow": (lambda state: without(state, "shadow"), [f"{name} is missing" for name in TRAINED]),
    "missing weight": (
        lambda state: state | {"shadow": without(state["shadow"], "out.bias")},
        ["out.bias is missing"],
    ),
    "unknown weights": (
        lambda state: state | {"shadow": {f"module.{name}": w for name, w in state["shadow"].items()}},
        ["out.bias is missing", "module.out.bias is unknown"],
    ),
    "shape and type": (
        lambda state: (
            state | {"shadow": state["shadow"] | {"out.bias": torch.ones(3), "hidden.bias": torch.ones(4).bfloat16()}}
        ),
        ["out.bias is [3], and [2] in this model", "hidden.bias is torch.bfloat16 in the state and torch.float32"],
    ),
    "all at once": (
        lambda state: {"shadow": {"extra": torch.ones(1)}},
        ["decay is", "warmup is", "steps is", "hidden.weight is missing", "extra is unknown"],
    ),
}


@pytest.mark.parametrize("wrong", WRONG_STATES)
def test_a_state_that_does_not_fit_is_refused_whole_with_every_difference(wrong: str) -> None:
    spoil, differences = WRONG_STATES[wrong]
    model = Small()
    ema = moved_average(model)
    state = spoil(copy.deepcopy(ema.state_dict()))
    move(model, 7)
    ema.update()
    raw, shadow = snapshot(model), shadow_of(ema)
    with pytest.raises(ValueError, match="do not fit") as caught:
        ema.load_state_dict(state)
    for difference in differences:
        assert difference in str(caught.value)
    assert ema.steps == 4
    assert_usable(ema, model, raw, shadow)


def test_the_distance_is_the_relative_norm_of_the_gap_over_all_weights() -> None:
    model = nn.ModuleDict({"wide": nn.Linear(3, 2, dtype=torch.float64), "narrow": nn.Linear(2, 2).bfloat16()})
    ema = ExponentialMovingAverage(model)
    assert ema.distance() == 0.0
    move(model, 1)
    ema.update()
    weights = torch.cat([weight.detach().double().flatten() for _, weight in trained_weights(model)])
    shadow = torch.cat([shadow.double().flatten() for shadow in ema.shadow.values()])
    assert ema.distance() == pytest.approx(((weights - shadow).norm() / weights.norm()).item(), rel=1e-6)


def test_the_distance_waits_for_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ema = moved_average(Small())
    waits = []
    for name in ("item", "tolist", "__float__", "__bool__"):
        original = getattr(Tensor, name)

        def counted(tensor: Tensor, name: str = name, original: Any = original) -> Any:
            waits.append(name)
            return original(tensor)

        monkeypatch.setattr(Tensor, name, counted)
    assert ema.distance() > 0
    assert len(waits) == 1


def test_the_distance_of_weights_that_are_all_zero_is_a_number() -> None:
    model = Small()
    for weight in model.parameters():
        nn.init.zeros_(weight)
    assert ExponentialMovingAverage(model).distance() == 0.0


# --- what can't be averaged ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, "decay must be at least 0 and less than 1, got 1.0"),
        ({"decay": -0.1}, "decay must be"),
        ({"decay": math.nan}, "decay must be"),
        ({"half_life": 0.0}, "half_life must be more than 0 steps"),
        ({"half_life": math.nan}, "half_life must be"),
        ({"half_life": math.inf}, "decay must be"),
        ({"decay": 0.9, "half_life": 7.0}, "not both"),
        ({"warmup": "tf"}, "warmup must be one of none, ramp, power, got 'tf'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExponentialMovingAverage(Small(), **settings)


@pytest.mark.parametrize("model", [nn.Dropout(), nn.Linear(2, 2).requires_grad_(False)], ids=["empty", "frozen"])
def test_a_model_without_trained_weights_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="no trained floating-point weights"):
        ExponentialMovingAverage(model)


def test_it_knows_nothing_of_the_rest_of_the_project() -> None:
    nodes = list(ast.walk(ast.parse(Path(bidaf.ema.average.__file__).read_text(encoding="utf-8"))))
    imported = {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert "torch" in imported
    assert not [name for name in imported if name.startswith(("bidaf", "."))]
