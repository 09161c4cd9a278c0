"""The training loop: evaluate, save, stop, step, log - in this order, with one pass more at the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from bidaf.device import peak_memory
from bidaf.errors import BidafError
from bidaf.evaluation.evaluator import Answered, answer_n_best
from bidaf.evaluation.official import score_answers
from bidaf.training.checkpoint import checkpoint_name, dev_f1, save_checkpoint
from bidaf.training.files import write_json, write_text
from bidaf.training.interrupt import Interrupted, InterruptRequests
from bidaf.training.layout import BEST, LAST, N_BEST
from bidaf.training.progress import Progress
from bidaf.training.run import Run
from bidaf.training.step import Numbers, StepResult, nonfinite_error
from bidaf.training.trainer import Scores, Trainer, TrainingState

STORED_ANSWERS = 5  # a question, of the best evaluation

Report = Callable[[Path], object]


def train(trainer: Trainer, run: Run, report: Report = lambda folder: None) -> TrainingState:
    """Train to the end, or raise `Interrupted` after saving. Every file goes into the run's folder.

    `report` is called with that folder after each evaluation; its failure is told and ends nothing.

    Raises `BidafError` when a file can't be written.
    """
    progress = Progress(run.folder / "log.txt", total=trainer.total_steps, start=trainer.state.step)
    try:
        with InterruptRequests() as requests:
            _Loop(trainer, run, progress, requests, report).run()
    except OSError as error:  # all that a run opens lies in its folder
        raise BidafError(f"the run {run.folder} can't be written: {error}") from None
    finally:
        progress.close()
    return trainer.state


class _Loop:
    """One sitting of a run."""

    def __init__(
        self, trainer: Trainer, run: Run, progress: Progress, requests: InterruptRequests, report: Report
    ) -> None:
        self.trainer = trainer
        self.state = trainer.state
        self.config = trainer.config
        self.folder = run
        self.progress = progress
        self.requests = requests
        self.report = report
        self._report_failed = False
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
                    self._report()
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
        result = trainer.step.run(trainer.train_source, questions, answers, state.step + 1)
        state.step += 1
        self._unread.append((state.step, questions, result))
        if trainer.step.looks_at_once:
            self._read()
        self._interval_seconds += time.perf_counter() - began
        self._interval_questions += len(questions)
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
        state, source = self.state, self.trainer.train_source
        figures = torch.stack([result.figures for _, _, result in self._unread]).tolist()
        for (step, questions, result), (loss, grad_norm) in zip(self._unread, figures, strict=True):
            self._grad_norm = grad_norm if result.updated else None
            if result.updated and math.isfinite(loss) and math.isfinite(grad_norm):
                state.interval_losses.append(loss)
                continue
            ids = [source.features.ids[question] for question in questions]
            if result.updated:
                raise nonfinite_error(step, (loss, grad_norm), ids, saved="the checkpoints are from before it")
            state.skipped += 1
            self.folder.log_event(event="skip", step=step, loss=repr(loss), questions=ids)
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
        self.folder.log_event(
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
        answers = {"raw": self._answer("raw")}
        if trainer.ema is not None:
            with trainer.ema.applied():
                answers["ema"] = self._answer("ema")
        scores: Scores = {weights: self._score(weights, given) for weights, given in answers.items()}
        seconds = time.perf_counter() - began
        state.scores, state.evaluated_step = scores, state.step
        f1 = dev_f1(scores)
        improved = f1 > state.best_f1
        if improved:
            state.best_f1, state.best_step, state.evaluations_without_gain = f1, state.step, 0
            self._keep_n_best(answers)
        else:
            state.evaluations_without_gain += 1
        self._tick_clock()
        epoch = state.step / trainer.order.batches_per_epoch
        self.folder.log_event(
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
        trainer = self.trainer
        with self.progress.evaluation(f"dev, {weights}", len(trainer.dev_source)) as bar:

            def tick(questions: int) -> None:
                self.requests.check()
                bar.update(questions)

            with trainer.precision():
                return answer_n_best(
                    trainer.model,
                    trainer.dev_source,
                    STORED_ANSWERS,
                    batch_tokens=self.config.evaluation.batch_tokens,
                    max_answer_tokens=self.config.evaluation.max_answer_tokens,
                    tick=tick,
                )

    def _score(self, weights: str, answers: dict[str, list[Answered]]) -> dict[str, float]:
        """EM and F1; the predictions they are of go into the run's folder."""
        predictions = {question: best[0].text for question, best in answers.items()}
        write_json(self.folder.predictions / f"step-{self.state.step:06d}.{weights}.json", predictions)
        features = self.trainer.dev_source.features
        score = score_answers(dict(zip(features.ids, features.answers, strict=True)), predictions)
        return {"exact_match": score.exact_match, "f1": score.f1}

    def _keep_n_best(self, answers: dict[str, dict[str, list[Answered]]]) -> None:
        """The answers of the best evaluation as [start, end, probability], in place of those of the one before."""
        spans = {
            weights: {
                question: [[best.start, best.end, round(best.probability, 6)] for best in given]
                for question, given in of_all.items()
            }
            for weights, of_all in answers.items()
        }
        text = json.dumps({"step": self.state.step, "answers": spans}, separators=(",", ":"))
        write_text(self.folder.predictions / N_BEST, text)

    def _report(self) -> None:
        try:
            self.report(self.folder.folder)
        except Exception as error:
            if not self._report_failed:
                self.progress.say(f"the report can't be written: {error}; training goes on")
            self._report_failed = True

    def _save(self) -> None:
        self._read()
        self._tick_clock()
        state, trainer = self.state, self.trainer
        folder = self.folder.checkpoints / checkpoint_name(state.step)
        self.folder.settle()
        save_checkpoint(
            folder,
            model=trainer.model,
            ema=trainer.ema,
            optimizer=trainer.optimizer,
            config=self.config,
            state={**asdict(state), "features": trainer.prepared_key},
        )
        self.saved_step = state.step
        self.folder.link(LAST, folder)
        if state.best_step == state.step:
            self.folder.link(BEST, folder)
        self.folder.prune(self.config.training.keep_last, self.config.training.keep_best)

    def _tick_clock(self) -> None:
        now = time.perf_counter()
        self.state.elapsed += now - self._clock
        self._clock = now
