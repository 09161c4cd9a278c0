"""The training loop: evaluate, save, stop, step, log - in this order, with one more pass at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress

import torch

from bidaf.device import peak_memory
from bidaf.distributed import LostProcess
from bidaf.errors import BidafError
from bidaf.evaluation.evaluator import NonfiniteScores, Prediction, predict_spans
from bidaf.runs.folder import Run
from bidaf.runs.state import TrainingState, ranking_f1
from bidaf.training.averages import Averages
from bidaf.training.interrupt import Interrupted, InterruptRequests
from bidaf.training.progress import Progress
from bidaf.training.run_writer import Report, RunWriter
from bidaf.training.step import Numbers, StepResult, nonfinite_error
from bidaf.training.trainer import Trainer

STORED_ANSWERS = 5  # per question, at the best evaluation


def train(trainer: Trainer, run: Run | None, report: Report = lambda folder: None) -> TrainingState:
    """Train to the end, or raise `Interrupted` after saving. Every file goes into the run's folder.

    Only rank 0 has the run and prints messages; the other processes train without it. `report` is called with that
    folder after each evaluation; when it fails, that is reported and training continues.

    Raises `BidafError` when a file can't be written or the weights diverge, `LostProcess` after saving when another
    process is gone.
    """
    progress = Progress(run.folder if run else None, total=trainer.total_steps, start=trainer.state.step)
    writer = RunWriter(run, report, trainer)
    try:
        with InterruptRequests(alone=trainer.group.size == 1) as requests:
            _Loop(trainer, writer, progress, requests).run()
    except OSError as error:
        if run is None:
            raise
        # Everything that a run opens lies in its folder.
        raise BidafError(f"the run {run.folder} can't be written: {error}") from None
    finally:
        progress.close()
        writer.close()
    return trainer.state


class _Loop:
    """One session of a run."""

    def __init__(self, trainer: Trainer, writer: RunWriter, progress: Progress, requests: InterruptRequests) -> None:
        self.trainer = trainer
        self.state = trainer.state
        self.config = trainer.config
        self.group = trainer.group
        self.writer = writer
        self.progress = progress
        self.requests = requests
        self.averages = Averages(trainer, writer, self._answer, progress.say)
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
                self.writer.take_snapshot(self.trainer)
                if self._evaluation_due():
                    self._evaluate()
                    self._save()
                    self.writer.report(self.progress.say)
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
            if self.writer.run is None:
                raise
            saved = f"the run is saved at step {self.saved_step}" if self.saved_step > 0 else "nothing was saved yet"
            command = f"bidaf train --resume {self.writer.run.folder}"
            raise LostProcess(f"{lost}; {saved}, resume with: {command}") from None

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
        stop_flags = self.requests.stop_flags()
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
            self.writer.event(event="skip", step=step, loss=repr(loss), questions=ids)
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
        self.writer.event(
            event="train",
            step=state.step,
            epoch=round(epoch, 4),
            loss=loss if losses else None,
            grad_norm=self._grad_norm,
            learning_rate=trainer.optimizer.param_groups[0]["lr"],
            ema_decay=trainer.ema.decay_at(trainer.ema.steps) if trainer.ema else None,
            questions_per_second=round(rate, 2),
            memory_bytes=peak_memory(trainer.train_source.device),
            elapsed=round(state.elapsed, 3),
        )
        line = f"step {state.step}/{trainer.total_steps}  epoch {epoch:.2f}  loss {loss:.3f}  {rate:.0f} questions/s"
        f1 = "".join(f"  {name} F1 {scores['f1']:.1f}" for name, scores in (state.scores or {}).items())
        self.progress.train(line, f"loss {loss:.3f}{f1}")
        state.interval_losses, self._interval_seconds, self._interval_questions = [], 0.0, 0

    def _evaluate(self) -> None:
        self._read()
        state, trainer, began = self.state, self.trainer, time.perf_counter()
        trainer.require_finite()
        trainer.require_same()
        column = self.averages.map_column()
        trainer.averages = self.averages.named_sets()
        answers = {}
        for each in [*trainer.scored_sets, *trainer.averages]:
            with each.applied():
                answers[each.name] = self._answer(each.name)
        scored = self.writer.score(answers, trainer.dev_source.features, state.step)
        scores = self.group.from_first({name: each.metrics for name, each in scored.items()})
        seconds = time.perf_counter() - began
        state.scores, state.evaluated_step = scores, state.step
        f1 = ranking_f1(scores, self.config.evaluation.rank_by)
        improved = f1 > state.best_f1
        if improved:
            state.best_f1, state.best_step, state.evaluations_without_gain = f1, state.step, 0
            self.writer.keep_n_best(scored, state.step)
        else:
            state.evaluations_without_gain += 1
        self._tick_clock()
        epoch = state.step / trainer.order.batches_per_epoch
        self.writer.event(
            event="eval",
            step=state.step,
            epoch=round(epoch, 4),
            scores=scores,
            distance=trainer.ema.distance() if trainer.ema else None,
            best=improved,
            seconds=round(seconds, 3),
            elapsed=round(state.elapsed, 3),
        )
        if column:
            self.writer.event(event="map", step=state.step, **column)
        figures = "  ".join(f"{name} EM {s['exact_match']:.2f} F1 {s['f1']:.2f}" for name, s in scores.items())
        self.progress.say(f"step {state.step}  epoch {epoch:.2f}  dev: {figures}{'  (best)' if improved else ''}")

    def _answer(self, name: str, questions: Sequence[int] | None = None) -> dict[str, list[Prediction]]:
        """The best answers to the dev questions, or those of some numbers, by the weight set that the model holds."""
        trainer, group = self.trainer, self.group
        asked = range(len(trainer.dev_source)) if questions is None else questions
        ours: dict[str, list[Prediction]] = {}
        diverged = None
        with self.progress.evaluation(f"dev, {name}", len(asked)) as bar:

            def count(questions: int) -> None:
                self.requests.check_own()
                bar.update(questions * group.size)

            # A process that must end leaves its share unfinished and passes that on: all of them end here, together.
            try:
                with suppress(Interrupted), trainer.precision():
                    ours = predict_spans(
                        trainer.model,
                        trainer.dev_source,
                        STORED_ANSWERS,
                        batch_tokens=self.config.evaluation.batch_tokens,
                        max_answer_tokens=self.config.evaluation.max_answer_tokens,
                        weights=f"step {self.state.step}: the {name} weights",
                        on_progress=count,
                        shard=group.shard,
                        questions=asked,
                    )
            except NonfiniteScores as error:
                diverged = str(error)
        answers: dict[str, list[Prediction]] = {}
        for share, stop_flags, problem in group.gather([ours, self.requests.stop_flags(), diverged]):
            if problem:
                raise NonfiniteScores(problem)
            answers |= {question: [Prediction(*each) for each in best] for question, best in share.items()}
            self.requests.agree(stop_flags)
        self.requests.check()
        return {id: answers[id] for id in (trainer.dev_source.features.ids[number] for number in asked)}

    def _save(self) -> None:
        self._read()
        self.trainer.require_finite()
        self._tick_clock()
        self.writer.save(self.trainer)
        self.saved_step = self.state.step

    def _tick_clock(self) -> None:
        now = time.perf_counter()
        self.state.elapsed += now - self._clock
        self._clock = now
