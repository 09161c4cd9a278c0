"""What the average did, in sentences; and numbers in the form that people read."""

from __future__ import annotations

from itertools import pairwise

from bidaf.runs.events import Evaluation
from bidaf.runs.log import RunLog

EVEN = 0.05  # F1 points: less than a table with one digit shows


def headline(run: RunLog) -> str:
    """One sentence: what the average did to the score."""
    if not run.evaluations:
        return f"Nothing is scored yet: training is at step {run.step:,}{_of_total(run)}."
    last = run.evaluations[-1]
    if not run.has_shadow:
        return f"This run keeps no average: its raw weights have {last.raw_f1:.1f} F1 after step {last.step:,}."
    ended = "ended" if run.status == "finished" else "is now"
    if abs(last.gain) < EVEN:
        return f"The shadow {ended} level with the raw weights, at {last.shadow['f1']:.1f} F1."
    apart = f"{ended} {abs(last.gain):.1f} F1 {'above' if last.gain > 0 else 'below'} them"
    if last.gain < 0:
        led = [evaluation for evaluation in run.evaluations if evaluation.gain > EVEN]
        before = f", though it led at {len(led)} of {len(run.evaluations)} evaluations" if led else ""
        return f"The shadow did not beat the raw weights: it {apart}{before}."
    if (turns := _turns([evaluation.gain for evaluation in run.evaluations])) > 2:
        return f"The lead changed hands {turns} times; the shadow {apart.replace('them', 'the raw weights')}."
    lead = _lead_begins(run)
    if lead is run.evaluations[0]:
        return f"The shadow led the raw weights from the first evaluation on and {apart}."
    return f"The shadow overtook the raw weights at step {lead.step:,} and {apart}."


def details(run: RunLog) -> list[str]:
    """More sentences: the best evaluation, and how steady each set of weights was."""
    if not run.evaluations:
        return []
    sentences = []
    if run.has_shadow:
        raw = max(run.evaluations, key=lambda evaluation: evaluation.raw_f1)
        shadow = max(run.evaluations, key=lambda evaluation: evaluation.shadow["f1"])
        gain = shadow.shadow["f1"] - raw.raw_f1
        against = (
            "the same as the best of the raw weights"
            if abs(gain) < EVEN
            else f"{abs(gain):.2f} {'above' if gain > 0 else 'below'} the best of the raw weights ({raw.raw_f1:.2f})"
        )
        sentences.append(f"The best shadow scored {shadow.shadow['f1']:.2f} F1 at step {shadow.step:,}, {against}.")
        if len(run.evaluations) >= 4:
            raw_falls = _falls([evaluation.raw_f1 for evaluation in run.evaluations])
            shadow_falls = _falls([evaluation.shadow["f1"] for evaluation in run.evaluations])
            sentences.append(
                f"From one evaluation to the next the raw weights' F1 {raw_falls}; the shadow's {shadow_falls}."
            )
    if run.skipped:
        sentences.append(f"{count(run.skipped, 'step')} skipped: loss or gradient not finite.")
    return sentences


def _lead_begins(run: RunLog) -> Evaluation:
    """The evaluation from which on the shadow was never below the raw weights; the last when it is below there."""
    begin = run.evaluations[-1]
    for evaluation in reversed(run.evaluations):
        if evaluation.gain < 0:
            break
        begin = evaluation
    return begin


def duration(seconds: float) -> str:
    """Such as `2 h 05 min`, `3 min 20 s` or `45 s`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def signed(points: float, digits: int = 1) -> str:
    """A difference in points, with a real minus sign; what rounds to zero has none."""
    rounded = round(points, digits)
    return f"{rounded:+.{digits}f}".replace("-", "\N{MINUS SIGN}") if rounded else f"{0:.{digits}f}"


def count(number: int, noun: str) -> str:
    """Such as `1 step` or `1,200 steps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain(value: object) -> str:
    """A setting or count: thousands separated, floats without noise, a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value))
    return str(value)


def _turns(gains: list[float]) -> int:
    """How often the lead changed; a tie counts for neither."""
    leads = [gain > 0 for gain in gains if abs(gain) >= EVEN]
    return sum(before != after for before, after in pairwise(leads))


def _falls(values: list[float]) -> str:
    falls = [before - after for before, after in pairwise(values) if before - after >= EVEN]
    if not falls:
        return "never fell"
    return (
        f"fell once, by {falls[0]:.1f}" if len(falls) == 1 else f"fell {len(falls)} times, by {max(falls):.1f} at most"
    )


def _of_total(run: RunLog) -> str:
    return f" of {run.total_steps:,}" if run.total_steps else ""
