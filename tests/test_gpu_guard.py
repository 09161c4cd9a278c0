"""The GPU path, in a guard that shows many of its faults without a GPU (gpu_guard.py).

`tests/test_gpu_mutations.py` plants faults, each of which one of these tests must catch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench import timing
from bench import training as benchmark
from conftest import CPU, Configure, events, without_score_biases
from fake_streams import GpuFault, Stream
from gpu_guard import CudaGraph, Guard
from safetensors.torch import load_file
from torch import Tensor

from bidaf.config import Config
from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared
from bidaf.distributed import Group, LostProcess
from bidaf.ema.average import trained_weights
from bidaf.errors import BidafError
from bidaf.evaluation.evaluator import predict_spans
from bidaf.files.confined import ConfinedFolder
from bidaf.model.bidaf import Bidaf
from bidaf.runs.snapshots import SnapshotWriter, list_snapshots
from bidaf.training.launch import resume_run, start_run
from bidaf.training.step import Phase, StepResult, TrainingStep
from bidaf.training.trainer import Trainer

CUDA = torch.device("cuda:0")
ADAM, ADADELTA = {"name": "adam", "lr": 0.05}, {"name": "adadelta"}


def silent(message: str) -> None:
    pass


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    """A GPU on which no step may wait, except one that has to know whether its loss is finite."""
    run = TrainingStep.run

    with Guard() as gpu:

        def watched(step: TrainingStep, *given: Any, **options: Any) -> StepResult:
            with gpu.no_waits(but=1 if step.looks_at_once else 0):
                return run(step, *given, **options)

        monkeypatch.setattr(TrainingStep, "run", watched)
        yield gpu


def steps(trainer: Trainer, numbers: range, step: TrainingStep | None = None) -> list[list[float]]:
    """Loss and gradient norm of each step, which are read at the end."""
    step = step or trainer.step
    results = [step.run(trainer.train_source, *trainer.order.batch(n), n + 1) for n in numbers]
    return [result.figures.tolist() for result in results]


def written_out(trainer: Trainer) -> TrainingStep:
    """The step of a trainer, never recorded."""
    return TrainingStep(
        trainer.model,
        trainer.optimizer,
        trainer.ema,
        trainer.config.training,
        trainer.precision,
        phase=lambda name: nullcontext(),
    )


def weights(trainer: Trainer) -> dict[str, Tensor]:
    """Raw weights and shadow by name."""
    assert trainer.ema is not None
    raw = {f"raw/{name}": weight for name, weight in trained_weights(trainer.model)}
    both = {**raw, **{f"ema/{name}": tensor for name, tensor in trainer.ema.shadow.items()}}
    return {name: tensor.detach().cpu() for name, tensor in both.items()}


def assert_same(one: Trainer, other: Trainer) -> None:
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_close(one: Trainer, other: Trainer) -> None:
    ours, theirs = (
        {name: tensor for name, tensor in weights(trainer).items() if not name.endswith("bias") or "scorer" not in name}
        for trainer in (one, other)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


SETTINGS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": ADAM},
    "adadelta": {"optimizer": ADADELTA},
    "clipping": {"optimizer": ADAM, "clip_norm": 0.5},
    "bucketed": {"optimizer": ADAM, "batching": "bucketed"},
    "accumulate": {"optimizer": ADAM, "accumulate": 3, "clip_norm": 0.5},
    "skip": {"optimizer": ADAM, "nonfinite": "skip"},
    "deterministic": {"optimizer": ADAM, "deterministic": True},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_replayed_steps_are_the_steps_as_written(
    guard: Guard, configure: Configure, prepared: Prepared, settings: dict[str, Any]
) -> None:
    ours, theirs = (Trainer(configure(training=settings), prepared, CUDA) for _ in range(2))
    assert steps(ours, range(6)) == steps(theirs, range(6), written_out(theirs))
    assert_same(ours, theirs)


@pytest.mark.parametrize(("variant", "settings"), [("paper", {"clip_norm": 0.5}), ("released", {"accumulate": 2})])
def test_a_gpu_computes_what_a_cpu_does(
    guard: Guard, configure: Configure, prepared: Prepared, variant: str, settings: dict[str, Any]
) -> None:
    training = {"optimizer": {**ADAM, "eps": 1e-3}, **settings}
    config = configure(model={"dropout": 0.0, "variant": variant}, training=training)
    gpu, cpu = (Trainer(config, prepared, device) for device in (CUDA, CPU))
    for ours, theirs in zip(steps(gpu, range(5)), steps(cpu, range(5)), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert_close(gpu, cpu)


def test_adamw_fits_as_well(guard: Guard, configure: Configure, prepared: Prepared) -> None:
    trainers = []
    for recorded in (True, False):
        trainer = Trainer(configure(), prepared, CUDA)
        trainer.optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=0.01, foreach=True)
        step = trainer.step if recorded else written_out(trainer)
        step.optimizer = trainer.optimizer
        steps(trainer, range(4), step)
        trainers.append(trainer)
    assert_same(*trainers)


def test_every_shape_has_its_own_recording(
    guard: Guard, configure: Configure, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bidaf.data.batches.WIDTH_BUCKET", 4)
    monkeypatch.setattr("bidaf.data.batches.FORMS_BUCKET", 8)
    ours, theirs = (Trainer(configure(training={"batch_size": 5}), prepared, CUDA) for _ in range(2))
    rng = np.random.default_rng(0)
    batches = [rng.choice(24, size, replace=False) for size in (5, 4, 3)] * 3
    for number, questions in enumerate(batches, start=1):
        answers = ours.train_source.features.answer_offsets[questions]
        one = ours.step.run(ours.train_source, questions, answers, number)
        other = written_out(theirs).run(theirs.train_source, questions, answers, number)
        assert one.figures.tolist() == other.figures.tolist()
    assert_same(ours, theirs)


def test_each_source_has_its_own_recordings(guard: Guard, configure: Configure, prepared: Prepared) -> None:
    config = configure(model={"dropout": 0.0}, training={"optimizer": {**ADAM, "eps": 1e-3}})
    gpu, cpu = (Trainer(config, prepared, device) for device in (CUDA, CPU))
    questions = np.array([0, 3, 5, 6])
    sources = {
        (split, one): BatchSource(prepared.features(split), one) for split in ("train", "dev") for one in (CUDA, CPU)
    }
    for split in ("train", "dev", "train"):
        losses = []
        for trainer, device in ((gpu, CUDA), (cpu, CPU)):
            source = sources[split, device]
            answers = source.features.answer_offsets[questions]
            losses += [trainer.step.run(source, questions, answers, 1).loss for _ in range(3)]
        assert losses[:3] == pytest.approx(losses[3:], rel=1e-4)


def test_a_loss_that_is_not_finite_is_seen_before_anything_is_saved(
    guard: Guard, configure: Configure, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingStep.run

    def poisoned(
        step: TrainingStep, source: BatchSource, questions: Any, answers: Any, number: int, *flags: Any
    ) -> Any:
        if number == 5:
            with torch.no_grad():
                step.model.start_scorer.flow_weight.fill_(torch.nan)
        return run(step, source, questions, answers, number, *flags)

    monkeypatch.setattr(TrainingStep, "run", poisoned)
    config = configure(training={"log_every": 4, "save_every": 2})
    with pytest.raises(BidafError, match=r"step 5: .* not finite"):
        start_run(config, tmp_path / "run", CUDA, silent)
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["step-000002", "step-000004"]


def test_skipped_steps_change_nothing(
    guard: Guard, configure: Configure, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(configure(training={"nonfinite": "skip"}), prepared, CUDA)
    steps(trainer, range(4))
    before = weights(trainer)
    with monkeypatch.context() as patch:
        patch.setattr("torch.nn.utils.get_total_norm", lambda gradient: gradient[0].sum() * torch.nan)
        result = trainer.step.run(trainer.train_source, *trainer.order.batch(4), 5)
    assert not result.updated
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())
    assert all(np.isfinite(steps(trainer, range(5, 8))).flatten())


# ---- runs


def test_a_run_scores_saves_and_resumes_as_if_never_stopped(
    guard: Guard, configure: Configure, prepared: Prepared, tmp_path: Path
) -> None:
    config = configure(training={"deterministic": True}, evaluation={"every_steps": 6})
    whole, half = tmp_path / "whole", tmp_path / "half"
    start_run(config, whole, CUDA, silent)
    stopped = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 7})})
    start_run(stopped, half, CUDA, silent)
    resume_run(half, CUDA, silent, config=config)
    last = {run: Path(run / "last").resolve() for run in (whole, half)}
    assert last[whole].name == last[half].name == "step-000012"
    for file in last[whole].glob("**/*.safetensors"):
        assert file.read_bytes() == (last[half] / file.relative_to(last[whole])).read_bytes()
    about = json.loads((whole / "environment.json").read_text(encoding="utf-8"))
    assert about["device"] == "cuda:0"
    assert {"card", "driver", "cuda", "cudnn"} <= about.keys()


def test_snapshots_are_copied_while_training_continues(
    guard: Guard, configure: Configure, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, shadows = SnapshotWriter.take, {}

    def watched(writer: SnapshotWriter, step: int, updates: int, shadow: Mapping[str, Tensor]) -> None:
        shadows[step] = {name: tensor.cpu() for name, tensor in shadow.items()}
        with guard.no_waits():
            take(writer, step, updates, shadow)

    monkeypatch.setattr(SnapshotWriter, "take", watched)
    config = configure(ema={"snapshots": {"every": 2}}, training={"max_steps": 6})
    start_run(config, tmp_path / "run", CUDA, silent)
    assert {2, 4, 6} <= shadows.keys()
    for step, path in list_snapshots(ConfinedFolder(tmp_path / "run")):
        kept = load_file(path)
        assert all(torch.equal(tensor, shadows[step][name]) for name, tensor in kept.items())


def test_rates_count_what_the_gpu_takes(
    guard: Guard, configure: Configure, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = guard.wait

    def slow(what: str, stream: Stream | None) -> None:
        if what == "tolist":
            time.sleep(0.5)
        wait(what, stream)

    monkeypatch.setattr(guard, "wait", slow)
    monkeypatch.setattr("bidaf.training.loop._Loop._evaluate", lambda loop: None)
    start_run(configure(training={"log_every": 3, "max_steps": 6}), tmp_path / "run", CUDA, silent)
    rates = [event["questions_per_second"] for event in events(tmp_path / "run", "train")]
    assert len(rates) == 2
    assert max(rates) < 3 * 4 / 0.5


def test_answers_are_those_of_a_cpu(guard: Guard, configure: Configure, prepared: Prepared) -> None:
    answers = []
    for device in (CUDA, CPU):
        trainer = Trainer(configure(), prepared, device)
        answers.append(predict_spans(trainer.model, trainer.dev_source, batch_tokens=100, max_answer_tokens=None))
    gpu, cpu = ({question: best.text for question, (best,) in found.items()} for found in answers)
    assert gpu == cpu


def test_batches_of_an_evaluation_are_larger_on_a_gpu(
    guard: Guard, configure: Configure, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def noting(lengths: Any, batch_tokens: int) -> list[Any]:
        asked.append(batch_tokens)
        return []

    monkeypatch.setattr("bidaf.evaluation.evaluator.batches_by_length", noting)
    for device in (CUDA, CPU):
        trainer = Trainer(configure(), prepared, device)
        predict_spans(trainer.model, trainer.dev_source, batch_tokens=None, max_answer_tokens=None)
    assert asked == [60_000, 4_000]


def test_the_second_gpu_does_all_of_it(guard: Guard, configure: Configure, prepared: Prepared) -> None:
    trainer = Trainer(configure(), prepared, torch.device("cuda:1"))
    assert {weight.device for _, weight in trained_weights(trainer.model)} == {torch.device("cuda:1")}
    assert np.isfinite(steps(trainer, range(4))).all()
    predict_spans(trainer.model, trainer.dev_source, batch_tokens=None, max_answer_tokens=None)
    assert guard.default_stream("cuda:0").work == 0


def test_in_bf16_lstms_stay_in_fp32(guard: Guard, configure: Configure, prepared: Prepared) -> None:
    trainer = Trainer(configure(training={"precision": "bf16"}), prepared, CUDA)
    assert np.isfinite(steps(trainer, range(4))).all()


# ---- several processes


class OneOfTwo(Group):
    """Rank 0 of two. The other one has no share of its own: sums are those of this process."""

    def __init__(self) -> None:
        super().__init__(0, 2)
        self.sums = 0
        self.lose_at = -1

    @property
    def shard(self) -> slice:
        return slice(None)

    def sum_(self, tensor: Tensor) -> None:
        assert tensor.device == CUDA
        self.sums += 1
        tensor.mul_(1.0)
        if self.sums == self.lose_at:
            raise LostProcess("lost contact with another process of the run: watchdog")

    def _gather_bytes(self, data: bytes) -> list[bytes]:
        return [data]

    def _bytes_from_first(self, data: bytes) -> bytes:
        return data


def test_several_processes_do_not_wait_in_a_step(guard: Guard, configure: Configure, prepared: Prepared) -> None:
    config = configure(model={"dropout": 0.0})
    trainer, alone = Trainer(config, prepared, CUDA, OneOfTwo()), Trainer(config, prepared, CUDA)
    flags = []
    for number in range(4):
        result = trainer.step.run(trainer.train_source, *trainer.order.batch(number), number + 1, (0.0, 1.0))
        assert result.stop_flags is not None
        flags.append(result.stop_flags)
    assert torch.stack(flags).tolist() == [[0.0, 1.0]] * 4
    steps(alone, range(4))
    ours, theirs = (without_score_biases(dict(trained_weights(one.model))) for one in (trainer, alone))
    for name, weight in ours.items():
        torch.testing.assert_close(weight.cpu(), theirs[name].cpu(), rtol=1e-2, atol=1e-3)


def test_after_a_lost_process_nothing_is_saved_from_the_gpu(
    guard: Guard, configure: Configure, prepared: Prepared, tmp_path: Path
) -> None:
    group = OneOfTwo()
    group.lose_at = 6
    with pytest.raises(LostProcess, match="saved at step 4, resume with"):
        start_run(configure(training={"save_every": 4}), tmp_path / "run", CUDA, silent, group=group)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-000004"]


# ---- the benchmark


def test_the_benchmark_times_replays_and_phases(
    guard: Guard, configure: Configure, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays, replayed = 0, []
    replay, seconds_of = CudaGraph.replay, timing.seconds_of

    def counting(graph: CudaGraph) -> None:
        nonlocal replays
        replays += 1
        replay(graph)

    def noting(work: Callable[[], object], device: torch.device) -> float:
        before = replays
        seconds = seconds_of(work, device)
        replayed.append(replays - before)
        return seconds

    class Baseline:
        """In place of the real one, whose packed sequences are beyond the guard."""

        def __init__(self, model: Bidaf, config: Config, decay_at: Any, phase: Phase = lambda name: nullcontext()):
            self._phase = phase

        def step(self, *given: Any) -> None:
            for name in benchmark.PHASES:
                with self._phase(name):
                    torch.ones(9, device=CUDA).sum().item()

    monkeypatch.setattr(benchmark, "BaselineTraining", Baseline)
    monkeypatch.setattr(guard, "no_waits", lambda but: nullcontext())  # to measure phases is to wait
    monkeypatch.setattr(CudaGraph, "replay", counting)
    monkeypatch.setattr(timing, "seconds_of", noting)
    times = benchmark.time_training(configure(training={"batch_size": 7}), prepared, CUDA, rounds=4)  # the last has 3
    assert sorted(replayed) == [0, 0, 0, 0, 1, 1, 1, 1]  # each timed step of ours is one replay
    for shares in times.shares.values():
        assert set(shares) == set(benchmark.PHASES)
    assert min(times.memory.values()) > 0


def test_the_sweep_of_the_benchmark_trains_on_each_size(guard: Guard, configure: Configure, prepared: Prepared) -> None:
    found = benchmark.sweep(configure(), prepared, CUDA, (1, 3), (5, 40))
    assert [(one.batch_size, one.context_tokens) for one in found] == [(1, 5), (3, 5), (1, 40), (3, 40)]


def test_the_guard_is_gone_afterwards() -> None:
    with Guard() as guard, pytest.raises(GpuFault), guard.no_waits():
        torch.zeros(1, device="cuda").item()
    assert not torch.cuda.is_available()
    assert torch.zeros(1).device == CPU
    assert "device" not in vars(torch.Tensor)
