"""The table "I asked for 0.999" of docs/ema.md: what average other implementations really keep.

    python scripts/asked_for.py --steps 2000 --decay 0.999

Weight t is 1 after step t alone and 0 before and after, so the average holds its own profile: what it has of each
step's weights. Every implementation gets the decay and otherwise its defaults, and is updated after each step. One
that is not installed is skipped, and named on stderr.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bidaf.ema.average import ExponentialMovingAverage
from bidaf.version import __version__

Updates = tuple[Callable[[], object], Callable[[], Tensor]]
"""What to call after each step, and what reads the averaged weights."""


class Row(NamedTuple):
    """What an average holds in the end."""

    initial: float
    """Share of the weights before the first step."""
    first: float
    """Share of the weights after the first step."""
    newest: float
    """Share of the weights after the last step."""
    mean_age: float
    """Steps, weighted with the shares."""


def bidaf_average(model: nn.Linear, decay: float) -> Updates:
    ema = ExponentialMovingAverage(model, decay=decay)
    return ema.update, lambda: ema.shadow["weight"]


def torch_average(model: nn.Linear, decay: float) -> Updates:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
    return lambda: ema.update_parameters(model), lambda: next(ema.module.parameters())


def timm_average(model: nn.Linear, decay: float) -> Updates:
    ema = timm_file("model_ema").ModelEmaV3(model, decay=decay)
    return lambda: ema.update(model), lambda: ema.module.weight


def ema_pytorch_average(model: nn.Linear, decay: float) -> Updates:
    from ema_pytorch import EMA

    ema = EMA(model, beta=decay)
    return ema.update, lambda: ema.ema_model.weight


def torch_ema_average(model: nn.Linear, decay: float) -> Updates:
    from torch_ema import ExponentialMovingAverage as TorchEma

    ema = TorchEma(model.parameters(), decay=decay)
    return ema.update, lambda: ema.shadow_params[0]


def timm_file(name: str) -> ModuleType:
    """One file of timm without the rest of it, which needs torchvision."""
    folder = importlib.util.find_spec("timm")
    assert folder is not None
    assert folder.submodule_search_locations is not None
    path = f"{folder.submodule_search_locations[0]}/utils/{name}.py"
    spec = importlib.util.spec_from_file_location(f"timm_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


IMPLEMENTATIONS: dict[str, tuple[str, Callable[[nn.Linear, float], Updates]]] = {
    "bidaf `ExponentialMovingAverage`": ("bidaf", bidaf_average),
    "torch `AveragedModel`, `get_ema_multi_avg_fn`": ("torch", torch_average),
    "timm `ModelEmaV3`": ("timm", timm_average),
    "ema-pytorch `EMA`": ("ema_pytorch", ema_pytorch_average),
    "torch_ema `ExponentialMovingAverage`": ("torch_ema", torch_ema_average),
}


def profile_of(make: Callable[[nn.Linear, float], Updates], steps: int, decay: float) -> NDArray[np.float64]:
    """The shares of the weights after each step, [steps + 1]."""
    model = nn.Linear(steps + 1, 1, bias=False)

    def pulse(step: int) -> None:
        with torch.no_grad():
            model.weight.zero_()
            model.weight[0, step] = 1.0

    pulse(0)
    update, read = make(model, decay)
    for step in range(1, steps + 1):
        pulse(step)
        update()
    return read().detach()[0].double().numpy()


def row_of(profile: NDArray[np.float64]) -> Row:
    ages = np.arange(len(profile))[::-1]
    return Row(float(profile[0]), float(profile[1]), float(profile[-1]), float(profile @ ages / profile.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--decay", type=float, default=0.999)
    options = parser.parse_args()
    print("| average | version | initial weights | after step 1 | newest weights | mean age, steps |")
    print("|---|---|---|---|---|---|")
    for name, (package, make) in IMPLEMENTATIONS.items():
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed: skipped", file=sys.stderr)
            continue
        row = row_of(profile_of(make, options.steps, options.decay))
        shares = " | ".join(f"{share:.2%}" for share in (row.initial, row.first, row.newest))
        number = __version__ if package == "bidaf" else version(package)
        print(f"| {name} | {number} | {shares} | {row.mean_age:,.0f} |")


if __name__ == "__main__":
    main()
