"""The keeper of the webhook's certificate: shared by replicas, trusted by API servers, renewed in time."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from typing import Final

from digestry.admission.certificate_authority import CertificateSet, renewed
from digestry.admission.certificate_files import ServerCertificate
from digestry.admission.certificate_stores import CertificateStore, TrustedAuthority
from digestry.errors import Conflict
from digestry.model.timestamps import rfc3339

log: Final = logging.getLogger("digestry.admission")

SECONDS: Final = 15.0
"""How often the store, and whom API servers trust, are looked at."""
SETTLED: Final = 60.0
"""Seconds for which an authority has been trusted before a certificate of it is shown: other replicas, and
API servers, have seen it by then."""

_TRIES: Final = 5


class CertificateKeeper:
    """Keeps ``used`` up to date from ``store``. ``trusted`` is None if somebody else tells API servers whom
    to trust. ``lifetime`` is in seconds."""

    def __init__(
        self,
        store: CertificateStore,
        used: ServerCertificate,
        *,
        names: tuple[str, ...],
        lifetime: float,
        trusted: TrustedAuthority | None = None,
        clock: Callable[[], float] = time.monotonic,
        every: float = SECONDS,
        settled: float = SETTLED,
    ) -> None:
        self._store = store
        self._used = used
        self._names = names
        self._lifetime = lifetime
        self._trusted = trusted
        self._clock = clock
        self._every = min(every, lifetime / 30)
        self._settled = min(settled, lifetime / 10)
        self._next = 0.0
        self._trusted_since: tuple[bytes, float] | None = None

    def refresh(self) -> bool:
        """Bring the certificate up to date, and return whether it changed. Raises
        :class:`~digestry.errors.DigestryError`; then the certificate is as it was."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._every
        found = self._shared(now)
        if self._trusted is not None:
            known = self._trusted.trust(found.authorities)
            since = self._trusted_since
            if not known or since is None or since[0] != found.authorities:
                self._trusted_since = found.authorities, now
            if not known:
                log.info("API servers were told to trust the webhook's authority")
        changed = self._used.use(found.certificate, found.key, "the webhook's certificate")
        if changed:
            ends = datetime.datetime.fromtimestamp(self._used.expires, datetime.UTC)
            log.info("new connections get the certificate that expires at %s", rfc3339(ends))
        return changed

    def _shared(self, now: float) -> CertificateSet:
        """Return the set that all replicas use, renewed if it has to be."""
        for _ in range(_TRIES):
            known, version = self._store.read()
            found = renewed(
                known,
                self._names,
                self._lifetime,
                datetime.datetime.now(datetime.UTC),
                trusted=known is not None and self._is_settled(known, now),
            )
            if found is known or self._store.write(found, version):
                return found
        raise Conflict("the webhook's certificate was changed by others again and again, and was not renewed")

    def _is_settled(self, known: CertificateSet, now: float) -> bool:
        since = self._trusted_since
        return since is not None and since[0] == known.authorities and now - since[1] >= self._settled
