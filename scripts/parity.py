"""Is the fast form as good as the plain one? Trains both on a config's data, seed by seed, and scores both alike.

    python scripts/parity.py --config mini.yaml --epochs 10 --seeds 3

The two draw other dropout masks, so single runs differ as seeds do: what to look at is whether the ranges overlap.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import mean

import torch
from torch import nn
from tqdm import tqdm

from bidaf.bench.plain import PlainTraining
from bidaf.config import Config
from bidaf.config_file import find_config, load_config
from bidaf.data.cache import Prepared
from bidaf.data.prepare import prepare
from bidaf.device import choose_device
from bidaf.ema.average import trained_weights
from bidaf.evaluation.evaluator import predict_spans
from bidaf.evaluation.squad_v1 import score_answers
from bidaf.training.trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """F1 (percent, dev) of one form after training with one seed."""

    form: str
    seed: int
    raw_f1: float
    ema_f1: float


def train_both(config: Config, prepared: Prepared, device: torch.device, seed: int, epochs: int) -> Iterator[Outcome]:
    """The two forms from the same initial weights, on the same batches."""
    training = config.training.model_copy(update={"seed": seed})
    trainer = Trainer(config.model_copy(update={"training": training}), prepared, device)
    assert trainer.ema is not None
    plain = PlainTraining(trainer.model, trainer.config, trainer.ema.decay_at)
    steps = epochs * trainer.order.batches_per_epoch

    def run(form: str, step: Callable[[int], object]) -> None:
        for number in tqdm(range(steps), desc=f"{form}, seed {seed}", disable=None, leave=False):
            step(number)

    def score(model: nn.Module) -> float:
        settings, source = config.evaluation, trainer.dev_source
        answers = predict_spans(
            model, source, batch_tokens=settings.batch_tokens, max_answer_tokens=settings.max_answer_tokens
        )
        gold = dict(zip(source.features.ids, source.features.answers, strict=True))
        return score_answers(gold, {question: best.text for question, (best,) in answers.items()}).f1

    run("ours", lambda n: trainer.step.run(trainer.train_source, *trainer.order.batch(n), n + 1))
    raw = score(trainer.model)
    with trainer.ema.applied():
        yield Outcome("ours", seed, raw, score(trainer.model))
    torch.manual_seed(seed)
    run("plain", lambda n: plain.step(trainer.train_source, *trainer.order.batch(n)))
    raw = score(plain.model)
    with holding(plain.model, plain.average.shadow):
        yield Outcome("plain", seed, raw, score(plain.model))


@contextmanager
def holding(model: nn.Module, weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Within the block the model holds other weights."""
    own = {name: weight.detach().clone() for name, weight in trained_weights(model)}
    model.load_state_dict(weights, strict=False)
    yield
    model.load_state_dict(own, strict=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", "-c", default="mini.yaml")
    parser.add_argument("--set", "-s", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    config = load_config(find_config(options.config), options.set)
    prepared, device = prepare(config.data), choose_device(options.device)
    outcomes = []
    for seed in range(options.seeds):
        for outcome in train_both(config, prepared, device, seed, options.epochs):
            outcomes.append(outcome)
            print(outcome, file=sys.stderr)
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
        return
    for form in ("ours", "plain"):
        for weights in ("raw_f1", "ema_f1"):
            scores = [getattr(outcome, weights) for outcome in outcomes if outcome.form == form]
            print(f"{form:5} {weights}: mean {mean(scores):.2f}, {min(scores):.2f} to {max(scores):.2f}")


if __name__ == "__main__":
    main()
