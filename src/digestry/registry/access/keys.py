"""The registry's signing keys: by their IDs.

The newest one signs, all of them verify: so a key is replaced while tokens of the old one are still
about.
"""

from __future__ import annotations

import hmac
import json
import os
import time
from typing import Final

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from digestry.coordination.protocol import KeyStore
from digestry.errors import NotFound, StorageError

_CURVE: Final = "Ed25519"


class KeyRing:
    """The signing keys of one registry. :meth:`refresh` reads them, in any thread; :meth:`signing` and
    :meth:`get` do not block."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._seen = -1
        self._keys: dict[str, OKPKey] = {}

    def ensure(self) -> None:
        """Create the first key if there is none. Raises :class:`StorageError`."""
        if not self._store.ids():
            self.rotate()

    def rotate(self, *, retire: bool = False) -> str:
        """Create a new key, which signs from now on, and return its ID.

        With ``retire`` the others are removed: what they signed becomes invalid at once.
        """
        before = self._store.ids()
        # IDs in the order of time: the last one signs.
        kid = f"{time.time_ns():020d}-{os.urandom(4).hex()}"
        key = OKPKey.generate_key(_CURVE, {"kid": kid, "use": "sig"}, private=True)
        content = json.dumps(key.as_dict(private=True)).encode()
        self._store.add(kid, content)
        if retire:
            for old in before:
                self._store.remove(old)
        return kid

    def refresh(self) -> bool:
        """Read the keys again if any came or went, and return whether they did. Blocks.

        Raises :class:`StorageError`.
        """
        version = self._store.version()
        if version == self._seen:
            return False
        keys = {}
        for kid in self._store.ids():
            try:
                self._store.check_private(kid)
                content = self._store.read(kid)
            except NotFound:
                continue
            try:
                keys[kid] = self._keys.get(kid) or OKPKey.import_key(json.loads(content))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError, JoseError):
                # The error's text is left out: it may contain a part of the key.
                raise StorageError(
                    f"{self._store.location(kid)} holds no key", hint="remove it, or restore it from a backup"
                ) from None
        self._keys, self._seen = keys, version
        return True

    def signing(self) -> tuple[str, OKPKey]:
        """Return the key that signs, and its ID. Raises :class:`StorageError`."""
        keys = self._keys
        if not keys:
            raise StorageError("there is no key to sign tokens with", hint="digestry token rotate-key")
        newest = max(keys)
        return newest, keys[newest]

    def get(self, kid: object) -> OKPKey | None:
        """Return the key of this ID, as of the last :meth:`refresh`."""
        return self._keys.get(kid) if isinstance(kid, str) else None

    def secrets(self, purpose: bytes) -> list[bytes]:
        """Return a secret of 32 bytes for ``purpose`` from each key, the newest key's first; as of the last
        :meth:`refresh`, without blocking. Empty if there is no key."""
        keys = self._keys
        return [
            hmac.digest(str(keys[kid].as_dict(private=True)["d"]).encode(), purpose, "sha256")
            for kid in sorted(keys, reverse=True)
        ]
