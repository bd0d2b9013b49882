"""``digestry logout``: forget the login for a registry."""

from __future__ import annotations

from pathlib import Path

import click

from digestry.cli.login_files import authfile_option, credential_file, registry_host, shadowing
from digestry.cli.output import note, printable, say


@click.command()
@click.argument("registry", metavar="[REGISTRY]", required=False)
@authfile_option
def logout(*, registry: str | None, authfile: Path | None) -> None:
    """Forget the login for a registry, by default the one that the setting `registry` names.

    Other logins, such as those that podman stores elsewhere, stay, and a note names them. The registry is
    not informed: a copied token is valid until it expires.
    """
    from digestry.cli.settings import load

    settings = load()
    host = registry_host(settings, registry)
    file = credential_file(settings, authfile)
    places = file.erase(host)
    if not places:
        note(printable(f"digestry: {file.path} has no login for {host}: nothing was changed"))
    for place in places:
        say(printable(f"Logged out of {host}: removed from {place}"))
    for other in shadowing(settings, host, file):
        note(printable(f"digestry: {other} still has a login for {host}"))
