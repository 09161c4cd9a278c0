"""The processes that train one model together, one a GPU or a part of a processor, as `torchrun` starts them.

Every process holds the whole model, optimizer and shadow. Of each batch it runs its share of the parts; gradients are
summed, and from there on all do the same. The first process alone reads and writes the run's folder and talks.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bidaf.device import choose_device
from bidaf.errors import BidafError, UsageError
from bidaf.training.interrupt import SIGNALS

if TYPE_CHECKING:  # PyTorch can be built without
    from torch.distributed.distributed_c10d import Store

Value = TypeVar("Value")

VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Seconds for which a process that lost another leaves it to the first one, which saves, to say so.
PATIENCE = 5.0


class UnfitEnvironment(UsageError):
    """The variables of the environment that a launcher sets are not whole."""


class LostProcess(BidafError):
    """Another process of the group ended or can't be reached any more."""


class Group:
    """A process among those of a run. Without others its methods do nothing."""

    def __init__(self, rank: int = 0, size: int = 1, *, local_rank: int = 0, store: Store | None = None) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        """Its number on this machine."""
        self.store = store
        """What the processes met at; with torchrun it outlives each of them."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that reads and writes the run's folder."""
        return self.rank == 0

    @property
    def shard(self) -> slice:
        """What falls to this process of a sequence that all have; each item falls to one."""
        return slice(self.rank, None, self.size)

    def sum_(self, tensor: Tensor) -> None:
        """Replace the tensor by its sum over all processes, the same bits in each."""
        if self.size > 1:
            with _meeting():
                dist.all_reduce(tensor)

    def gather(self, value: Value) -> list[Value]:
        """Everyone's value, by rank."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        with _meeting():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Value) -> Value:
        """The first process's value; what the others give does not count."""
        if self.size == 1:
            return value
        box = [value]
        with _meeting():
            dist.broadcast_object_list(box)
        return box[0]

    def tensors_from_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of rank 0 by name, on the CPU; what the other processes pass is ignored."""
        return self.from_first({name: tensor.detach().cpu() for name, tensor in tensors.items()})

    def wait(self) -> None:
        """Wait until all have come here."""
        self.gather(None)

    def sum_gradients(
        self, loss: Tensor, gradients: Sequence[Tensor], votes: Sequence[float]
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Sum loss [], gradients and votes [n] of the processes' parts of a batch.

        In one all-reduce of a flat copy: the weights are few (6.5 MB) and what costs is each message's latency. The
        votes travel with it, so that all processes learn in the same step that one was asked to stop.
        `DistributedDataParallel` would rename the weights, weigh each process alike though their parts differ, and wait
        forever for one whose share of a short batch is empty.
        """
        pieces = [loss.reshape(1), loss.new_tensor(votes), *(gradient.flatten() for gradient in gradients)]
        flat = torch.cat([piece.to(gradients[0].dtype) for piece in pieces])
        self.sum_(flat)
        total_loss, total_votes, *totals = torch.split(flat, [piece.numel() for piece in pieces])
        shaped = [total.view_as(gradient) for total, gradient in zip(totals, gradients, strict=True)]
        return total_loss[0], shaped, total_votes


ALONE = Group()
_joined = ALONE  # of this process; torch's own group is one for the whole process, too


@contextmanager
def _meeting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's own, and all of torch.distributed's
        reason = re.sub(r"^\[[^]]*\] ", "", str(error).strip()).split(". ")[0].splitlines()[0]
        raise LostProcess(f"lost contact with another process of the run: {reason}") from None


def expected_size() -> int:
    """How many processes the environment speaks of. Raises `UnfitEnvironment`."""
    text = os.environ.get("WORLD_SIZE", "1")
    if text == "1":
        return 1
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    numbers = (text, *(os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "MASTER_PORT")))
    if missing or not all(number.isdigit() for number in numbers) or int(text) <= int(os.environ["RANK"]):
        raise UnfitEnvironment(
            f"WORLD_SIZE={text} speaks of several processes, but {', '.join(missing) or 'RANK and the like'} "
            f"{'is not set' if missing else 'do not fit it'}: start with torchrun, or unset WORLD_SIZE"
        )
    return int(text)


@contextmanager
def joined(device_name: str) -> Iterator[Group]:
    """Meet the other processes that torchrun started; a group of one when it started none.

    At the end of the block all wait for one another, but after an error: that ends each of them where it is.
    Raises `LostProcess` when they do not come.
    """
    size = expected_size()
    if size == 1:
        yield ALONE
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    # Objects travel between processors in any case, so that no GPU is waited for.
    backend = "cpu:gloo,cuda:nccl" if device_name != "cpu" and torch.cuda.is_available() else "gloo"
    if not dist.is_available():
        raise BidafError("this build of PyTorch has no torch.distributed: train in one process")
    from torch.distributed.rendezvous import rendezvous

    with _meeting():
        store, _, _ = next(rendezvous("env://"))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    global _joined
    _joined = group = Group(rank, size, local_rank=local_rank, store=store)
    yield group
    group.wait()
    dist.destroy_process_group()
    _joined = ALONE


def device_of(group: Group, name: str) -> torch.device:
    """The device of this process: a GPU of its own, or the CPU. Raises `UsageError` where that can't be."""
    if group.size == 1:
        return choose_device(name)
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {name} is for one process; of several each takes its own GPU: --device cuda, or cpu"
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
        torch.cuda.set_device(device)
    if len(kinds := set(group.gather(device.type))) > 1:
        raise UsageError(f"the processes have different devices ({', '.join(sorted(kinds))}): name one with --device")
    return device


def speaks(error: BaseException) -> bool:
    """Whether this process is the one of all to say that they end, and why: the first that fails."""
    group = _joined
    if group.store is None:  # not met: all of them see what is wrong with the command line
        return isinstance(error, LostProcess | UnfitEnvironment) or os.environ.get("RANK", "0") == "0"
    for number in SIGNALS:  # torchrun asks those that are left to end, as they do
        signal.signal(number, signal.SIG_IGN)
    try:
        if isinstance(error, LostProcess) and not group.is_first:
            patience = time.monotonic() + PATIENCE
            while not group.store.check(["told"]) and time.monotonic() < patience:
                time.sleep(0.1)
        return bool(group.store.add("told", 1) == 1)
    except RuntimeError:  # the store went with the process that kept it
        return True


def require_same(group: Group, tensors: Iterable[Mapping[str, Tensor]], what: str) -> None:
    """Raise `BidafError` when the tensors are not the same in all processes, bit for bit."""
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
            f"{what} of process {', '.join(others)} differ from those of process 0: nothing is saved of this step. "
            "Are the processes on machines of different kinds? Resume to go on from the last checkpoint."
        )
