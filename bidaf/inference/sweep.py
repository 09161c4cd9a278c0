"""Scoring averages of every width of one checkpoint on its run's dev questions; each score is kept at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bidaf.device import choose_device
from bidaf.ema.synthesis import Target
from bidaf.errors import DataError, UsageError
from bidaf.evaluation.no_answer import score_predictions
from bidaf.evaluation.questions import questions_of_features
from bidaf.evaluation.sweep import Sweep, SweepSummary, SweptSet, summarize
from bidaf.files.reading import sha256_of
from bidaf.inference.exported import is_export
from bidaf.inference.loading import LoadedModel, find_checkpoint, find_features, load_weight_sets
from bidaf.inference.predictor import Predictor
from bidaf.progress import bar
from bidaf.runs.averages import MAX_ERROR, decays_of
from bidaf.runs.checkpoint import Checkpoint, open_or_suggest
from bidaf.runs.checkpoint_folders import COMPLETE
from bidaf.runs.finding import find_run
from bidaf.runs.layout import CHECKPOINTS
from bidaf.runs.sweeps import read_sweep, sweep_path, sweeping, write_sweep
from bidaf.runs.weight_sets import EMA, RAW, MovingAverage, Synthesis

SHORTEST = 10  # steps
TAILS = (5, 10, 25, 50)  # percent of the run
AT_ONCE = 8  # averages that are held in memory together


def sweep_run(
    name: str | None,
    *,
    at: int | None = None,
    weights: Sequence[str] = (),
    device: str = "auto",
    say: Callable[[str], None] = lambda message: None,
) -> tuple[Path, SweepSummary]:
    """Score the averages of a run that were not scored yet; the run's folder and the summary of all that were.

    The checkpoint is found as `load_model` finds it. `weights` are instead of the grid; raw weights and shadow are
    always scored. What an earlier sweep of the checkpoint scored is kept, so that an interrupted sweep continues.
    Raises `DataError` for an export and for a run without snapshots, `UsageError` while another process sweeps it.
    """
    folder = find_run(name)
    if is_export(folder):
        raise DataError(f"{folder} is an export, which holds one weight set: name the run it was made from")
    checkpoint = open_or_suggest(find_checkpoint(folder, at))
    checkpoints = checkpoint.folder.resolve().parent
    if checkpoints.name != CHECKPOINTS:
        raise DataError(f"{checkpoint.folder} is not in the folder of a run, which holds the snapshots")
    run = checkpoints.parent
    wanted = _names(checkpoint, weights)
    sweep = _begin(run, checkpoint)
    if found := len(wanted) - len(_missing(sweep, wanted)):
        say(f"{found} of {len(wanted)} averages are scored already")
    if found < len(wanted):
        with sweeping(run):
            sweep = _sweep(run, checkpoint, wanted, device, say)
    chosen = sweep.model_copy(update={"sets": [each for each in sweep.sets if each.weights in wanted]})
    summary = summarize(chosen)
    assert summary is not None  # the reference is one of those that are always scored
    return run, summary


def _sweep(run: Path, checkpoint: Checkpoint, wanted: Sequence[str], device: str, say: Callable[[str], None]) -> Sweep:
    """The sweep of this checkpoint, with what was wanted and not scored yet."""
    sweep = _begin(run, checkpoint)
    missing = _missing(sweep, wanted)
    with bar("sweep", "question", len(missing) * len(sweep.ids)) as progress:
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            models = load_weight_sets(str(checkpoint.folder), some, choose_device(device), allow_error=True)
            for note in dict.fromkeys(note for model in models for note in model.notes if "left out" in note):
                say(note)
            for model in models:
                swept = _score(model, sweep.articles, progress.update)
                sweep = sweep.model_copy(update={"sets": [*sweep.sets, swept]})
                write_sweep(run, sweep)
    return sweep


def _missing(sweep: Sweep, wanted: Sequence[str]) -> list[str]:
    scored = {swept.weights for swept in sweep.sets}
    return [each for each in wanted if each not in scored]


def _begin(run: Path, checkpoint: Checkpoint) -> Sweep:
    """The sweep of this checkpoint as it was left, or an empty one."""
    checksum = sha256_of(checkpoint.folder / COMPLETE)
    path = sweep_path(run, checkpoint.step)
    if path.is_file() and (sweep := read_sweep(path)).checkpoint == checksum:
        return sweep
    questions = questions_of_features(find_features(checkpoint).features("dev"))
    return Sweep(
        step=checkpoint.step,
        checkpoint=checksum,
        ids=[question.id for question in questions],
        articles=[question.article for question in questions],
    )


def _names(checkpoint: Checkpoint, weights: Sequence[str]) -> list[str]:
    """The weight sets to score, each in its one spelling: raw weights and shadow first."""
    kept = [name for name in (RAW, EMA) if name in checkpoint.weight_sets]
    others = [str(_parse(name)) for name in weights] or grid(checkpoint.state.updates)
    return list(dict.fromkeys([*kept, *others]))


def _parse(name: str) -> Target:
    try:
        return Target.parse(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def grid(updates: int) -> list[str]:
    """Half-lives from 10 steps to half the run, about one per factor of two, and tails of the run."""
    half = max(1, updates // 2)
    doublings = [SHORTEST * 2**number for number in range(updates.bit_length())]
    half_lives = [*(steps for steps in doublings if steps < half / math.sqrt(2)), half]
    return [*(f"half-life:{steps}" for steps in half_lives), *(f"tail:{percent}%" for percent in TAILS)]


def _score(model: LoadedModel, articles: Sequence[str | None], on_progress: Callable[[int], None]) -> SweptSet:
    """One weight set on all dev questions; without scores where the predicted error is too large."""
    made, checkpoint = model.made, model.source
    assert isinstance(checkpoint, Checkpoint)
    error = made.predicted_error if isinstance(made, Synthesis) else 0.0
    half_life, initial_share = _width(model.weights, checkpoint)
    swept = SweptSet(
        weights=model.weights,
        half_life=half_life,
        predicted_error=error,
        initial_share=initial_share,
        exact_match=None,
        f1=None,
    )
    if error > MAX_ERROR:
        on_progress(len(articles))
        return swept
    features = model.dev_features()
    assert features is not None
    scores = score_predictions(features, Predictor(model).predict(features, on_progress=on_progress)).questions
    return swept.model_copy(
        update={
            "exact_match": [score.exact_match for score in scores],
            "f1": [round(score.f1, 6) for score in scores],
        }
    )


def _width(name: str, checkpoint: Checkpoint) -> tuple[float | None, float]:
    """The half-life to draw an average at, and its share of the initial weights."""
    target, kept = Target.parse(name), checkpoint.weight_sets.get(EMA)
    if target.kind == RAW or not isinstance(kept, MovingAverage):
        return None, 0.0
    profile = target.profile(decays_of(kept.decay, kept.warmup, kept.steps))
    share = float(profile[0])
    if target.kind == "half-life":
        return target.value, share
    if target.kind == "decay":
        return math.log(0.5) / math.log(target.value) if target.value else None, share
    mean_age = float(profile @ np.arange(len(profile) - 1, -1, -1))
    return math.log(2) * mean_age, share
