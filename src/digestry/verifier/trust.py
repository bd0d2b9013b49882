"""Whose logs are trusted: keys of logs, witnesses and how many of them must have signed."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from digestry.errors import InvalidConfiguration
from digestry.translog.notes import COSIGNATURE, ED25519, InvalidNote, VerifierKey, parse_verifier_key


@dataclass(frozen=True, slots=True)
class LogTrust:
    """What a checkpoint of a registry's log must be signed with.

    ``keys`` are those of the log; without any, the key that the registry shows first is trusted from then on.
    ``quorum`` of the ``witnesses`` must have cosigned it, not longer ago than ``longest_ago``.
    """

    keys: tuple[VerifierKey, ...] = ()
    witnesses: tuple[VerifierKey, ...] = ()
    quorum: int = 0
    longest_ago: datetime.timedelta | None = None


TrustOf = Callable[[str], LogTrust]
"""Returns the trust in the log of a registry, by its ``host[:port]``."""


def trust_from(
    keys: Iterable[str],
    witnesses: Iterable[str] = (),
    quorum: int | None = None,
    longest_ago: datetime.timedelta | None = None,
    *,
    where: str = "",
) -> LogTrust:
    """Return the trust that keys as text state (``NAME+ID+BASE64``). ``quorum`` is by default all witnesses.

    ``where`` begins the message of an error. Raises :class:`InvalidConfiguration`.
    """
    before = f"{where}: " if where else ""
    of_log = tuple(_key(text, ED25519, "log key", before) for text in keys)
    of_witnesses = tuple(_key(text, COSIGNATURE, "key of a witness", before) for text in witnesses)
    if len({key.name for key in of_log}) > 1:
        raise InvalidConfiguration(
            f"{before}the log keys have several names, and a log has one: its origin",
            hint="give the keys of one log, such as its old and its new one",
        )
    wanted = len(of_witnesses) if quorum is None else quorum
    if not 0 <= wanted <= len(of_witnesses):
        raise InvalidConfiguration(
            f"{before}{wanted} of {len(of_witnesses)} witnesses cannot be required",
            hint="name so many witnesses, each by its key",
        )
    if longest_ago is not None and not wanted:
        raise InvalidConfiguration(
            f"{before}only witnesses state times: an age of checkpoints needs at least one",
            hint="name a witness by its key",
        )
    return LogTrust(of_log, of_witnesses, wanted, longest_ago)


def _key(text: str, algorithm: int, what: str, before: str) -> VerifierKey:
    try:
        key = parse_verifier_key(text.strip())
    except InvalidNote as error:
        raise InvalidConfiguration(f"{before}it is not a {what}: {error.message}", hint=error.hint) from error
    if key.algorithm != algorithm:
        raise InvalidConfiguration(
            f"{before}{key.name} is not a {what}: it has the type {key.algorithm}, not {algorithm}",
            hint="a log's key has the type 1, a witness's the type 4 (C2SP signed-note)",
        )
    return key
