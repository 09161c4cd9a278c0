"""The processes that train one model together or share a prediction, one per GPU or share of a processor, as `torchrun`
starts them.

In training every process holds the whole model, optimizer and shadow. It runs its share of each batch's micro-batches;
gradients are summed, and everything after that is the same in all of them. Only rank 0 writes files (a run's folder, or
the answers) and prints messages.

What the processes send each other is numbers, JSON and safetensors: nothing that is received is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from bidaf.device import choose_device
from bidaf.errors import BidafError, UsageError

if TYPE_CHECKING:  # PyTorch can be built without
    from torch.distributed.distributed_c10d import Store

VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Seconds that other ranks wait for rank 0, which may be saving, to report a lost process.
PATIENCE = 5.0


class UnfitEnvironment(UsageError):
    """The environment variables that a launcher sets are incomplete or contradict each other."""


class LostProcess(BidafError):
    """Another process of the group ended or can no longer be reached."""


class Group:
    """This process among those of a run. When it is the only one, the methods return what they are given."""

    def __init__(self, rank: int = 0, size: int = 1, *, local_rank: int = 0, store: Store | None = None) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        """Its number on this machine."""
        self.store = store
        """The key-value store that the processes met at; with torchrun it outlives each of them."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that reads and writes the run's folder."""
        return self.rank == 0

    @property
    def shard(self) -> slice:
        """This process's share of a sequence that all of them hold."""
        return slice(self.rank, None, self.size)

    def sum_(self, tensor: Tensor) -> None:
        """Replace the tensor by its sum over all processes, the same bits in each."""
        if self.size > 1:
            with _reporting_lost_processes():
                dist.all_reduce(tensor)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank; anything that JSON can hold."""
        if self.size == 1:
            return [value]
        return [json.loads(data) for data in self._gather_bytes(json.dumps(value).encode())]

    def from_first(self, value: Any) -> Any:
        """The value of rank 0, anything that JSON can hold; what the other processes pass is ignored."""
        return value if self.size == 1 else json.loads(self._bytes_from_first(json.dumps(value).encode()))

    def tensors_from_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of rank 0 by name, on the CPU; what the other processes pass is ignored."""
        named = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        return named if self.size == 1 else load(self._bytes_from_first(save(named)))

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.gather(None)

    def sum_gradients(
        self, loss: Tensor, gradients: Sequence[Tensor], stop_flags: Sequence[float]
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Sum loss [], gradients and stop flags [n] over the processes' micro-batches.

        One all-reduce of one flat copy: the weights are few (6.5 MB), so that latency is the cost. The stop flags
        travel with it, so that all processes learn in the same step that one of them was asked to stop.
        `DistributedDataParallel` would rename the weights, give all processes the same weight although their shares
        differ, and wait forever for one whose share of a short batch is empty.
        """
        # Filled on the device: an upload would wait for it.
        flags = [loss.new_full((1,), flag) for flag in stop_flags]
        pieces = [loss.reshape(1), *flags, *(gradient.flatten() for gradient in gradients)]
        flat = torch.cat([piece.to(gradients[0].dtype) for piece in pieces])
        self.sum_(flat)
        sizes = [1, len(flags), *(gradient.numel() for gradient in gradients)]
        total_loss, total_flags, *totals = torch.split(flat, sizes)
        shaped = [total.view_as(gradient) for total, gradient in zip(totals, gradients, strict=True)]
        return total_loss[0], shaped, total_flags

    def _gather_bytes(self, data: bytes) -> list[bytes]:
        own = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _reporting_lost_processes():
            dist.all_gather(sizes, torch.tensor([len(own)]))
            longest = max(int(size) for size in sizes)
            padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(padded, torch.cat([own, own.new_zeros(longest - len(own))]))
        return [each[: int(size)].numpy().tobytes() for each, size in zip(padded, sizes, strict=True)]

    def _bytes_from_first(self, data: bytes) -> bytes:
        size = torch.tensor([len(data)])
        with _reporting_lost_processes():
            dist.broadcast(size, src=0)
            buffer = bytearray(data) if self.is_first else bytearray(int(size))
            dist.broadcast(torch.frombuffer(buffer, dtype=torch.uint8), src=0)
        return bytes(buffer)


ALONE = Group()
_joined = ALONE  # of this process; torch's own group is one for the whole process, too


@contextmanager
def _reporting_lost_processes() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's own, and all of torch.distributed's
        reason = re.sub(r"^\[[^]]*\] ", "", str(error).strip()).split(". ")[0].splitlines()[0]
        raise LostProcess(f"lost contact with another process of the run: {reason}") from None


def expected_size() -> int:
    """The number of processes that the environment indicates. Raises `UnfitEnvironment`."""
    text = os.environ.get("WORLD_SIZE", "1")
    if text == "1":
        return 1
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    numbers = (text, *(os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "MASTER_PORT")))
    if missing or not all(number.isdigit() for number in numbers) or int(text) <= int(os.environ["RANK"]):
        raise UnfitEnvironment(
            f"WORLD_SIZE={text} indicates several processes, but {', '.join(missing) or 'RANK and the like'} "
            f"{'is not set' if missing else 'do not fit it'}: start with torchrun, or unset WORLD_SIZE"
        )
    return int(text)


@contextmanager
def joined(device_name: str) -> Iterator[Group]:
    """Join the other processes that torchrun started; a group of one when there are none.

    At the end of the block all wait for one another, except after an error, which ends each of them where it is.
    Raises `LostProcess` when the others do not join.
    """
    size = expected_size()
    if size == 1:
        yield ALONE
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    # Values and files always travel between processors, so that no GPU is waited for.
    backend = "cpu:gloo,cuda:nccl" if device_name != "cpu" and torch.cuda.is_available() else "gloo"
    if not dist.is_available():
        raise BidafError("this build of PyTorch has no torch.distributed: use one process")
    from torch.distributed.rendezvous import rendezvous

    with _reporting_lost_processes():
        store, _, _ = next(rendezvous("env://"))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    global _joined
    _joined = group = Group(rank, size, local_rank=local_rank, store=store)
    yield group
    group.wait()
    dist.destroy_process_group()
    _joined = ALONE


def device_of(group: Group, name: str) -> torch.device:
    """The device of this process: a GPU of its own, or the CPU. Raises `UsageError` when there is none."""
    if group.size == 1:
        return choose_device(name)
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {name} is for one process; with several, each takes its own GPU: use --device cuda, or cpu"
        )
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        device = torch.device("cpu")
    else:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if group.local_rank >= count:
            raise UsageError(
                f"process {group.local_rank + 1} of this machine has no GPU of its own: PyTorch sees {count} here; "
                + (f"start with torchrun --nproc-per-node={count}, or " if count else "")
                + "use --device cpu"
            )
        device = torch.device("cuda", group.local_rank)
    if len(kinds := set(group.gather(device.type))) > 1:
        raise UsageError(f"the processes have different devices ({', '.join(sorted(kinds))}): name one with --device")
    return device


def speaks(error: BaseException) -> bool:
    """Whether this process reports the error that ends all of them: the first one that fails does."""
    group = _joined
    if group.store is None:  # not joined: all of them see what is wrong with the command line
        return isinstance(error, LostProcess | UnfitEnvironment) or os.environ.get("RANK", "0") == "0"
    for number in (signal.SIGINT, signal.SIGTERM):  # torchrun asks those that are left to end, while they end
        signal.signal(number, signal.SIG_IGN)
    try:
        if isinstance(error, LostProcess) and not group.is_first:
            patience = time.monotonic() + PATIENCE
            while not group.store.check(["reported"]) and time.monotonic() < patience:
                time.sleep(0.1)
        return bool(group.store.add("reported", 1) == 1)
    except RuntimeError:  # the store ended with the process that kept it
        return True


def require_same(group: Group, tensors: Iterable[Mapping[str, Tensor]], what: str) -> None:
    """Raise `BidafError` unless the tensors are the same in all processes, bit for bit."""
    if group.size == 1:
        return
    digest = hashlib.sha256()
    for named in tensors:
        for tensor in named.values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
    digests = group.gather(digest.hexdigest())
    others = [str(rank) for rank, other in enumerate(digests) if other != digests[0]]
    if others:
        raise BidafError(
            f"{what} of process {', '.join(others)} differ from those of process 0: this step is not saved. "
            "Are the processes on different kinds of machines? Resume to continue from the last checkpoint."
        )
