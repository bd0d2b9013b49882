"""The verifier of transparency logs, from the user's settings and a command's options."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.verifier.log_view import LogVerifier
    from digestry.verifier.tag_proof import TagProver
    from digestry.verifier.trust import LogTrust


class TrustOptions(NamedTuple):
    """What a command's options state. ``quorum`` None is all witnesses."""

    keys: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    quorum: int | None = None
    longest_ago: datetime.timedelta | None = None


NOTHING_STATED: Final = TrustOptions()


def log_trust(settings: Settings, host: str, stated: TrustOptions = NOTHING_STATED) -> LogTrust:
    """Return the trust in the log of ``host[:port]``: what the options state, and else what the settings do.

    Raises :class:`~digestry.errors.InvalidConfiguration`.
    """
    from digestry.verifier.trust import trust_from

    rule = None if settings.blocks is None else settings.blocks.log_of(host)
    keys, witnesses, quorum = stated.keys, stated.witnesses, stated.quorum
    if rule is not None:
        keys = keys or rule.keys
        if not witnesses:
            witnesses = rule.witnesses
            quorum = rule.quorum if quorum is None else quorum
    return trust_from(keys, witnesses, quorum, stated.longest_ago)


def open_verifier(settings: Settings, stated: TrustOptions = NOTHING_STATED) -> LogVerifier:
    """Return the verifier that keeps what this user saw of logs. Nothing is read or made yet."""
    from digestry.cli.output import note, printable
    from digestry.verifier.log_view import LogVerifier
    from digestry.verifier.seen_logs import SeenLogs

    return LogVerifier(
        SeenLogs(settings.store.with_name("logs")),
        lambda host: log_trust(settings, host, stated),
        tell=lambda text: note(printable(f"digestry: {text}")),
    )


def tag_check(settings: Settings) -> TagProver:
    """Return the check of tags for ``--verify-log``. Nothing is read or made yet."""
    from digestry.verifier.tag_proof import TagProver

    return TagProver(open_verifier(settings))
