"""``digestry config``: show and change the settings."""

from __future__ import annotations

from pathlib import Path

import click

from digestry.cli import settings as user_settings
from digestry.cli.command_group import Group
from digestry.cli.output import complain, json_document, json_option, printable, say, table


def _key(_context: click.Context, _parameter: click.Parameter, key: str) -> str:
    from digestry.errors import InvalidConfiguration

    try:
        return user_settings.check_key(key)
    except InvalidConfiguration as error:
        raise click.UsageError(f"{error.message} ({error.hint})") from error


@click.group(cls=Group)
def config() -> None:
    """Show and change settings, and check the configuration of a registry."""


@config.command("show")
@json_option
def show(*, as_json: bool) -> None:
    """Show every setting, its value and what it is for.

    JSON: an object with settings (a list of objects with key, value, which is null if it is not set, and
    meaning), and the paths file (of the settings) and images (of the local store).
    """
    config_file, store = user_settings.locate()
    values = user_settings.read_values(config_file)
    if as_json:
        from digestry.cli import documents

        rows = [documents.Setting(key, values.get(key), text) for key, text in user_settings.KEYS.items()]
        json_document(documents.Settings(rows, str(config_file), str(store)))
        return
    table(
        ["SETTING", "VALUE", "MEANING"],
        [(key, values.get(key, "-"), meaning) for key, meaning in user_settings.KEYS.items()],
    )
    say()
    say(f"settings: {printable(str(config_file))}")
    say(f"images:   {printable(str(store))}")


@config.command("get")
@click.argument("key", callback=_key)
def get(key: str) -> None:
    """Print one setting's value; nothing if it is not set."""
    value = user_settings.read_values(user_settings.locate()[0]).get(key)
    if value is not None:
        say(printable(value))


@config.command("set")
@click.argument("key", callback=_key)
@click.argument("value")
def set_(key: str, value: str) -> None:
    """Set KEY to VALUE."""
    user_settings.check_value(key, value)
    user_settings.change(key, value)


@config.command("unset")
@click.argument("key", callback=_key)
def unset(key: str) -> None:
    """Reset KEY to its default."""
    user_settings.change(key, None)


@config.command("check")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="The root that `digestry serve --root` names, for a FILE that names none.",
)
def check(file: Path, root: Path | None) -> None:
    """Check FILE, the registry.toml of `digestry serve`, and the files that it names.

    Nothing is changed, and no server is asked. Environment variables count as they do for `digestry serve`.
    Ends with 2 if there is a mistake.
    """
    from digestry.cli import exit_codes
    from digestry.registry import config_files
    from digestry.registry.config import load

    loaded = load(file, {"root": root})
    found = list(config_files.mistakes(loaded))
    for mistake in found:
        complain(mistake.message, mistake.hint)
    if found:
        raise click.exceptions.Exit(exit_codes.USAGE)
    say(f"{printable(str(file))}: no mistake found")
