"""The credentials that requests to an S3 service are signed with."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from digestry.errors import InvalidConfiguration, StorageDenied

log: Final = logging.getLogger("digestry.s3")

_AGAIN_SECONDS: Final = 5.0
"""The files and services that have credentials are looked at again at most so often."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key. Its secrets are in no representation."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


class CredentialSource(Protocol):
    """The credentials that hold now. Thread-safe."""

    def __call__(self) -> Credentials:
        """Return the credentials: those of a role are replaced before they expire.

        Raises :class:`StorageDenied` if there are none any more.
        """
        ...

    def renewed(self, refused: Credentials) -> bool:
        """Return whether there are other credentials than ``refused``, which the service did not accept."""
        ...


@dataclass(frozen=True, slots=True)
class FixedCredentials:
    """Credentials that stay as they are."""

    credentials: Credentials

    def __call__(self) -> Credentials:
        """Return the credentials."""
        return self.credentials

    def renewed(self, _refused: Credentials) -> bool:
        """Return False."""
        return False


class FoundCredentials:
    """Credentials that ``find`` returns, found again once the service refuses them.

    A role's are replaced by whoever found them; but a profile is read once, and its file may have been
    written again since.
    """

    def __init__(self, find: Callable[[], Callable[[], Credentials]]) -> None:
        """``find`` returns what returns the credentials that hold now. Raises what ``find`` raises."""
        self._find = find
        self._current = find()
        self._found = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self) -> Credentials:
        """Return the credentials that hold now."""
        return self._current()

    def renewed(self, refused: Credentials) -> bool:
        """Look for other credentials, at most every five seconds; return whether there are."""
        with self._lock:
            if time.monotonic() - self._found >= _AGAIN_SECONDS:
                self._found = time.monotonic()
                try:
                    current = self._find()
                    other = current() != refused
                except (InvalidConfiguration, StorageDenied) as error:
                    log.error("no other credentials were found: %s", error.message)
                    return False
                if other:
                    self._current = current
                    log.warning(
                        "the S3 store refused the credentials; there are other ones, which are used now"
                    )
        try:
            return self._current() != refused
        except StorageDenied:
            return False


def find_credentials(environment: Mapping[str, str]) -> CredentialSource:
    """Return where the credentials come from.

    ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY`` come first; without them botocore, where it is
    installed, looks for a profile, a role, or the machine's own. Raises :class:`InvalidConfiguration`.
    """
    access_key = environment.get("AWS_ACCESS_KEY_ID", "")
    secret_key = environment.get("AWS_SECRET_ACCESS_KEY", "")
    if access_key and secret_key:
        return FixedCredentials(Credentials(access_key, secret_key, environment.get("AWS_SESSION_TOKEN", "")))
    return FoundCredentials(_from_botocore)


def _from_botocore() -> Callable[[], Credentials]:
    hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - it is large, and optional
        from botocore.session import Session  # noqa: PLC0415
    except ImportError as error:
        raise InvalidConfiguration(
            "there are no credentials for the S3 store",
            hint=f"{hint}, or install digestry[aws] for profiles and roles",
        ) from error
    # The service of a role answers with a ClientError; a RuntimeError says that what is new has expired too.
    failures = (BotoCoreError, ClientError, RuntimeError, OSError)
    try:
        chain = Session().get_credentials()
    except failures as error:
        raise InvalidConfiguration(f"the credentials for the S3 store cannot be read: {error}") from error
    if chain is None:
        raise InvalidConfiguration("there are no credentials for the S3 store", hint=hint)

    def current() -> Credentials:
        try:
            frozen = chain.get_frozen_credentials()
        except failures as error:
            raise StorageDenied(
                f"the credentials for the S3 store cannot be had: {error}",
                hint="see that the profile, role or service that has them is there",
            ) from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")

    return current
