"""``digestry config``: show and change the settings."""

from __future__ import annotations

import os
from pathlib import Path

import click

from digestry.cli import settings as user_settings
from digestry.cli.command_group import Group
from digestry.cli.output import complain, json_document, json_option, printable, say, table


def _key(context: click.Context, _parameter: click.Parameter, key: str) -> str:
    from digestry.errors import InvalidConfiguration

    try:
        if context.params.get("registry") is not None:
            from digestry.cli.registry_blocks import check_key

            return check_key(key, "--registry")
        return user_settings.check_key(key)
    except InvalidConfiguration as error:
        raise click.UsageError(f"{error.message} ({error.hint})") from error


def _block(_context: click.Context, _parameter: click.Parameter, prefix: str | None) -> str | None:
    from digestry.cli.registry_blocks import check_name
    from digestry.errors import InvalidConfiguration

    if prefix is None:
        return None
    try:
        return check_name(prefix, "--registry")
    except InvalidConfiguration as error:
        raise click.UsageError(f"{error.message} ({error.hint})") from error


_registry_option = click.option(
    "--registry",
    metavar="NAME",
    callback=_block,
    is_eager=True,
    help="A key of one registry: HOST, HOST:PORT, HOST/PATH or *.DOMAIN.",
)


@click.group(cls=Group)
def config() -> None:
    """Show and change settings, and check the configuration of a registry."""


@config.command("show")
@json_option
def show(*, as_json: bool) -> None:
    """Show every setting, its value and what it is for, and the files that are read.

    JSON: an object with settings (a list of objects with key, value, which is null if it is not set, and
    meaning), registries (a list of objects with name, key and value, for what is set for a registry), and the
    paths file (of the settings), images (of the local store) and read (a list of the other programs' files
    that are there).
    """
    from digestry.cli.registry_blocks import text_of_value

    config_file, store = user_settings.locate()
    settings = user_settings.load()
    values = user_settings.read_values(config_file)
    blocks = user_settings.read_document(config_file).get("registries", {})
    keys = [
        (prefix, key, text_of_value(value))
        for prefix, block in blocks.items()
        for key, value in block.items()
    ]
    files = settings.files()
    policies = [files.policy] if files.policy is not None else []
    read = [*files.registries, *policies, *filter(os.path.isdir, files.certificates)]
    if as_json:
        from digestry.cli import documents

        rows = [documents.Setting(key, values.get(key), text) for key, text in user_settings.KEYS.items()]
        of_registries = [documents.RegistryKey(*row) for row in keys]
        json_document(
            documents.Settings(rows, of_registries, str(config_file), str(store), list(map(str, read)))
        )
        return
    table(
        ["SETTING", "VALUE", "MEANING"],
        [(key, values.get(key, "-"), meaning) for key, meaning in user_settings.KEYS.items()],
    )
    if keys:
        say()
        table(["REGISTRY", "KEY", "VALUE"], [tuple(map(printable, row)) for row in keys])
    say()
    say(f"settings: {printable(str(config_file))}")
    say(f"images:   {printable(str(store))}")
    for path in read:
        say(f"read:     {printable(str(path))}")


@config.command("explain")
@click.argument("name")
@json_option
def explain(*, name: str, as_json: bool) -> None:
    """Show what holds for a registry (HOST[:PORT]) or an image, and which file says so.

    The settings, docker's certs.d, and containers' registries.conf and policy.json are taken together, as a
    pull does it; for an image, also who may state what about it. Nothing is asked of the registry.

    JSON: an object with name, and statements (a list of objects with key, value and origin, which is a file,
    default, or what the host is).
    """
    from digestry.advisories.statements import STATUSES
    from digestry.cli.sessions import client_options
    from digestry.client import explanation
    from digestry.model.reference import check_host

    settings = user_settings.load()
    if explanation.names_host(name):
        host, image = check_host(name), None
    else:
        image = settings.reference(name).or_latest()
        host = image.host
    statements = explanation.explain(client_options(settings), host, image)
    if image is not None and settings.advisories is not None:
        trust, origin = settings.trust(), str(settings.config_file)
        statements += [
            explanation.Statement(f"states {status}", trust.who_may(status, image.repository_only()), origin)
            for status in STATUSES
        ]
    whole = host if image is None else str(image)
    if as_json:
        from digestry.cli import documents

        rows = [documents.Statement(one.key, one.value, one.origin) for one in statements]
        json_document(documents.Explanation(whole, rows))
        return
    say(printable(whole))
    say()
    table(
        ["KEY", "VALUE", "SAID BY"],
        [(one.key, printable(one.value), printable(one.origin)) for one in statements],
    )


@config.command("get")
@_registry_option
@click.argument("key", callback=_key)
def get(key: str, registry: str | None) -> None:
    """Print one setting's value; nothing if it is not set."""
    from digestry.cli.registry_blocks import text_of_value

    config_file, _ = user_settings.locate()
    document = user_settings.read_document(config_file)
    user_settings.read_blocks(config_file, document)
    of = document if registry is None else document.get("registries", {}).get(registry, {})
    if key in of:
        say(printable(text_of_value(of[key])))


@config.command("set")
@_registry_option
@click.argument("key", callback=_key)
@click.argument("value")
def set_(key: str, value: str, registry: str | None) -> None:
    """Set KEY to VALUE.

    --registry sets a key of one registry alone: ca, client-cert, client-key, insecure, plain-http,
    skip-verify, mirrors, mirror-by-digest-only, location, blocked, log-key, log-witnesses or log-quorum.
    Several mirrors, files or keys have commas between them.
    """
    if registry is None:
        user_settings.check_value(key, value)
        user_settings.change(key, value)
        return
    from digestry.cli.registry_blocks import value_of_text

    user_settings.change(key, value_of_text(key, value), registry)


@config.command("unset")
@_registry_option
@click.argument("key", callback=_key)
def unset(key: str, registry: str | None) -> None:
    """Reset KEY to its default."""
    user_settings.change(key, None, registry)


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
