"""The model card of an export: what its folder holds, for people."""

from __future__ import annotations

from pathlib import Path

from bidaf.config import Config
from bidaf.evaluation.metrics import METRIC_LABELS, show_metric
from bidaf.evaluation.squad_v2 import NO_ANSWER_THRESHOLD
from bidaf.inference.exported import ExportInfo, ExportType
from bidaf.runs.weight_sets import MovingAverage, RawWeights, Synthesis, WeightSet

_USE: dict[ExportType, str] = {
    "safetensors": """    bidaf ask --model THIS_FOLDER --context passage.txt --question "Who wrote it?"
    bidaf predict questions.json --model THIS_FOLDER

or in Python:

    import bidaf

    model = bidaf.load("THIS_FOLDER")
    print(model.ask("Who wrote it?", "The novel was written by Mary Shelley.")[0].text)

`model.safetensors` holds the weights under their plain names, `config.yaml` all settings, `vocabulary.json` words and
characters, `vectors.safetensors` the fixed word vectors, `export.json` what this page says, for programs.
""",
    "onnx": """    pip install onnxruntime numpy spacy
    python THIS_FOLDER/answer.py --context passage.txt --question "Who wrote it?"

needs neither PyTorch nor bidaf; `answer.py` is also the example to write your own from. `model.onnx` (its weights and
word vectors are in `model.onnx.data`: keep the two together) takes any batch and any length:

| | | |
|---|---|---|
| `context_words` | int64 [batch, context] | row of each word; 0 pads at the end |
| `context_chars` | int64 [batch, context, {word_chars}] | characters of each word; 0 beyond its end |
| `question_words` | int64 [batch, question] | as for the context |
| `question_chars` | int64 [batch, question, {word_chars}] | as for the context |
| `start`, `end` | float32 [batch, context] | log-probability of first and last word; padding is -inf |{no_answer}

Rows and character ids are positions in `vocabulary.json`: `trained_words`, then `fixed_words`; `chars`. When it was
written, the graph was compared with the network; no log-probability differed by more than {difference:.1e}.
`export.json` has that by shape, and what else a program needs to know.
""",
}


_NO_ANSWER = """
| `no_answer` | float32 [batch] | log-probability of no answer: the answer where it is above `no_answer_threshold` |"""


def model_card(config: Config, info: ExportInfo) -> str:
    """Markdown with the fields that a model hub reads at its head."""
    data, training = config.data, config.training
    longest = config.evaluation.max_answer_tokens
    rate = f"learning rate {training.optimizer.lr:g}, {training.schedule.name}"
    rows = {
        "weights": describe_made(info.made),
        "training": f"{info.step:,} steps of {training.batch_size} questions, {training.optimizer.name} ({rate}), "
        f"seed {training.seed}, {training.precision}",
        "trained on": f"{_names(info.train)} ({info.train_questions:,} questions)",
        "word vectors": f"{_names([data.vectors])}, fixed"
        if data.vectors
        else "none; frequent words' rows are trained",
        "answers": f"spans of at most {longest} words" if longest else "spans of any length",
        "made by": f"bidaf {info.version}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
language: en
library_name: bidaf
pipeline_tag: question-answering
metrics: [exact_match, f1]
---

# BiDAF ({config.model.variant} variant)

Answers a question with a span of the context it is asked on (Seo et al., "Bidirectional Attention Flow for Machine
Comprehension", ICLR 2017). Every question gets an answer, also one that the context does not answer: look at the
probability. It expects English similar to its training data.

| | |
|---|---|
{table}

## Score

{_scores(info)}

## Use

{_use(config, info)}
## Licence

The program that made this folder is under the Apache License 2.0. The weights are derived from the training data and
the word vectors named above, whose own licences apply to what is derived from them (SQuAD v1.1: CC BY-SA 4.0; GloVe:
PDDL 1.0).
"""


def describe_made(made: WeightSet) -> str:
    """How a weight set was made, in words."""
    match made:
        case RawWeights():
            return "the raw weights, as the optimizer left them (no average)"
        case MovingAverage():
            return (
                f"the shadow: an exponential moving average of all weights (decay {made.decay}, warm-up {made.warmup}, "
                f"{made.steps:,} updates)"
            )
        case Synthesis():
            return f"an average ({made.target}) synthesised after training from snapshots of {made.run}: {made.summary}"


def _scores(info: ExportInfo) -> str:
    if not info.scores:
        return "Not scored at this step."
    names = list(dict.fromkeys(metric for metrics in info.scores.values() for metric in metrics))
    rows = [["weights", *(METRIC_LABELS.get(name, name) for name in names)], ["---"] * (1 + len(names))]
    for weights, metrics in info.scores.items():
        label = f"{weights} (these)" if weights == info.weights else weights
        rows.append([label, *(show_metric(name, metrics[name]) if name in metrics else "" for name in names)])
    rule = "v2.0" if NO_ANSWER_THRESHOLD in names else "v1.1"
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"Metrics of the official SQuAD {rule} evaluation, in percent, on {_names(info.dev)} "
        f"({info.dev_questions:,} questions):\n\n{table}"
    )


def _use(config: Config, info: ExportInfo) -> str:
    return _USE[info.type].format(
        word_chars=config.data.max_word_chars,
        no_answer=_NO_ANSWER if config.model.no_answer else "",
        difference=max((each.difference for each in info.parity), default=0.0),
    )


def _names(sources: list[str]) -> str:
    return ", ".join(Path(source).name for source in sources)
