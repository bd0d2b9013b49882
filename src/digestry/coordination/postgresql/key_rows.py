"""The keys that a registry signs with: rows of its database.

Everybody who can read the database with the registry's role can sign as the registry: protect the role's
password and the backups like keys. No message or log contains a part of a key.
"""

from __future__ import annotations

import hashlib
from typing import Final

from sqlalchemy import text

from digestry.coordination.postgresql.connections import Connections
from digestry.errors import NotFound, StorageError

_IDS: Final = text("SELECT id FROM signing_keys ORDER BY id")
_READ: Final = text("SELECT content FROM signing_keys WHERE id = :id")
_ADD: Final = text("INSERT INTO signing_keys (id, content) VALUES (:id, :content)")
_REMOVE: Final = text("DELETE FROM signing_keys WHERE id = :id")
_OPEN_TO_ALL: Final = text("SELECT has_table_privilege('public', 'signing_keys', 'SELECT')")


class KeyRows:
    """The keys in the table ``signing_keys``. It sends nothing before a method is called."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def version(self) -> int:
        """Return a number made of the keys' IDs; see :meth:`KeyStore.version`."""
        together = "\n".join(self.ids()).encode()
        return int.from_bytes(hashlib.blake2b(together, digest_size=8).digest(), "big")

    def ids(self) -> list[str]:
        """Return the IDs of all keys, sorted; see :meth:`KeyStore.ids`."""
        with self._connections.statements() as connection:
            return sorted(connection.execute(_IDS).scalars())

    def read(self, key_id: str) -> bytes:
        """Return the bytes of a key; see :meth:`KeyStore.read`."""
        with self._connections.statements() as connection:
            content = connection.execute(_READ, {"id": key_id}).scalar()
        if content is None:
            raise NotFound(f"{self.location(key_id)} is not there")
        return bytes(content)

    def check_private(self, key_id: str) -> None:
        """Raise :class:`StorageError` if every role can read the keys; see :meth:`KeyStore.check_private`."""
        with self._connections.statements() as connection:
            open_to_all = connection.execute(_OPEN_TO_ALL).scalar()
        if open_to_all:
            raise StorageError(
                f"{self.location(key_id)} can be read by every role of the database",
                hint="make a new key if it was; REVOKE ALL ON signing_keys FROM PUBLIC",
            )

    def add(self, key_id: str, content: bytes) -> None:
        """Store a key durably; see :meth:`KeyStore.add`."""
        with self._connections.statements() as connection:
            connection.execute(_ADD, {"id": key_id, "content": content})

    def remove(self, key_id: str) -> None:
        """Remove a key durably; see :meth:`KeyStore.remove`."""
        with self._connections.statements() as connection:
            connection.execute(_REMOVE, {"id": key_id})

    def location(self, key_id: str) -> str:
        """Return the key's table and ID."""
        return f"the key {key_id} in the table signing_keys"
