"""The smallest and the longest input, on the whole way through training, evaluation and prediction."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers_cli import squad, succeed, write_tiny

from bidaf.config import Config
from bidaf.data.prepare import prepare
from bidaf.inference.predictor import NUMBERS_PER_TOKEN
from bidaf.runs.folder import Run
from bidaf.training.trainer import Trainer

# Contexts down to one token, questions of one token, words of one character.
TRAIN = [("a b c", [("x", ["b"]), ("?", ["a b c"])]), ("q", [("q", ["q"])]), ("7 - 8", [("y", ["8"])])]
DEV = [("b", [("x", ["b"])]), ("c a 8", [("z", ["a", "c a"])])]


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_batches_of_one_with_texts_of_one_token_are_trained_on_scored_and_answered(
    tmp_path: Path, variant: str
) -> None:
    write_tiny(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(squad(TRAIN, "train")))
    (tmp_path / "dev.json").write_text(json.dumps(squad(DEV, "dev")))
    options = {
        "model.variant": variant,
        "training.batch_size": 1,
        "training.epochs": 2,
        "training.log_every": 1,
        "evaluation.every_steps": 4,
        "evaluation.batch_tokens": 1,
    }
    flags = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    succeed("train", "-c", "tiny.yaml", "--run-dir", "runs/small", *flags, cwd=tmp_path)
    events = [event for event in Run.open(tmp_path / "runs" / "small").events() if event["event"] == "train"]
    assert len(events) == 8
    assert all(math.isfinite(event["loss"]) for event in events)
    scores = succeed("eval", "-m", "small", "--both", "--json", cwd=tmp_path).json
    assert [(score["weights"], score["questions"]) for score in scores] == [("raw", 2), ("ema", 2)]
    asked = [{"context": context, "question": "x"} for context in ("b", "1 2 3", "é")]
    answers = succeed("predict", "-", "-m", "small", cwd=tmp_path, stdin=json.dumps(asked).encode()).json
    assert (answers["0"], answers["2"]) == ("b", "é")
    assert answers["1"] in {"1", "2", "3", "1 2", "2 3", "1 2 3"}


STATUS = Path("/proc/self/status")

# Answers a short and a long question and reports the peak of its memory in kilobytes after each. Linux hands the
# parent's peak on to `getrusage`, so it is read where the child's own stands.
CHILD = """
import re, sys, torch
from pathlib import Path
from bidaf.data.squad import Example
from bidaf.inference.loading import load_model
from bidaf.inference.predictor import Predictor

cpu = torch.device("cpu")
torch.set_num_threads(1)
predictor = Predictor(load_model(sys.argv[1], weights="ema", device=cpu))
for words in (10, int(sys.argv[2])):
    context = " ".join(f"w{number % 500}" for number in range(words))
    ((answer,),) = predictor.answer(predictor.features([Example("q", "Where is w7 ?", context, ())])).values()
    assert answer.text == context[answer.start : answer.end] != ""
    print(re.search("VmHWM:\\\\s*([0-9]+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not STATUS.exists(), reason="reads the process's own peak from Linux's /proc")
@pytest.mark.parametrize("variant", ["paper", pytest.param("released", marks=pytest.mark.slow)])
def test_a_context_of_20000_tokens_takes_less_than_2_gb_and_no_more_than_is_foretold(
    tmp_path: Path, variant: str
) -> None:
    tokens = 20_000
    write_tiny(tmp_path)
    data = {"train": str(tmp_path / "train.json"), "dev": str(tmp_path / "dev.json")}
    config = Config.model_validate(
        {"data": {**data, "prepared_dir": str(tmp_path / "prepared")}, "model": {"variant": variant}}
    )
    cpu = torch.device("cpu")
    trainer = Trainer(config, prepare(config.data), cpu)
    trainer.save(Run.create(tmp_path / "untrained", config, "cpu").checkpoints / "step-000000")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "untrained"), str(tokens)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    before, peak = (1024 * int(kilobytes) for kilobytes in child.stdout.split())
    assert peak < 2e9
    foretold = 4 * NUMBERS_PER_TOKEN[variant] * config.model.hidden_size * tokens
    assert foretold / 3 < peak - before < foretold * 1.1
