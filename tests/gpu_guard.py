"""A GPU for machines without one: CPU kernels behind tensors that say they are on `cuda:0` or `cuda:1`.

    with Guard() as guard:
        trainer = Trainer(config, prepared, torch.device("cuda:0"))
        with guard.no_waits():
            trainer.step.run(...)

Within the block it raises `GpuFault` for

- an operation on tensors of different devices,
- the host waiting for a device while that is not allowed, or while a graph is recorded,
- work that runs outside the recording, and streams that are not joined at its end,
- work that is not ordered after what other streams do with the same memory (fake_streams.py).

A recorded graph is replayed as on a GPU: kernel by kernel, on the memory it was recorded with, after all that
recordings have allocated was overwritten. Numbers that come out wrong then are for the test to notice.

It can't see: what autocast does to kernels, streams of the backward pass, cuDNN's layouts, NCCL, speed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache, partial
from types import TracebackType
from typing import Any
from unittest import mock

import torch
from fake_streams import Event, GpuFault, Memory, Pool, Stream
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from bidaf.model import encoder

CPU = torch.device("cpu")
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
DATA_DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
aten = torch.ops.aten
plain_device: Callable[[Tensor], torch.device] = torch._C.TensorBase.device.__get__  # type: ignore[attr-defined]
plain_to, plain_copy, plain_grad, plain_lstm = torch.Tensor.to, torch.Tensor.copy_, torch.autograd.grad, torch.lstm
Call = tuple[bool, Any, Any, dict[str, Any], list[Tensor]]
"""Whether gradients were on, the operation, its arguments, and which of its results are in new memory."""


def tensors_in(*values: Any) -> list[Tensor]:
    """The tensors among arguments or results of an operation, and in lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(*value)
    return found


@cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE)


@cache
def _written(func: Any) -> list[tuple[int, str]]:
    """Number and name of the arguments that an operation changes in place."""
    arguments = enumerate(func._schema.arguments)
    return [(number, each.name) for number, each in arguments if each.alias_info and each.alias_info.is_write]


def written_by(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operation changes in place."""
    return tensors_in(*(args[number] if number < len(args) else kwargs.get(name) for number, name in _written(func)))


def bytes_of(tensor: Tensor) -> Tensor:
    """The whole storage of a tensor."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())  # type: ignore[call-overload]


class CudaGraph:
    """Replaces `torch.cuda.CUDAGraph`."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.streams: set[Stream] = set()
        self._calls: list[Call] = []
        self._reads: set[Memory] = set()
        self._writes: set[Memory] = set()
        self._before: dict[Memory, tuple[Tensor, Tensor]] = {}

    def begin(self, pool: Pool | None, stream: Stream) -> None:
        if stream is self.guard.default_stream(stream.device):
            raise GpuFault("the default stream can't be recorded")
        self.pool, self._stream = pool or Pool(), stream
        self.streams = {stream}
        self._random = torch.get_rng_state()
        self.guard.recording = self

    def end(self) -> None:
        self.guard.recording = None
        if any(self._stream.before.get(stream, 0) < stream.work for stream in self.streams):
            raise GpuFault("a stream was forked while recording, and is not joined")
        # Recording computes nothing: what was written here did not happen.
        with _disable_current_modes():
            for block, content in self._before.values():
                block.copy_(content)
            torch.set_rng_state(self._random)
        self._before.clear()

    def about_to_write(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            memory = self.guard.memory(tensor)
            if memory is not None and memory.pool is None and memory not in self._before:
                self._before[memory] = bytes_of(tensor), bytes_of(tensor).clone()

    def add(self, call: Call, reads: list[Memory], writes: list[Memory]) -> None:
        self._calls.append(call)
        self._reads.update(memory for memory in reads if memory.pool is not self.pool)
        self._writes.update(memory for memory in writes if memory.pool is not self.pool)

    def replay(self) -> None:
        if self.guard.recording:
            raise GpuFault("a graph is replayed while another is recorded")
        self.guard.current_stream().run(self._reads, {*self._writes, self.pool.memory}, "a replay")
        with _disable_current_modes(), torch._C._AutoDispatchBelowAutograd():
            self.pool.overwrite()
            for grad, func, args, kwargs, fresh in self._calls:
                with torch.set_grad_enabled(grad):  # oneDNN's LSTM computes more when it is on
                    results = tensors_in(func(*args, **kwargs))
                if fresh:
                    for old, new in zip(fresh, results, strict=True):
                        plain_copy(old, new)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Brings every operation, of the backward pass too, to the guard."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._guard = guard

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if _is_composite(func):
            with self:  # in inference mode an operation arrives before PyTorch takes it apart
                return func._op_dk(COMPOSITE, *args, **kwargs)
        return self._guard.dispatch(func, args, kwargs)


class Guard:
    """The GPU; a context manager."""

    def __init__(self, devices: int = 2) -> None:
        self.recording: CudaGraph | None = None
        self.waits: list[str] = []
        """What the host has waited for."""
        self._devices = [torch.device("cuda", index) for index in range(devices)]
        self._default = {device: Stream(self, device, "the default stream") for device in self._devices}
        self._current = dict(self._default)
        self._device = self._devices[0]
        self._graph_stream: Stream | None = None
        self.host = Stream(self, None, "the host")
        self._memory: dict[int, Memory] = {}
        self._weight_streams: dict[Memory, Stream] = {}
        """Where each weight was used since the last backward pass."""
        self._underway: list[tuple[Stream, int, Tensor, Tensor]] = []
        """Copies to pinned host memory: stream, number of its work, target and content."""
        self._waits_left: int | None = None
        self._patches = ExitStack()

    # ---- what tests ask for

    @contextmanager
    def no_waits(self, but: int = 0) -> Iterator[None]:
        """Within the block the host must not wait for a device, or at most this number of times."""
        before, self._waits_left = self._waits_left, but
        try:
            yield
        finally:
            self._waits_left = before

    def wait(self, what: str, stream: Stream | None) -> None:
        """The host waits for a stream, or for all of them."""
        if threading.current_thread() is not threading.main_thread():
            return  # training goes on
        if self.recording is not None:
            raise GpuFault(f"the host waits for the device while a graph is recorded: {what}")
        if self._waits_left is not None:
            self._waits_left -= 1
            if self._waits_left < 0:
                raise GpuFault(f"the host waits for the device: {what}")
        self.waits.append(what)
        for one in [stream] if stream else [*self._default.values(), *self._current.values()]:
            self.arrive(one.before)

    def arrive(self, clock: dict[Stream, int]) -> None:
        """The host has seen this work done: what was copied to it by then is there."""
        self.host.after(clock)
        with _disable_current_modes():
            for stream, work, target, content in self._underway:
                if work <= clock.get(stream, 0):
                    plain_copy(target, content)
        self._underway = [each for each in self._underway if each[1] > clock.get(each[0], 0)]

    # ---- memory

    def memory(self, tensor: Tensor) -> Memory | None:
        """None for ordinary host memory."""
        return self._memory.get(tensor.untyped_storage()._cdata)

    def device_of(self, tensor: Tensor) -> torch.device:
        memory = self.memory(tensor)
        return memory.device if memory and memory.device else plain_device(tensor)

    def place(self, tensor: Tensor, device: torch.device | None) -> Memory:
        """From now on this tensor's memory is on the device (None: in pinned host memory)."""
        storage = tensor.untyped_storage()
        pool = self.recording.pool if self.recording else None
        memory = self._memory[storage._cdata] = Memory(StorageWeakRef(storage), device, pool)  # type: ignore[no-untyped-call]
        if pool is not None:
            pool.blocks.append(bytes_of(tensor))
        return memory

    def transfer(self, tensor: Tensor, device: torch.device, dtype: torch.dtype, *, non_blocking: bool) -> Tensor:
        """`tensor.to(device, dtype)`."""
        with _disable_current_modes():
            copy: Tensor = plain_to(tensor, dtype=dtype, copy=True)
        if device.type == "cuda" or non_blocking:  # without blocking, PyTorch copies to pinned memory
            self.place(copy, device if device.type == "cuda" else None)
        self.copied(copy, tensor, non_blocking=non_blocking)
        return copy

    def copied(self, target: Tensor, source: Tensor, *, non_blocking: bool) -> None:
        """A copy between host and device."""
        if self.recording is not None:
            raise GpuFault("a copy between host and device while a graph is recorded")
        sides = {"target": self.memory(target), "source": self.memory(source)}
        devices = [memory.device for memory in sides.values() if memory and memory.device]
        if len(devices) > 1:
            raise GpuFault(f"a copy between {devices[0]} and {devices[1]}")
        stream = self._current[devices[0]]
        stream.run(
            [memory for memory in [sides["source"]] if memory],
            [memory for memory in [sides["target"]] if memory],
            "a copy",
        )
        if not (non_blocking and all(sides.values())):  # all: the one on the host is pinned
            self.wait("a copy from or to memory that is not pinned", stream)
        elif plain_device(target) == self.device_of(target):
            with _disable_current_modes():
                self._underway.append((stream, stream.work, target, target.clone()))
                bytes_of(target).fill_(255)

    def read(self, name: str, tensor: Tensor) -> None:
        """The host reads a tensor."""
        memory = self.memory(tensor)
        if memory is None:
            return
        if memory.device is not None:
            stream = self._current[memory.device]
            stream.run([memory], [], name)
            self.wait(name, stream)
        self.host._check(memory.written, name, "reads what", "is still writing")

    # ---- operations

    def dispatch(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Compute an operation on the CPU, and do what a GPU would do besides."""
        inputs = tensors_in(*args, *kwargs.values())
        memories = [(tensor, self.memory(tensor)) for tensor in inputs]
        devices = {memory.device for _, memory in memories if memory and memory.device}
        if kwargs.get("device") is not None and kwargs["device"].type == "cuda":
            devices.add(self.canonical(kwargs["device"]))
            kwargs["device"] = CPU
        if not devices:
            for tensor, _ in memories:
                self.read(str(func), tensor)
            pinned = kwargs.pop("pin_memory", False)
            out = func(*args, **kwargs)
            if pinned:
                self.place(out, None)
            return out
        on_host = [tensor for tensor, memory in memories if memory is None or memory.device is None]
        if func is aten.copy_.default and on_host:
            with _disable_current_modes():
                out = func(*args, **kwargs)
            self.copied(args[0], args[1], non_blocking=bool((*args, *kwargs.values())[2:]))
            return out
        scalars = torch.Tag.pointwise in func.tags and all(tensor.dim() == 0 for tensor in on_host)
        if len(devices) > 1 or (on_host and not scalars):
            places = sorted({str(self.device_of(tensor)) for tensor in inputs} | {str(device) for device in devices})
            raise GpuFault(f"{func} on tensors of different devices: {', '.join(places)}")
        (device,) = devices
        in_a_step = torch.is_grad_enabled() and self._waits_left is not None
        for tensor, memory in memories if in_a_step else ():
            if memory and tensor.is_leaf and tensor.requires_grad:
                stream = self._current[device]
                if self._weight_streams.setdefault(memory, stream) is not stream:
                    raise GpuFault("a weight is used on two streams: PyTorch warns when it sums their gradients")
        return func(*args, **kwargs) if func.is_view else self._kernel(device, func, args, kwargs, inputs)

    def _kernel(self, device: torch.device, func: Any, args: Any, kwargs: Any, inputs: list[Tensor]) -> Any:
        stream, written = self._current[device], written_by(func, args, kwargs)
        if self.recording is not None:
            if stream not in self.recording.streams:
                raise GpuFault(f"{func} runs on {stream} while another stream is recorded")
            self.recording.about_to_write(written)
        out = func(*args, **kwargs)
        fresh = [tensor for tensor in tensors_in(out) if self.memory(tensor) is None]
        reads = [memory for tensor in inputs if (memory := self.memory(tensor))]
        writes = [memory for tensor in written if (memory := self.memory(tensor))]
        writes += [self.place(tensor, device) for tensor in fresh]
        stream.run(reads, writes, str(func))
        masked = any(tensor.dtype is torch.bool for tensor in inputs[1:])
        if masked if "index" in func.__name__ else DATA_DEPENDENT & set(func.tags):
            self.wait(str(func), stream)  # for the size of its result
        if self.recording is not None:
            self.recording.add((torch.is_grad_enabled(), func, args, kwargs, fresh), reads, writes)
        return out

    # ---- torch.cuda

    def canonical(self, device: Any) -> torch.device:
        """A CUDA device with its number: that of the current one if it has none."""
        if device is None:
            return self._device
        device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
        return self._device if device.index is None else device

    def current_stream(self, device: Any = None) -> Stream:
        return self._current[self.canonical(device)]

    def default_stream(self, device: Any = None) -> Stream:
        return self._default[self.canonical(device)]

    def _set_device(self, device: Any) -> None:
        self._device = self.canonical(device)

    @contextmanager
    def _on_device(self, device: Any) -> Iterator[None]:
        before = self._device
        self._set_device(device)
        yield
        self._device = before

    @contextmanager
    def _on_stream(self, stream: Stream) -> Iterator[None]:
        assert stream.device is not None
        with self._on_device(stream.device):
            before, self._current[stream.device] = self._current[stream.device], stream
            try:
                yield
            finally:
                self._current[stream.device] = before

    @contextmanager
    def _record(self, graph: CudaGraph, pool: Pool | None = None, stream: Stream | None = None) -> Iterator[None]:
        if stream is None:  # PyTorch makes one for all recordings, on the device that is current then
            stream = self._graph_stream = self._graph_stream or Stream(self, self._device, "the recording stream")
        for other in [*self._default.values(), *self._current.values()]:
            self.arrive(other.before)  # recording begins with a wait for the device
        with self._on_stream(stream):
            graph.begin(pool, stream)
            try:
                yield
                graph.end()
            finally:
                self.recording = None

    def _manual_seed(self, seed: int) -> None:
        if self.recording is not None:
            raise GpuFault("a seed while a graph is recorded")

    def _set_sync_debug_mode(self, mode: str) -> None:
        self._waits_left = 0 if mode == "error" else None

    def _lstm(self, *given: Any) -> Any:
        if given[0].is_cuda and torch.is_autocast_enabled("cuda"):
            raise GpuFault("an LSTM under autocast: cuDNN would run it in float16")
        return plain_lstm(*given)

    def _gradient(self, *given: Any, **options: Any) -> Any:
        self._weight_streams.clear()
        return plain_grad(*given, **options)

    def _reading(self, name: str) -> Callable[..., Any]:
        plain = getattr(torch.Tensor, name)

        def read(tensor: Tensor, *given: Any, **options: Any) -> Any:
            self.read(name, tensor)
            with _disable_current_modes():
                return plain(tensor, *given, **options)

        return read

    def _to(self, tensor: Tensor, *given: Any, **options: Any) -> Tensor:
        if given and isinstance(given[0], Tensor):
            given = (self.device_of(given[0]), given[0].dtype, *given[1:])
        copy = options.pop("copy", False)
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*given, **options)  # type: ignore[attr-defined]
        if device is not None and device.type == "cuda":
            device = self.canonical(device)
        dtype = dtype or tensor.dtype
        if device is None or device == self.device_of(tensor):
            result: Tensor = plain_to(tensor, dtype=dtype, copy=copy)
            return result
        if device.type == "meta":
            return plain_to(tensor, device, dtype)  # type: ignore[no-any-return]
        return self.transfer(tensor, device, dtype, non_blocking=non_blocking)

    def _pinned(self, tensor: Tensor) -> Tensor:
        with _disable_current_modes():
            copy = tensor.clone()
        self.place(copy, None)
        return copy

    def _is_pinned(self, tensor: Tensor) -> bool:
        memory = self.memory(tensor)
        return memory is not None and memory.device is None

    def _made(self, plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`torch.tensor` and `torch.as_tensor`: from the host's memory, which is a wait."""

        def make(data: Any, *given: Any, device: Any = None, **options: Any) -> Tensor:
            made = plain(data, *given, **options)
            return made if device is None else made.to(device)

        return make

    def _grouped(self, lists: Any, with_indices: bool = False) -> Any:
        groups = self._plain_grouped(lists, with_indices)
        return {(group[0][0][0].device, dtype): group for (_, dtype), group in groups.items()}  # type: ignore[union-attr]

    def __enter__(self) -> Guard:
        self._plain_grouped = torch._C._group_tensors_by_device_and_dtype
        encoder._side_stream.cache_clear()
        tensor, cuda = torch.Tensor, torch.cuda
        replaced: list[tuple[Any, str, Any]] = [
            (tensor, "device", property(self.device_of)),
            (tensor, "is_cuda", property(lambda t: self.device_of(t).type == "cuda")),
            (tensor, "is_cpu", property(lambda t: self.device_of(t).type == "cpu")),
            (tensor, "to", lambda t, *given, **options: self._to(t, *given, **options)),
            (tensor, "cuda", lambda t, device=None: self._to(t, self.canonical(device))),
            (tensor, "cpu", lambda t: self._to(t, CPU)),
            (tensor, "new_tensor", lambda t, data, **options: torch.tensor(data, dtype=t.dtype, device=t.device)),
            (tensor, "pin_memory", lambda t: self._pinned(t)),
            (tensor, "is_pinned", lambda t: self._is_pinned(t)),
            (tensor, "record_stream", lambda t, stream: None),
            *((tensor, name, self._reading(name)) for name in ("item", "tolist", "numpy")),
            *((tensor, f"__{name}__", self._reading(f"__{name}__")) for name in ("bool", "int", "float", "index")),
            (torch.autograd, "grad", self._gradient),
            (torch, "lstm", self._lstm),
            (torch, "tensor", self._made(torch.tensor)),
            (torch, "as_tensor", self._made(torch.as_tensor)),
            (torch._C, "_group_tensors_by_device_and_dtype", self._grouped),
            (torch.backends.cudnn, "is_acceptable", lambda t: False),
            (torch.backends.cudnn, "version", lambda: None),
            (torch.accelerator, "current_stream", self.current_stream),
            (cuda, "_lazy_init", lambda: None),
            (cuda, "_is_in_bad_fork", lambda: False),
            (cuda, "is_available", lambda: True),
            (cuda, "is_bf16_supported", lambda including_emulation=True: True),
            (cuda, "device_count", lambda: len(self._devices)),
            (cuda, "current_device", lambda: self._device.index),
            (cuda, "set_device", self._set_device),
            (cuda, "device", self._on_device),
            (cuda, "Stream", lambda device=None: Stream(self, self.canonical(device))),
            (cuda, "Event", partial(Event, self)),
            (cuda, "current_stream", self.current_stream),
            (cuda, "default_stream", self.default_stream),
            (cuda, "stream", lambda stream: self._on_stream(stream) if stream else nullcontext()),
            (cuda, "CUDAGraph", partial(CudaGraph, self)),
            (cuda, "graph", self._record),
            (cuda, "graph_pool_handle", Pool),
            (cuda, "is_current_stream_capturing", lambda: self.recording is not None),
            (cuda, "synchronize", lambda device=None: self.wait("torch.cuda.synchronize", None)),
            (cuda, "set_sync_debug_mode", self._set_sync_debug_mode),
            (cuda, "manual_seed_all", self._manual_seed),
            (cuda, "empty_cache", lambda: None),
            (cuda, "reset_peak_memory_stats", lambda device=None: None),
            (cuda, "max_memory_reserved", lambda device=None: 10**9),
            (cuda, "mem_get_info", lambda device=None: (10**10, 10**11)),
            (cuda, "get_device_name", lambda device=None: "no GPU (guard)"),
        ]
        for owner, name, value in replaced:
            self._patches.enter_context(mock.patch.object(owner, name, value))
        self._patches.enter_context(_Operations(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patches.close()
        encoder._side_stream.cache_clear()
