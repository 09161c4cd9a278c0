"""Ours computes what the baseline does: same scores, same training, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bench.baseline import BaselineAverage, BaselineBidaf
from test_model import make_batch, make_model

from bidaf.ema.average import ExponentialMovingAverage
from bidaf.model.bidaf import span_loss

VARIANTS: list[dict[str, Any]] = [
    {"variant": "paper"},
    {"variant": "released", "share_phrase_lstm": False, "projection_size": 7},
    {"modeling_layers": 1, "highway_layers": 0, "score_bias": False},
]


@pytest.mark.parametrize("settings", VARIANTS)
def test_the_baseline_scores_the_same(settings: dict[str, Any]) -> None:
    model, batch = make_model(**settings).eval(), make_batch(extra=3)
    with torch.no_grad():
        ours, baseline = model(batch), BaselineBidaf(model).eval()(batch)
    for one, other in ((ours.start, baseline.start), (ours.end, baseline.end)):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("settings", VARIANTS)
def test_the_baseline_trains_the_same_and_so_does_its_average(settings: dict[str, Any]) -> None:
    model, batch = make_model(**settings), make_batch()
    baseline = BaselineBidaf(model)
    ema, average = ExponentialMovingAverage(model, decay=0.9), BaselineAverage(baseline, lambda step: 0.9)
    start, end = torch.tensor([0, 0, 1, 4]), torch.tensor([3, 0, 2, 4])
    optimizers = [torch.optim.SGD([w for w in m.parameters() if w.requires_grad], lr=0.2) for m in (model, baseline)]
    losses = []
    for _ in range(4):
        pair = [span_loss(m(batch), start, end) for m in (model, baseline)]
        losses.append([loss.item() for loss in pair])
        for loss, optimizer in zip(pair, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        ema.update()
        average.update()
    for ours, theirs in losses:
        assert ours == pytest.approx(theirs, rel=1e-8)
    assert losses[0][0] != pytest.approx(losses[3][0], rel=1e-3)
    for name, baseline_name in (("embedding.char.embedding", "chars"), ("start_scorer.bias", "start.bias")):
        if name in ema.shadow:
            torch.testing.assert_close(ema.shadow[name], average.shadow[baseline_name], rtol=1e-8, atol=1e-10)
