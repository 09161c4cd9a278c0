"""The training loop: evaluate, save, stop, step, log - in this order, with one pass more at the end."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import torch

from bidaf.device import peak_memory
from bidaf.errors import BidafError
from bidaf.evaluation.evaluator import Answered, answer_n_best
from bidaf.runs.checkpoint import dev_f1
from bidaf.runs.folder import Run
from bidaf.runs.layout import LOG
from bidaf.training.distributed import LostProcess
from bidaf.training.interrupt import Interrupted, InterruptRequests
from bidaf.training.progress import Progress
from bidaf.training.run_writer import Answers, Record, Report
from bidaf.training.step import Numbers, StepResult, nonfinite_error
from bidaf.training.trainer import Trainer, TrainingState

STORED_ANSWERS = 5  # a question, of the best evaluation


def train(trainer: Trainer, run: Run | None, report: Report = lambda folder: None) -> TrainingState:
    """Train to the end, or raise `Interrupted` after saving. Every file goes into the run's folder.

    Of several processes the first has the run and tells of it; the others train along, without it. `report` is called
    with that folder after each evaluation; its failure is told and ends nothing.

    Raises `BidafError` when a file can't be written, `LostProcess` after saving when another process is gone.
    """
    log = run.folder / LOG if run else None
    progress = Progress(log, total=trainer.total_steps, start=trainer.state.step)
    try:
        with InterruptRequests(alone=trainer.group.size == 1) as requests:
            _Loop(trainer, Record(run, report), progress, requests).run()
    except OSError as error:
        if run is None:
            raise
        # All that a run opens lies in its folder.
        raise BidafError(f"the run {run.folder} can't be written: {error}") from None
    finally:
        progress.close()
    return trainer.state


class _Loop:
    """One sitting of a run."""

    def __init__(self, trainer: Trainer, record: Record, progress: Progress, requests: InterruptRequests) -> None:
        self.trainer = trainer
        self.state = trainer.state
        self.config = trainer.config
        self.group = trainer.group
        self.record = record
        self.progress = progress
        self.requests = requests
        self.saved_step = -1 if self.state.step == 0 else self.state.step
        self._unread: list[tuple[int, Numbers, StepResult]] = []
        self._grad_norm: float | None = None  # of the newest step that was read
        self._clock = time.perf_counter()
        self._interval_seconds = 0.0
        self._interval_questions = 0

    def run(self) -> None:
        state, total = self.state, self.trainer.total_steps
        try:
            while True:
                if self._evaluation_due():
                    self._evaluate()
                    self._save()
                    self.record.report(self.progress.say)
                elif self._save_due():
                    self._save()
                if state.step >= total or self._out_of_patience():
                    return
                self.requests.check()
                self._train_one()
        except Interrupted:
            if self.saved_step != state.step:
                self._save()
            raise
        except LostProcess as lost:
            # On GPUs a sum that was cut short may already be in the weights, as finite numbers: the last checkpoint
            # stands. On CPUs a sum arrives whole or raises.
            if self.saved_step != state.step and self.trainer.train_source.device.type == "cpu":
                self._save()
            if self.record.run is None:
                raise
            saved = f"the run is saved at step {self.saved_step}" if self.saved_step > 0 else "nothing was saved yet"
            raise LostProcess(f"{lost}; {saved}; resume with: bidaf train --resume {self.record.run.folder}") from None

    def _evaluation_due(self) -> bool:
        step = self.state.step
        every = self.config.evaluation.every_steps or self.trainer.order.batches_per_epoch
        due = step > 0 and (step % every == 0 or step == self.trainer.total_steps)
        return due and step != self.state.evaluated_step

    def _save_due(self) -> bool:
        every = self.config.training.save_every
        return every is not None and self.state.step % every == 0 and self.state.step not in (0, self.saved_step)

    def _out_of_patience(self) -> bool:
        patience = self.config.evaluation.patience
        if patience is None or self.state.evaluations_without_gain < patience:
            return False
        self.progress.say(f"no better dev F1 in {patience} evaluations: stopping")
        return True

    def _train_one(self) -> None:
        began = time.perf_counter()
        state, trainer = self.state, self.trainer
        questions, answers = trainer.order.batch(state.step)
        stop_flags = self.requests.votes()
        result = trainer.step.run(trainer.train_source, questions, answers, state.step + 1, stop_flags)
        state.step += 1
        self._unread.append((state.step, questions, result))
        self._interval_seconds += time.perf_counter() - began
        self._interval_questions += len(questions)
        if trainer.step.looks_at_once:
            self._read()
        self.progress.advance()
        if state.step % self.config.training.log_every == 0 or state.step == trainer.total_steps:
            self._log()

    def _read(self) -> None:
        """Fetch what the last steps computed: the one place where training waits for a GPU.

        Raises `BidafError` for a step that was not finite and, its figures unseen, went into the weights: the run ends
        before they are scored or saved.
        """
        if not self._unread:
            return
        state, source, began = self.state, self.trainer.train_source, time.perf_counter()
        figures = torch.stack([result.figures for _, _, result in self._unread]).tolist()
        stop_flags = [result.stop_flags for _, _, result in self._unread if result.stop_flags is not None]
        if stop_flags:
            self.requests.agree(torch.stack(stop_flags).sum(0).tolist())
        self._interval_seconds += time.perf_counter() - began  # on a GPU most of a step's time is waited for here
        for (step, questions, result), (loss, grad_norm) in zip(self._unread, figures, strict=True):
            self._grad_norm = grad_norm if result.updated else None
            if result.updated and math.isfinite(loss) and math.isfinite(grad_norm):
                state.interval_losses.append(loss)
                continue
            ids = [source.features.ids[question] for question in questions]
            if result.updated:
                raise nonfinite_error(step, (loss, grad_norm), ids, saved="the checkpoints are from before it")
            state.skipped += 1
            self.record.note(event="skip", step=step, loss=repr(loss), questions=ids)
            self.progress.say(f"step {step}: loss or gradient is not finite, step skipped")
        self._unread.clear()

    def _log(self) -> None:
        state, trainer = self.state, self.trainer
        self._read()
        self._tick_clock()
        losses = state.interval_losses
        loss = sum(losses) / len(losses) if losses else float("nan")
        rate = self._interval_questions / self._interval_seconds
        epoch = state.step / trainer.order.batches_per_epoch
        self.record.note(
            event="train",
            step=state.step,
            epoch=round(epoch, 4),
            loss=loss if losses else None,
            grad_norm=self._grad_norm,
            ema_decay=trainer.ema.decay_at(trainer.ema.steps) if trainer.ema else None,
            questions_per_second=round(rate, 2),
            memory_bytes=peak_memory(trainer.train_source.device),
            elapsed=round(state.elapsed, 3),
        )
        line = f"step {state.step}/{trainer.total_steps}  epoch {epoch:.2f}  loss {loss:.3f}  {rate:.0f} questions/s"
        f1 = "".join(f"  {weights} F1 {score['f1']:.1f}" for weights, score in (state.scores or {}).items())
        self.progress.train(line, f"loss {loss:.3f}{f1}")
        state.interval_losses, self._interval_seconds, self._interval_questions = [], 0.0, 0

    def _evaluate(self) -> None:
        self._read()
        state, trainer, began = self.state, self.trainer, time.perf_counter()
        trainer.require_same()
        answers: Answers = {"raw": self._answer("raw")}
        if trainer.ema is not None:
            with trainer.ema.applied():
                answers["ema"] = self._answer("ema")
        scores = self.group.from_first(self.record.scores(answers, trainer.dev_source.features, state.step))
        seconds = time.perf_counter() - began
        state.scores, state.evaluated_step = scores, state.step
        f1 = dev_f1(scores)
        improved = f1 > state.best_f1
        if improved:
            state.best_f1, state.best_step, state.evaluations_without_gain = f1, state.step, 0
            self.record.keep_n_best(answers, state.step)
        else:
            state.evaluations_without_gain += 1
        self._tick_clock()
        epoch = state.step / trainer.order.batches_per_epoch
        self.record.note(
            event="eval",
            step=state.step,
            epoch=round(epoch, 4),
            **scores,
            distance=trainer.ema.distance() if trainer.ema else None,
            best=improved,
            seconds=round(seconds, 3),
            elapsed=round(state.elapsed, 3),
        )
        figures = "  ".join(f"{kind} EM {s['exact_match']:.2f} F1 {s['f1']:.2f}" for kind, s in scores.items())
        self.progress.say(f"step {state.step}  epoch {epoch:.2f}  dev: {figures}{'  (best)' if improved else ''}")

    def _answer(self, weights: str) -> dict[str, list[Answered]]:
        """The best answers to the dev questions by the weights the model holds now."""
        trainer, group = self.trainer, self.group
        ours: dict[str, list[Answered]] = {}
        with self.progress.evaluation(f"dev, {weights}", len(trainer.dev_source)) as bar:

            def tick(questions: int) -> None:
                self.requests.check_own()
                bar.update(questions * group.size)

            # A process that is asked to end leaves its share unfinished, and tells the others instead.
            with suppress(Interrupted), trainer.precision():
                ours = answer_n_best(
                    trainer.model,
                    trainer.dev_source,
                    STORED_ANSWERS,
                    batch_tokens=self.config.evaluation.batch_tokens,
                    max_answer_tokens=self.config.evaluation.max_answer_tokens,
                    tick=tick,
                    shard=group.shard,
                )
        answers: dict[str, list[Answered]] = {}
        for share, stop_flags in group.gather([ours, self.requests.votes()]):
            answers |= {question: [Answered(*answer) for answer in best] for question, best in share.items()}
            self.requests.agree(stop_flags)
        self.requests.check()
        return {question: answers[question] for question in trainer.dev_source.features.ids}

    def _save(self) -> None:
        self._read()
        self._tick_clock()
        self.record.save(self.trainer)
        self.saved_step = self.state.step

    def _tick_clock(self) -> None:
        now = time.perf_counter()
        self.state.elapsed += now - self._clock
        self._clock = now
