"""The device a command runs on, and how PyTorch is set up for it."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from bidaf.errors import BidafError, UsageError

Precision = Literal["fp32", "tf32", "bf16"]
KINDS = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a GPU, else the CPU; MPS, which is untested, has to be asked for.

    Raises `UsageError` for a device that is unknown or not there, and as `refuse_after_fork` does.
    """
    kind, _, index = name.partition(":")
    if kind not in KINDS or (index and not index.isdigit()):
        raise UsageError(f"unknown device {name!r}; choose from {', '.join(KINDS)} (or cuda:0, cuda:1, ...)")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        refuse_after_fork(torch.device("cuda"))
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise UsageError(f"no device {name}: PyTorch sees {count} CUDA devices here; try --device cpu")
        return torch.device("cuda", int(index or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("no device mps on this machine; try --device cpu")
    return torch.device(kind)


def refuse_after_fork(device: torch.device) -> None:
    """Raise `BidafError` when this process was forked from one that had used the GPU: CUDA does not work in it."""
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise BidafError(
            "this process was forked from one that had used the GPU, and can't use it: start processes with the method "
            "spawn, or load the model after the fork"
        )


def set_up(device: torch.device) -> None:
    """Settings of the process, and of this thread, that change speed and not results."""
    if device.type == "cpu":
        # Saturated gates produce denormals, on which a CPU is many times slower.
        torch.set_flush_denormal(True)
    if device.type == "cuda":
        # What PyTorch allocates without being told a device, such as streams and pinned memory, belongs to this one.
        torch.cuda.set_device(device)


def set_deterministic(asked: bool) -> None:
    """Whether this process has to compute the same numbers every time, to the last digit.

    Some operations add in the order in which threads happen to finish, on a GPU and on a CPU with several threads.
    PyTorch then uses slower ones instead, and raises an error where there is none.
    """
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(asked)
    torch.backends.cudnn.deterministic = asked
    torch.backends.cudnn.benchmark = False


def matrix_precision(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """A context for forward passes in which matrix products run in this precision.

    Softmax, loss, optimizer and shadow stay in fp32, and on CUDA devices LSTMs too: under bf16 autocast cuDNN would run
    them in fp16. `tf32` changes nothing on devices without it.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if precision == "bf16":
        return partial(torch.autocast, device.type, dtype=torch.bfloat16)
    return nullcontext


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on the device; None where the system does not say.

    Raises as `refuse_after_fork` does.
    """
    if device.type == "cuda":
        refuse_after_fork(device)
        return torch.cuda.mem_get_info(device)[0]
    return _linux_memory("/proc/meminfo", "MemAvailable")


def return_freed_memory() -> None:
    """Give back to the system what this process has freed, where the C library is glibc.

    By itself it keeps freed blocks of up to 32 MiB. The gaps that batches of ever other shapes leave behind add up over
    hours (measured: 10 % of the peak for ten times the questions). Returned after every batch, they cost a fifth of the
    time, for the next batch has to get all of them again.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory(device: torch.device) -> int:
    """Bytes: the process's on a CPU; on a GPU those that PyTorch has reserved.

    A recorded step allocates nothing when it is replayed: its memory is reserved, but no longer counted as allocated.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    own = _linux_memory("/proc/self/status", "VmHWM")  # ru_maxrss begins with the parent process's peak
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in kilobytes elsewhere
    return own or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now on. On a CPU only Linux can; elsewhere the peak stays that of the process."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def describe(device: torch.device) -> dict[str, str]:
    """What makes speed and last digits on this device; empty for a CPU."""
    if device.type != "cuda":
        return {}
    return {
        "card": torch.cuda.get_device_name(device),
        "driver": _driver() or "unknown",
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }


def _driver() -> str | None:
    """The version of NVIDIA's driver; None where the system does not say."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return match[0] if match else None


def _linux_memory(file: str, name: str) -> int | None:
    try:
        lines = Path(file).read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith(f"{name}:")), None)
    return int(kilobytes) * 1024 if kilobytes else None
