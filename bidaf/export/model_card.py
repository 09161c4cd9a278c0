"""The model card of an export: what its folder holds, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bidaf.config import Config

_USE = {
    "safetensors": """    bidaf ask --model THIS_FOLDER{flag} --context passage.txt --question "Who wrote it?"
    bidaf predict questions.json --model THIS_FOLDER{flag}

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
| `start`, `end` | float32 [batch, context] | log-probability of the first and the last word; padding is -inf |

Rows and character ids are positions in `vocabulary.json`: `trained_words`, then `fixed_words`; `chars`. When it was
written, the graph was run beside the network; no log-probability differed by more than {difference:.1e}.
`export.json` has that by shape, and what else a program needs to know.
""",
}


def model_card(config: Config, about: dict[str, Any]) -> str:
    """Markdown with the fields that a model hub reads at its head. `about` is what `export.json` holds."""
    data, training = config.data, config.training
    longest = config.evaluation.max_answer_tokens
    rows = {
        "weights": _weights(about),
        "training": f"{about['step']:,} steps of {training.batch_size} questions, {training.optimizer.name} "
        f"(learning rate {training.optimizer.lr:g}), seed {training.seed}, {training.precision}",
        "trained on": f"{_names(about['train'])} ({about['train_questions']:,} questions)",
        "word vectors": f"{_names([data.vectors])}, fixed"
        if data.vectors
        else "none; frequent words' rows are trained",
        "answers": f"spans of at most {longest} words" if longest else "spans of any length",
        "made by": f"bidaf {about['version']}",
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
probability. It reads English as its training data writes it.

| | |
|---|---|
{table}

## Score

{_scores(about)}

## Use

{_use(config, about)}
## Licence

The program that made this folder is under the Apache License 2.0. The weights are derived from the training data and
the word vectors named above, whose own licences apply to what is derived from them (SQuAD v1.1: CC BY-SA 4.0; GloVe:
PDDL 1.0).
"""


def _weights(about: dict[str, Any]) -> str:
    if about["weights"] == "raw":
        return "the raw weights, as the optimizer left them (no average)"
    average = about["ema"]
    every = f", one in {average['every']} steps" if average["every"] > 1 else ""
    return (
        f"the shadow weights: an exponential moving average (decay {average['decay']}, warm-up {average['warmup']}, "
        f"{average['steps']:,} updates{every})"
    )


def _scores(about: dict[str, Any]) -> str:
    scores = about["dev_scores_by_weights"]
    if not scores:
        return "Not scored at this step."
    lines = [
        f"| {kind}{' (these)' if kind == about['weights'] else ''} | {score['exact_match']:.2f} | {score['f1']:.2f} |"
        for kind, score in scores.items()
    ]
    return (
        f"EM and F1 of the official SQuAD v1.1 evaluation, in percent, on {_names(about['dev'])} "
        f"({about['dev_questions']:,} questions):\n\n| weights | EM | F1 |\n|---|---|---|\n" + "\n".join(lines)
    )


def _use(config: Config, about: dict[str, Any]) -> str:
    return _USE[about["form"]].format(
        flag="" if about["weights"] == "ema" else " --no-use-ema",
        word_chars=config.data.max_word_chars,
        difference=max((each["difference"] for each in about.get("parity", ())), default=0.0),
    )


def _names(sources: list[str]) -> str:
    return ", ".join(Path(source).name for source in sources)
