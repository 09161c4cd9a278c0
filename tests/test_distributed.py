"""Several processes train as one; here they are threads of one process that meet at a barrier."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from conftest import CPU, Configure
from helpers_cli import bidaf, write_tiny
from test_step import QUESTIONS, Bench, nan_loss, plain_descent
from torch import Tensor

from bidaf import distributed
from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared
from bidaf.distributed import ALONE, Group, LostProcess, device_of, expected_size, joined, require_same, speaks
from bidaf.errors import BidafError, UsageError
from bidaf.evaluation.evaluator import predict_spans
from bidaf.model.bidaf import span_loss
from bidaf.training.interrupt import Interrupted, InterruptRequests
from bidaf.training.progress import Progress
from bidaf.training.trainer import Trainer

Result = TypeVar("Result")


class Meeting:
    """Where the threads of a group exchange what they pass."""

    def __init__(self, size: int) -> None:
        self.places: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)


class ThreadGroup(Group):
    """A process of a group that is a thread: bytes and tensors change hands in memory."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        super().__init__(rank, len(meeting.places), local_rank=rank)
        self.meeting = meeting

    def _exchange(self, value: Any) -> list[Any]:
        self.meeting.places[self.rank] = value
        self.meeting.barrier.wait()
        values = list(self.meeting.places)
        self.meeting.barrier.wait()
        return values

    def sum_(self, tensor: Tensor) -> None:
        tensor.copy_(torch.stack(self._exchange(tensor.clone())).sum(0))

    def _gather_bytes(self, data: bytes) -> list[bytes]:
        return self._exchange(data)

    def _bytes_from_first(self, data: bytes) -> bytes:
        first: bytes = self._exchange(data)[0]
        return first


def in_group(size: int, work: Callable[[Group], Result]) -> list[Result]:
    """What each process of a group makes of `work`, by rank."""
    meeting = Meeting(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, [ThreadGroup(rank, meeting) for rank in range(size)]))


def together(benches: list[Bench], work: Callable[[Bench], Result]) -> list[Result]:
    """What each process of a group makes of `work` on its bench, by rank."""

    def with_its_bench(group: Group) -> Result:
        benches[group.rank].step.group = group
        return work(benches[group.rank])

    return in_group(len(benches), with_its_bench)


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(configure: Configure, prepared: Prepared) -> MakeBench:
    def make(*, dropout: float = 0.0, **training: Any) -> Bench:
        config = configure(model={"dropout": dropout}, training={"clip_norm": 1.0, **training})
        return Bench(config, prepared, plain_descent, torch.float64)

    return make


@pytest.fixture(autouse=True)
def _one_thread_a_process() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- steps


@pytest.mark.parametrize("batch", [QUESTIONS, QUESTIONS[:1]], ids=len)
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_processes_step_as_one_does(bench: MakeBench, size: int, batch: Any, accumulate: int) -> None:
    alone = bench()
    expected = [alone.run(step, batch) for step in (1, 2)]
    benches = [bench(accumulate=accumulate) for _ in range(size)]
    for results in together(benches, lambda each: [each.run(step, batch) for step in (1, 2)]):
        for ours, theirs in zip(results, expected, strict=True):
            assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
            assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-9)
    for each in benches:
        torch.testing.assert_close(each.weights(), alone.weights(), rtol=0, atol=1e-12)
        torch.testing.assert_close(dict(each.ema.shadow), dict(alone.ema.shadow), rtol=0, atol=1e-12)
        assert each.everything() == benches[0].everything()


@pytest.mark.parametrize("size", [2, 3])
def test_with_as_many_micro_batches_the_dropout_masks_are_those_of_one_process(bench: MakeBench, size: int) -> None:
    alone, uncut = bench(dropout=0.5, accumulate=size), bench(dropout=0.5)
    expected = [alone.run(step).loss for step in (1, 2, 3)]
    benches = [bench(dropout=0.5) for _ in range(size)]
    for found in together(benches, lambda each: [each.run(step).loss for step in (1, 2, 3)]):
        assert found == pytest.approx(expected, rel=1e-9)
    assert uncut.run().loss != pytest.approx(expected[0], rel=1e-3)


@pytest.mark.parametrize("size", [2, 9])
def test_every_question_of_a_batch_is_in_one_process(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    seen: list[int] = []
    gather = BatchSource.gather

    def noting(source: BatchSource, indices: Any) -> Any:
        seen.extend(indices.tolist())
        return gather(source, indices)

    monkeypatch.setattr(BatchSource, "gather", noting)
    together([bench() for _ in range(size)], Bench.run)
    assert sorted(seen) == sorted(QUESTIONS.tolist())


def test_a_loss_that_is_not_finite_in_one_process_stops_all(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    here = threading.local()
    monkeypatch.setattr(
        "bidaf.training.step.span_loss", lambda *given: (nan_loss if here.rank == 1 else span_loss)(*given)
    )

    def message(of_this: Bench) -> str:
        here.rank = of_this.step.group.rank
        before = of_this.everything()
        with pytest.raises(BidafError, match="not finite; no weight was changed") as caught:
            of_this.run()
        assert of_this.everything() == before
        return str(caught.value)

    assert len(set(together([bench() for _ in range(3)], message))) == 1


def test_stop_flags_travel_with_the_gradient(bench: MakeBench) -> None:
    def summed(of_this: Bench) -> list[float]:
        answers = of_this.source.features.answer_offsets[QUESTIONS]
        flags = [1.0, float(of_this.step.group.rank == 2)]
        result = of_this.step.run(of_this.source, QUESTIONS, answers, 1, flags)
        assert result.stop_flags is not None
        return [float(flag) for flag in result.stop_flags]

    assert together([bench() for _ in range(3)], summed) == [[3.0, 1.0]] * 3


# ---- evaluation


@pytest.mark.parametrize("size", [2, 3, 40])
@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_every_question_is_answered_by_one_process(bench: MakeBench, size: int, batch_tokens: int) -> None:
    of_one = bench()
    options: dict[str, Any] = {"batch_tokens": batch_tokens, "max_answer_tokens": None}
    whole = predict_spans(of_one.model, of_one.source, **options)
    shards = [Group(rank, size).shard for rank in range(size)]
    shares = [predict_spans(of_one.model, of_one.source, **options, shard=shard) for shard in shards]
    assert sum(len(share) for share in shares) == len(whole)
    assert {question: answer for share in shares for question, answer in share.items()} == whole


# ---- what is asked of all


def test_a_signal_ends_a_process_once_all_know_of_it() -> None:
    with InterruptRequests(alone=False) as asked, InterruptRequests(alone=False) as other:
        asked.number = signal.SIGTERM
        asked.check()
        other.check()
        with pytest.raises(Interrupted):
            asked.check_own()
        other.check_own()
        total = np.add(asked.stop_flags(), other.stop_flags()).tolist()
        for requests in (asked, other):
            requests.agree(total)
            with pytest.raises(Interrupted) as caught:
                requests.check()
            assert caught.value.exit_code == 143


def test_no_stop_flag_is_no_request() -> None:
    with InterruptRequests(alone=False) as requests:
        requests.agree(requests.stop_flags())
        requests.check()


def test_a_difference_between_processes_ends_the_run() -> None:
    def check(group: Group, different: int) -> None:
        shadow = {"weight": torch.zeros(3)}
        if group.rank == different:
            shadow["weight"][1] = 1e-30
        require_same(group, [{"raw": torch.ones(2)}, shadow], "the weights")

    in_group(3, lambda group: check(group, different=-1))
    with pytest.raises(BidafError, match="the weights of process 2 differ from those of process 0"):
        in_group(3, lambda group: check(group, different=2))


def test_all_take_what_the_first_process_has(configure: Configure, prepared: Prepared) -> None:
    config = configure(model={"dropout": 0.0})
    trainers = [Trainer(config, prepared, CPU) for _ in range(2)]
    for number in range(3):
        questions, answers = trainers[0].order.batch(number)
        trainers[0].step.run(trainers[0].train_source, questions, answers, number + 1)
    trainers[0].state.step = 3

    def take(group: Group) -> None:
        trainers[group.rank].group = group
        trainers[group.rank].take_from_first()
        trainers[group.rank].require_same()

    in_group(2, take)
    assert [trainer.state.step for trainer in trainers] == [3, 3]
    assert [trainer.ema.steps for trainer in trainers if trainer.ema] == [3, 3]
    questions, answers = trainers[0].order.batch(3)
    for trainer in trainers:  # the optimizer, too: the next step is the same
        trainer.step.run(trainer.train_source, questions, answers, 4)
    in_group(2, lambda group: trainers[group.rank].require_same())


# ---- how they meet


def launched(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


WHOLE = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables in ({}, {"WORLD_SIZE": "1"}, {**WHOLE, "WORLD_SIZE": "1", "RANK": "0"}):
        launched(monkeypatch, **variables)
        with joined("cpu") as group:
            assert group is ALONE
    value, tensor = object(), torch.ones(2)
    assert ALONE.gather(value) == [value]
    assert ALONE.from_first(value) is value
    assert ALONE.tensors_from_first({"weight": tensor})["weight"].tolist() == [1.0, 1.0]
    ALONE.sum_(tensor)
    ALONE.wait()
    assert tensor.tolist() == [1.0, 1.0]
    assert list(range(5))[ALONE.shard] == [0, 1, 2, 3, 4]


def test_the_environment_of_a_launcher_is_whole_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, **WHOLE)
    assert expected_size() == 2
    wrong: list[tuple[dict[str, str], str]] = [
        ({"WORLD_SIZE": "2"}, "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({**WHOLE, "MASTER_PORT": ""}, "MASTER_PORT is not set"),
        ({**WHOLE, "RANK": "2"}, "do not fit"),
        ({**WHOLE, "RANK": "-1"}, "do not fit"),
        ({**WHOLE, "WORLD_SIZE": "two"}, "WORLD_SIZE=two"),
        ({**WHOLE, "WORLD_SIZE": "0"}, "do not fit"),
    ]
    for variables, message in wrong:
        launched(monkeypatch, **variables)
        with pytest.raises(UsageError, match=message) as caught:
            expected_size()
        assert speaks(caught.value)


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    def device(group: Group, name: str) -> str:
        return str(device_of(group, name))

    assert in_group(2, lambda group: device(group, "cpu")) == ["cpu", "cpu"]
    if gpus == 2:
        for name in ("auto", "cuda"):
            assert in_group(2, lambda group, name=name: device(group, name)) == ["cuda:0", "cuda:1"]  # type: ignore[misc]
        return
    last = ThreadGroup(1, Meeting(2))
    with pytest.raises(UsageError, match=f"process 2 of this machine has no GPU of its own: PyTorch sees {gpus}"):
        device_of(last, "cuda")
    for name in ("mps", "cuda:1", "tpu"):
        with pytest.raises(UsageError, match="is for one process"):
            device_of(last, name)


def test_processes_on_different_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    group = ThreadGroup(0, Meeting(1))
    group.size = 2
    monkeypatch.setattr(group, "gather", lambda kind: [kind, "cuda"])
    with pytest.raises(UsageError, match=r"different devices \(cpu, cuda\)"):
        device_of(group, "auto")


# ---- one message


class Store:
    """The part of a `torch.distributed.Store` that counts."""

    def __init__(self) -> None:
        self.reports = 0

    def add(self, key: str, amount: int) -> int:
        self.reports += amount
        return self.reports

    def check(self, keys: list[str]) -> bool:
        return self.reports > 0


@pytest.fixture
def at_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, Any], None]]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def be(rank: int, store: Any) -> None:
        monkeypatch.setattr(distributed, "_joined", Group(rank, 3, store=store))

    yield be
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
        signal.signal(number, handler)


def test_the_first_process_to_fail_speaks_alone(
    at_store: Callable[[int, Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "PATIENCE", 0.2)
    store = Store()
    spoken = []
    for rank, error in [(1, BidafError("full disk")), (0, LostProcess("")), (2, LostProcess(""))]:
        at_store(rank, store)
        spoken.append(speaks(error))
    assert spoken == [True, False, False]
    at_store(2, Store())
    assert speaks(LostProcess("of a first process that was killed"))


def test_without_a_store_left_a_process_speaks_for_itself(at_store: Callable[[int, Any], None]) -> None:
    class Gone(Store):
        def add(self, key: str, amount: int) -> int:
            raise RuntimeError("Connection reset by peer")

    at_store(1, Gone())
    assert speaks(BidafError("full disk"))


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("train", "-c", "tiny.yaml", "--dry-run"), "start it without torchrun"),
        (("train",), "name a config"),
        (("train", "--colour"), "No such option"),
        (("eval",), "bidaf eval runs in one process"),
        (("predict", "questions.json"), "several processes write JSON lines"),
        (("config", "validate", "tiny.yaml"), "bidaf config runs in one process"),
    ],
)
def test_a_wrong_command_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, command: tuple[str, ...], message: str
) -> None:
    write_tiny(tmp_path)
    launched(monkeypatch, **{**WHOLE, "RANK": rank, "LOCAL_RANK": rank})
    ran = bidaf(*command, cwd=tmp_path)
    assert ran.code == 2
    assert ran.out == ""
    assert (message in ran.err) if rank == "0" else ran.err == ""


def test_without_a_log_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress(None, total=2, start=0)
    progress.say("step 1")
    progress.train("step 1", "loss")
    progress.advance()
    with progress.evaluation("dev", 3) as bar:
        bar.update(3)
    progress.close()
    assert capfd.readouterr() == ("", "")
    assert os.environ.get("WORLD_SIZE", "1") == "1"
