"""Answers are cut from scores that are numbers, or there are none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import CPU, Configure

from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared
from bidaf.errors import BidafError
from bidaf.evaluation.evaluator import predict_spans
from bidaf.training.trainer import Trainer


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("scorer", ["start_scorer", "end_scorer"])
def test_weights_that_score_nan_answer_nothing_and_are_named(
    configure: Configure, prepared: Prepared, n: int, scorer: str
) -> None:
    """Every weight is finite; products of them are not. Saturated LSTMs answer about 1, so no score stays finite."""
    model = Trainer(configure(), prepared, CPU).model
    source = BatchSource(prepared.features("dev"), CPU)
    options: dict[str, Any] = {"batch_tokens": 120, "max_answer_tokens": None, "weights": "the shadow of step 7"}
    assert len(predict_spans(model, source, n, **options)) == 12
    with torch.no_grad():
        for part in (getattr(model, scorer), model.modeling, model.end_lstm):
            for weight in part.parameters():
                weight.fill_(3e38)
    with pytest.raises(BidafError, match=r"the shadow of step 7 diverged: .*'\w+-\d' are not finite") as caught:
        predict_spans(model, source, n, **options)
    assert caught.value.exit_code == 1
    assert model.training
