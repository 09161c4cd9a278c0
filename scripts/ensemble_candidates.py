"""How many candidates per member an ensemble needs: the product rule on lists against the product over all spans.

    python scripts/ensemble_candidates.py runs/seed0 runs/seed1 runs/seed2

The mean of the members' log probabilities of start and end gives the best of all spans without listing any.
"""

from __future__ import annotations

import sys

import torch

from bidaf.data.batches import BatchSource, batches_by_length
from bidaf.device import choose_device
from bidaf.errors import BidafError, UsageError
from bidaf.evaluation.ensemble import combine
from bidaf.evaluation.evaluator import default_batch_tokens
from bidaf.inference.ensemble import load_named
from bidaf.inference.ensemble_predictor import predictor_for
from bidaf.model.spans import Span, top_spans

SIZES = (1, 5, 10, 20, 50)


@torch.inference_mode()
def main(names: list[str]) -> None:
    """Print how many answers differ, for each number of candidates."""
    predictor = predictor_for(load_named(names, rule="product", device=choose_device("cpu")))
    features = predictor.loaded.dev_features()
    if features is None:
        raise UsageError("name runs: exports do not hold their dev questions")
    members = predictor.members(features)
    sources = [BatchSource(member.features, member.predictor.device) for member in members]
    exact: dict[int, Span] = {}
    for batch in batches_by_length(sources[0].context_lengths, default_batch_tokens(members[0].predictor.device)):
        scores = [m.predictor.loaded.model(source.gather(batch)) for m, source in zip(members, sources, strict=True)]
        start, end = (torch.stack([getattr(each, name) for each in scores]).mean(0) for name in ("start", "end"))
        found = top_spans(start, end, 1, predictor.loaded.config.evaluation.max_answer_tokens)
        exact |= {question: best for question, (best,) in zip(batch.tolist(), found, strict=True)}
    listed = [member.predictor.predict(member.features, max(SIZES)) for member in members]
    for size in SIZES:
        differ = 0
        for question, span in exact.items():
            base = features.context_offsets[features.question_context[question]]
            best = combine([answers[features.ids[question]][:size] for answers in listed], "product")[0]
            bounds = features.context_spans[base + span.start, 0], features.context_spans[base + span.end, 1]
            differ += (best.start, best.end) != bounds
        print(f"{size:3} candidates: {differ} of {len(exact)} answers differ")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BidafError as error:
        sys.exit(f"error: {error}")
