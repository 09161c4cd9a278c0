"""What became of the questions, as rows to show."""

from __future__ import annotations

from typing import Any

SPLITS = ("train", "dev")
ROWS = {
    "read": "read",
    "kept": "kept",
    "unanswerable": "skipped: unanswerable",
    "realigned_answers": "answers moved to their only place",
    "answers_not_in_context": "answers dropped: not in the context",
    "uncovered_answers": "answers dropped: no token",
    "beyond_answers": "answers dropped: beyond the limit",
    "contexts": "contexts",
    "truncated_contexts": "contexts cut",
    "spans": "gold spans",
    "exact_spans": "gold spans equal to their answer's text",
    "forms": "distinct word forms",
    "fixed_forms": "of these with a fixed vector",
    "trained_forms": "of these with a trained vector",
    "unknown_forms": "of these known by characters alone",
}


def without_ids(counts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The counts of prepared data, with the number of dropped questions in the place of their ids."""
    sizes = {split: {reason: len(ids) for reason, ids in counts[split]["dropped"].items()} for split in SPLITS}
    return {name: {**each, "dropped": sizes[name]} if name in sizes else each for name, each in counts.items()}


def count_rows(counts: dict[str, dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Label, train and dev of every count, in the order of the way from file to features; takes `without_ids`."""
    train, dev = (counts.get(split, {}) for split in SPLITS)
    rows = []
    for name, label in ROWS.items():
        rows.append((label, _shown(train.get(name)), _shown(dev.get(name))))
        if name == "unanswerable":
            train_dropped, dev_dropped = _dropped(train), _dropped(dev)
            for reason in sorted({*train_dropped, *dev_dropped}):
                label = f"dropped: {reason}"
                rows.append((label, _shown(train_dropped.get(reason, 0)), _shown(dev_dropped.get(reason, 0))))
    return rows


def _dropped(split: dict[str, Any]) -> dict[str, int]:
    dropped = split.get("dropped")
    return dropped if isinstance(dropped, dict) else {}


def _shown(value: Any) -> str:
    if not isinstance(value, int | float):
        return "\N{EN DASH}"
    return f"{value:.2%}" if isinstance(value, float) else f"{value:,}"
