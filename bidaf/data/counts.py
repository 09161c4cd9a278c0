"""What became of the questions, as rows to show."""

from __future__ import annotations

from typing import Any

SPLITS = ("train", "dev")
ROWS = {
    "read": "read",
    "kept": "kept",
    "kept_unanswerable": "of these unanswerable",
    "unanswerable": "left out: unanswerable",
    "realigned_answers": "answers moved to where their text is",
    "answers_not_in_context": "answers without a place in the context",
    "uncovered_answers": "answers without a token",
    "beyond_answers": "answers beyond the limit",
    "contexts": "contexts",
    "truncated_contexts": "contexts cut",
    "spans": "gold spans",
    "exact_spans": "gold spans equal to their answer's text",
    "forms": "distinct word types",
    "fixed_forms": "of these with a fixed vector",
    "trained_forms": "of these with a trained vector",
    "unknown_forms": "of these known by characters alone",
}


# Of the published data sets in English, more than this share of the gold spans are exact.
MIN_EXACT_SPANS = 0.9


def remarks(counts: dict[str, dict[str, Any]], language: str) -> list[str]:
    """What somebody should know before training on prepared data with these counts."""
    return [
        f"data.{split}: only {counts[split]['exact_spans']:.1%} of the gold spans spell their answer exactly, which "
        "bounds exact match: answers begin or end inside of words, as the texts are split into these. If the texts are "
        f"not in the language {language!r}, name theirs with data.language"
        for split in SPLITS
        if counts[split]["exact_spans"] < MIN_EXACT_SPANS
    ]


def without_ids(counts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The counts of prepared data, with numbers of questions in place of their ids and places."""

    def shortened(split: dict[str, Any]) -> dict[str, Any]:
        return {
            **split,
            "dropped": {reason: len(ids) for reason, ids in split["dropped"].items()},
            "skipped": {reason: entry["count"] for reason, entry in split["skipped"].items()},
        }

    return {name: shortened(each) if name in SPLITS else each for name, each in counts.items()}


def count_rows(counts: dict[str, dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Label, train and dev of every count, in the order of the way from file to features; takes `without_ids`."""
    train, dev = (counts.get(split, {}) for split in SPLITS)
    rows: list[tuple[str, str, str]] = []
    for name, label in ROWS.items():
        if name != "kept_unanswerable" or name in train or name in dev:
            rows.append((label, _shown(train.get(name)), _shown(dev.get(name))))
        if name == "unanswerable":
            for kind in ("skipped", "dropped"):
                of_train, of_dev = _reasons(train, kind), _reasons(dev, kind)
                for reason in sorted({*of_train, *of_dev}):
                    rows.append((f"{kind}: {reason}", _shown(of_train.get(reason, 0)), _shown(of_dev.get(reason, 0))))
    return rows


def _reasons(split: dict[str, Any], kind: str) -> dict[str, int]:
    found = split.get(kind)  # absent in runs of older versions
    return found if isinstance(found, dict) else {}


def _shown(value: Any) -> str:
    if not isinstance(value, int | float):
        return "\N{EN DASH}"
    return f"{value:.2%}" if isinstance(value, float) else f"{value:,}"
