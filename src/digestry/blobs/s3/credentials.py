"""The credentials that requests to an S3 service are signed with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from digestry.errors import InvalidConfiguration


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key. Its secrets are in no representation."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


CredentialSource: TypeAlias = Callable[[], Credentials]
"""Returns the credentials that hold now: those of a role are replaced before they expire."""


def find_credentials(environment: Mapping[str, str]) -> CredentialSource:
    """Return where the credentials come from.

    ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY`` come first; without them botocore, where it is
    installed, looks for a profile, a role, or the machine's own. Raises :class:`InvalidConfiguration`.
    """
    access_key = environment.get("AWS_ACCESS_KEY_ID", "")
    secret_key = environment.get("AWS_SECRET_ACCESS_KEY", "")
    if access_key and secret_key:
        found = Credentials(access_key, secret_key, environment.get("AWS_SESSION_TOKEN", ""))
        return lambda: found
    return _from_botocore()


def _from_botocore() -> CredentialSource:
    hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    try:
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - it is large, and optional
        from botocore.session import Session  # noqa: PLC0415
    except ImportError as error:
        raise InvalidConfiguration(
            "there are no credentials for the S3 store",
            hint=f"{hint}, or install digestry[aws] for profiles and roles",
        ) from error
    try:
        chain = Session().get_credentials()
    except BotoCoreError as error:
        raise InvalidConfiguration(f"the credentials for the S3 store cannot be read: {error}") from error
    if chain is None:
        raise InvalidConfiguration("there are no credentials for the S3 store", hint=hint)

    def current() -> Credentials:
        try:
            frozen = chain.get_frozen_credentials()
        except BotoCoreError as error:
            raise InvalidConfiguration(f"the credentials for the S3 store cannot be had: {error}") from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")

    return current
