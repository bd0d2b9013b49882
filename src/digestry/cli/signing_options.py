"""The options of commands that sign advisories: ``--key``, ``--key-password-file``, ``--signed-as``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from digestry.advisories.attestation_forms import SignedForm, Signing

PASSWORD_VARIABLES: Final = ("DIGESTRY_KEY_PASSWORD", "COSIGN_PASSWORD")
_FORMS: Final = ("bundle", "tag")
_LARGEST: Final = 64 << 10  # bytes


def signing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, and its function ``signing``, which is None without a key."""

    @click.option(
        "--key",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Sign with this private key: cosign's, or another in PEM.  [default: do not sign]",
    )
    @click.option(
        "--key-password-file",
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        metavar="FILE",
        help="The file whose first line is the key's password, - for standard input.  [default: "
        f"${' or $'.join(PASSWORD_VARIABLES)}, else ask]",
    )
    @click.option(
        "--signed-as",
        "form",
        type=click.Choice(_FORMS),
        default="bundle",
        metavar="FORM",
        help="bundle, which cosign 3 reads, or tag, which cosign 1 and 2 read too.  [default: bundle]",
    )
    @functools.wraps(command)
    def with_signing(
        *args: Any, key: Path | None, key_password_file: Path | None, form: SignedForm, **more: Any
    ) -> Any:
        if key is None and key_password_file is not None:
            raise click.UsageError("--key-password-file goes with --key.")
        return command(*args, signing=None if key is None else _signing(key, key_password_file, form), **more)

    return with_signing


def _signing(key: Path, password_file: Path | None, form: SignedForm) -> Signing:
    """Return how to sign. Raises :class:`InvalidConfiguration` for a key or password that cannot be used."""
    from digestry.advisories.attestation_forms import Signing
    from digestry.advisories.signing_keys import read_signing_key

    return Signing(read_signing_key(_content(key), str(key), lambda: _password(key, password_file)), form)


def _password(key: Path, file: Path | None) -> bytes:
    """Return the password of ``key``: of the file, of the environment, or of who sits there."""
    from digestry.errors import InvalidConfiguration

    if file is not None:
        lines = _content(file).splitlines()
        return lines[0] if lines else b""
    for name in PASSWORD_VARIABLES:
        if name in os.environ:
            return os.fsencode(os.environ[name])
    import sys

    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidConfiguration(
            f"{key} has a password, and there is nobody to ask for it",
            hint=f"set {PASSWORD_VARIABLES[0]}, or give --key-password-file",
        )
    answer: str = click.prompt(
        f"Password of {key}", hide_input=True, default="", show_default=False, err=True
    )
    return answer.encode()


def _content(path: Path) -> bytes:
    import sys

    from digestry.errors import InvalidConfiguration

    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(_LARGEST)
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
