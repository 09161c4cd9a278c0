"""Answers are cut from scores that are numbers, or there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import CPU, Configure

from bidaf.data.batches import BatchSource
from bidaf.data.prepare import Prepared
from bidaf.errors import BidafError
from bidaf.evaluation.evaluator import answer_all, answer_n_best
from bidaf.training.trainer import Trainer


def n_best(model: Any, source: Any, **options: Any) -> Any:
    return answer_n_best(model, source, 2, **options)


@pytest.mark.parametrize("answer", [answer_all, n_best])
@pytest.mark.parametrize("scorer", ["start_scorer", "end_scorer"])
def test_weights_that_score_nan_answer_nothing_and_are_named(
    configure: Configure, prepared: Prepared, answer: Callable[..., Any], scorer: str
) -> None:
    """Every weight is finite; products of them are not."""
    model = Trainer(configure(), prepared, CPU).model
    source = BatchSource(prepared.features("dev"), CPU)
    options = {"batch_tokens": 120, "max_answer_tokens": None, "weights": "the shadow of step 7"}
    assert len(answer(model, source, **options)) == 12
    with torch.no_grad():
        for weight in (*getattr(model, scorer).parameters(), *model.modeling.parameters()):
            weight.fill_(3e38)
    with pytest.raises(BidafError, match=r"the shadow of step 7 diverged: .*'\w+-\d' are not finite") as caught:
        answer(model, source, **options)
    assert caught.value.exit_code == 1
    assert model.training
