"""Which device a command runs on, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_cli import succeed, write_tiny

from bidaf.device import choose_device, matrix_precision, set_up
from bidaf.errors import UsageError
from bidaf.runs.folder import Run

CPU = torch.device("cpu")


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def backend_flags() -> Iterator[None]:
    """Put back what `matrix_precision` and `set_up` set for the whole process."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gpu", "unknown device 'gpu'; choose from auto, cpu, cuda, mps"),
        ("", "unknown device ''"),
        ("CPU", "unknown device 'CPU'"),
        ("cuda:x", "unknown device 'cuda:x'"),
        ("cuda:-1", "unknown device 'cuda:-1'"),
        ("cuda", "no device cuda: PyTorch sees 0 CUDA devices here; try --device cpu"),
        ("cuda:0", "no device cuda:0: PyTorch sees 0 CUDA devices"),
        ("mps", "no device mps on this machine; try --device cpu"),
    ],
)
def test_a_device_that_is_not_there_is_a_usage_error(name: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_device(name)
    assert str(caught.value).startswith(problem)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_chosen_by_its_number_and_only_where_there_is_one() -> None:
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="PyTorch sees 2 CUDA devices"):
        choose_device("cuda:2")


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_without_an_accelerator_the_cpu_is_chosen(name: str) -> None:
    assert choose_device(name) == CPU


@pytest.mark.usefixtures("no_accelerator")
def test_mps_is_used_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == CPU
    assert choose_device("mps") == torch.device("mps")


@pytest.mark.usefixtures("backend_flags")
def test_on_the_cpu_numbers_too_small_to_be_fast_become_zero() -> None:
    torch.set_flush_denormal(False)
    tiny = torch.full((64,), 1e-30)
    assert float((tiny * 1e-10).max()) > 0
    set_up(CPU)
    assert float((tiny * 1e-10).max()) == 0


@pytest.mark.usefixtures("backend_flags")
@pytest.mark.parametrize(
    ("precision", "dtype", "tf32"),
    [("fp32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False)],
)
def test_matrix_products_run_in_the_precision_that_was_asked_for(
    precision: Any, dtype: torch.dtype, tf32: bool
) -> None:
    with matrix_precision(precision, CPU)():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
        assert torch.ones(2).softmax(0).dtype == torch.float32
    assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == tf32
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.usefixtures("backend_flags")
def test_training_in_bf16_keeps_fp32_weights_and_comes_near_to_fp32(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    losses = {}
    for precision in ("fp32", "bf16"):
        sets = [f"training.precision={precision}", "training.max_steps=2", "training.log_every=1"]
        succeed(
            *("train", "-c", "tiny.yaml", "--run-dir", precision, "--device", "cpu"),
            *(f"--set={setting}" for setting in sets),
            cwd=tmp_path,
        )
        run = Run.open(tmp_path / precision)
        losses[precision] = [event["loss"] for event in run.events() if event["event"] == "train"]
        weights = torch_weights(run)
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


def torch_weights(run: Run) -> dict[str, torch.Tensor]:
    from bidaf.runs.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(run.last_checkpoint())
    return checkpoint.weights("raw") | checkpoint.weights("ema")
