"""`bidaf config`: look at settings without running anything."""

from __future__ import annotations

from typing import Annotated

import typer

from bidaf.cli.common import CONFIG_HELP, JsonOption, SetOption, print_json, print_line
from bidaf.cli.completion import complete_config, complete_setting_name
from bidaf.errors import UsageError

config_app = typer.Typer(help="Show, check and compare configs.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help=CONFIG_HELP, autocompletion=complete_config)]


@config_app.command("show")
def show_command(config: NameArgument, set: SetOption = None, json: JsonOption = False) -> None:
    """Print all settings, with those that the file leaves out at their defaults."""
    from bidaf.config_file import dump_config, find_config, load_config

    settings = load_config(find_config(config), set or ())
    if json:
        print_json(settings.to_dict())
    else:
        print(dump_config(settings), end="")


@config_app.command("describe")
def describe_command(
    key: Annotated[
        str | None,
        typer.Argument(help="A setting or a section, as in training.schedule.", autocompletion=complete_setting_name),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print all settings as a page of Markdown.")] = False,
    json: JsonOption = False,
) -> None:
    """Print every setting, or one, with its default, its range and a sentence."""
    from bidaf.config_reference import as_markdown, as_text, describe

    if markdown and (key is not None or json):
        raise UsageError("--markdown prints the whole page: leave out KEY and --json")
    if markdown:
        print(as_markdown(), end="")
        return
    found = describe(key)
    if json:
        print_json([each.to_dict() for each in found])
    else:
        print_line(as_text(found))


@config_app.command("validate")
def validate_command(config: NameArgument, set: SetOption = None) -> None:
    """Check a config; every problem is named, exit code 2."""
    from bidaf.config_file import find_config, load_config

    path = find_config(config)
    load_config(path, set or ())
    print_line(f"{path} is valid")


@config_app.command("diff")
def diff_command(first: NameArgument, second: NameArgument, json: JsonOption = False) -> None:
    """Print the settings in which two configs differ."""
    from bidaf.config_file import differences, find_config, load_config

    found = differences(load_config(find_config(first)), load_config(find_config(second)))
    if json:
        print_json({each.key: [each.ours, each.theirs] for each in found})
    else:
        print_line("\n".join(map(str, found)) or "no difference")
