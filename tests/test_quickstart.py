"""What the quickstart promises, on the embedded corpus as shipped. Minutes long: `pytest -m slow`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers_cli import succeed

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_shadow_weights_reach_f1_90_on_the_embedded_corpus_and_what_is_scored_is_exported(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data", tmp_path / "data")
    succeed("train", "--config", "mini.yaml", "--run-dir", "runs/mini", cwd=tmp_path)
    events = [json.loads(line) for line in (tmp_path / "runs/mini/metrics.jsonl").read_text().splitlines()]
    best = [event["scores"] for event in events if event["event"] == "eval" and event["best"]][-1]
    assert best["ema"]["f1"] >= 90.0

    scored = succeed("eval", "--model", "runs/mini", "--json", cwd=tmp_path).json
    assert (scored["exact_match"], scored["f1"]) == (best["ema"]["exact_match"], best["ema"]["f1"])

    succeed("export", "--model", "runs/mini", "-o", "export", cwd=tmp_path)
    exported = succeed("eval", "--model", "export", "--json", cwd=tmp_path).json
    assert (exported["exact_match"], exported["f1"]) == (best["ema"]["exact_match"], best["ema"]["f1"])
