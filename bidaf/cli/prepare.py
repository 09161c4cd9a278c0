"""`bidaf prepare`: text to features."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bidaf.cli.common import ConfigOption, JsonOption, SetOption, print_json, print_table, say


def prepare_command(
    config: ConfigOption = "squad.yaml",
    set: SetOption = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that tokenize a large corpus; left out: one a processor."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Read, tokenize and index the data of a config; say what was kept, cut and dropped, and why.

    Prepared features are found again by the content of their sources and by every option that shapes them: a second
    call is immediate, and a change never meets stale features.
    """
    from bidaf.config_file import find_config, load_config
    from bidaf.data.prepare import prepare

    prepared = prepare(load_config(find_config(config), set or ()).data, workers=workers, echo=say)
    if json:
        print_json({"folder": str(prepared.folder), "counts": prepared.counts})
        return
    print_counts(prepared.counts)
    print(f"prepared data: {prepared.folder}")


def print_counts(counts: dict[str, dict[str, Any]]) -> None:
    """The table of what became of the questions."""
    rows = []
    for name, label in ROWS.items():
        rows.append((label, *(_shown(counts[split][name]) for split in ("train", "dev"))))
        if name == "unanswerable":
            reasons = sorted({reason for split in ("train", "dev") for reason in counts[split]["dropped"]})
            for reason in reasons:
                dropped = (len(counts[split]["dropped"].get(reason, ())) for split in ("train", "dev"))
                rows.append((f"dropped: {reason}", *map(_shown, dropped)))
    print_table("questions", ("", "train", "dev"), rows)
    vocabulary = counts["vocabulary"]
    print(
        f"vocabulary: {vocabulary['fixed_words']:,} words with fixed vectors, {vocabulary['trained_words']:,} with "
        f"trained ones, {vocabulary['chars']:,} characters"
    )


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


def _shown(value: float) -> str:
    return f"{value:.2%}" if isinstance(value, float) else f"{value:,}"
