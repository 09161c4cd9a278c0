"""What the end of training and every export say about the average."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers_cli import Tiny, succeed

from bidaf.evaluation.statistics import Estimate, Spread
from bidaf.inference.verdict import AverageVerdict, judge_average
from bidaf.runs.checkpoint import Checkpoint, open_checkpoint
from bidaf.runs.folder import Run


def last_checkpoint(run: Path) -> Checkpoint:
    return open_checkpoint(Run.open(run).last_checkpoint())


def verdict(
    gain: float, *, error: float | None = 0.1, initial_share: float = 0.0, decay: float = 0.999
) -> AverageVerdict:
    return AverageVerdict(
        step=1000,
        f1=Estimate(gain, Spread(error, 23) if error is not None else None, None),
        articles=24,
        no_interval=None if error is not None else "the questions are on 3 articles, fewer than 6",
        initial_share=initial_share,
        decay=decay,
    )


def test_a_shadow_that_still_holds_the_start_is_told_how_long_to_train() -> None:
    said = verdict(-24.28, initial_share=0.999**1031).sentence
    assert said.startswith("the shadow is 24.28 F1 behind the raw weights")
    assert "35.6% of it" in said
    more = int(said.split("train ")[1].split(" more")[0].replace(",", ""))
    assert 0.999 ** (1031 + more) <= 0.01 < 0.999 ** (1031 + more - 1)
    for advice in ("ema.warmup", "--weights raw"):
        assert advice in said


def test_a_shadow_that_is_behind_without_the_start_looks_too_far_back() -> None:
    said = verdict(-0.5, error=1.0, initial_share=1e-5).sentence
    assert "not distinguishable on these 24 articles" in said
    assert "about 1,000 steps" in said
    assert "ema.decay" in said
    assert "initial weights" not in said


def test_a_shadow_that_is_ahead_needs_no_advice() -> None:
    said = verdict(0.9, initial_share=0.2).sentence
    assert said.startswith("the shadow is 0.90 F1 above the raw weights (95 % interval +0.69 to +1.11)")
    assert "train" not in said
    assert verdict(0.0).sentence.startswith("the shadow and the raw weights have the same F1")


def test_without_an_interval_it_says_why() -> None:
    assert "no interval: the questions are on 3 articles" in verdict(0.9, error=None).sentence


def test_a_run_is_judged_by_its_stored_answers(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.folder)
    found = judge_average(last_checkpoint(tiny.run))
    scores = tiny.last_scores()
    assert found is not None
    assert found.f1.value == pytest.approx(scores["ema"]["f1"] - scores["raw"]["f1"])
    assert found.initial_share == pytest.approx(0.98**20)
    assert found.no_interval is not None
    assert found.to_dict()["sentence"] == found.sentence
    assert f"verdict: {found.sentence}" in tiny.trained.err


def test_an_export_says_the_same(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.folder)
    ran = succeed("export", "-o", tmp_path / "export", cwd=tiny.folder)
    found = judge_average(last_checkpoint(tiny.run))
    assert found is not None
    assert f"verdict: {found.sentence}" in ran.err
    for other in ("raw", "half-life:5"):
        ran = succeed("export", "-w", other, "-o", tmp_path / other, "--allow-error", cwd=tiny.folder)
        assert "verdict" not in ran.err


def test_stored_answers_that_can_not_be_read_end_neither_an_export_nor_a_run(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny.run, run, symlinks=True)
    (run / "predictions" / "step-000020.raw.json").write_text("{")
    for command in (("export", "-m", run, "-o", tmp_path / "export"), ("train", "--resume", run)):
        ran = succeed(*command, cwd=tiny.folder)
        assert "no verdict: " in ran.err
        assert "step-000020.raw.json" in ran.err


def test_where_nothing_was_evaluated_nothing_is_said(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.folder)
    shutil.copytree(tiny.run, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "predictions" / "step-000020.raw.json").unlink()
    assert judge_average(last_checkpoint(tmp_path / "run")) is None
    assert judge_average(last_checkpoint(tiny.run)) is not None
