"""An exponential moving average ("shadow") of a module's trained weights.

    shadow_t = decay * shadow_{t-1} + (1 - decay) * weight_t

once after every optimizer step, from shadow_0 = the initial weights: `tf.train.ExponentialMovingAverage(decay)` as
BiDAF's released code uses it (basic/model.py), without its slips. Works on any `nn.Module`; `docs/ema.md` lists what
goes wrong elsewhere.

    ema = ExponentialMovingAverage(model, decay=0.999)
    loss.backward(); optimizer.step(); ema.update()
    with ema.applied():
        evaluate(model)          # the shadow's score; the raw weights are back afterwards
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

DEFAULT_DECAY = 0.999  # Seo et al., section 4
POWER = 2.0 / 3.0  # reaches 0.999 after 31.6k steps, 0.99 after 1k

WARMUPS: dict[str, Callable[[int], float]] = {
    "none": lambda step: 1.0,
    # TensorFlow's `num_updates`: 0.9 after 80 steps, 0.99 after 890, 0.999 after 8,990.
    "ramp": lambda step: (1.0 + step) / (10.0 + step),
    "power": lambda step: 1.0 - (1.0 + step) ** -POWER,
}

# Name parts that torch.compile and activation checkpointing put before the names of what they wrap.
_WRAPPER_PARTS = frozenset({"_orig_mod", "_checkpoint_wrapped_module"})

# Modules whose weights are an average's shadow right now. The mark belongs to the model: a second average of the same
# model, or of a part of it, must not treat that shadow as the raw weights.
_holding_a_shadow: WeakSet[nn.Module] = WeakSet()


class ExponentialMovingAverage:
    """The shadow of `model`'s trained floating-point weights, by name, in at least fp32, on their device.

    Weights that do not train can't differ from their average: they are shared with the model, not copied. Buffers stay
    the model's own while the shadow is applied.

    `decay` is the share of the shadow kept in a step (default 0.999); `half_life` gives it in steps instead. `warmup`
    lowers the decay at the start: `none`, `ramp` min(decay, (1+n)/(10+n)), `power` min(decay, 1-(1+n)^(-2/3)), with n
    the number of updates.

    Raises `ValueError` for settings out of range and for a model without trained weights, `RuntimeError` for a model
    that holds another average's shadow.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float | None = None,
        half_life: float | None = None,
        warmup: str = "none",
    ) -> None:
        if decay is not None and half_life is not None:
            raise ValueError("give decay or half_life, not both")
        if half_life is not None:
            if not half_life > 0.0:
                raise ValueError(f"half_life must be more than 0 steps, got {half_life}")
            decay = 0.5 ** (1.0 / half_life)
        self.decay = DEFAULT_DECAY if decay is None else decay
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"decay must be at least 0 and less than 1, got {self.decay}")
        if warmup not in WARMUPS:
            raise ValueError(f"warmup must be one of {', '.join(WARMUPS)}, got {warmup!r}")
        self.warmup = warmup
        self.steps = 0  # updates made; a Python int, so that counting never waits for a device
        self._model = model
        self._raw: dict[str, Tensor] | None = None  # what the model's weights were, while the shadow is in their place
        # The parameters, not their data: `model.to()` and fused kernels give a parameter new storage.
        self._weights = dict(trained_weights(model))
        if not self._weights:
            raise ValueError("the model has no trained floating-point weights to average")
        averaged = {id(weight) for weight in self._weights.values()}
        # Where the model keeps them, tied weights at each place: assigning to one of these replaces a weight.
        self._places = [
            (module, name, weight)
            for module in model.modules()
            for name, weight in module._parameters.items()
            if id(weight) in averaged
        ]
        self._refuse_while_applied("average its weights")
        self._shadow = {name: _at_least_fp32(weight.detach()).clone() for name, weight in self._weights.items()}

    def __repr__(self) -> str:
        numbers = sum(shadow.numel() for shadow in self._shadow.values())
        applied = ", applied" if self.is_applied else ""
        return (
            f"ExponentialMovingAverage(decay={self.decay:g}, warmup={self.warmup!r}; {self.steps:,} updates of "
            f"{len(self._shadow)} tensors, {numbers:,} weights; {self.initial_share:.2%} initial weights{applied})"
        )

    @property
    def shadow(self) -> Mapping[str, Tensor]:
        """The averaged weights by name. Live tensors; clone to keep."""
        return self._shadow

    @property
    def initial_share(self) -> float:
        """Share of the initial weights in the shadow: 1 before the first update."""
        share = 1.0
        for step in range(1, self.steps + 1):
            share *= self.decay_at(step)
            if share < 1e-12:
                return 0.0
        return share

    @property
    def is_applied(self) -> bool:
        """Whether the model holds the shadow right now."""
        return self._raw is not None

    def decay_at(self, step: int) -> float:
        """Share of the shadow that update number `step` keeps (1 is the first)."""
        return float(min(self.decay, WARMUPS[self.warmup](step)))

    @torch.no_grad()
    def update(self) -> None:
        """Move the shadow towards the weights: call once after each optimizer step that changed them.

        One fused call per device and type. `lerp` of equal tensors is an exact fixed point, which decay * a +
        (1 - decay) * b is not. Raises `RuntimeError` when weights were replaced (`load_state_dict(assign=True)`).
        """
        self._refuse_while_applied("update")
        self._refuse_replaced()
        self.steps += 1
        weight = 1.0 - self.decay_at(self.steps)
        for shadows, weights in _grouped(self._shadow, self._weights):
            # lerp wants equal types: the weights of a bf16 model are widened for the moment of the update.
            same = [raw.to(shadow.dtype) for raw, shadow in zip(weights, shadows, strict=True)]
            torch._foreach_lerp_(shadows, same, weight)

    @contextmanager
    def applied(self, average: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """Within the block the model holds the shadow; afterwards, whatever happens, the raw weights, bit for bit.

        With `average` it holds that instead: another average of the same weights, by the same names.

        Weights are copied in place: their addresses stay valid for fused LSTM kernels, compiled graphs and views.
        Raises `RuntimeError` when nested, while another average is applied to the model, inside an active autocast
        region, whose cached casts would hide the swap, and when the model has trained weights that are not in the
        average.
        """
        self._refuse_while_applied("apply it again")
        self._refuse_untracked()
        if any(torch.is_autocast_enabled(kind) for kind in {w.device.type for w in self._weights.values()}):
            raise RuntimeError("apply the shadow outside of autocast: its cached casts would not see the swap")
        raw = {name: weight.detach().clone() for name, weight in self._weights.items()}
        try:
            self._raw = raw
            _holding_a_shadow.update(module for module, _, _ in self._places)
            _copy_all(self._weights, self._shadow if average is None else average)
            yield
        finally:
            self._put_back(raw)

    def averaged_model(self) -> nn.Module:
        """A copy of the model that holds the shadow, in evaluation mode, to call or serve while training continues."""
        with self.applied():
            return copy.deepcopy(self._model).eval()

    def distance(self) -> float:
        """||weights - shadow|| / ||weights||, over all weights together. Waits for the device."""
        self._refuse_while_applied("measure its distance")
        self._refuse_replaced()
        with torch.no_grad():
            weights = [weight.to(self._shadow[name].dtype) for name, weight in self._weights.items()]
            gaps = [weight - shadow for weight, shadow in zip(weights, self._shadow.values(), strict=True)]
            norms = torch.stack([torch.nn.utils.get_total_norm(tensors) for tensors in (gaps, weights)])
        gap, size = norms.tolist()  # the one wait
        return float(gap / size) if size else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Settings and counter as plain values, and the shadow's tensors (not copies) by name."""
        self._refuse_while_applied("save it")
        self._refuse_untracked()
        return {
            "decay": self.decay,
            "warmup": self.warmup,
            "steps": self.steps,
            "shadow": dict(self._shadow),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result. Nothing is changed when it does not fit.

        Raises `ValueError` listing every difference in settings, names, shapes and types.
        """
        self._refuse_while_applied("load it")
        problems = [
            f"{key} is {getattr(self, key)!r} here and {state.get(key)!r} in the state"
            for key in ("decay", "warmup")
            if state.get(key) != getattr(self, key)
        ]
        steps = state.get("steps")
        if not isinstance(steps, int) or steps < 0:
            problems.append(f"steps is {steps!r} in the state, not a count")
        loaded: Mapping[str, Tensor] = state.get("shadow", {})
        problems += mismatches(self._shadow, loaded)
        problems += [
            f"{name} is {loaded[name].dtype} in the state and {shadow.dtype} here"
            for name, shadow in self._shadow.items()
            if name in loaded and loaded[name].dtype != shadow.dtype
        ]
        if problems:
            raise ValueError("the averaged weights do not fit this model:\n  " + "\n  ".join(problems))
        _copy_all(self._shadow, loaded)
        self.steps = int(state["steps"])

    def _put_back(self, raw: Mapping[str, Tensor]) -> None:
        try:
            _copy_all(self._weights, raw)
        except (KeyboardInterrupt, SystemExit):
            # One more Ctrl-C, in the middle of this: some weights would stay the shadow's. Start over, then let it go.
            self._put_back(raw)
            raise
        # Last: if restoring failed, the guard must stay on.
        self._raw = None
        _holding_a_shadow.difference_update(module for module, _, _ in self._places)

    def _refuse_untracked(self) -> None:
        """Every trained weight of the model is in the average: a walk through all modules."""
        self._refuse_replaced()
        self._refuse(name for name, weight in trained_weights(self._model) if self._weights.get(name) is not weight)

    def _refuse_replaced(self) -> None:
        """Every averaged weight is still the model's: some microseconds, so that each update can afford it."""
        replaced = {id(weight) for module, name, weight in self._places if module._parameters.get(name) is not weight}
        if replaced:
            self._refuse(name for name, weight in self._weights.items() if id(weight) in replaced)

    def _refuse(self, untracked: Iterator[str]) -> None:
        if names := ", ".join(untracked):
            raise RuntimeError(
                f"not in the average: {names} (replaced, or made to train, since it was made); "
                "make a new ExponentialMovingAverage of the model"
            )

    def _refuse_while_applied(self, action: str) -> None:
        if self._raw is not None:
            raise RuntimeError(f"the shadow is applied to the model: leave applied() before you {action}")
        if _holding_a_shadow and any(module in _holding_a_shadow for module, _, _ in self._places):
            raise RuntimeError(
                f"the shadow of another average is applied to the model: leave its applied() before you {action}"
            )


def trained_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The floating-point parameters that train, by name, without the prefixes that wrappers put before names.

    `nn.DataParallel` and `DistributedDataParallel` (`module.`) are recognised around the whole model, `torch.compile`
    (`_orig_mod.`) and activation checkpointing around any part; names are the plain module's, so that a shadow fits
    either.
    """
    while (inner := getattr(model, "_orig_mod", None) or _parallel_module(model)) is not None:
        model = inner
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            yield ".".join(part for part in name.split(".") if part not in _WRAPPER_PARTS), parameter


def mismatches(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps tensors `found` from standing for `expected`: names and shapes, one line each."""
    lines = [f"{name} is missing" for name in expected if name not in found]
    lines += [f"{name} is unknown to this model" for name in found if name not in expected]
    for name, tensor in expected.items():
        if name in found and found[name].shape != tensor.shape:
            lines.append(f"{name} is {list(found[name].shape)}, and {list(tensor.shape)} in this model")
    return lines


def _parallel_module(model: nn.Module) -> nn.Module | None:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else None


def _at_least_fp32(weight: Tensor) -> Tensor:
    # At decay 0.999 a 16-bit shadow rounds every small move away and never follows.
    return weight.float() if weight.dtype in (torch.bfloat16, torch.float16) else weight


def _grouped(
    shadow: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    groups: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, tensor in shadow.items():
        groups.setdefault((tensor.device, tensor.dtype), []).append(name)
    for names in groups.values():
        yield [shadow[name] for name in names], [weights[name] for name in names]


@torch.no_grad()
def _copy_all(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])
