"""`bidaf prepare`: text to features."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bidaf.cli.common import ConfigOption, JsonOption, SetOption, StrictOption, print_json, print_line, print_table
from bidaf.errors import DataError
from bidaf.messages import say


def prepare_command(
    config: ConfigOption = "squad.yaml",
    set: SetOption = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that tokenize a large corpus.  [default: one per processor]"),
    ] = None,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Read, tokenize and index the data of a config; say what was kept, cut and dropped, and why.

    Prepared features are found by the content of their sources and by every option that affects them: a second call is
    immediate, and a change never uses stale features.
    """
    from bidaf.config_file import explain_missing, find_config, load_config
    from bidaf.data.prepare import prepare

    path = find_config(config)
    settings = load_config(path, set or ())
    try:
        prepared = prepare(settings.data, strict=strict, workers=workers, echo=say)
    except DataError as error:
        raise DataError(f"{error}{explain_missing(settings, path)}") from None
    if json:
        print_json({"folder": str(prepared.folder), "counts": prepared.counts})
        return
    print_counts(prepared.counts)
    print_line(f"prepared data: {prepared.folder}")


def print_counts(counts: dict[str, dict[str, Any]]) -> None:
    """The table of questions kept, cut and dropped."""
    from bidaf.data.counts import count_rows, without_ids

    rows = count_rows(without_ids(counts))
    print_table("questions", ("", "train", "dev"), rows)
    vocabulary = counts["vocabulary"]
    print(
        f"vocabulary: {vocabulary['fixed_words']:,} words with fixed vectors, {vocabulary['trained_words']:,} with "
        f"trained ones, {vocabulary['chars']:,} characters"
    )
