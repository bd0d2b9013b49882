"""``digestry login``: log in to a registry, and keep the login where docker or podman keeps it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from digestry.cli.login_files import authfile_option, credential_file, registry_host, shadowing
from digestry.cli.output import note, printable, say
from digestry.cli.timeout_options import timeout_option

_LONGEST: Final = 64 << 10


@click.command()
@click.argument("registry", metavar="[REGISTRY]", required=False)
@click.option("--username", "-u", metavar="NAME", help="The user's name.  [default: asked for]")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--password", "-p", metavar="PASSWORD", help="The password, which others may see in this form.")
@authfile_option
@timeout_option
def login(
    *,
    registry: str | None,
    username: str | None,
    password_stdin: bool,
    password: str | None,
    authfile: Path | None,
) -> None:
    """Log in to a registry, by default the one that the setting `registry` names.

    The registry checks the login first; a refused login is not stored. It is stored where docker stores it:
    in config.json, or by the credential helper that this file names. docker, podman, skopeo and crane use
    it too. If the registry issues a token for the password, the token is stored in its place; with
    --authfile the password is stored, as podman does it.
    """
    from digestry.cli.sessions import client_options
    from digestry.cli.settings import load
    from digestry.client.credentials import Credential
    from digestry.client.login import log_in
    from digestry.client.options import podman_files

    if password is not None and password_stdin:
        raise click.UsageError("--password and --password-stdin exclude each other.")
    if password_stdin and username is None:
        raise click.UsageError("--password-stdin needs --username.")
    settings = load()
    host = registry_host(settings, registry)
    if password is not None:
        note("digestry: --password shows the password to all who can list processes: use --password-stdin")
    interactive = username is None or (password is None and not password_stdin)
    if interactive and not sys.stdin.isatty():
        raise click.UsageError("Without a terminal, give --username and --password-stdin.")
    if username is None:
        username = click.prompt(f"User name for {host}", err=True, type=str)
    if password_stdin:
        password = _from_stdin()
    elif password is None:
        password = click.prompt("Password", hide_input=True, err=True, type=str)
    # podman and skopeo keep passwords, and podman login refuses a file with a token.
    credential, token = Credential(username, password), authfile is None
    done = log_in(host, credential, client_options(settings), token=token)
    file = credential_file(settings, authfile)
    place = file.store(host, done.credential)
    if not done.verified:
        note(f"digestry: {host} does not require a login, so that the password was not checked")
    if place == str(file.path) and not done.credential.identity_token:
        note(
            printable(f'digestry: {place} has the password as it is; "credsStore" in it names a better place')
        )
    if authfile is not None and authfile not in podman_files():
        note(printable(f"digestry: other commands read {authfile} if REGISTRY_AUTH_FILE names it"))
    for other in shadowing(settings, host, file):
        note(printable(f"digestry: {other} has a login for {host} too, which goes before this one"))
    say(printable(f"Logged in to {host} as {username}: kept in {place}"))


def _from_stdin() -> str:
    content = sys.stdin.buffer.read(_LONGEST + 1)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError("The password on standard input is not UTF-8.") from error
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or len(content) > _LONGEST:
        raise click.UsageError(f"The password on standard input is {'too long' if text else 'empty'}.")
    return text
